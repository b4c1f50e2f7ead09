//! Rates: what a million units of each dimension cost.

use serde::{Deserialize, Serialize};

use crate::decimal::Decimal;
use crate::usage::TokenUsage;

const PER: i128 = 1_000_000;
const BASIS_POINTS: i128 = 10_000;

/// Micro-units for a million units, one rate for each dimension. None is silent: a rate is a number, zero included, or it is
/// absent, and then usage of that dimension has no price and is an error [B-32]; only what is written to a cache for an hour is written to a
/// cache all the same, where an hour has no rate of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Prompt tokens.
    pub input: i64,
    /// Prompt tokens read from the cache.
    pub cached_input: i64,
    /// Prompt tokens written to the cache for its usual time (five minutes).
    pub cache_write: i64,
    /// Prompt tokens written to the cache for an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_1h: Option<i64>,
    /// Generated tokens.
    pub output: i64,
    /// Hidden reasoning tokens.
    pub reasoning: i64,
    /// Audio tokens of the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_input: Option<i64>,
    /// Generated audio tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_output: Option<i64>,
    /// Images that are paid by the piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<i64>,
    /// The request itself, on top of all else; requests that used nothing do not pay it.
    #[serde(default)]
    pub request: i64,
}

/// Where audio may occur in a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Audio {
    /// In the prompt.
    pub input: bool,
    /// In the answer.
    pub output: bool,
}

