//! Which step is the next at which a program is ended, and what has come of it.

use anyhow::{Result, ensure};
use serde_json::{Map, Value, json};

use crate::steps::Step;

/// From so many kills in one stack on, each step to which the load must come has to have been the last of a program.
pub const FULL: usize = 250;
/// How often a step that was not reached goes before those that were.
const PREFERRED: usize = 2;
/// After how many tries of the others a step is tried to which the load need not come.
const LATER: usize = 3;
/// As many as 60 kills come to: another seed begins where this one ends.
const OF_A_RUN: usize = 22;

/// How often each step of a list was to be the last, and how often it was.
#[derive(Debug)]
pub struct Coverage {
    steps: &'static [Step],
    rows: Vec<Row>,
    /// Where the turns begin.
    first: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Row {
    tries: usize,
    ends: usize,
}

impl Coverage {
    /// None of them was tried. Few kills come to few of them, and another seed to others.
    #[must_use]
    pub fn new(seed: u64, steps: &'static [Step]) -> Self {
        let first = usize::try_from(seed).unwrap_or_default().wrapping_mul(OF_A_RUN) % steps.len();
        Self { steps, rows: vec![Row::default(); steps.len()], first }
    }

    /// The step whose turn it is: each once, then those that were not reached once more, then all again.
    #[must_use]
    pub fn next(&self) -> Option<usize> {
        (0..self.steps.len()).min_by_key(|index| {
            let (row, count) = (self.rows[*index], self.steps.len());
            let later = if self.steps[*index].rare.is_some() { LATER } else { 0 };
            let level = if row.ends == 0 { row.tries.saturating_sub(PREFERRED) } else { row.tries };
            (level + later, row.ends > 0, row.tries, (index + count - self.first) % count)
        })
    }

    /// A program was told to end at it.
    pub fn tried(&mut self, index: usize) {
        self.rows[index].tries += 1;
    }

    /// A program ended at it.
    pub fn reached(&mut self, index: usize) {
        self.rows[index].ends += 1;
    }

    /// Those to which the load must come and has not come yet.
    #[must_use]
    pub fn missing(&self) -> Vec<usize> {
        (0..self.steps.len()).filter(|index| self.rows[*index].ends == 0 && self.steps[*index].rare.is_none()).collect()
    }

    /// How often programs ended at each step; of the others, in how many tries they did not, apart from those where the list says why.
    #[must_use]
    pub fn report(&self) -> Value {
        let (mut reached, mut not_reached, mut rare) = (Map::new(), Map::new(), Map::new());
        for (step, row) in self.steps.iter().zip(&self.rows) {
            let (part, count) = match row.ends {
                0 if step.rare.is_some() => (&mut rare, row.tries),
                0 => (&mut not_reached, row.tries),
                ends => (&mut reached, ends),
            };
            part.insert(format!("{} {}", step.program, step.name), json!(count));
        }
        json!({"reached": reached, "not_reached_in_tries": not_reached, "rare_not_reached_in_tries": rare})
    }

    /// After a full run, each step to which the load must come was reached; fewer kills prove nothing of it.
    ///
    /// # Errors
    /// When one was not, and the list does not say why.
    pub fn check(&self, kills: usize) -> Result<()> {
        let missing: Vec<String> =
            self.missing().iter().map(|at| format!("{:?} in {} tries", self.steps[*at], self.rows[*at].tries)).collect();
        ensure!(kills < FULL || missing.is_empty(), "never reached: {}", missing.join("; "));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::steps::STEPS;

    fn names(indices: impl IntoIterator<Item = usize>) -> BTreeSet<usize> {
        indices.into_iter().collect()
    }

    /// Has so many tries, and each but those that are said reach their step.
    fn run(coverage: &mut Coverage, tries: usize, is_reached: impl Fn(usize) -> bool) -> Vec<usize> {
        let chosen = (0..tries).map(|_| {
            let index = coverage.next().unwrap();
            coverage.tried(index);
            if is_reached(index) {
                coverage.reached(index);
            }
            index
        });
        chosen.collect()
    }

    fn wanted() -> BTreeSet<usize> {
        names((0..STEPS.len()).filter(|index| STEPS[*index].rare.is_none()))
    }

    #[test]
    fn each_step_has_its_turn_before_any_has_its_second() {
        for seed in [0, 1, 7, u64::MAX] {
            let mut coverage = Coverage::new(seed, STEPS);
            assert_eq!(names(run(&mut coverage, wanted().len(), |_| true)), wanted());
            assert_eq!(coverage.missing(), [] as [usize; 0]);
        }
    }

    #[test]
    fn the_runs_of_the_first_seeds_come_to_every_step_together() {
        let of_seed = |seed| run(&mut Coverage::new(seed, STEPS), OF_A_RUN, |_| true);
        assert_eq!(names((1..=4).flat_map(of_seed)).intersection(&wanted()).count(), wanted().len());
    }

    #[test]
    fn a_step_that_was_not_reached_is_tried_again_before_the_others_and_does_not_take_all_turns() {
        let mut coverage = Coverage::new(3, STEPS);
        let far = *wanted().first().unwrap();
        run(&mut coverage, wanted().len(), |index| index != far);
        assert_eq!(run(&mut coverage, PREFERRED, |_| false), [far; PREFERRED]);
        assert_eq!(coverage.missing(), [far]);
        assert!(run(&mut coverage, 10, |_| true).iter().filter(|index| **index == far).count() <= 1);
    }

    #[test]
    fn a_step_to_which_the_load_need_not_come_is_tried_when_the_others_were() {
        let mut coverage = Coverage::new(1, STEPS);
        let before = run(&mut coverage, wanted().len() * LATER, |_| true);
        assert_eq!(names(before), wanted());
        assert!(STEPS[coverage.next().unwrap()].rare.is_some());
    }

    #[test]
    fn a_full_run_fails_for_a_step_that_was_never_reached_and_a_short_one_does_not() {
        let mut coverage = Coverage::new(1, STEPS);
        let far = *wanted().last().unwrap();
        run(&mut coverage, FULL, |index| index != far);
        coverage.check(FULL - 1).unwrap();
        let error = coverage.check(FULL).unwrap_err().to_string();
        assert!(error.contains(STEPS[far].name) && !error.contains("; "), "{error}");
        let report = coverage.report();
        let name = format!("{} {}", STEPS[far].program, STEPS[far].name);
        assert!(report["not_reached_in_tries"][&name].as_u64().unwrap() > 1 && report["reached"][&name].is_null());
        coverage.reached(far);
        coverage.check(FULL).unwrap();
    }
}
