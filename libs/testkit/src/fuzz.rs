//! Gives a parser inputs that are nearly right, for some rounds or for some time, and goes on from those that reach something new: a
//! branch, where the parser is compiled to tell them (`coverage`), and an outcome that it had not given before.
//!
//! - `TRIVET_FUZZ_SECONDS`: for so long, with a seed of its own each time. Without it `TRIVET_FUZZ_ROUNDS` inputs, the same ones each time.
//! - `TRIVET_FUZZ_SEED`: with this seed.
//!
//! An input that fails is printed and, like the corpus of a timed run, written where Bazel keeps what tests write
//! (`bazel-testlogs/…/test.outputs`), or to the folder that `TEST_UNDECLARED_OUTPUTS_DIR` names.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::coverage;
use crate::mutate::Mutator;

/// Longest input that is gone on from.
const LONGEST_KEPT: usize = 1 << 12;
/// Outcomes that are told apart: a parser that repeats its input in its refusals has as many as there are inputs.
const MOST_OUTCOMES: usize = 500;
const ROUNDS: u64 = 2_500;

/// A parser and what it is given to begin with.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// A name for files.
    pub name: &'a str,
    /// Inputs as somebody may write them.
    pub samples: &'a [&'a [u8]],
    /// Inputs that runs before found to reach all they reached, one a line, with bytes that are no plain text escaped.
    pub corpus: &'a str,
    /// Sources of the parser: what is in quotes there are the words of the format.
    pub sources: &'a [&'a str],
}

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    /// Inputs that the parser was given.
    pub inputs: u64,
    /// Different outcomes.
    pub outcomes: usize,
    /// Different branches; zero where nothing tells them.
    pub edges: usize,
    /// Inputs that reached something new.
    pub kept: usize,
}

struct Kept {
    input: Vec<u8>,
    edges: Vec<u64>,
    outcomes: Vec<u64>,
}

struct Run<'a, P> {
    target: &'a Target<'a>,
    parse: P,
    seed: u64,
    began: Instant,
    inputs: u64,
    seen: HashSet<u64>,
    edges: HashSet<u64>,
    outcomes: HashSet<u64>,
    kept: Vec<Kept>,
    /// Inputs that were made of one that was kept, to meet a constant with which a number in it was compared.
    aimed: Vec<Vec<u8>>,
    /// The words of the sources: others in an outcome are the input's.
    words: HashSet<&'a str>,
}

/// Runs a target. The parser says what became of an input, in as many words as it likes: of them those count that are in its sources.
///
/// # Panics
/// As the parser does; when an environment variable is no number.
pub fn fuzz(target: &Target<'_>, parse: impl FnMut(&str) -> Vec<String>) -> Tried {
    let variable = |name: &str| {
        std::env::var_os(name)
            .map(|text| text.to_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or_else(|| panic!("{name} must be a number")))
    };
    let seconds = variable("TRIVET_FUZZ_SECONDS");
    let rounds = variable("TRIVET_FUZZ_ROUNDS").unwrap_or(ROUNDS);
    let seed = variable("TRIVET_FUZZ_SEED").unwrap_or_else(|| seconds.map_or(1, |_| RandomState::new().hash_one(0)));
    let mut run = Run {
        target,
        parse,
        seed,
        began: Instant::now(),
        inputs: 0,
        seen: HashSet::new(),
        edges: HashSet::new(),
        outcomes: HashSet::new(),
        kept: Vec::new(),
        aimed: Vec::new(),
        words: target.sources.iter().flat_map(|source| words_in(source)).collect(),
    };
    let mut mutator = target.sources.iter().fold(Mutator::new(target.samples, seed), |mutator, source| mutator.with_words_of(source));
    for known in target.samples.iter().map(|sample| sample.to_vec()).chain(target.corpus.lines().map(unescape)) {
        if run.reaches_something_new(&known) {
            mutator.keep(known);
        }
    }
    let (known_edges, known_outcomes) = (run.edges.len(), run.outcomes.len());
    while seconds.map_or(run.inputs < rounds, |seconds| run.began.elapsed() < Duration::from_secs(seconds)) {
        let input = run.aimed.pop().unwrap_or_else(|| mutator.next_input());
        if run.reaches_something_new(&input) {
            mutator.keep(input);
        }
    }
    let tried = Tried { inputs: run.inputs, outcomes: run.outcomes.len(), edges: run.edges.len(), kept: run.kept.len() };
    if seconds.is_some() {
        run.write(&format!("{}.corpus", target.name), run.smallest().as_bytes());
        say(&format!(
            "{}: seed {seed}: {} inputs, {} branches ({known_edges} with the corpus), {} outcomes ({known_outcomes} with the corpus)",
            target.name, tried.inputs, tried.edges, tried.outcomes
        ));
    }
    tried
}

/// Past the test harness, which shows what is printed of those alone that fail.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "fuzzing {line}");
}

