//! Which period an event counts in [B-59]. A period is a calendar month in UTC; it stays open for some time after its end, so that
//! what comes a little late is still counted where it belongs.

use chrono::{DateTime, Datelike, Months, NaiveTime, TimeDelta, Utc};

/// How far ahead of our clock a source's may be.
const FUTURE: TimeDelta = TimeDelta::minutes(5);

/// How late an event may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Older events are refused.
    pub late_window: TimeDelta,
    /// How long after its end a month takes events.
    pub close_after: TimeDelta,
}

/// Where an event counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// When it happened.
    Own,
    /// Its period is closed: now, as an adjustment with its own instant beside it.
    Adjustment,
}

/// Why an event counts nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unplaced {
    /// It is older than the late window.
    #[error("the event is older than events may be")]
    TooLate,
    /// It is more than five minutes ahead.
    #[error("the event is in the future")]
    InFuture,
}

impl Unplaced {
    /// Its stable name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLate => "event_too_late",
            Self::InFuture => "event_in_future",
        }
    }
}

impl Rules {
    /// Where an event counts that happened at `occurred` and comes at `now`.
    ///
    /// # Errors
    /// [`Unplaced`].
    pub fn place(self, occurred: DateTime<Utc>, now: DateTime<Utc>) -> Result<Placement, Unplaced> {
        if occurred > now + FUTURE {
            return Err(Unplaced::InFuture);
        }
        if now - occurred > self.late_window {
            return Err(Unplaced::TooLate);
        }
        let open = month_end(occurred).is_none_or(|end| now < end + self.close_after);
        Ok(if open { Placement::Own } else { Placement::Adjustment })
    }
}

/// The first instant after an instant's month.
fn month_end(at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let next = at.date_naive().with_day(1)?.checked_add_months(Months::new(1))?;
    Some(next.and_time(NaiveTime::MIN).and_utc())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules = Rules { late_window: TimeDelta::days(35), close_after: TimeDelta::days(3) };

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// [B-59]
    #[test]
    fn a_late_event_counts_in_its_own_month_until_that_closes_then_as_an_adjustment_and_beyond_the_window_not_at_all() {
        let occurred = at("2028-01-31T23:00:00Z");
        for (now, expected) in [
            ("2028-01-31T22:55:00Z", Ok(Placement::Own)),
            ("2028-01-31T22:54:59.999999Z", Err(Unplaced::InFuture)),
            ("2028-02-03T23:59:59.999999Z", Ok(Placement::Own)),
            ("2028-02-04T00:00:00Z", Ok(Placement::Adjustment)),
            ("2028-03-06T23:00:00Z", Ok(Placement::Adjustment)),
            ("2028-03-06T23:00:00.000001Z", Err(Unplaced::TooLate)),
        ] {
            assert_eq!(RULES.place(occurred, at(now)), expected, "{now}");
        }
    }

    /// [B-60] [B24]
    #[test]
    fn months_end_at_midnight_utc_also_in_leap_years_and_at_the_end_of_the_year() {
        let end = |text: &str| month_end(at(text)).unwrap();
        assert_eq!(end("2028-02-29T23:59:59Z"), at("2028-03-01T00:00:00Z"));
        assert_eq!(end("2027-02-28T23:59:59Z"), at("2027-03-01T00:00:00Z"));
        assert_eq!(end("2028-12-31T00:00:00Z"), at("2029-01-01T00:00:00Z"));
        assert_eq!(end("2028-03-01T00:30:00+01:00"), at("2028-03-01T00:00:00Z"));
    }

    proptest! {
        /// Nothing can be placed into a month that closed.
        #[test]
        fn what_counts_in_its_own_month_came_before_that_closed(late in 0..80_000_000_i64, now in 0..2_000_000_000_i64) {
            let now = DateTime::from_timestamp(now, 0).unwrap();
            let occurred = now - TimeDelta::seconds(late);
            match RULES.place(occurred, now) {
                Ok(Placement::Own) => prop_assert!(now < month_end(occurred).unwrap() + RULES.close_after),
                Ok(Placement::Adjustment) => prop_assert!(now >= month_end(occurred).unwrap() + RULES.close_after),
                Err(_) => prop_assert!(TimeDelta::seconds(late) > RULES.late_window),
            }
        }
    }
}
