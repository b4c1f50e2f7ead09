//! Rate cards: the rates of one model, by the size of the prompt, to the customer and to us.

use serde::{Deserialize, Serialize};

use crate::currency::Currency;
use crate::rates::{Audio, PriceError, Rates};
use crate::usage::TokenUsage;

/// Rates that hold for prompts of more than so many tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// Prompts with more tokens than this (cached, written and audio ones included) are in the tier.
    pub above_input_tokens: u64,
    /// Its rates, for the whole request.
    pub rates: Rates,
}

/// The rates of a model by the size of the prompt: the base, and tiers for long contexts. The whole request is priced by the one
/// tier that its prompt reaches, as providers do it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Rates of prompts below all tiers.
    pub base: Rates,
    /// Tiers by rising threshold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<Tier>,
}

/// What a request can come to at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ceiling {
    /// Prompt tokens of all kinds.
    pub input_tokens: u64,
    /// Generated tokens of all kinds.
    pub output_tokens: u64,
    /// Where some of them may be audio.
    pub audio: Audio,
    /// Images paid by the piece.
    pub images: u64,
}

impl From<Rates> for Schedule {
    fn from(base: Rates) -> Self {
        Self { base, tiers: Vec::new() }
    }
}

impl Schedule {
    /// The rates that a prompt of this size has.
    #[must_use]
    pub fn rates_for(&self, input_tokens: u64) -> &Rates {
        self.tiers.iter().rev().find(|tier| input_tokens > tier.above_input_tokens).map_or(&self.base, |tier| &tier.rates)
    }

    /// The amount for this usage in micro-units, rounded up once, at the end [B-29, B-30].
    ///
    /// # Errors
    /// [`PriceError`].
    pub fn amount(&self, usage: &TokenUsage) -> Result<i64, PriceError> {
        self.rates_for(usage.total_input()).amount(usage)
    }

    /// The most that any usage within these totals can come to, in whichever tier it ends.
    ///
    /// # Errors
    /// [`PriceError`]; [`PriceError::NoRate`] when images are asked for and have no rate.
    pub fn upper_bound(&self, ceiling: Ceiling) -> Result<i64, PriceError> {
        let reached = self.tiers.iter().filter(|tier| ceiling.input_tokens > tier.above_input_tokens).map(|tier| &tier.rates);
        std::iter::once(&self.base).chain(reached).try_fold(0, |most, rates| {
            let amount = rates.amount_at_dearest(ceiling.input_tokens, ceiling.output_tokens, ceiling.audio, ceiling.images)?;
            Ok(most.max(amount))
        })
    }

    /// Whether audio has a price at all. Without one it is not free but not for sale.
    #[must_use]
    pub const fn has_audio(&self) -> bool {
        self.base.has_audio()
    }

    /// Whether audio has a rate wherever it may occur, in each tier that a prompt of so many tokens can end in.
    #[must_use]
    pub fn prices(&self, audio: Audio, input_tokens: u64) -> bool {
        let mut reached = self.tiers.iter().filter(|tier| input_tokens > tier.above_input_tokens);
        self.base.prices(audio) && reached.all(|tier| tier.rates.prices(audio))
    }

    /// Whether images have a rate by the piece, in each tier that a prompt of so many tokens can end in; without one they are paid by the
    /// tokens that they count.
    #[must_use]
    pub fn prices_images(&self, input_tokens: u64) -> bool {
        let mut reached = self.tiers.iter().filter(|tier| input_tokens > tier.above_input_tokens);
        self.base.image.is_some() && reached.all(|tier| tier.rates.image.is_some())
    }

    /// This schedule with `basis_points` on top of each rate.
    ///
    /// # Errors
    /// [`PriceError`].
    pub fn marked_up(&self, basis_points: i64) -> Result<Self, PriceError> {
        let tier = |tier: &Tier| Ok(Tier { rates: tier.rates.marked_up(basis_points)?, ..*tier });
        Ok(Self { base: self.base.marked_up(basis_points)?, tiers: self.tiers.iter().map(tier).collect::<Result<_, _>>()? })
    }
}

