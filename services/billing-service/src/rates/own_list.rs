//! Rate cards as YAML of our own: what the shared price lists cannot say (prices apart from costs, fixed prices, free allowances,
//! cards of one organization). Token prices are in units of the currency for a million, all others for one.

use std::collections::BTreeSet;
use std::iter::once;

use identity::OrganizationId;
use money::{Currency, Decimal, RateCard, Rates, Schedule, Tier};
use serde::Deserialize;

use super::price_list::{Mistake, NAME_RULE, is_name};
use super::store::NewCard;
use crate::ledger::CREDIT;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    currency: Option<String>,
    cards: Vec<Card>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Card {
    model: String,
    #[serde(default)]
    organization: Option<String>,
    cost: Listed,
    /// All prices of its own …
    #[serde(default)]
    price: Option<Listed>,
    /// … or percent on top of the cost …
    #[serde(default)]
    markup_percent: Option<String>,
    /// … or so much for each request, whatever it uses.
    #[serde(default)]
    fixed_price: Option<String>,
    #[serde(default)]
    free_per_month: Option<String>,
}

/// Texts, so that no price passes through floating point on its way.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    input: Option<String>,
    cached_input: Option<String>,
    cache_write: Option<String>,
    cache_write_1h: Option<String>,
    output: Option<String>,
    reasoning: Option<String>,
    audio_input: Option<String>,
    audio_output: Option<String>,
    image: Option<String>,
    request: Option<String>,
    #[serde(default)]
    above: Vec<Above>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Above {
    tokens: u64,
    rates: Listed,
}

/// Reads a file; `markup_basis_points` is for cards that say nothing about their price.
///
/// # Errors
/// Everything that is wrong with it; of its syntax only the first.
pub fn parse(text: &str, markup_basis_points: i64) -> Result<Vec<NewCard>, Vec<Mistake>> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| {
        // The first line says what and where; the others draw the text.
        let rule = error.to_string();
        vec![Mistake { field: "the file".to_owned(), rule: format!("cannot be read: {}", rule.lines().next().unwrap_or_default()) }]
    })?;
    let mut reader = Reader { mistakes: Vec::new() };
    let currency = file.currency.as_deref().map_or(Some(Currency::USD), |code| reader.note("currency", code.parse()));
    if currency.is_some_and(|currency| currency != CREDIT) {
        reader.say("currency", &format!("must be {CREDIT}: usage is paid from credit, which is in it"));
    }
    let mut cards: Vec<NewCard> = Vec::new();
    for card in &file.cards {
        let Some(card) = reader.card(card, currency.unwrap_or(Currency::USD), markup_basis_points) else { continue };
        if cards.iter().any(|other| (&other.model, other.organization_id) == (&card.model, card.organization_id)) {
            reader.say(&card.model, "must be listed once for each organization");
        }
        cards.push(card);
    }
    if reader.mistakes.is_empty() { Ok(cards) } else { Err(reader.mistakes) }
}

struct Reader {
    mistakes: Vec<Mistake>,
}

impl Reader {
    fn say(&mut self, field: &str, rule: &str) {
        self.mistakes.push(Mistake { field: field.to_owned(), rule: rule.to_owned() });
    }

