//! The tokenizer of current models, loaded when it is first needed: it takes tens of megabytes of memory.

use llm::Tokenizer;

/// `o200k_base`.
#[derive(Debug, Clone, Copy)]
pub struct O200k;

impl Tokenizer for O200k {
    fn count(&self, text: &str) -> u64 {
        bpe_openai::o200k_base().count(text) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_published_encoding() {
        for (text, tokens) in
            [("", 0), ("hello world", 2), ("antidisestablishmentarianism", 6), ("お誕生日おめでとう", 8), ("2 + 2 = 4", 7)]
        {
            assert_eq!(O200k.count(text), tokens, "{text}");
        }
    }
}
