//! Rate cards: what a million tokens of each kind cost, to the customer and to us.

use serde::{Deserialize, Serialize};

use crate::currency::Currency;
use crate::usage::TokenUsage;

const PER: i128 = 1_000_000;

/// Micro-units for a million tokens, one rate for each dimension; all are explicit, zero included [B-32].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Prompt tokens.
    pub input: i64,
    /// Prompt tokens read from the cache.
    pub cached_input: i64,
    /// Prompt tokens written to the cache.
    pub cache_write: i64,
    /// Generated tokens.
    pub output: i64,
    /// Hidden reasoning tokens.
    pub reasoning: i64,
    /// Audio tokens of the prompt.
    pub audio_input: i64,
    /// Generated audio tokens.
    pub audio_output: i64,
}

/// Why usage has no price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// The amount does not fit.
    #[error("the price does not fit into 64 bits")]
    Overflow,
    /// A rate is below zero: it would pay the customer.
    #[error("a rate is negative")]
    NegativeRate,
}

impl Rates {
    fn each(&self, usage: &TokenUsage) -> [(i64, u64); 7] {
        [
            (self.input, usage.input_tokens),
            (self.cached_input, usage.cached_input_tokens),
            (self.cache_write, usage.cache_write_tokens),
            (self.output, usage.output_tokens),
            (self.reasoning, usage.reasoning_tokens),
            (self.audio_input, usage.audio_input_tokens),
            (self.audio_output, usage.audio_output_tokens),
        ]
    }

    /// The amount for this usage in micro-units, rounded up once, at the end [B-29, B-30].
    ///
    /// # Errors
    /// [`PriceError`].
    pub fn amount(&self, usage: &TokenUsage) -> Result<i64, PriceError> {
        let mut total: i128 = 0;
        for (rate, tokens) in self.each(usage) {
            if rate < 0 {
                return Err(PriceError::NegativeRate);
            }
            let product = i128::from(rate).checked_mul(i128::from(tokens)).ok_or(PriceError::Overflow)?;
            total = total.checked_add(product).ok_or(PriceError::Overflow)?;
        }
        let micros = total.checked_add(PER - 1).ok_or(PriceError::Overflow)? / PER;
        i64::try_from(micros).map_err(|_| PriceError::Overflow)
    }

    /// The most that any split of these totals over the dimensions can come to. Audio counts only where it can occur: it costs many
    /// times what text does, and a hold as high would keep customers from text that they can pay.
    ///
    /// # Errors
    /// [`PriceError`].
    pub fn upper_bound(&self, input_tokens: u64, output_tokens: u64, audio: bool) -> Result<i64, PriceError> {
        let (audio_input, audio_output) = if audio { (self.audio_input, self.audio_output) } else { (0, 0) };
        let input = self.input.max(self.cached_input).max(self.cache_write).max(audio_input);
        let output = self.output.max(self.reasoning).max(audio_output);
        let dearest = Self { input, output, ..*self };
        dearest.amount(&TokenUsage::text(input_tokens, output_tokens))
    }

    /// Whether audio has a price at all. Without one it is not free but not for sale.
    #[must_use]
    pub const fn has_audio(&self) -> bool {
        self.audio_input > 0 || self.audio_output > 0
    }
}

/// The rates of one model from one instant to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateCard {
    /// The currency of both.
    pub currency: Currency,
    /// What the customer pays.
    pub price: Rates,
    /// What the provider takes from us [B-33].
    pub cost: Rates,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rates() -> impl Strategy<Value = Rates> {
        proptest::array::uniform7(0..100_000_000_i64).prop_map(
            |[input, cached_input, cache_write, output, reasoning, audio_input, audio_output]| Rates {
                input,
                cached_input,
                cache_write,
                output,
                reasoning,
                audio_input,
                audio_output,
            },
        )
    }

    proptest! {
        /// What is reserved always covers what is settled, however the totals split.
        #[test]
        fn the_upper_bound_covers_every_split_of_the_totals(rates in rates(), tokens in proptest::array::uniform7(0..1_000_000_u64), audio: bool) {
            let [input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, audio_input, audio_output] = tokens;
            let (audio_input_tokens, audio_output_tokens) = if audio { (audio_input, audio_output) } else { (0, 0) };
            let usage = TokenUsage { input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens,
                audio_input_tokens, audio_output_tokens };
            let bound = rates.upper_bound(usage.total_input(), usage.total_output(), audio).unwrap();
            prop_assert!(rates.amount(&usage).unwrap() <= bound);
        }

        /// Text is never held at the price of audio.
        #[test]
        fn audio_rates_are_no_part_of_the_bound_of_a_request_without_audio(rates in rates(), input in 0..1_000_000_u64, output in 0..1_000_000_u64) {
            let silent = Rates { audio_input: 0, audio_output: 0, ..rates };
            prop_assert_eq!(rates.upper_bound(input, output, false), silent.upper_bound(input, output, true));
            prop_assert!(!silent.has_audio());
        }

        /// [B-29] Splitting usage never makes it cheaper, and at most one micro dearer for each part.
        #[test]
        fn rounding_once_per_posting_stays_within_a_micro_of_the_whole(rates in rates(), a in 0..1_000_000_u64, b in 0..1_000_000_u64) {
            let whole = rates.amount(&TokenUsage::text(a + b, 0)).unwrap();
            let parts = rates.amount(&TokenUsage::text(a, 0)).unwrap() + rates.amount(&TokenUsage::text(b, 0)).unwrap();
            prop_assert!(whole <= parts && parts <= whole + 1);
        }
    }

    fn flat(rate: i64) -> Rates {
        Rates { input: rate, cached_input: rate, cache_write: rate, output: rate, reasoning: rate, audio_input: rate, audio_output: rate }
    }

    /// [B-30]
    #[test]
    fn products_are_wide_and_what_does_not_fit_is_an_error() {
        assert_eq!(flat(3_000_000).amount(&TokenUsage::text(1_000_000_000_000, 0)), Ok(3_000_000_000_000));
        assert_eq!(flat(i64::MAX).amount(&TokenUsage::text(u64::MAX, u64::MAX)), Err(PriceError::Overflow));
    }

    /// [B-32]
    #[test]
    fn every_dimension_has_its_own_rate_and_a_negative_one_is_refused() {
        let rates = Rates {
            input: 1,
            cached_input: 10,
            cache_write: 100,
            output: 1_000,
            reasoning: 10_000,
            audio_input: 100_000,
            audio_output: 1_000_000,
        };
        let one = 1_000_000;
        let usage = TokenUsage {
            input_tokens: one,
            cached_input_tokens: one,
            cache_write_tokens: one,
            output_tokens: one,
            reasoning_tokens: one,
            audio_input_tokens: one,
            audio_output_tokens: one,
        };
        assert_eq!(rates.amount(&usage), Ok(1_111_111));
        assert_eq!(Rates { output: -1, ..rates }.amount(&usage), Err(PriceError::NegativeRate));
    }

    /// [B-26]
    #[test]
    fn no_floating_point_type_is_in_this_crate() {
        for source in [include_str!("rate_card.rs"), include_str!("currency.rs"), include_str!("usage.rs"), include_str!("lib.rs")] {
            for kind in ["32", "64"] {
                assert!(!source.contains(&format!("f{kind}")), "floating point in the money path");
            }
        }
    }
}
