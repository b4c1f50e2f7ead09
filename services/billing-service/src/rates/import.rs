//! The import of price lists: what would change, and the change, at one instant for all of it.

use std::fmt;

use anyhow::{Context, ensure};
use chassis::in_transaction;
use chrono::{DateTime, Utc};
use money::{RateCard, Schedule};
use sqlx::{PgPool, Postgres, Transaction};

use super::store::{self, NewCard};
use super::{StoredCard, own_list, price_list};
use crate::error::Error;

/// What an import changes for one model: its line is a diff of what it was and what it becomes.
#[derive(Debug, Clone)]
pub struct Change {
    /// The card it replaces.
    pub old: Option<StoredCard>,
    /// The card that begins.
    pub new: NewCard,
}

/// Reads a list (the JSON that gateways share, or YAML of our own) and makes it valid from an instant. What the list says nothing about is
/// sold at cost plus `markup_percent`. Returns what changes; cards that stay as they are do not, and with `dry_run` nothing is
/// written.
///
/// # Errors
/// Everything that is wrong with the list, by field and rule; nothing is imported then. The database's.
pub async fn import(pool: &PgPool, text: &str, markup_percent: i64, from: DateTime<Utc>, dry_run: bool) -> anyhow::Result<Vec<Change>> {
    ensure!((0..=100_000).contains(&markup_percent), "the markup must be from 0 to 100000 percent");
    let cards = read(text, markup_percent * 100)?;
    let changes: Result<_, Error> = in_transaction!(pool, |transaction| {
        let mut changes = Vec::new();
        let mut mistakes = Vec::new();
        for new in &cards {
            match change(transaction, new, from).await? {
                Ok(change) => changes.extend(change),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        if mistakes.is_empty() && !dry_run {
            for change in &changes {
                store::end(transaction, change.new.organization_id, &change.new.model, from).await?;
                store::insert(transaction, &change.new, from).await?;
            }
        }
        Ok((changes, mistakes))
    });
    let (changes, mistakes): (Vec<Change>, Vec<String>) = changes.context("the rate cards could not be written")?;
    ensure!(mistakes.is_empty(), "the list cannot take effect then:\n  {}", mistakes.join("\n  "));
    Ok(changes)
}

fn read(text: &str, markup: i64) -> anyhow::Result<Vec<NewCard>> {
    let cards = if text.trim_start().starts_with(['{', '[']) { from_price_list(text, markup) } else { own_list::parse(text, markup) };
    cards.map_err(|mistakes| {
        let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("the list is refused:\n  {}", lines.join("\n  "))
    })
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
    if let Some(begins) = store::begins_later(transaction, new.organization_id, &new.model, from).await? {
        return Ok(Err(format!("{} has a card that begins at {begins}: it must begin before", new.model)));
    }
    let old = store::find(transaction, new.organization_id, &new.model, from).await?;
    let old = old.filter(|old| old.organization_id == new.organization_id);
    let same = old.as_ref().is_some_and(|old| old.card == new.card && old.free_micros == new.free_micros && old.valid_to.is_none());
    Ok(Ok((!same).then(|| Change { old, new: new.clone() })))
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