impl<P: FnMut(&str) -> Vec<String>> Run<'_, P> {
    fn reaches_something_new(&mut self, input: &[u8]) -> bool {
        self.inputs += 1;
        let text = String::from_utf8_lossy(input);
        let (outcome, recorded) = coverage::recorded(|| catch_unwind(AssertUnwindSafe(|| (self.parse)(&text))));
        let outcome = outcome.unwrap_or_else(|panic| {
            self.tell_failure(input);
            resume_unwind(panic)
        });
        let outcomes: Vec<u64> = outcome.iter().map(|said| self.meaning(said)).collect();
        let mut is_new = false;
        for one in &outcomes {
            is_new |= self.outcomes.len() < MOST_OUTCOMES && self.outcomes.insert(*one);
        }
        for one in &recorded.edges {
            is_new |= self.seen.insert(*one);
            self.edges.insert(coverage::edge(*one));
        }
        let is_kept = is_new && input.len() <= LONGEST_KEPT;
        if is_kept {
            self.aimed.extend(aimed(&text, &recorded.compared));
            let edges = recorded.edges.into_iter().map(coverage::edge).collect();
            self.kept.push(Kept { input: input.to_vec(), edges, outcomes });
        }
        is_kept
    }

    /// What an outcome says, without what it repeats of the input.
    fn meaning(&self, said: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        words_in(said).filter(|word| self.words.contains(word)).take(12).for_each(|word| word.hash(&mut hasher));
        hasher.finish()
    }

    fn tell_failure(&self, input: &[u8]) {
        let name = self.target.name;
        let mut hasher = DefaultHasher::new();
        input.hash(&mut hasher);
        let file = format!("{name}-{:016x}", hasher.finish());
        self.write(&file, input);
        say(&format!(
            "{name}: FAILED after {} inputs in {} s, by TRIVET_FUZZ_SEED={}: keep it as data/fuzz/{name}/{file}:\n\"{}\"",
            self.inputs,
            self.began.elapsed().as_secs(),
            self.seed,
            input.escape_ascii()
        ));
    }

    /// The shortest inputs that together reach all that was reached.
    fn smallest(&self) -> String {
        let mut kept: Vec<&Kept> = self.kept.iter().collect();
        kept.sort_by_key(|one| one.input.len());
        let (mut edges, mut outcomes) = (HashSet::new(), HashSet::new());
        let mut lines = String::new();
        for one in kept {
            let new_edges = one.edges.iter().filter(|edge| edges.insert(**edge)).count();
            let new_outcomes = one.outcomes.iter().filter(|outcome| outcomes.insert(**outcome)).count();
            if new_edges + new_outcomes > 0 {
                let _ = writeln!(lines, "{}", one.input.escape_ascii());
            }
        }
        lines
    }

    fn write(&self, file: &str, bytes: &[u8]) {
        let Some(folder) = std::env::var_os("TEST_UNDECLARED_OUTPUTS_DIR") else { return };
        let path = PathBuf::from(folder).join(file);
        if let Err(error) = std::fs::write(&path, bytes) {
            say(&format!("{}: {} could not be written: {error}", self.target.name, path.display()));
        }
    }
}

/// The input with each number that was compared with a constant replaced by that constant.
fn aimed(text: &str, compared: &[(u64, u64)]) -> Vec<Vec<u8>> {
    let mut made = Vec::new();
    let mut start = 0;
    while let Some(first) = text[start..].find(|letter: char| letter.is_ascii_digit()).map(|first| start + first) {
        let digits = text[first..].bytes().take_while(u8::is_ascii_digit).count();
        start = first + digits;
        let Ok(number) = text[first..start].parse::<u64>() else { continue };
        let constants = compared.iter().filter(|(seen, _)| *seen == number);
        made.extend(constants.map(|(_, constant)| format!("{}{constant}{}", &text[..first], &text[start..]).into_bytes()));
    }
    made
}

fn words_in(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_ascii_alphabetic()).filter(|word| !word.is_empty())
}

/// The bytes of a line that `escape_ascii` made.
fn unescape(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = line.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, used) = match (first, after) {
            (b'\\', [b'x', high, low, ..]) => {
                let digits = [*high, *low];
                (std::str::from_utf8(&digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or(b'?'), 4)
            }
            (b'\\', [escaped, ..]) => (
                match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    plain => *plain,
                },
                2,
            ),
            (plain, _) => (*plain, 1),
        };
        bytes.push(byte);
        rest = &rest[used..];
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_escaped_for_the_corpus_is_read_as_it_was() {
        let every: Vec<u8> = (0..=255).collect();
        assert_eq!(unescape(&every.escape_ascii().to_string()), every);
    }

    #[test]
    fn an_input_with_a_new_outcome_leads_on_to_what_lies_behind_it() {
        let target = Target { name: "nested", samples: &[b"{}"], corpus: "", sources: &["\"first\" \"second\" \"third\""] };
        let mut deepest = 0;
        let tried = fuzz(&target, |text| {
            let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else { return Vec::new() };
            let depth = ["/first", "/first/second", "/first/second/third"].iter().filter(|path| value.pointer(path).is_some()).count();
            deepest = deepest.max(depth);
            vec![["none", "first", "second", "third"][depth].into()]
        });
        assert_eq!((deepest, tried.outcomes), (3, 4));
    }
}
