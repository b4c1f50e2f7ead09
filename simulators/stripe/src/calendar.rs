//! Billing periods. Each boundary is counted from the anchor, not from the boundary before, so that a month's end does not drift.

use chrono::{DateTime, Days, Months, Utc};

/// The instant so many intervals after an anchor; month ends are clamped (31 January, 28 February, 31 March).
pub(crate) fn after(anchor: i64, interval: &str, intervals: i64) -> i64 {
    let start: DateTime<Utc> = DateTime::from_timestamp(anchor, 0).unwrap_or_default();
    let count = u32::try_from(intervals.max(0)).unwrap_or(u32::MAX);
    let moved = match interval {
        "day" => start.checked_add_days(Days::new(count.into())),
        "week" => start.checked_add_days(Days::new(u64::from(count) * 7)),
        "year" => start.checked_add_months(Months::new(count.saturating_mul(12))),
        _ => start.checked_add_months(Months::new(count)),
    };
    moved.map_or(i64::MAX, |moved| moved.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        format!("{text}T10:00:00Z").parse::<DateTime<Utc>>().unwrap().timestamp()
    }

    #[test]
    fn month_ends_are_clamped_and_come_back() {
        let days = ["2028-02-29", "2028-03-31", "2028-04-30", "2028-05-31"];
        assert_eq!([1, 2, 3, 4].map(|count| after(at("2028-01-31"), "month", count)), days.map(at));
    }

    #[test]
    fn a_year_from_the_leap_day_is_the_28th_and_four_are_the_29th() {
        assert_eq!([1, 4].map(|count| after(at("2028-02-29"), "year", count)), ["2029-02-28", "2032-02-29"].map(at));
    }
}
