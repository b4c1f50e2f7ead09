//! Price lists in the form that gateways share: a JSON object from model to per-token prices in units of USD. Prices are read
//! digit by digit, never as floating point, and everything that is wrong with a list is told at once.

use std::collections::BTreeMap;
use std::fmt;

use money::{Currency, Decimal, Rates, Schedule, Tier};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What is wrong with one field of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where: the model and the field.
    pub field: String,
    /// What it must be.
    pub rule: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.rule)
    }
}

/// What a list says that a model costs us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The model.
    pub model: String,
    /// The currency.
    pub currency: Currency,
    /// What the provider takes.
    pub cost: Schedule,
}

/// An entry that documents the format and prices nothing.
const SAMPLE: &str = "sample_spec";
/// Kinds of models that are sold by the token; an entry without a kind is taken for one.
const MODES: [&str; 3] = ["chat", "completion", "responses"];

/// What a model's name must be, in words.
pub(super) const NAME_RULE: &str = "must have 1 to 200 bytes and no NUL";

/// Whether something can be the name of a model: the database keeps no NUL, and nobody calls a model without a name.
pub(super) fn is_name(model: &str) -> bool {
    (1..=200).contains(&model.len()) && !model.contains('\0')
}

/// A JSON object with its members in order, twice-named ones included: the last one must not silently win.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// Reads a list. Entries that are not sold by the token are left alone.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str) -> Result<Vec<Listed>, Vec<Mistake>> {
    let mistake = |field: &str, rule: String| vec![Mistake { field: field.to_owned(), rule }];
    let Members(models) =
        serde_json::from_str(text).map_err(|error| mistake("the list", format!("must be a JSON object from model to prices: {error}")))?;
    let (mut listed, mut mistakes, mut seen) = (Vec::new(), Vec::new(), std::collections::BTreeSet::new());
    for (model, entry) in models.into_iter().filter(|(model, _)| model != SAMPLE) {
        if !seen.insert(model.clone()) {
            mistakes.extend(mistake(&model, "must be listed once".to_owned()));
            continue;
        }
        match serde_json::from_str(entry.get()) {
            Ok(fields) => match Entry::read(&model, fields, &mut mistakes) {
                Some(_) if !is_name(&model) => mistakes.extend(mistake("model", NAME_RULE.to_owned())),
                entry => listed.extend(entry),
            },
            Err(_) => mistakes.extend(mistake(&model, "must be an object".to_owned())),
        }
    }
    if mistakes.is_empty() { Ok(listed) } else { Err(mistakes) }
}

/// The prices of one model by field name.
struct Entry(BTreeMap<String, i64>);

impl Entry {
    fn read(model: &str, Members(fields): Members, mistakes: &mut Vec<Mistake>) -> Option<Listed> {
        if fields.iter().any(|(name, raw)| name == "mode" && !MODES.iter().any(|mode| raw.get() == format!("\"{mode}\""))) {
            return None;
        }
        let mut prices = BTreeMap::new();
        let before = mistakes.len();
        for (name, raw) in fields {
            let mut mistake = |rule: String| mistakes.push(Mistake { field: format!("{model}.{name}"), rule });
            if raw.get() == "null" || split_tier(&name).is_none_or(|(base, _)| !is_price(base)) {
                continue;
            }
            match rate(raw.get()) {
                Ok(rate) if prices.insert(name.clone(), rate).is_some() => mistake("must be given once".to_owned()),
                Ok(_) => {}
                Err(rule) => mistake(rule),
            }
        }
        let entry = Self(prices);
        let (input, output) = (entry.get("input_cost_per_token", None), entry.get("output_cost_per_token", None));
        if mistakes.len() > before || (input.is_none() && output.is_none()) {
            return None;
        }
        for (name, other, price) in
            [("input_cost_per_token", "output_cost_per_token", input), ("output_cost_per_token", "input_cost_per_token", output)]
        {
            if price.is_none() {
                mistakes.push(Mistake { field: format!("{model}.{name}"), rule: format!("must be given beside {other}, 0 if it is free") });
            }
        }
        let cost = Schedule { base: entry.rates(None)?, tiers: entry.tiers()? };
        Some(Listed { model: model.to_owned(), currency: Currency::USD, cost })
    }

