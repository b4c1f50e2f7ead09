//! `billing-service status` and `GET /v1/admin/status`: every measure with its limit, and where to read on when it is beyond.

use std::fmt::Write;

use axum::extract::State;
use identity::CallingService;
use serde::Serialize;

use super::gauges::{GAUGES, Limit, Part};
use super::readings::{Reading, parts};
use crate::admin;
use crate::error::Error;
use crate::state::AppState;

/// Where the entries are.
const RUNBOOK: &str = "docs/operations/RUNBOOK.md";

/// One measure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Its name on `/metrics`.
    pub metric: &'static str,
    /// Of which state, stream or currency.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// How much, in the unit of its name.
    pub value: i64,
    /// From where on somebody has to look: above it, or below it where it is about margin.
    pub limit: Option<i64>,
    /// Whether somebody has to look now.
    pub beyond: bool,
    /// What to read then.
    pub runbook: String,
}

/// What cannot be measured now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unknown {
    /// What could not be read.
    pub part: &'static str,
    /// Why.
    pub why: String,
    /// The measures that are not known for it; there are no lines of them.
    pub metrics: Vec<&'static str>,
}

/// How things are.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Whether everything is known and nothing is beyond its limit.
    pub fine: bool,
    /// Every measure that is known; those that are kept apart and zero are left out unless all are.
    pub lines: Vec<Line>,
    /// What is not known; empty when all is well.
    pub unknown: Vec<Unknown>,
}

/// Reads and judges what can be read.
///
/// # Errors
/// When nothing can be: the first part's.
pub async fn status(state: &AppState) -> Result<Status, Error> {
    let (mut readings, mut unknown, mut first) = (Vec::new(), Vec::new(), None);
    for (part, outcome) in parts(state).await {
        match outcome {
            Ok(read) => readings.extend(read),
            Err(error) => {
                unknown.push((part, error.chain()));
                first = first.or(Some(error));
            }
        }
    }
    match first {
        Some(error) if unknown.len() == Part::ALL.len() => Err(error),
        _ => Ok(judge(&readings, unknown)),
    }
}

fn judge(readings: &[Reading], unknown: Vec<(Part, String)>) -> Status {
    let mut lines = Vec::new();
    for gauge in GAUGES.iter().filter(|gauge| unknown.iter().all(|(part, _)| *part != gauge.part)) {
        let of_it: Vec<&Reading> = readings.iter().filter(|reading| reading.gauge.name == gauge.name).collect();
        let zero = Reading { gauge, label: String::new(), value: 0 };
        let mut shown: Vec<&Reading> = of_it.into_iter().filter(|reading| reading.value != 0).collect();
        if shown.is_empty() {
            shown.push(&zero);
        }
        lines.extend(shown.into_iter().map(line));
    }
    let unknown: Vec<Unknown> = unknown.into_iter().map(|(part, why)| not_known(part, why)).collect();
    Status { fine: unknown.is_empty() && lines.iter().all(|line| !line.beyond), lines, unknown }
}

fn not_known(part: Part, why: String) -> Unknown {
    let metrics = GAUGES.iter().filter(|gauge| gauge.part == part).map(|gauge| gauge.name).collect();
    Unknown { part: part.as_str(), why, metrics }
}

fn line(reading: &Reading) -> Line {
    let (limit, beyond) = match reading.gauge.limit {
        Limit::None => (None, false),
        Limit::Above(limit) => (Some(limit), reading.value > limit),
        Limit::Below(limit) => (Some(limit), reading.value < limit),
    };
    let metric = reading.gauge.name;
    Line { metric, label: reading.label.clone(), value: reading.value, limit, beyond, runbook: format!("{RUNBOOK}#{metric}") }
}

impl Status {
    /// As a table for a terminal.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("{:<42} {:<24} {:>20} {:>10}\n", "measure", "of", "value", "limit");
        for Line { metric, label, value, limit, beyond, .. } in &self.lines {
            let limit = limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
            // Writing to a string does not fail.
            let _ = writeln!(text, "{metric:<42} {label:<24} {value:>20} {limit:>10}{}", if *beyond { "  BEYOND" } else { "" });
        }
        for metric in self.unknown.iter().flat_map(|unknown| &unknown.metrics) {
            let _ = writeln!(text, "{metric:<42} {:<24} {:>20} {:>10}  UNKNOWN", "", "-", "-");
        }
        text
    }

    /// What to read, when something is beyond its limit, and what is not known, and why.
    ///
    /// # Errors
    /// Then.
    pub fn judged(&self) -> anyhow::Result<()> {
        let mut beyond: Vec<&str> = self.lines.iter().filter(|line| line.beyond).map(|line| line.runbook.as_str()).collect();
        beyond.dedup();
        let mut told: Vec<String> = self.unknown.iter().map(|Unknown { part, why, .. }| format!("not known: {part} ({why})")).collect();
        if !beyond.is_empty() {
            told.push(format!("beyond its limit; read {}", beyond.join(", ")));
        }
        anyhow::ensure!(told.is_empty(), "{}", told.join("; "));
        Ok(())
    }
}

/// How things are, for operators.
pub async fn get(State(state): State<AppState>, caller: CallingService) -> Result<axum::Json<Status>, Error> {
    caller.require(admin::SCOPE_READ)?;
    Ok(axum::Json(status(&state).await?))
}
