//! Rate cards for people: the history of one model, and all that is valid as a file that an import reads back unchanged.

use std::fmt::Write;

use chassis::in_transaction;
use chrono::{DateTime, Utc};
use money::{Rates, Schedule};
use sqlx::PgPool;

use super::{StoredCard, store};
use crate::error::Error;

/// Every card that a model has had, has and will have; none when it was never sold.
///
/// # Errors
/// The database's.
pub async fn show(pool: &PgPool, model: &str) -> Result<Vec<String>, Error> {
    let cards: Result<Vec<StoredCard>, Error> = in_transaction!(pool, |transaction| { store::of_model(transaction, model).await });
    Ok(cards?.iter().map(line).collect())
}

fn line(card: &StoredCard) -> String {
    let whom = card.organization_id.map_or_else(|| "everybody".to_owned(), |id| id.to_string());
    let until = card.valid_to.map_or_else(|| "…".to_owned(), |end| end.to_rfc3339());
    let mut text = format!("card {} for {whom} from {} to {until} in {}", card.id, card.valid_from.to_rfc3339(), card.card.currency);
    for (of, schedule) in [("price", &card.card.price), ("cost", &card.card.cost)] {
        let tiers = schedule.tiers.iter().map(|tier| (format!("[>{}]", tier.above_input_tokens), &tier.rates));
        for (tier, rates) in std::iter::once((String::new(), &schedule.base)).chain(tiers) {
            let _ = write!(text, "\n  {of}{tier}: {}", mapping(rates));
        }
    }
    if card.free_micros > 0 {
        let _ = write!(text, "\n  free_per_month: {}", units(card.free_micros));
    }
    text
}

/// All cards that are valid at an instant, as YAML. Cards of another currency than the first are not in it but named in the second value: a
/// file has one currency.
///
/// # Errors
/// The database's.
pub async fn export(pool: &PgPool, at: DateTime<Utc>) -> Result<(String, Vec<String>), Error> {
    let cards: Result<Vec<StoredCard>, Error> = in_transaction!(pool, |transaction| { store::all_at(transaction, at).await });
    let cards = cards?;
    let Some(currency) = cards.first().map(|card| card.card.currency) else { return Ok(("cards: []\n".to_owned(), Vec::new())) };
    let (inside, outside): (Vec<_>, Vec<_>) = cards.iter().partition(|card| card.card.currency == currency);
    let mut text = format!("currency: {currency}\ncards:\n");
    for card in inside {
        let _ = writeln!(text, "- model: {}", quoted(&card.model));
        if let Some(organization) = card.organization_id {
            let _ = writeln!(text, "  organization: {organization}");
        }
        let _ = writeln!(text, "  cost: {}\n  price: {}", schedule(&card.card.cost), schedule(&card.card.price));
        if card.free_micros > 0 {
            let _ = writeln!(text, "  free_per_month: {}", units(card.free_micros));
        }
    }
    Ok((text, outside.into_iter().map(|card| card.model.clone()).collect()))
}

/// A JSON string is a YAML one.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn schedule(schedule: &Schedule) -> String {
    let tiers: Vec<String> =
        schedule.tiers.iter().map(|tier| format!("{{tokens: {}, rates: {}}}", tier.above_input_tokens, mapping(&tier.rates))).collect();
    let base = mapping(&schedule.base);
    if tiers.is_empty() { base } else { format!("{}, above: [{}]}}", base.trim_end_matches('}'), tiers.join(", ")) }
}

/// Rates as an import reads them: tokens by the million, all else by one.
fn mapping(rates: &Rates) -> String {
    let members: Vec<String> = rates
        .named()
        .into_iter()
        .filter_map(|(name, rate)| {
            let rate = rate?;
            let text = if matches!(name, "image" | "request") { decimal(rate, 12) } else { units(rate) };
            Some(format!("{name}: '{text}'"))
        })
        .collect();
    format!("{{{}}}", members.join(", "))
}

/// Micro-units as units.
fn units(micros: i64) -> String {
    decimal(micros, 6)
}

fn decimal(value: i64, places: usize) -> String {
    let digits = format!("{value:0width$}", width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use money::{Currency, RateCard, Tier};
    use proptest::prelude::*;

    use super::*;
    use crate::rates::own_list;

    fn rates() -> impl Strategy<Value = Rates> {
        (proptest::array::uniform6(0..i64::MAX), proptest::array::uniform4(proptest::option::of(0..i64::MAX))).prop_map(
            |([input, cached_input, cache_write, output, reasoning, request], [cache_write_1h, audio_input, audio_output, image])| Rates {
                input,
                cached_input,
                cache_write,
                cache_write_1h,
                output,
                reasoning,
                audio_input,
                audio_output,
                image,
                request,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_exported_is_read_back_as_the_same_rates(base in rates(), tiers in proptest::collection::btree_map(0..u64::from(u32::MAX), rates(), 0..3),
            price in rates(), model in "[a-z0-9:/'\"#\\\\ -]{1,30}") {
            let tiers: Vec<Tier> = tiers.into_iter().map(|(above_input_tokens, rates)| Tier { above_input_tokens, rates }).collect();
            // What has a price has a cost.
            let has = |of: fn(&Rates) -> Option<i64>| of(&base).is_some() && tiers.iter().all(|tier| of(&tier.rates).is_some());
            let price = Rates {
                audio_input: price.audio_input.filter(|_| has(|rates| rates.audio_input)),
                audio_output: price.audio_output.filter(|_| has(|rates| rates.audio_output)),
                image: price.image.filter(|_| has(|rates| rates.image)),
                ..price
            };
            let card = RateCard { currency: Currency::USD, price: price.into(), cost: Schedule { base, tiers } };
            let text = format!("cards:\n- model: {}\n  cost: {}\n  price: {}\n", quoted(&model), schedule(&card.cost), schedule(&card.price));
            let read = own_list::parse(&text, 0).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes:?}"));
            prop_assert_eq!((&read[0].model, &read[0].card), (&model, &card));
        }
    }
}
