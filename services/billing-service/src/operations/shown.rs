//! What `/metrics` shows of what was read last.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::gauges::Part;
use super::readings::{Reading, parts};
use crate::state::AppState;

/// Every gauge that this process has set, so that none keeps a value that is no longer so.
#[derive(Debug, Default)]
pub struct Shown(Mutex<HashMap<Part, Vec<Reading>>>);

impl Shown {
    /// Reads everything anew and sets the gauges. Those of a part that cannot be read are set to what is not known: the last value would look as
    /// if all were well for as long as nobody can look.
    ///
    /// # Errors
    /// When a part could not be read, after the others were set.
    pub async fn refresh(&self, state: &AppState) -> anyhow::Result<()> {
        let outcomes = parts(state).await;
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failed = Vec::new();
        for (part, outcome) in outcomes {
            let set = shown.entry(part).or_default();
            match outcome {
                Ok(readings) => show(set, readings),
                Err(error) => {
                    set.iter().for_each(Reading::set_to_unknown);
                    failed.push(format!("{}: {}", part.as_str(), error.chain()));
                }
            }
        }
        anyhow::ensure!(failed.is_empty(), "cannot be measured: {}", failed.join("; "));
        Ok(())
    }
}

/// Sets what was read, and what was set before and is not there any more to zero.
fn show(set: &mut Vec<Reading>, readings: Vec<Reading>) {
    let gone = |old: &&Reading| !readings.iter().any(|new| new.is_of(old));
    set.iter().filter(gone).for_each(Reading::set_to_zero);
    readings.iter().for_each(Reading::set);
    for reading in readings {
        if !set.iter().any(|old| old.is_of(&reading)) {
            set.push(reading);
        }
    }
}
