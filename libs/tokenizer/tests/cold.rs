//! What is known before the table is built. In a program of its own: the table is built once in each.

/// [B-58] Nobody who must say soon how much there is waits for the table.
#[test]
fn what_a_text_is_at_least_is_known_before_the_table_is_built() {
    assert_eq!(tokenizer::count_at_least("hello world"), 2);
    assert!(!tokenizer::is_ready(), "that took no table");
    tokenizer::prepare();
    tokenizer::prepare();
    assert_eq!(tokenizer::count("antidisestablishmentarianism"), 6, "whoever must be exact waits");
    assert!(tokenizer::is_ready());
}