impl Audio {
    /// Nowhere.
    pub const NONE: Self = Self { input: false, output: false };
    /// In prompt and answer, or who knows where.
    pub const BOTH: Self = Self { input: true, output: true };
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
    /// Something was used that has no rate.
    #[error("there is no rate for {0}")]
    NoRate(&'static str),
}

impl Rates {
    /// Every dimension: its name, its rate and what was used of it.
    fn each(&self, usage: &TokenUsage) -> [(&'static str, Option<i64>, u64); 10] {
        [
            ("input", Some(self.input), usage.input_tokens),
            ("cached_input", Some(self.cached_input), usage.cached_input_tokens),
            ("cache_write", Some(self.cache_write), usage.cache_write_tokens),
            ("cache_write_1h", self.cache_write_1h, usage.cache_write_1h_tokens),
            ("output", Some(self.output), usage.output_tokens),
            ("reasoning", Some(self.reasoning), usage.reasoning_tokens),
            ("audio_input", self.audio_input, usage.audio_input_tokens),
            ("audio_output", self.audio_output, usage.audio_output_tokens),
            ("image", self.image, usage.images),
            ("request", Some(self.request), u64::from(!usage.is_nothing())),
        ]
    }

    /// Every dimension by name, absent ones included, in the order of rate cards.
    #[must_use]
    pub fn named(&self) -> [(&'static str, Option<i64>); 10] {
        self.each(&TokenUsage::default()).map(|(name, rate, _)| (name, rate))
    }

    /// The amount for this usage in micro-units, rounded up once, at the end [B-29, B-30].
    ///
    /// # Errors
    /// [`PriceError`].
    pub fn amount(&self, usage: &TokenUsage) -> Result<i64, PriceError> {
        let mut total: i128 = 0;
        let rates = Self { cache_write_1h: self.cache_write_1h.or(Some(self.cache_write)), ..*self };
        for (name, rate, units) in rates.each(usage) {
            let Some(rate) = rate else {
                if units > 0 {
                    return Err(PriceError::NoRate(name));
                }
                continue;
            };
            if rate < 0 {
                return Err(PriceError::NegativeRate);
            }
            let product = i128::from(rate).checked_mul(i128::from(units)).ok_or(PriceError::Overflow)?;
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
    pub fn upper_bound(&self, input_tokens: u64, output_tokens: u64, audio: Audio) -> Result<i64, PriceError> {
        self.amount_at_dearest(input_tokens, output_tokens, audio, 0)
    }

    pub(crate) fn amount_at_dearest(&self, input_tokens: u64, output_tokens: u64, audio: Audio, images: u64) -> Result<i64, PriceError> {
        let heard = |may: bool, rate: Option<i64>| if may { rate.unwrap_or(0) } else { 0 };
        let written = self.cache_write.max(self.cache_write_1h.unwrap_or(0));
        let input = self.input.max(self.cached_input).max(written).max(heard(audio.input, self.audio_input));
        let output = self.output.max(self.reasoning).max(heard(audio.output, self.audio_output));
        let usage = TokenUsage { images, ..TokenUsage::text(input_tokens, output_tokens) };
        Self { input, output, ..*self }.amount(&usage)
    }

    /// Whether audio has a price at all. Without one it is not free but not for sale.
    #[must_use]
    pub const fn has_audio(&self) -> bool {
        self.audio_input.is_some() || self.audio_output.is_some()
    }

    /// Whether audio has a rate wherever it may occur.
    #[must_use]
    pub const fn prices(&self, audio: Audio) -> bool {
        (!audio.input || self.audio_input.is_some()) && (!audio.output || self.audio_output.is_some())
    }

    /// These rates with `basis_points` (hundredths of a percent) on top, each rounded up: nothing becomes free.
    ///
    /// # Errors
    /// [`PriceError::Overflow`]; [`PriceError::NegativeRate`] for a markup below zero.
    pub fn marked_up(&self, basis_points: i64) -> Result<Self, PriceError> {
        if basis_points < 0 {
            return Err(PriceError::NegativeRate);
        }
        let mark = |rate: i64| {
            let product = i128::from(rate) * (BASIS_POINTS + i128::from(basis_points));
            i64::try_from((product + BASIS_POINTS - 1) / BASIS_POINTS).map_err(|_| PriceError::Overflow)
        };
        let mark_if = |rate: Option<i64>| rate.map(mark).transpose();
        Ok(Self {
            input: mark(self.input)?,
            cached_input: mark(self.cached_input)?,
            cache_write: mark(self.cache_write)?,
            cache_write_1h: mark_if(self.cache_write_1h)?,
            output: mark(self.output)?,
            reasoning: mark(self.reasoning)?,
            audio_input: mark_if(self.audio_input)?,
            audio_output: mark_if(self.audio_output)?,
            image: mark_if(self.image)?,
            request: mark(self.request)?,
        })
    }

    /// A price of one unit, in units of the currency, as a rate: micro-units for a million.
    ///
    /// # Errors
    /// [`PriceError::Overflow`].
    pub fn rate_of(price_of_one: Decimal) -> Result<i64, PriceError> {
        // Twelve digits further: 10^-12 of a unit for one is one micro-unit for a million.
        i64::try_from(price_of_one.scaled()).map_err(|_| PriceError::Overflow)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn rates() -> impl Strategy<Value = Rates> {
        let hour = proptest::option::of(0..100_000_000_i64);
        (proptest::array::uniform9(0..100_000_000_i64), hour).prop_map(
            |([input, cached_input, cache_write, output, reasoning, audio_input, audio_output, image, request], cache_write_1h)| Rates {
                input,
                cached_input,
                cache_write,
                cache_write_1h,
                output,
                reasoning,
                audio_input: Some(audio_input),
                audio_output: Some(audio_output),
                image: Some(image),
                request,
            },
        )
    }

    pub(crate) fn usage(audio: bool) -> impl Strategy<Value = TokenUsage> {
        proptest::array::uniform9(0..300_000_u64).prop_map(
            move |[input, cached, write, hour, output, reasoning, audio_in, audio_out, images]| TokenUsage {
                input_tokens: input,
                cached_input_tokens: cached,
                cache_write_tokens: write,
                cache_write_1h_tokens: hour,
                output_tokens: output,
                reasoning_tokens: reasoning,
                audio_input_tokens: if audio { audio_in } else { 0 },
                audio_output_tokens: if audio { audio_out } else { 0 },
                images,
            },
        )
    }

    proptest! {
        /// Text is never held at the price of audio.
        #[test]
        fn audio_rates_are_no_part_of_the_bound_of_a_request_without_audio(rates in rates(), input in 0..1_000_000_u64, output in 0..1_000_000_u64) {
            let silent = Rates { audio_input: None, audio_output: None, ..rates };
            prop_assert_eq!(rates.upper_bound(input, output, Audio::NONE), silent.upper_bound(input, output, Audio::BOTH));
            prop_assert!(!silent.has_audio() && rates.has_audio());
        }

        /// [B-29] Splitting usage never makes it cheaper, and at most one micro dearer for each part.
        #[test]
        fn rounding_once_per_posting_stays_within_a_micro_of_the_whole(rates in rates(), a in 0..1_000_000_u64, b in 0..1_000_000_u64) {
            let rates = Rates { request: 0, ..rates };
            let whole = rates.amount(&TokenUsage::text(a + b, 0)).unwrap();
            let parts = rates.amount(&TokenUsage::text(a, 0)).unwrap() + rates.amount(&TokenUsage::text(b, 0)).unwrap();
            prop_assert!(whole <= parts && parts <= whole + 1);
        }

        #[test]
        fn a_markup_makes_nothing_cheaper_and_no_rate_more_than_a_micro_for_a_million_dearer_than_it_says(rates in rates(), markup in 0..100_000_i64) {
            let marked = rates.marked_up(markup).unwrap();
            for ((_, cost), (_, price)) in rates.named().into_iter().zip(marked.named()) {
                prop_assert_eq!(cost.is_some(), price.is_some());
                let (cost, price) = (i128::from(cost.unwrap_or(0)), i128::from(price.unwrap_or(0)));
                let exact = cost * (10_000 + i128::from(markup));
                prop_assert!(price * 10_000 >= exact && (price - 1) * 10_000 < exact);
            }
        }
    }

    fn flat(rate: i64) -> Rates {
        Rates { input: rate, cached_input: rate, cache_write: rate, output: rate, reasoning: rate, ..Rates::default() }
    }

    /// [B-30]
    #[test]
    fn products_are_wide_and_what_does_not_fit_is_an_error() {
        assert_eq!(flat(3_000_000).amount(&TokenUsage::text(1_000_000_000_000, 0)), Ok(3_000_000_000_000));
        assert_eq!(flat(i64::MAX).amount(&TokenUsage::text(u64::MAX, u64::MAX)), Err(PriceError::Overflow));
        assert_eq!(flat(i64::MAX).marked_up(1), Err(PriceError::Overflow));
    }

    /// [B-32]
    #[test]
    fn every_dimension_has_its_own_rate_and_a_negative_one_is_refused() {
        let rates = Rates {
            input: 1,
            cached_input: 10,
            cache_write: 100,
            cache_write_1h: Some(1_000),
            output: 10_000,
            reasoning: 100_000,
            audio_input: Some(1_000_000),
            audio_output: Some(10_000_000),
            image: Some(100_000_000),
            request: 1_000_000_000_000_000,
        };
        let one = 1_000_000;
        let usage = TokenUsage {
            input_tokens: one,
            cached_input_tokens: one,
            cache_write_tokens: one,
            cache_write_1h_tokens: one,
            output_tokens: one,
            reasoning_tokens: one,
            audio_input_tokens: one,
            audio_output_tokens: one,
            images: one,
        };
        assert_eq!(rates.amount(&usage), Ok(1_111_111_111));
        assert_eq!(rates.amount(&TokenUsage::default()), Ok(0), "a request that used nothing paid its fee");
        assert_eq!(Rates { output: -1, ..rates }.amount(&usage), Err(PriceError::NegativeRate));
    }

    /// [B-32] A rate for one direction is none for the other.
    #[test]
    fn audio_is_priced_where_it_may_occur_and_bounded_by_the_rate_of_its_own_direction() {
        let hears = Rates { audio_input: Some(9_000_000), ..flat(1_000_000) };
        let audio = |input, output| Audio { input, output };
        for (asked, is_priced) in [(Audio::NONE, true), (audio(true, false), true), (audio(false, true), false), (Audio::BOTH, false)] {
            assert_eq!(hears.prices(asked), is_priced, "{asked:?}");
        }
        let speaks = Rates { audio_output: Some(20_000_000), ..hears };
        assert!(speaks.prices(Audio::BOTH));
        let bound = |asked| speaks.upper_bound(10, 10, asked).unwrap();
        assert_eq!([Audio::NONE, audio(true, false), audio(false, true), Audio::BOTH].map(bound), [20, 100, 210, 290]);
    }

    #[test]
    fn what_stays_in_a_cache_for_an_hour_has_the_rate_of_what_is_written_to_a_cache_where_an_hour_has_none() {
        let usage = TokenUsage { cache_write_tokens: 4, cache_write_1h_tokens: 5, ..TokenUsage::default() };
        let rates = flat(1_000_000);
        assert_eq!((rates.amount(&usage), Rates { cache_write_1h: Some(2_000_000), ..rates }.amount(&usage)), (Ok(9), Ok(14)));
        let dear = Rates { cache_write: 3_000_000, ..rates };
        assert_eq!((dear.amount(&usage), dear.upper_bound(9, 0, Audio::NONE)), (Ok(27), Ok(27)), "a hold covers it");
    }

    /// [B-32]
    #[test]
    fn usage_of_a_dimension_without_a_rate_is_an_error_that_names_it_and_with_the_rate_zero_it_is_free() {
        let text = flat(1_000_000);
        let cases: [(&str, TokenUsage, Rates); 3] = [
            ("audio_input", TokenUsage { audio_input_tokens: 1, ..TokenUsage::default() }, Rates { audio_input: Some(0), ..text }),
            ("audio_output", TokenUsage { audio_output_tokens: 1, ..TokenUsage::default() }, Rates { audio_output: Some(0), ..text }),
            ("image", TokenUsage { images: 1, ..TokenUsage::default() }, Rates { image: Some(0), ..text }),
        ];
        for (name, usage, free) in cases {
            assert_eq!(text.amount(&usage), Err(PriceError::NoRate(name)));
            assert_eq!(free.amount(&usage), Ok(0), "{name}");
        }
    }
}