    /// A price in a tier: the tier's own, else that of the base.
    fn get(&self, name: &str, above: Option<u64>) -> Option<i64> {
        let of_tier = above.and_then(|above| self.0.get(&format!("{name}_above_{}k_tokens", above / 1_000)));
        of_tier.or_else(|| self.0.get(name)).copied()
    }

    /// The rates of a tier. What a list leaves out is made explicit here [B-32]: the cache costs what the input does and reasoning what
    /// the output does, a request has no fee, what stays in a cache for an hour is written to a cache, and all else has no rate and is not for sale.
    fn rates(&self, above: Option<u64>) -> Option<Rates> {
        let get = |name: &str| self.get(name, above);
        let (input, output) = (get("input_cost_per_token")?, get("output_cost_per_token")?);
        Some(Rates {
            input,
            cached_input: get("cache_read_input_token_cost").unwrap_or(input),
            cache_write: get("cache_creation_input_token_cost").unwrap_or(input),
            cache_write_1h: get("cache_creation_input_token_cost_above_1hr"),
            output,
            reasoning: get("output_cost_per_reasoning_token").unwrap_or(output),
            audio_input: get("input_cost_per_audio_token"),
            audio_output: get("output_cost_per_audio_token"),
            // One dimension for both directions: the dearer one.
            image: get("input_cost_per_image").max(get("output_cost_per_image")),
            request: get("input_cost_per_request").unwrap_or(0),
        })
    }

    fn tiers(&self) -> Option<Vec<Tier>> {
        let mut thresholds: Vec<u64> = self.0.keys().filter_map(|name| split_tier(name)?.1).collect();
        thresholds.sort_unstable();
        thresholds.dedup();
        let tier = |above| Some(Tier { above_input_tokens: above, rates: self.rates(Some(above))? });
        thresholds.into_iter().map(tier).collect()
    }
}

/// The field and the tier it is of: `input_cost_per_token_above_200k_tokens` is `input_cost_per_token` above 200,000.
fn split_tier(name: &str) -> Option<(&str, Option<u64>)> {
    let Some(rest) = name.strip_suffix("k_tokens") else { return Some((name, None)) };
    let (base, thousands) = rest.rsplit_once("_above_")?;
    let thousands: u64 = thousands.parse().ok()?;
    Some((base, Some(thousands.checked_mul(1_000)?)))
}

fn is_price(name: &str) -> bool {
    matches!(
        name,
        "input_cost_per_token"
            | "output_cost_per_token"
            | "cache_read_input_token_cost"
            | "cache_creation_input_token_cost"
            | "cache_creation_input_token_cost_above_1hr"
            | "output_cost_per_reasoning_token"
            | "input_cost_per_audio_token"
            | "output_cost_per_audio_token"
            | "input_cost_per_image"
            | "output_cost_per_image"
            | "input_cost_per_request"
    )
}

