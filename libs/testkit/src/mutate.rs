//! Inputs that are nearly right: samples with bytes and tokens changed, the same ones for the same seed.

/// Longest input that is made.
const LONGEST: usize = 1 << 16;
/// What parsers stumble over, whatever they read.
const TOKENS: [&str; 30] = [
    "",
    "0",
    "-1",
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
    "&a ",
    "*a",
    "<<: ",
    "!!binary ",
    "%",
    ",",
    "=",
    ": ",
];

/// Makes inputs of samples.
#[derive(Debug, Clone)]
pub struct Mutator<'a> {
    samples: &'a [&'a [u8]],
    state: u64,
}

impl<'a> Mutator<'a> {
    /// With samples to begin with.
    #[must_use]
    pub const fn new(samples: &'a [&'a [u8]], seed: u64) -> Self {
        Self { samples, state: seed }
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
        let at = self.below(self.samples.len());
        let mut input = self.samples[at].to_vec();
        for _ in 0..=self.below(4) {
            self.change(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let end = (at + 1 + self.below(16)).min(input.len());
        match self.below(8) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 => input.insert(at, u8::try_from(self.below(256)).unwrap_or(0)),
            2 if at < end => drop(input.drain(at..end)),
            3 if at < end => {
                // The same again, a few times or very often: depth and length.
                let times = [1, 2, 300][self.below(3)];
                let part = input[at..end].repeat(times);
                input.splice(at..at, part);
            }
            4 => {
                let other = self.samples[self.below(self.samples.len())];
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            5 => input.truncate(at),
            _ => {
                // In place of a word, so that what is around it still makes sense.
                let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
                let start = input[..at].iter().rposition(|byte| !is_word(byte)).map_or(0, |before| before + 1);
                let stop = input[at..].iter().position(|byte| !is_word(byte)).map_or(input.len(), |after| at + after);
                let token = TOKENS[self.below(TOKENS.len())];
                input.splice(start..stop, token.bytes());
            }
        }
    }
}