/// The rates of one model from one instant to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateCard {
    /// The currency of both.
    pub currency: Currency,
    /// What the customer pays.
    pub price: Schedule,
    /// What the provider takes from us [B-33].
    pub cost: Schedule,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rates::tests::{rates, usage};

    fn schedule() -> impl Strategy<Value = Schedule> {
        let tiers = proptest::collection::btree_map(0..1_000_000_u64, rates(), 0..3);
        (rates(), tiers).prop_map(|(base, tiers)| Schedule {
            base,
            tiers: tiers.into_iter().map(|(above_input_tokens, rates)| Tier { above_input_tokens, rates }).collect(),
        })
    }

    proptest! {
        /// What is reserved always covers what is settled, however the totals split and in whichever tier they end.
        #[test]
        fn the_upper_bound_covers_every_usage_within_the_totals(schedule in schedule(), hears: bool, speaks: bool, seed in usage(true), fewer in 0..1_000_u64) {
            let (heard, spoken) = (u64::from(hears) * seed.audio_input_tokens, u64::from(speaks) * seed.audio_output_tokens);
            let usage = TokenUsage { audio_input_tokens: heard, audio_output_tokens: spoken, ..seed };
            let audio = Audio { input: hears, output: speaks };
            let ceiling = Ceiling { input_tokens: usage.total_input() + fewer, output_tokens: usage.total_output() + fewer, audio, images: usage.images };
            prop_assert!(schedule.amount(&usage).unwrap() <= schedule.upper_bound(ceiling).unwrap());
        }
    }

    fn tokens(input_tokens: u64, output_tokens: u64) -> Ceiling {
        Ceiling { input_tokens, output_tokens, ..Ceiling::default() }
    }

    /// The threshold itself is in the lower tier: "above 200k" begins at 200,001.
    #[test]
    fn a_prompt_is_priced_by_the_tier_it_is_above_of_and_cached_tokens_count_for_its_size() {
        let rate = |input| Rates { input, output: input, cached_input: input, ..Rates::default() };
        let tier = |above_input_tokens, input| Tier { above_input_tokens, rates: rate(input) };
        let schedule = Schedule { base: rate(1_000_000), tiers: vec![tier(128_000, 2_000_000), tier(200_000, 3_000_000)] };
        let price = |input, cached| schedule.amount(&TokenUsage { cached_input_tokens: cached, ..TokenUsage::text(input, 10) }).unwrap();
        assert_eq!(price(128_000, 0), 128_010);
        assert_eq!(price(128_001, 0), 2 * 128_011);
        assert_eq!(price(200_000, 0), 2 * 200_010);
        assert_eq!(price(1, 200_000), 3 * 200_011);
        assert_eq!(schedule.upper_bound(tokens(128_000, 10)).unwrap(), 128_010);
        assert_eq!(schedule.upper_bound(tokens(200_001, 10)).unwrap(), 3 * 200_011);
    }

    /// [B-32]
    #[test]
    fn audio_and_images_need_their_rate_in_every_tier_that_can_be_reached() {
        let hears = Rates { audio_input: Some(1), ..Rates::default() };
        let schedule = Schedule { base: hears, tiers: vec![Tier { above_input_tokens: 10, rates: Rates::default() }] };
        let audio = Audio { input: true, output: false };
        assert_eq!([10, 11].map(|tokens| schedule.prices(audio, tokens)), [true, false]);
        assert!(schedule.prices(Audio::NONE, 11));
        let drawn = Rates { image: Some(1), ..Rates::default() };
        let schedule = Schedule { base: drawn, tiers: vec![Tier { above_input_tokens: 10, rates: Rates::default() }] };
        assert_eq!([10, 11].map(|tokens| schedule.prices_images(tokens)), [true, false]);
    }

    /// A long context that is cheaper must not make the hold of a long prompt too small for a short one.
    #[test]
    fn the_bound_is_that_of_the_dearest_tier_that_can_be_reached() {
        let rate = |input| Rates { input, ..Rates::default() };
        let schedule = Schedule { base: rate(5_000_000), tiers: vec![Tier { above_input_tokens: 10, rates: rate(1_000_000) }] };
        assert_eq!(schedule.upper_bound(tokens(100, 0)).unwrap(), 500);
    }

    /// [B-26]
    #[test]
    fn no_floating_point_type_is_in_this_crate() {
        let sources = [
            include_str!("rate_card.rs"),
            include_str!("rates.rs"),
            include_str!("currency.rs"),
            include_str!("decimal.rs"),
            include_str!("split.rs"),
            include_str!("usage.rs"),
            include_str!("lib.rs"),
        ];
        for source in sources {
            for kind in ["32", "64"] {
                assert!(!source.contains(&format!("f{kind}")), "floating point in the money path");
            }
        }
    }
}
