//! Which thresholds of a budget were crossed; pure.

use chrono::{DateTime, TimeDelta, Utc};
use contracts::entitlements::LimitPeriod;

use crate::subscriptions::period::Period;

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Threshold {
    /// So many percent of the limit are spent.
    Percent(u32),
    /// At the pace so far, the period ends beyond the limit.
    Forecast,
    /// It refused a request, which could have cost more than is left: a hard one stays below its limit by that.
    Refused,
}

impl Threshold {
    /// The text stored in the database and sent in messages.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::Percent(percent) => format!("percent:{percent}"),
            Self::Forecast => "forecast".to_owned(),
            Self::Refused => "refused".to_owned(),
        }
    }
}

/// The calendar period (UTC, half-open) that an instant is in.
#[must_use]
pub fn period_of(period: LimitPeriod, now: DateTime<Utc>) -> Period {
    let (start, end) = period.bounds(now);
    Period { start, end }
}

/// The calendar period that ends where this one begins.
#[must_use]
pub fn period_before(length: LimitPeriod, period: Period) -> Period {
    period_of(length, period.start - TimeDelta::microseconds(1))
}

/// The thresholds that are crossed, ascending. A threshold is crossed when it is reached: spending exactly 80 % crosses 80.
#[must_use]
pub fn crossed(spent: i64, limit: i64, thresholds: &[u32], forecast: bool, period: Period, now: DateTime<Utc>) -> Vec<Threshold> {
    let reached = |percent: u32| i128::from(spent) * 100 >= i128::from(limit) * i128::from(percent);
    let mut crossed: Vec<Threshold> = thresholds.iter().copied().filter(|percent| reached(*percent)).map(Threshold::Percent).collect();
    crossed.sort_unstable();
    crossed.dedup();
    if forecast && spent < limit && forecast_micros(spent, period, now).is_some_and(|at_end| at_end > i128::from(limit)) {
        crossed.push(Threshold::Forecast);
    }
    crossed
}

/// What will have been spent when the period ends, at the pace so far. Too early in the period (its first tenth) nothing is said: one
/// request at its beginning would foretell a fortune.
#[must_use]
pub fn forecast_micros(spent: i64, period: Period, now: DateTime<Utc>) -> Option<i128> {
    let (used, left) = period.split_at(now);
    let all = used + left;
    (used > 0 && used * 10 >= all).then(|| i128::from(spent) * i128::from(all) / i128::from(used))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STANDARD: [u32; 3] = [50, 80, 100];

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_threshold_is_crossed_when_it_is_reached_and_not_a_micro_before() {
        let now = at("2026-03-01T00:00:00Z");
        let month = period_of(LimitPeriod::Month, now);
        let crossed = |spent| crossed(spent, 1_000_000, &STANDARD, false, month, now);
        assert_eq!(crossed(499_999), []);
        assert_eq!(crossed(500_000), [Threshold::Percent(50)]);
        assert_eq!(crossed(799_999), [Threshold::Percent(50)]);
        assert_eq!(crossed(2_000_000), STANDARD.map(Threshold::Percent));
        assert_eq!(super::crossed(i64::MAX, i64::MAX, &STANDARD, true, month, now).len(), 3, "no product overflows");
    }

    #[test]
    fn a_forecast_speaks_after_a_tenth_of_the_period_and_before_the_limit() {
        let month = period_of(LimitPeriod::Month, at("2026-04-10T00:00:00Z"));
        let told = |spent, now: &str| crossed(spent, 1_000_000, &[], true, month, at(now));
        assert_eq!(told(400_000, "2026-04-02T00:00:00Z"), [], "too early");
        assert_eq!(told(400_000, "2026-04-10T00:00:00Z"), [Threshold::Forecast]);
        assert_eq!(told(300_000, "2026-04-10T00:00:00Z"), [], "exactly the limit at the end");
        assert_eq!(told(1_000_000, "2026-04-10T00:00:00Z"), [], "it is reached: nothing to foretell");
    }

    /// [B24]
    #[test]
    fn calendar_periods_are_half_open_and_in_utc() {
        let month = period_of(LimitPeriod::Month, at("2028-02-29T23:59:59Z"));
        assert_eq!((month.start, month.end), (at("2028-02-01T00:00:00Z"), at("2028-03-01T00:00:00Z")));
        assert_eq!(period_of(LimitPeriod::Day, month.end).start, month.end);
        assert_eq!(period_of(LimitPeriod::Minute, at("2026-01-01T10:20:59.999Z")).end, at("2026-01-01T10:21:00Z"));
    }

    proptest! {
        #[test]
        fn every_instant_is_in_its_period_and_more_spending_never_crosses_less(
            seconds in 0_i64..4_000_000_000, spent in 0_i64..2_000_000, more in 0_i64..1_000_000
        ) {
            let now = DateTime::from_timestamp(seconds, 0).unwrap();
            for length in [LimitPeriod::Minute, LimitPeriod::Day, LimitPeriod::Month] {
                let period = period_of(length, now);
                let before = period_before(length, period);
                prop_assert!(period.contains(now));
                prop_assert_eq!(before.end, period.start);
                prop_assert_eq!(period_of(length, before.start), before);
                let (few, many) = (crossed(spent, 1_000_000, &STANDARD, false, period, now), crossed(spent + more, 1_000_000, &STANDARD, false, period, now));
                prop_assert!(many.starts_with(&few));
            }
        }
    }
}