/// A price for one unit in USD, a number or a text with one, in micro-units for a million: `2.5e-06` is 2,500,000. Below a
/// micro-unit for a million it is rounded up, so that nothing becomes free.
fn rate(raw: &str) -> Result<i64, String> {
    let text = if raw.starts_with('"') { serde_json::from_str::<String>(raw).unwrap_or_default() } else { raw.to_owned() };
    let price = Decimal::parse_rounding_up(&text).map_err(|error| error.to_string())?;
    Rates::rate_of(price).map_err(|_| "must be less than 9,223,372 for one".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(more: &str) -> Rates {
        let list = format!(r#"{{"a": {{"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6{more}}}}}"#);
        parse(&list).unwrap().remove(0).cost.base
    }

    #[test]
    fn prices_are_read_exactly_in_every_spelling() {
        for (text, expected) in
            [("2.5e-06", 2_500_000), ("0.0000025", 2_500_000), ("\"0.0000025\"", 2_500_000), ("1.5E-7", 150_000), ("0", 0), ("3e-13", 1)]
        {
            assert_eq!(rate(text), Ok(expected), "{text}");
        }
        for text in ["-1e-6", "abc", "1e99", "\"\"", "null", "true", "[1]", "1e7"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_price_list_names_models_and_leaves_other_entries_alone() {
        let list = r#"{"sample_spec": {"input_cost_per_token": "a number", "mode": "one of chat"},
            "a": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "mode": "chat", "max_tokens": 8192, "input_cost_per_token_batches": "?"},
            "image": {"mode": "image_generation", "input_cost_per_pixel": 1e-8}, "words": {"input_cost_per_token": 1e-8, "mode": "embedding"},
            "free text": {"litellm_provider": "x"}}"#;
        let listed = parse(list).unwrap();
        assert_eq!(listed.iter().map(|listed| listed.model.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(listed[0].cost.base, one(""));
    }

    /// [B-32]
    #[test]
    fn what_a_list_leaves_out_has_an_explicit_rate_or_none_and_what_it_lists_has_its_own() {
        let bare = one("");
        assert_eq!((bare.cached_input, bare.cache_write, bare.reasoning, bare.request), (1_000_000, 1_000_000, 2_000_000, 0));
        assert_eq!((bare.cache_write_1h, bare.audio_input, bare.audio_output, bare.image), (None, None, None, None));
        let full = one(r#", "cache_read_input_token_cost": 1e-7, "cache_creation_input_token_cost": 1.25e-6,
            "cache_creation_input_token_cost_above_1hr": 2e-6, "output_cost_per_reasoning_token": 3e-6, "input_cost_per_audio_token": 4e-5,
            "output_cost_per_audio_token": 8e-5, "input_cost_per_image": 0.001, "output_cost_per_image": 0.002, "input_cost_per_request": 0.003"#);
        let expected = Rates {
            input: 1_000_000,
            cached_input: 100_000,
            cache_write: 1_250_000,
            cache_write_1h: Some(2_000_000),
            output: 2_000_000,
            reasoning: 3_000_000,
            audio_input: Some(40_000_000),
            audio_output: Some(80_000_000),
            image: Some(2_000_000_000),
            request: 3_000_000_000,
        };
        assert_eq!(full, expected);
    }

    #[test]
    fn prices_above_so_many_tokens_are_tiers_and_inherit_what_they_do_not_name() {
        let list = r#"{"a": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "cache_read_input_token_cost": 1e-7,
            "input_cost_per_token_above_200k_tokens": 4e-6, "output_cost_per_token_above_200k_tokens": 5e-6,
            "cache_creation_input_token_cost_above_1hr": 2e-6, "cache_creation_input_token_cost_above_1hr_above_200k_tokens": 8e-6,
            "input_cost_per_token_above_128k_tokens": 3e-6, "input_cost_per_token_above_200k_tokens_priority": 9}}"#;
        let cost = parse(list).unwrap().remove(0).cost;
        let tiers: Vec<_> =
            cost.tiers.iter().map(|tier| (tier.above_input_tokens, tier.rates.input, tier.rates.output, tier.rates.cached_input)).collect();
        assert_eq!(tiers, [(128_000, 3_000_000, 2_000_000, 100_000), (200_000, 4_000_000, 5_000_000, 100_000)]);
        assert_eq!((cost.base.cache_write_1h, cost.tiers[1].rates.cache_write_1h), (Some(2_000_000), Some(8_000_000)));
    }

    #[test]
    fn everything_that_is_wrong_with_a_list_is_told_at_once_by_field_and_rule() {
        let list = r#"{"a": {"input_cost_per_token": -1e-6, "output_cost_per_token": "much", "input_cost_per_image": 1e99}, "b": 5,
            "c": {"input_cost_per_token": 1e-6}, "d": {"input_cost_per_token": 1, "output_cost_per_token": 1, "output_cost_per_token": 2},
            "c": {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}}"#;
        let told: Vec<String> = parse(list).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "a.input_cost_per_token must not be negative",
                "a.output_cost_per_token must be a decimal number",
                "a.input_cost_per_image must be less than 10^18",
                "b must be an object",
                "c.output_cost_per_token must be given beside input_cost_per_token, 0 if it is free",
                "d.output_cost_per_token must be given once",
                "c must be listed once",
            ]
        );
        assert_eq!(parse("[1]").unwrap_err()[0].field, "the list");
    }

    proptest! {
        #[test]
        fn reading_a_list_never_panics(text in r#"[\[\]{}",:a-z_0-9.eE+ -]{0,80}"#) {
            let _ = parse(&text);
        }
    }
}
