//! Changes of words and lines.

use std::ops::Range;

use super::Mutator;

impl Mutator {
    /// Puts a word in place of another, counts a number up or down, or moves lines about.
    pub(super) fn change_text(&mut self, input: &mut Vec<u8>) {
        match self.below(6) {
            0 => self.change_lines(input),
            1 => self.change_number(input),
            2 => {
                let word = self.word();
                let at = self.below(input.len() + 1);
                input.splice(at..at, word.into_bytes());
            }
            3 => {
                // A word of another sample: what fits there may fit here.
                let other = self.sample().to_vec();
                let from = self.word_at(&other);
                let to = self.word_at(input);
                input.splice(to, other[from].to_vec());
            }
            _ => {
                // In place of a word, so that what is around it still makes sense.
                let (place, word) = (self.word_at(input), self.word());
                input.splice(place, word.into_bytes());
            }
        }
    }

    fn word_at(&mut self, input: &[u8]) -> Range<usize> {
        let at = self.below(input.len() + 1);
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        let start = input[..at].iter().rposition(|byte| !is_word(byte)).map_or(0, |before| before + 1);
        let stop = input[at..].iter().position(|byte| !is_word(byte)).map_or(input.len(), |after| at + after);
        start..stop
    }

    fn change_number(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let Some(start) = input[at..].iter().position(u8::is_ascii_digit).map(|after| at + after) else { return };
        let stop = input[start..].iter().position(|byte| !byte.is_ascii_digit()).map_or(input.len(), |after| start + after);
        let Ok(number) = String::from_utf8_lossy(&input[start..stop]).parse::<i128>() else { return };
        let changed = match self.below(5) {
            0 => number + 1,
            1 => number - 1,
            2 => number.saturating_mul(10),
            3 => number / 10,
            _ => number.saturating_mul(1 << self.below(33)),
        };
        input.splice(start..stop, changed.to_string().into_bytes());
    }

    /// Leaves out, doubles, indents, moves or brings in a block: a line with the deeper ones that follow it.
    fn change_lines(&mut self, input: &mut Vec<u8>) {
        let mut lines: Vec<Vec<u8>> = input.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let Some(block) = self.block(&lines) else { return };
        match self.below(5) {
            0 => drop(lines.drain(block)),
            1 => {
                let again = lines[block.clone()].to_vec();
                lines.splice(block.end..block.end, again);
            }
            2 => lines[block].iter_mut().for_each(|line| drop(line.splice(0..0, *b"  "))),
            3 => {
                let moved: Vec<_> = lines.drain(block).collect();
                let to = self.below(lines.len() + 1);
                lines.splice(to..to, moved);
            }
            _ => {
                let other: Vec<Vec<u8>> = self.sample().split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
                let Some(from) = self.block(&other) else { return };
                let to = self.below(lines.len() + 1);
                lines.splice(to..to, other[from].to_vec());
            }
        }
        *input = lines.concat();
    }

    fn block(&mut self, lines: &[Vec<u8>]) -> Option<Range<usize>> {
        let indent = |line: &Vec<u8>| line.iter().take_while(|byte| **byte == b' ').count();
        let start = if lines.is_empty() { return None } else { self.below(lines.len()) };
        let depth = indent(&lines[start]);
        let more = lines[start + 1..].iter().take_while(|line| indent(line) > depth).count();
        Some(start..start + 1 + more)
    }
}