    fn note<T, E: std::fmt::Display>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.say(field, &error.to_string())).ok()
    }

    fn card(&mut self, card: &Card, currency: Currency, markup: i64) -> Option<NewCard> {
        let model = card.model.as_str();
        if !is_name(model) {
            self.say("model", NAME_RULE);
        }
        let organization = card.organization.as_deref().map(|id| self.note(&format!("{model}.organization"), id.parse::<OrganizationId>()));
        let cost = self.schedule(&format!("{model}.cost"), &card.cost);
        let price = self.price(card, cost.as_ref(), markup);
        if let (Some(price), Some(cost)) = (&price, &cost) {
            self.check_costs(model, price, cost);
        }
        let free = card.free_per_month.as_deref().map_or(Some(0), |text| self.micros(&format!("{model}.free_per_month"), text));
        let organization_id = match organization {
            Some(None) => return None,
            Some(id) => id,
            None => None,
        };
        Some(NewCard {
            model: model.to_owned(),
            organization_id,
            card: RateCard { currency, price: price?, cost: cost? },
            free_micros: free?,
        })
    }

    /// What is sold has a cost, for all sizes of a prompt: usage of which nobody knows what it cost cannot be posted, nor paid [B-32].
    fn check_costs(&mut self, model: &str, price: &Schedule, cost: &Schedule) {
        let above = price.tiers.iter().chain(&cost.tiers).map(|tier| tier.above_input_tokens.saturating_add(1));
        let mut missing = BTreeSet::new();
        for size in once(0).chain(above) {
            let pairs = price.rates_for(size).named().into_iter().zip(cost.rates_for(size).named());
            missing.extend(pairs.filter(|((_, price), (_, cost))| price.is_some() && cost.is_none()).map(|((name, _), _)| name));
        }
        // What is kept for an hour costs what is kept for five minutes, where nothing else is said.
        for name in missing.into_iter().filter(|name| *name != "cache_write_1h") {
            self.say(&format!("{model}.cost.{name}"), "must be given, and be 0 where it costs nothing: it has a price");
        }
    }

    fn price(&mut self, card: &Card, cost: Option<&Schedule>, markup: i64) -> Option<Schedule> {
        let model = card.model.as_str();
        match (&card.price, &card.markup_percent, &card.fixed_price) {
            (Some(price), None, None) => self.schedule(&format!("{model}.price"), price),
            (None, None, Some(fixed)) => {
                let request = self.of_one(&format!("{model}.fixed_price"), fixed)?;
                let nothing = Some(0);
                // Free in every dimension that has a cost, and said so [B-32].
                let free = |rate: Option<i64>| rate.and(nothing);
                let base = &cost?.base;
                let (cache_write_1h, image) = (free(base.cache_write_1h), free(base.image));
                let (audio_input, audio_output) = (free(base.audio_input), free(base.audio_output));
                Some(Rates { request, cache_write_1h, image, audio_input, audio_output, ..Rates::default() }.into())
            }
            (None, percent, None) => {
                let field = format!("{model}.markup_percent");
                let points = match percent {
                    Some(text) => self.basis_points(&field, text)?,
                    None => markup,
                };
                let marked = cost?.marked_up(points);
                self.note(&field, marked)
            }
            _ => {
                self.say(model, "must have one of price, markup_percent and fixed_price");
                None
            }
        }
    }

    fn schedule(&mut self, field: &str, listed: &Listed) -> Option<Schedule> {
        let base = self.rates(field, listed);
        let mut tiers = Vec::new();
        for above in &listed.above {
            let field = format!("{field}.above[{}]", above.tokens);
            let rates = self.rates(&field, &above.rates);
            if !above.rates.above.is_empty() {
                self.say(&field, "must have no tiers of its own");
            }
            if tiers.last().is_some_and(|last: &Tier| last.above_input_tokens >= above.tokens) {
                self.say(&field, "must be above more tokens than the tier before it");
            }
            tiers.push(Tier { above_input_tokens: above.tokens, rates: rates? });
        }
        Some(Schedule { base: base?, tiers })
    }

    /// Dimensions that every model has must be said, zero included; the others may be missing and are then not for sale [B-32],
    /// but for what stays in a cache for an hour, which is written to a cache all the same.
    fn rates(&mut self, field: &str, listed: &Listed) -> Option<Rates> {
        let mut must = |name: &str, text: &Option<String>| {
            let field = format!("{field}.{name}");
            if let Some(text) = text {
                return self.of_million(&field, text);
            }
            self.say(&field, "must be given, 0 if it is free");
            None
        };
        let (input, cached) = (must("input", &listed.input), must("cached_input", &listed.cached_input));
        let (write, output) = (must("cache_write", &listed.cache_write), must("output", &listed.output));
        let reasoning = must("reasoning", &listed.reasoning);
        let mut may = |name: &str, text: &Option<String>, million: bool| match text {
            None => Some(None),
            Some(text) if million => self.of_million(&format!("{field}.{name}"), text).map(Some),
            Some(text) => self.of_one(&format!("{field}.{name}"), text).map(Some),
        };
        let hour = may("cache_write_1h", &listed.cache_write_1h, true);
        let (audio_in, audio_out) = (may("audio_input", &listed.audio_input, true), may("audio_output", &listed.audio_output, true));
        let (image, request) = (may("image", &listed.image, false), may("request", &listed.request, false));
        Some(Rates {
            input: input?,
            cached_input: cached?,
            cache_write: write?,
            cache_write_1h: hour?,
            output: output?,
            reasoning: reasoning?,
            audio_input: audio_in?,
            audio_output: audio_out?,
            image: image?,
            request: request?.unwrap_or(0),
        })
    }

    fn of_one(&mut self, field: &str, text: &str) -> Option<i64> {
        let price = self.note(field, Decimal::parse_rounding_up(text))?;
        self.note(field, Rates::rate_of(price))
    }

    /// Units of the currency for a million are micro-units for one, and those must be whole for a million: six decimals.
    fn of_million(&mut self, field: &str, text: &str) -> Option<i64> {
        self.micros(field, text)
    }

    fn micros(&mut self, field: &str, text: &str) -> Option<i64> {
        let amount = self.note(field, text.parse::<Decimal>())?.scaled();
        if amount % 1_000_000 != 0 {
            self.say(field, "must have at most 6 digits behind the point");
            return None;
        }
        self.note(field, i64::try_from(amount / 1_000_000).map_err(|_| "must be less than 9,223,372,036,854"))
    }

    fn basis_points(&mut self, field: &str, percent: &str) -> Option<i64> {
        let scaled = self.note(field, percent.parse::<Decimal>())?.scaled();
        let (one, points) = (10_i128.pow(10), scaled / 10_i128.pow(10));
        if scaled % one != 0 || points > 10_000_000 {
            self.say(field, "must be at most 100000 with two digits behind the point");
            return None;
        }
        i64::try_from(points).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATES: &str = "{input: 2.5, cached_input: '0.25', cache_write: 2.5, output: 10, reasoning: 10}";

    fn told(text: &str) -> Vec<String> {
        parse(text, 0).unwrap_err().iter().map(ToString::to_string).collect()
    }

    /// Usage is paid from credit: a rate in another currency would be taken as so many dollars.
    #[test]
    fn a_list_in_another_currency_than_that_of_credit_is_refused() {
        let of = |currency: &str| format!("currency: {currency}\ncards:\n- {{model: a, cost: {RATES}}}\n");
        assert!(parse(&of("USD"), 0).is_ok());
        assert_eq!(told(&of("JPY")), ["currency must be USD: usage is paid from credit, which is in it"]);
        assert_eq!(told(&of("XXX")).len(), 1, "one mistake for what is no currency");
    }

    #[test]
    fn prices_are_exact_in_quotes_and_without_and_a_card_is_priced_in_three_ways() {
        let with_image = RATES.replace('}', ", image: 0.001}");
        let text = format!(
            "cards:\n- {{model: a, cost: {RATES}}}\n- {{model: b, cost: {RATES}, markup_percent: 12.5}}\n- {{model: c, cost: {RATES}, fixed_price: 0.05, free_per_month: 1}}\n\
             - model: a\n  organization: org_0197f0a0000070008000000000000001\n  cost: {with_image}\n  price: {{input: 1, cached_input: 0, cache_write: 1, output: 3, reasoning: 3, image: 0.002, above: [{{tokens: 200000, rates: {{input: 2, cached_input: 0, cache_write: 2, output: 6, reasoning: 6}}}}]}}\n"
        );
        let cards = parse(&text, 2_000).unwrap();
        let price = |index: usize| &cards[index].card.price;
        assert_eq!((cards[0].card.cost.base.input, cards[0].card.cost.base.cached_input), (2_500_000, 250_000));
        assert_eq!(price(0).base.input, 3_000_000, "the markup of the command");
        assert_eq!(price(1).base.input, 2_812_500, "a markup of its own");
        assert_eq!((price(2).base.request, price(2).base.input, cards[2].free_micros), (50_000_000_000, 0, 1_000_000));
        assert_eq!(
            (price(3).base.image, price(3).tiers[0].above_input_tokens, price(3).tiers[0].rates.output),
            (Some(2_000_000_000), 200_000, 6_000_000)
        );
        assert!(cards[3].organization_id.is_some());
    }

    /// [B-32]
    #[test]
    fn everything_that_is_wrong_with_a_file_is_told_at_once_by_field_and_rule() {
        let text = format!(
            "currency: usd\ncards:\n- {{model: a, cost: {{input: -1, cached_input: 1, cache_write: x, output: 0.0000001}}}}\n\
             - {{model: b, organization: me, cost: {RATES}, fixed_price: 1, markup_percent: 1}}\n- {{model: c, cost: {RATES}}}\n- {{model: c, cost: {RATES}}}\n"
        );
        assert_eq!(
            told(&text),
            [
                "currency must be a supported ISO 4217 currency code",
                "a.cost.input must not be negative",
                "a.cost.cache_write must be a decimal number",
                "a.cost.output must have at most 6 digits behind the point",
                "a.cost.reasoning must be given, 0 if it is free",
                "b.organization must be an id of the form org_ followed by 32 hexadecimal digits",
                "b must have one of price, markup_percent and fixed_price",
                "c must be listed once for each organization",
            ]
        );
    }

    /// [B-32] Its usage could be admitted, and never be posted.
    #[test]
    fn what_has_a_price_has_a_cost_for_prompts_of_every_size() {
        let heard = RATES.replace('}', ", audio_input: 40, audio_output: 80, cache_write_1h: 5}");
        let dearer = format!("above: [{{tokens: 1000, rates: {RATES}}}]");
        let with = |cost: &str, price: &str| parse(&format!("cards:\n- {{model: a, cost: {cost}, price: {price}}}\n"), 0);
        let audio = ["audio_input", "audio_output"]
            .map(|name| format!("a.cost.{name} must be given, and be 0 where it costs nothing: it has a price"));
        let told = |cost: &str, price: &str| with(cost, price).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(told(RATES, &heard), audio);
        let tiered = heard.replace('}', &format!(", {dearer}}}"));
        assert_eq!(told(&tiered, &heard), audio, "above a thousand tokens it has none");
        assert!(with(&heard, &tiered).is_ok() && with(&heard, RATES).is_ok(), "what has no price is not sold");
        let fixed = |cost: &str| parse(&format!("cards:\n- {{model: a, cost: {cost}, fixed_price: 1}}\n"), 0);
        assert!(fixed(&heard).is_ok() && fixed(RATES).is_ok());
        assert_eq!(fixed(&tiered).unwrap_err().len(), 2);
    }

    #[test]
    fn a_field_that_is_not_known_is_refused() {
        assert!(told("cards: []\ncard: []\n")[0].contains("card"), "{:?}", told("cards: []\ncard: []\n"));
        let misspelt = format!("cards:\n- {{model: a, cost: {}}}\n", RATES.replace("cached_input", "cache_input"));
        assert!(parse(&misspelt, 0).is_err());
        let extra = format!("cards:\n- {{model: a, cost: {}}}\n", RATES.replace('}', ", imput: 3}"));
        assert!(parse(&extra, 0).is_err(), "an unknown dimension was ignored");
    }

    proptest! {
        #[test]
        fn reading_a_file_never_panics(text in r#"[\[\]{}'&*!|>",:a-z\n_0-9.-]{0,80}"#) {
            let _ = parse(&text, 0);
        }
    }
}
