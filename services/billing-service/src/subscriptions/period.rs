//! Billing periods: calendar months and years, in UTC, half-open. Each boundary is counted from the anchor and not from the boundary
//! before it, so that a month end that was clamped does not drift: 31 January, 28 February, 31 March [B-60].

use chrono::{DateTime, Months, Utc};
use serde::{Deserialize, Serialize};

use crate::catalog::Interval;

/// From `start` up to and without `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Period {
    /// The first instant in it.
    pub start: DateTime<Utc>,
    /// The first instant after it.
    pub end: DateTime<Utc>,
}

impl Period {
    /// The `number`th period of an anchor, from zero. A date beyond what can be counted is the last that can.
    #[must_use]
    pub fn nth(anchor: DateTime<Utc>, interval: Interval, number: u32) -> Self {
        Self { start: boundary(anchor, interval, number), end: boundary(anchor, interval, number.saturating_add(1)) }
    }

    /// Whether the instant is in it.
    #[must_use]
    pub fn contains(&self, instant: DateTime<Utc>) -> bool {
        self.start <= instant && instant < self.end
    }

    /// Whole seconds of it before and after an instant. Both are at least zero, and together they are all of it.
    #[must_use]
    pub fn split_at(&self, instant: DateTime<Utc>) -> (u64, u64) {
        let seconds = |from: DateTime<Utc>, to: DateTime<Utc>| u64::try_from((to - from).num_seconds()).unwrap_or(0);
        let (all, used) = (seconds(self.start, self.end), seconds(self.start, instant));
        (used.min(all), all - used.min(all))
    }
}

/// The `number`th boundary of an anchor: so many months or years later, on the same day or the last one of a shorter month.
fn boundary(anchor: DateTime<Utc>, interval: Interval, number: u32) -> DateTime<Utc> {
    let months = match interval {
        Interval::Month => number,
        Interval::Year => number.saturating_mul(12),
    };
    anchor.checked_add_months(Months::new(months)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use chrono::{Datelike, TimeDelta};
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn starts(anchor: &str, interval: Interval, count: u32) -> Vec<String> {
        (0..count).map(|number| Period::nth(at(anchor), interval, number).start.format("%Y-%m-%d").to_string()).collect()
    }

    /// [B-60]
    #[test]
    fn an_anchor_at_the_end_of_a_month_is_clamped_and_does_not_drift() {
        let months = starts("2026-01-31T10:00:00Z", Interval::Month, 5);
        assert_eq!(months, ["2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31"]);
        assert_eq!(starts("2027-12-30T00:00:00Z", Interval::Month, 4), ["2027-12-30", "2028-01-30", "2028-02-29", "2028-03-30"]);
    }

    /// [B-60] [B2]
    #[test]
    fn a_leap_day_comes_back_every_fourth_year() {
        let years = starts("2024-02-29T00:00:00Z", Interval::Year, 5);
        assert_eq!(years, ["2024-02-29", "2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"]);
    }

    proptest! {
        /// [B-60] [B2]
        #[test]
        fn for_any_anchor_every_instant_of_24_months_is_in_exactly_one_period(seconds in 0_i64..4_000_000_000, probe in 0_i64..63_000_000, yearly: bool) {
            let anchor = DateTime::from_timestamp(seconds, 0).unwrap();
            let interval = if yearly { Interval::Year } else { Interval::Month };
            let periods: Vec<Period> = (0..25).map(|number| Period::nth(anchor, interval, number)).collect();
            prop_assert_eq!(periods[0].start, anchor);
            for (number, pair) in (0_u32..).zip(periods.windows(2)) {
                prop_assert!(pair[0].start < pair[0].end);
                prop_assert_eq!(pair[0].end, pair[1].start, "no gap and no overlap");
                prop_assert!(pair[0].start.day() == anchor.day() || pair[0].start.day() < anchor.day() && (pair[0].start + TimeDelta::days(1)).day() == 1);
                prop_assert_eq!(Period::nth(anchor, interval, number), pair[0]);
            }
            let probe = anchor + TimeDelta::seconds(probe);
            prop_assert_eq!(periods.iter().filter(|period| period.contains(probe)).count(), 1);
        }

        #[test]
        fn the_parts_of_a_period_are_all_of_it(seconds in 0_i64..4_000_000_000, into in -10_i64..40_000_000) {
            let period = Period::nth(DateTime::from_timestamp(seconds, 0).unwrap(), Interval::Month, 3);
            let (used, left) = period.split_at(period.start + TimeDelta::seconds(into));
            prop_assert_eq!(i64::try_from(used + left).unwrap(), (period.end - period.start).num_seconds());
        }
    }
}
