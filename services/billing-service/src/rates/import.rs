//! The import of price lists: what would change, and the change, at one instant for all of it.

use std::fmt;

use chassis::in_transaction;
use chassis::postgres::DatabaseError;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use money::{RateCard, Schedule};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::{Postgres, Transaction};

use super::store::{self, NewCard};
use super::{StoredCard, own_list, price_list};
use crate::audit::{self, Decision};
use crate::error::Error;
use crate::state::AppState;

const ACTION: &str = "rates.import";

/// What an import changes for one model: its line is a diff of what it was and what it becomes.
#[derive(Debug, Clone)]
pub struct Change {
    /// The card it replaces.
    pub old: Option<StoredCard>,
    /// The card that begins.
    pub new: NewCard,
    /// When the next card of its line begins, if there is one already.
    pub until: Option<DateTime<Utc>>,
}

/// A list to import.
#[derive(Debug, Clone, Copy)]
pub struct List<'l> {
    /// The JSON that gateways share, or YAML of our own.
    pub text: &'l str,
    /// What the list says nothing about is sold at cost plus so many percent.
    pub markup_percent: i64,
    /// When it takes effect, not in the past; now, if absent.
    pub from: Option<DateTime<Utc>>,
}

/// Why a list is not imported; nothing of it is then.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Everything that is wrong with it.
    #[error("the list is refused:\n  {}", .0.join("\n  "))]
    Refused(Vec<String>),
    /// A refusal of the decision, or the database's.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<sqlx::Error> for ImportError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl DatabaseError for ImportError {
    fn database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Failed(error) => error.database(),
            Self::Refused(_) => None,
        }
    }
}

