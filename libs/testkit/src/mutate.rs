//! Inputs that are nearly right: samples with bytes, words, lines and parts of their structure changed, the same ones for the same seed.

mod text;
mod tree;

/// Longest input that is made.
const LONGEST: usize = 1 << 16;
/// What parsers stumble over, whatever they read.
const TOKENS: [&str; 33] = [
    "",
    "0",
    "1",
    "-1",
    "2147483648",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "1e309",
    "1e-400",
    "0.0000000000000000001",
    "null",
    "true",
    "{}",
    "[]",
    "\"\"",
    "\\u0000",
    "\\ud800",
    "\u{0}",
    "\u{feff}",
    "é",
    "🦀",
    "\r\n",
    "\t",
    "\n  ",
    "&a ",
    "*a",
    "<<: ",
    "!!binary ",
    "%",
    ",",
    "=",
    ": ",
];

/// Makes inputs of samples. More samples may come while it does.
#[derive(Debug, Clone)]
pub struct Mutator {
    samples: Vec<Vec<u8>>,
    /// How many samples there were to begin with.
    first: usize,
    words: Vec<String>,
    state: u64,
}

impl Mutator {
    /// With samples to begin with.
    #[must_use]
    pub fn new(samples: &[&[u8]], seed: u64) -> Self {
        Self { samples: samples.iter().map(|sample| sample.to_vec()).collect(), first: samples.len(), words: Vec::new(), state: seed }
    }

    /// Also with the words of a format: what a source has in quotes, and its numbers.
    #[must_use]
    pub fn with_words_of(mut self, source: &str) -> Self {
        let code = || source.lines().filter(|line| !line.trim_start().starts_with("//"));
        let quoted = code().flat_map(|line| line.split('"').skip(1).step_by(2));
        self.words.extend(quoted.filter(|word| (1..=40).contains(&word.len()) && !word.contains(['{', '\\'])).map(str::to_owned));
        let numbers = code().flat_map(|line| line.split(|letter: char| !letter.is_ascii_digit() && letter != '_'));
        self.words
            .extend(numbers.filter(|word| word.starts_with(|letter: char| letter.is_ascii_digit())).map(|number| number.replace('_', "")));
        self.words.sort_unstable();
        self.words.dedup();
        self
    }

    /// One more sample to make inputs of.
    pub fn keep(&mut self, sample: Vec<u8>) {
        self.samples.push(sample);
    }

    /// A number below `end`, which must not be zero.
    pub fn below(&mut self, end: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) >> 1).unwrap_or(0) % end
    }

    /// The next input.
    ///
    /// # Panics
    /// When there are no samples.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.sample().to_vec();
        for _ in 0..=self.below(4) {
            // Most of what is changed byte by byte is refused at once.
            match self.below(6) {
                0 => self.change_bytes(&mut input),
                1 | 2 => self.change_text(&mut input),
                _ => self.change_tree(&mut input),
            }
        }
        input.truncate(LONGEST);
        input
    }

    /// One of those to begin with, or of the newest, as what was just found leads on, or any.
    fn sample(&mut self) -> &[u8] {
        let all = self.samples.len();
        let from = match self.below(3) {
            0 => 0..self.first,
            1 => all - all.div_ceil(8)..all,
            _ => 0..all,
        };
        let at = from.start + self.below(from.len());
        &self.samples[at]
    }

    /// A word of the format, or what any parser stumbles over.
    fn word(&mut self) -> String {
        if self.words.is_empty() || self.below(2) == 0 {
            return TOKENS[self.below(TOKENS.len())].to_owned();
        }
        let at = self.below(self.words.len());
        self.words[at].clone()
    }

    fn change_bytes(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let end = (at + 1 + self.below(16)).min(input.len());
        match self.below(6) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 => input.insert(at, u8::try_from(self.below(256)).unwrap_or(0)),
            2 if at < end => drop(input.drain(at..end)),
            3 if at < end => {
                // The same again, a few times or very often: depth and length.
                let times = [1, 2, 2, 300][self.below(4)];
                let part = input[at..end].repeat(times);
                input.splice(at..at, part);
            }
            4 => {
                let other = self.sample().to_vec();
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => input.truncate(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs_and_another_one_others() {
        let made = |seed| {
            let samples: [&[u8]; 2] = [b"{\"a\": [1, {\"b\": null}]}", b"a:\n  b: 1\n  c:\n    d: 2\n"];
            let mut mutator = Mutator::new(&samples, seed).with_words_of("let x = \"some_field\";");
            (0..2_000).map(|_| mutator.next_input()).collect::<Vec<_>>()
        };
        assert_eq!(made(1), made(1));
        assert_ne!(made(1), made(2));
        assert!(made(1).iter().any(|input| String::from_utf8_lossy(input).contains("some_field")));
    }
}
