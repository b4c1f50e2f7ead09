//! The tokenizer of current models, `o200k_base`, built when it is first needed: that takes seconds of processor time and tens of
//! megabytes of memory then, and a megabyte and a half in the program. Who cannot wait so long is told how many tokens there are at least.
//!
//! `data/o200k_base.tiktoken.gz` is `OpenAI`'s published list of tokens. The crate's own prepared form of it is twenty times as
//! large, so it is made here instead. Counting is linear in the text, whatever the text is.

use std::io::Read;
use std::sync::{LazyLock, Once, OnceLock};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bpe_openai::Tokenizer as Bpe;
use bpe_openai::byte_pair_encoding::BytePairEncoding;
use flate2::read::GzDecoder;

const TOKENS: &[u8] = include_bytes!("../data/o200k_base.tiktoken.gz");
/// A factor with which the hashes of these tokens do not collide; a build with another panics.
const HASH_FACTOR: u64 = 17_846_336_922_010_275_747;
/// How text is cut into pieces before it is encoded. The published pattern is `\s+(?!\S)` where the second one here is: it
/// is matched with the character that follows, which is then given back.
const PIECES: [&str; 6] = [
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"\s*[\r\n]+",
    r"\s+$",
];
const BEFORE_A_WORD: &str = r"\s+\s";
const SPACES: &str = r"\s+";

static O200K_BASE: OnceLock<Bpe> = OnceLock::new();
/// The patterns without the table: its tokens are the bytes, which the table has as well.
static PIECES_ALONE: LazyLock<Bpe> = LazyLock::new(|| with_patterns((0..=u8::MAX).map(|byte| vec![byte]).collect()));

fn o200k_base() -> &'static Bpe {
    O200K_BASE.get_or_init(|| with_patterns(tokens()))
}

fn with_patterns(tokens: Vec<Vec<u8>>) -> Bpe {
    let encoding = BytePairEncoding::from_dictionary(tokens, Some(HASH_FACTOR));
    let patterns = [(PIECES.join("|"), false), (BEFORE_A_WORD.to_owned(), true), (SPACES.to_owned(), false)];
    let patterns = patterns.each_ref().map(|(pattern, gives_back)| (pattern.as_str(), *gives_back));
    Bpe::new_lookahead(encoding, &patterns, false).expect("the patterns are part of the program, and tests use them")
}

/// The tokens in the order of their ranks: lines of base64 and rank.
fn tokens() -> Vec<Vec<u8>> {
    let mut text = String::new();
    GzDecoder::new(TOKENS).read_to_string(&mut text).expect("the list is part of the program, and tests read it");
    let encoded = text.lines().filter_map(|line| line.split(' ').next()).filter(|token| !token.is_empty());
    encoded.map(|token| STANDARD.decode(token).expect("the list is part of the program, and tests read it")).collect()
}

/// How many tokens of `o200k_base` a text is. Special tokens are text like any other. The first call waits until the table is built.
#[must_use]
pub fn count(text: &str) -> u64 {
    o200k_base().count(text) as u64
}

/// How many tokens of `o200k_base` a text is at least, without the table: it is cut into pieces before it is encoded, and a piece is a
/// token or more. Of what people write most pieces are one.
#[must_use]
pub fn count_at_least(text: &str) -> u64 {
    PIECES_ALONE.split(text).count() as u64
}

/// Whether the table is there, so that [`count`] waits for nothing.
#[must_use]
pub fn is_ready() -> bool {
    O200K_BASE.get().is_some()
}

/// Has the table built beside whatever else goes on; once.
pub fn prepare() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        // Where no thread can be had, the first count builds it.
        let _ = thread::Builder::new().name("tokenizer".to_owned()).spawn(o200k_base);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_published_encoding() {
        for (text, tokens) in
            [("", 0), ("hello world", 2), ("antidisestablishmentarianism", 6), ("お誕生日おめでとう", 8), ("2 + 2 = 4", 7)]
        {
            assert_eq!(count(text), tokens, "{text}");
        }
    }

    #[test]
    fn counts_are_those_of_the_crates_own_form_of_the_encoding() {
        let texts = [
            "I'm here;  they'RE not\r\n\n  \tHELLO wörld 12345",
            "   ",
            "a   b",
            "{\"k\": [1.5e3, null]}",
            "日本語のテキスト🙂🙃",
            "ÀÉÎõü\u{301}x",
        ];
        for text in texts {
            assert_eq!(count(text), bpe_openai::o200k_base().count(text) as u64, "{text:?}");
        }
    }

    #[test]
    fn a_text_is_never_fewer_tokens_than_its_pieces() {
        let texts =
            ["", "hello world", "antidisestablishmentarianism", "I'm here;  they'RE\r\n\n \tHELLO 12345", "日本語🙂 🙃", "a   b", "  "];
        for text in texts {
            assert!(count_at_least(text) <= count(text), "{text:?}");
        }
        assert_eq!(count_at_least("Every word of this is a token."), count("Every word of this is a token."));
    }

    #[test]
    fn a_text_without_a_place_to_cut_is_counted_too() {
        assert!(count(&"a".repeat(200_000)) >= 200_000 / 128);
    }
}