/// Makes a list valid from an instant on, once under the decision's key, with a row in the log of operators [B-78]. Returns what changes,
/// one line for each card; those that stay as they are change nothing. Without a decision it is only said and nothing is written.
///
/// # Errors
/// [`ImportError`].
pub async fn import(state: &AppState, list: &List<'_>, decision: Option<&Decision>) -> Result<Vec<String>, ImportError> {
    let refused = |rule: &str| Err(ImportError::Refused(vec![rule.to_owned()]));
    let now = state.clock.now();
    let from = list.from.unwrap_or(now);
    if !(0..=100_000).contains(&list.markup_percent) {
        return refused("the markup must be from 0 to 100000 percent");
    }
    // What was used is priced already: a list cannot change the past.
    if from < now - TimeDelta::minutes(1) {
        return refused("it must not take effect in the past");
    }
    decision.map_or(Ok(()), Decision::check).map_err(Error::from)?;
    let cards = read(list.text, list.markup_percent * 100).map_err(ImportError::Refused)?;
    let request = json!({"list_sha256": audit::hex(&Sha256::digest(list.text)), "markup_percent": list.markup_percent, "from": list.from});
    in_transaction!(state.pool, |transaction| {
        if let Some(decision) = decision
            && let Some(after) = audit::earlier(transaction, decision, ACTION, None, &request).await?
        {
            return Ok(after["changes"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect());
        }
        let (mut changes, mut mistakes) = (Vec::new(), Vec::new());
        for new in &cards {
            match change(transaction, new, from).await? {
                Ok(change) => changes.extend(change),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        if !mistakes.is_empty() {
            return Err(ImportError::Refused(mistakes));
        }
        let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
        let Some(decision) = decision else { return Ok(lines) };
        for change in &changes {
            store::end(transaction, change.new.organization_id, &change.new.model, from).await?;
            store::insert(transaction, &change.new, from, change.until).await?;
        }
        let after = json!({"from": from, "changes": lines});
        let logged = audit::Change { action: ACTION, organization: None, request: &request, before: &Value::Null, after: &after };
        audit::record(state, transaction, decision, &logged).await?;
        Ok(lines)
    })
}

fn read(text: &str, markup: i64) -> Result<Vec<NewCard>, Vec<String>> {
    let cards = if text.trim_start().starts_with(['{', '[']) { from_price_list(text, markup) } else { own_list::parse(text, markup) };
    cards.map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

fn from_price_list(text: &str, markup: i64) -> Result<Vec<NewCard>, Vec<price_list::Mistake>> {
    let mut mistakes = Vec::new();
    let mut cards = Vec::new();
    for listed in price_list::parse(text)? {
        match listed.cost.marked_up(markup) {
            Ok(price) => cards.push(NewCard {
                model: listed.model,
                organization_id: None,
                card: RateCard { currency: listed.currency, price, cost: listed.cost },
                free_micros: 0,
            }),
            Err(error) => mistakes.push(price_list::Mistake { field: listed.model, rule: format!("cannot be marked up: {error}") }),
        }
    }
    if mistakes.is_empty() { Ok(cards) } else { Err(mistakes) }
}

/// What a card changes; none when it is as it was.
async fn change(
    transaction: &mut Transaction<'static, Postgres>,
    new: &NewCard,
    from: DateTime<Utc>,
) -> Result<Result<Option<Change>, String>, Error> {
    let until = store::begins_later(transaction, new.organization_id, &new.model, from).await?;
    if let Some(begins) = until.filter(|begins| *begins == from) {
        return Ok(Err(format!("{} has a card that begins at {begins}: another one must begin before or after that", new.model)));
    }
    let old = store::find(transaction, new.organization_id, &new.model, from).await?;
    let old = old.filter(|old| old.organization_id == new.organization_id);
    let same = old.as_ref().is_some_and(|old| old.card == new.card && old.free_micros == new.free_micros && old.valid_to == until);
    Ok(Ok((!same).then(|| Change { old, new: new.clone(), until })))
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.new.model)?;
        if let Some(organization) = self.new.organization_id {
            write!(f, " for {organization}")?;
        }
        let old = self.old.as_ref();
        f.write_str(if old.is_none() { " (new):" } else { ":" })?;
        if let Some(old) = old.filter(|old| old.card.currency != self.new.card.currency) {
            write!(f, " currency {} → {}", old.card.currency, self.new.card.currency)?;
        }
        differences(f, "cost", old.map(|old| &old.card.cost), &self.new.card.cost)?;
        differences(f, "price", old.map(|old| &old.card.price), &self.new.card.price)?;
        let free = old.map_or(0, |old| old.free_micros);
        if free != self.new.free_micros {
            write!(f, " free_per_month {free} → {}", self.new.free_micros)?;
        }
        if let Some(until) = self.until {
            write!(f, " until {} (the next card begins then)", until.to_rfc3339_opts(SecondsFormat::Secs, true))?;
        }
        Ok(())
    }
}

/// The rates that differ, in micro-units for a million.
fn differences(f: &mut fmt::Formatter<'_>, of: &str, old: Option<&Schedule>, new: &Schedule) -> fmt::Result {
    let mut thresholds: Vec<u64> =
        old.into_iter().chain([new]).flat_map(|schedule| &schedule.tiers).map(|tier| tier.above_input_tokens).collect();
    thresholds.sort_unstable();
    thresholds.dedup();
    let exactly = |schedule: &Schedule, above: Option<u64>| match above {
        None => Some(schedule.base),
        Some(above) => schedule.tiers.iter().find(|tier| tier.above_input_tokens == above).map(|tier| tier.rates),
    };
    for above in std::iter::once(None).chain(thresholds.into_iter().map(Some)) {
        let tier = above.map(|above| format!("[>{above}]")).unwrap_or_default();
        let (was, is) =
            (old.and_then(|old| exactly(old, above)).map(|rates| rates.named()), exactly(new, above).map(|rates| rates.named()));
        let names = was.or(is).into_iter().flatten().map(|(name, _)| name).enumerate();
        for (index, name) in names {
            let rate = |rates: Option<[(&str, Option<i64>); 10]>| rates.and_then(|rates| rates[index].1);
            let text = |rate: Option<i64>| rate.map_or_else(|| "none".to_owned(), |rate| rate.to_string());
            match (rate(was), rate(is)) {
                (was, is) if was == is => {}
                (None, Some(is)) if old.is_none() => write!(f, " {of}{tier}.{name} {is}")?,
                (was, is) => write!(f, " {of}{tier}.{name} {} → {}", text(was), text(is))?,
            }
        }
    }
    Ok(())
}
