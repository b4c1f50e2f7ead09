//! What can be asked of the simulator beside an answer.
//!
//! Each knob is a flag at the start (`--pace-ms 20`), a field of `POST /knobs` (`{"pace_ms":20}`) and a header of a request
//! (`x-sim-pace-ms: 20`); a header counts for its request alone.

use axum::http::HeaderMap;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

const PREFIX: &str = "x-sim-";

/// How and when usage is told in streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[clap(rename_all = "snake_case")]
pub enum UsageFrames {
    /// As `OpenAI` does: null in each frame and the count in a last one, if `include_usage` asks for it.
    #[default]
    NullFirst,
    /// The count in a last frame if `include_usage` asks for it, and no field before.
    On,
    /// As [`UsageFrames::On`], and a count of no output in each frame before.
    ZeroFirst,
    /// Never, not in whole answers either.
    Off,
}

/// What a request gets. The defaults are a provider without faults and without delays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(default, deny_unknown_fields)]
pub struct Knobs {
    /// Milliseconds before the first byte of an answer.
    #[arg(long, default_value_t = 0)]
    pub ttfb_ms: u64,
    /// Milliseconds between the frames of a stream.
    #[arg(long, default_value_t = 0)]
    pub pace_ms: u64,
    /// Tokens in each frame of a stream; at least one.
    #[arg(long, default_value_t = 1)]
    pub tokens_per_frame: u64,
    /// Tokens that the prompt is said to have; counted by default.
    #[arg(long)]
    pub input_tokens: Option<u64>,
    /// Tokens of each answer, unless the request or the model allows fewer.
    #[arg(long, default_value_t = 16)]
    pub output_tokens: u64,
    /// How and when usage is told.
    #[arg(long, value_enum, default_value_t)]
    pub usage: UsageFrames,
    /// Of a hundred requests, how many fail before any answer.
    #[arg(long, default_value_t = 0)]
    pub error_percent: u64,
    /// The status of those.
    #[arg(long, default_value_t = 500)]
    pub error_status: u16,
    /// Of a hundred requests, how many get a 429.
    #[arg(long, default_value_t = 0)]
    pub limit_percent: u64,
    /// The 429's Retry-After, in seconds.
    #[arg(long, default_value_t = 1)]
    pub retry_after_s: u64,
    /// Never answer: the connection stays open and silent.
    #[arg(long)]
    pub hang: bool,
    /// Fall silent after so many tokens of an answer; whole answers, in the middle.
    #[arg(long)]
    pub hang_after: Option<u64>,
    /// Reset the connection after so many tokens of an answer; whole answers, in the middle.
    #[arg(long)]
    pub cut_after: Option<u64>,
    /// End a stream after so many tokens with an error; whole answers are refused with `error_status`.
    #[arg(long)]
    pub error_after: Option<u64>,
    /// Of a hundred requests, how many hang, are cut or end with an error, where one of these is asked for.
    #[arg(long, default_value_t = 100)]
    pub fault_percent: u64,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            ttfb_ms: 0,
            pace_ms: 0,
            tokens_per_frame: 1,
            input_tokens: None,
            output_tokens: 16,
            usage: UsageFrames::default(),
            error_percent: 0,
            error_status: 500,
            limit_percent: 0,
            retry_after_s: 1,
            hang: false,
            hang_after: None,
            cut_after: None,
            error_after: None,
            fault_percent: 100,
        }
    }
}

impl Knobs {
    /// These knobs, turned by a request's headers.
    ///
    /// # Errors
    /// Says which header cannot be understood.
    pub(crate) fn turned_by(&self, headers: &HeaderMap) -> Result<Self, String> {
        let mut turned = headers.iter().filter_map(|(name, value)| Some((name.as_str().strip_prefix(PREFIX)?, value))).peekable();
        if turned.peek().is_none() {
            return Ok(self.clone());
        }
        let mut fields: Map<String, Value> =
            serde_json::to_value(self).and_then(serde_json::from_value).map_err(|error| error.to_string())?;
        for (name, value) in turned {
            let text = value.to_str().map_err(|_| format!("{PREFIX}{name} is no text"))?;
            let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
            fields.insert(name.replace('-', "_"), value);
        }
        serde_json::from_value(fields.into()).map_err(|error| format!("{PREFIX}*: {error}"))
    }

    /// These knobs for the request of this number (from 0): those that fall on a share of the requests are decided. No chance is
    /// involved, so that a run can be repeated and a share is exact.
    pub(crate) fn for_request(mut self, number: u64) -> Self {
        if !falls_on(number, self.fault_percent) {
            self.hang = false;
            self.hang_after = None;
            self.cut_after = None;
            self.error_after = None;
        }
        self.error_percent = if falls_on(number, self.error_percent) { 100 } else { 0 };
        self.limit_percent = if falls_on(number, self.limit_percent) { 100 } else { 0 };
        self.tokens_per_frame = self.tokens_per_frame.max(1);
        self
    }
}

/// Spreads `percent` of all numbers evenly.
const fn falls_on(number: u64, percent: u64) -> bool {
    let percent = if percent > 100 { 100 } else { percent };
    let place = number % 100;
    (place + 1) * percent / 100 > place * percent / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn headers_turn_the_knobs_they_name_and_no_others() {
        let base = Knobs { pace_ms: 7, cut_after: Some(3), ..Knobs::default() };
        let turned = base
            .turned_by(&headers(&[
                ("x-sim-output-tokens", "5"),
                ("x-sim-usage", "zero_first"),
                ("x-sim-cut-after", "null"),
                ("accept", "*/*"),
            ]))
            .unwrap();
        assert_eq!(turned, Knobs { output_tokens: 5, usage: UsageFrames::ZeroFirst, cut_after: None, ..base });
    }

    #[test]
    fn headers_that_cannot_be_understood_are_refused() {
        assert!(Knobs::default().turned_by(&headers(&[("x-sim-pace", "5")])).is_err());
        assert!(Knobs::default().turned_by(&headers(&[("x-sim-pace-ms", "slow")])).is_err());
    }

    proptest::proptest! {
        #[test]
        fn a_share_of_requests_is_exact(percent in 0_u64..=100, from in 0_u64..10_000) {
            let hit = (from..from + 100).filter(|number| falls_on(*number, percent)).count() as u64;
            proptest::prop_assert_eq!(hit, percent);
        }
    }
}
