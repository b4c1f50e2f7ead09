//! The tokenizer of current models, `o200k_base`, built when it is first needed: it takes tens of megabytes of memory then, and
//! a megabyte and a half in the program.
//!
//! `data/o200k_base.tiktoken.gz` is `OpenAI`'s published list of tokens. The crate's own prepared form of it is twenty times as
//! large, so it is made here instead. Counting is linear in the text, whatever the text is.

use std::io::Read;
use std::sync::LazyLock;

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

static O200K_BASE: LazyLock<Bpe> = LazyLock::new(|| {
    let encoding = BytePairEncoding::from_dictionary(tokens(), Some(HASH_FACTOR));
    let patterns = [(PIECES.join("|"), false), (BEFORE_A_WORD.to_owned(), true), (SPACES.to_owned(), false)];
    let patterns = patterns.each_ref().map(|(pattern, gives_back)| (pattern.as_str(), *gives_back));
    Bpe::new_lookahead(encoding, &patterns, false).expect("the patterns are part of the program, and tests use them")
});

/// The tokens in the order of their ranks: lines of base64 and rank.
fn tokens() -> Vec<Vec<u8>> {
    let mut text = String::new();
    GzDecoder::new(TOKENS).read_to_string(&mut text).expect("the list is part of the program, and tests read it");
    let encoded = text.lines().filter_map(|line| line.split(' ').next()).filter(|token| !token.is_empty());
    encoded.map(|token| STANDARD.decode(token).expect("the list is part of the program, and tests read it")).collect()
}

/// How many tokens of `o200k_base` a text is. Special tokens are text like any other.
#[must_use]
pub fn count(text: &str) -> u64 {
    O200K_BASE.count(text) as u64
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
    fn a_text_without_a_place_to_cut_is_counted_too() {
        assert!(count(&"a".repeat(200_000)) >= 200_000 / 128);
    }
}
