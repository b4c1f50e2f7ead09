//! Importing price lists in the form that gateways share: a JSON object from model to per-token prices in units of USD. Prices
//! are read digit by digit, never as floating point.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use chassis::in_transaction;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Number;
use serde_json::value::RawValue;
use sqlx::PgPool;

/// One model of a price list; fields that are not about prices are left alone.
#[derive(Debug, Deserialize)]
struct Listed {
    input_cost_per_token: Option<Box<RawValue>>,
    output_cost_per_token: Option<Box<RawValue>>,
    cache_read_input_token_cost: Option<Box<RawValue>>,
    cache_creation_input_token_cost: Option<Box<RawValue>>,
    output_cost_per_reasoning_token: Option<Box<RawValue>>,
    input_cost_per_audio_token: Option<Box<RawValue>>,
    output_cost_per_audio_token: Option<Box<RawValue>>,
}

/// What an import does for one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The model.
    pub model: String,
    /// Cost for a million prompt tokens, micro-units.
    pub cost_input: i64,
    /// Cost for a million generated tokens, micro-units.
    pub cost_output: i64,
    cost_cached: i64,
    cost_cache_write: i64,
    cost_reasoning: i64,
    cost_audio_in: i64,
    cost_audio_out: i64,
}

/// Reads a price list and makes it valid from an instant, at cost plus `markup_percent`. Returns what changes; with `dry_run`
/// nothing is written.
///
/// # Errors
/// When the list is malformed, naming the model; nothing is imported then. The database's.
pub async fn import(pool: &PgPool, text: &str, markup_percent: i64, from: DateTime<Utc>, dry_run: bool) -> anyhow::Result<Vec<Change>> {
    ensure!(markup_percent >= 0, "the markup must not be negative");
    let changes = parse(text)?;
    if dry_run {
        return Ok(changes);
    }
    let written: Result<(), sqlx::Error> = in_transaction!(pool, |transaction| {
        for change in &changes {
            let marked = |cost: i64| cost.saturating_mul(100 + markup_percent) / 100;
            sqlx::query!(
                "update rate_cards set valid_to = $2 where model = $1 and valid_from < $2 and (valid_to is null or valid_to > $2)",
                change.model,
                from
            )
            .execute(&mut **transaction)
            .await?;
            sqlx::query!(
                "insert into rate_cards (model, valid_from, price_input, price_cached, price_cache_write, price_output, price_reasoning, price_audio_in,
                   price_audio_out, cost_input, cost_cached, cost_cache_write, cost_output, cost_reasoning, cost_audio_in, cost_audio_out)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
                change.model,
                from,
                marked(change.cost_input),
                marked(change.cost_cached),
                marked(change.cost_cache_write),
                marked(change.cost_output),
                marked(change.cost_reasoning),
                marked(change.cost_audio_in),
                marked(change.cost_audio_out),
                change.cost_input,
                change.cost_cached,
                change.cost_cache_write,
                change.cost_output,
                change.cost_reasoning,
                change.cost_audio_in,
                change.cost_audio_out
            )
            .execute(&mut **transaction)
            .await?;
        }
        Ok(())
    });
    written?;
    Ok(changes)
}

fn parse(text: &str) -> anyhow::Result<Vec<Change>> {
    let list: BTreeMap<String, Listed> = serde_json::from_str(text).context("the price list must be a JSON object from model to prices")?;
    list.into_iter()
        .filter(|(_, listed)| listed.input_cost_per_token.is_some() && listed.output_cost_per_token.is_some())
        .map(|(model, listed)| {
            let price = |raw: Option<Box<RawValue>>| {
                raw.map(|raw| micros_per_million(raw.get())).transpose().with_context(|| format!("model {model}"))
            };
            let input = price(listed.input_cost_per_token)?.unwrap_or_default();
            let output = price(listed.output_cost_per_token)?.unwrap_or_default();
            Ok(Change {
                cost_input: input,
                cost_output: output,
                cost_cached: price(listed.cache_read_input_token_cost)?.unwrap_or(input),
                cost_cache_write: price(listed.cache_creation_input_token_cost)?.unwrap_or(input),
                cost_reasoning: price(listed.output_cost_per_reasoning_token)?.unwrap_or(output),
                // Audio is many times dearer than text: without a price it is not for sale (zero), never sold at that of text.
                cost_audio_in: price(listed.input_cost_per_audio_token)?.unwrap_or_default(),
                cost_audio_out: price(listed.output_cost_per_audio_token)?.unwrap_or_default(),
                model: model.clone(),
            })
        })
        .collect()
}

/// A price for one token in USD, as text, in micro-units for a million tokens: twelve decimals further. `2.5e-06` is 2,500,000.
fn micros_per_million(text: &str) -> anyhow::Result<i64> {
    let text = text.trim_matches('"');
    // Only what is a JSON number is a price.
    let _: Number = serde_json::from_str(text).with_context(|| format!("{text} is not a number"))?;
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.starts_with('-') {
        bail!("{text} is negative");
    }
    let digits: i128 = format!("{whole}{fraction}").parse()?;
    let shift = 12 + exponent - i32::try_from(fraction.len())?;
    let value = match u32::try_from(shift) {
        Ok(shift) => 10_i128.checked_pow(shift).and_then(|power| digits.checked_mul(power)),
        // Below a micro-unit for a million tokens: rounded up, so that nothing becomes free.
        Err(_) => 10_i128.checked_pow(shift.unsigned_abs()).map(|power| (digits + power - 1) / power),
    };
    i64::try_from(value.with_context(|| format!("{text} is out of range"))?).with_context(|| format!("{text} is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_read_exactly_in_every_spelling() {
        for (text, expected) in
            [("2.5e-06", 2_500_000), ("0.0000025", 2_500_000), ("\"0.0000025\"", 2_500_000), ("1.5E-7", 150_000), ("0", 0), ("3e-13", 1)]
        {
            assert_eq!(micros_per_million(text).unwrap(), expected, "{text}");
        }
        for text in ["-1e-6", "abc", "1e99", "\"\"", "null"] {
            assert!(micros_per_million(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_price_list_names_models_and_leaves_other_entries_alone() {
        let list = r#"{"a": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "mode": "chat"}, "image": {"mode": "image"}}"#;
        let changes = parse(list).unwrap();
        assert_eq!(changes.len(), 1);
        assert_eq!(
            (changes[0].model.as_str(), changes[0].cost_input, changes[0].cost_cached, changes[0].cost_output),
            ("a", 1_000_000, 1_000_000, 2_000_000)
        );
        assert!(parse("[1]").is_err());
    }

    /// [B-32]
    #[test]
    fn reasoning_costs_what_output_does_unless_it_is_listed_and_audio_is_never_sold_at_the_price_of_text() {
        let costs = |more: &str| {
            let list = format!(r#"{{"a": {{"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6{more}}}}}"#);
            let change = parse(&list).unwrap().remove(0);
            (change.cost_reasoning, change.cost_audio_in, change.cost_audio_out)
        };
        assert_eq!(costs(""), (2_000_000, 0, 0));
        let listed =
            r#", "output_cost_per_reasoning_token": 3e-6, "input_cost_per_audio_token": 4e-5, "output_cost_per_audio_token": 8e-5"#;
        assert_eq!(costs(listed), (3_000_000, 40_000_000, 80_000_000));
    }
}
