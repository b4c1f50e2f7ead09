//! Parts of an amount: the one place where proration rounds. The parts are whole minor units and always come to the whole: what is
//! left over goes to the largest remainders [B-29].

use money::Currency;

use super::period::Period;
use crate::catalog::amount::minor_micros;
use chrono::{DateTime, Utc};

/// Splits an amount by weights. Without any weight all of it is in the first part.
#[must_use]
pub fn split(micros: i64, weights: &[u64], currency: Currency) -> Vec<i64> {
    let unit = minor_micros(currency);
    let units = i128::from(micros / unit);
    let total: i128 = weights.iter().map(|weight| i128::from(*weight)).sum();
    let mut parts = vec![0_i64; weights.len()];
    if parts.is_empty() {
        return parts;
    }
    if total == 0 {
        parts[0] = micros;
        return parts;
    }
    let products: Vec<i128> = weights.iter().map(|weight| units * i128::from(*weight)).collect();
    let floors: Vec<i128> = products.iter().map(|product| product.div_euclid(total)).collect();
    let missing = units - floors.iter().sum::<i128>();
    let mut order: Vec<usize> = (0..parts.len()).collect();
    // A stable sort: of equal remainders the first part gets more.
    order.sort_by_key(|index| std::cmp::Reverse(products[*index].rem_euclid(total)));
    for (rank, index) in (0_i128..).zip(order) {
        let whole = floors[index] + i128::from(rank < missing);
        // A part is no larger than the whole, which fitted.
        parts[index] = i64::try_from(whole).unwrap_or(i64::MAX).saturating_mul(unit);
    }
    // Less than a minor unit cannot be split; no amount of a catalogue has any.
    parts[0] += micros % unit;
    parts
}

/// What of a period's price is for the time after an instant.
#[must_use]
pub fn unused(micros: i64, period: Period, instant: DateTime<Utc>, currency: Currency) -> i64 {
    let (used, left) = period.split_at(instant);
    split(micros, &[used, left], currency)[1]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::catalog::Interval;

    fn currencies() -> impl Strategy<Value = Currency> {
        prop_oneof![Just("JPY"), Just("USD"), Just("EUR"), Just("KWD")].prop_map(|code| code.parse().unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// [B-27] [B-29]
        #[test]
        fn the_parts_come_to_the_whole_in_whole_minor_units_and_each_within_one_of_its_share(
            minor in 0_i64..10_000_000_000, weights in proptest::collection::vec(0_u64..40_000_000, 1..12), currency in currencies()
        ) {
            let unit = minor_micros(currency);
            let parts = split(minor * unit, &weights, currency);
            prop_assert_eq!(parts.iter().sum::<i64>(), minor * unit);
            let total: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
            for (part, weight) in parts.iter().zip(&weights) {
                prop_assert_eq!(part % unit, 0);
                if total > 0 {
                    let share = i128::from(minor) * i128::from(*weight);
                    let difference = i128::from(part / unit) * i128::try_from(total).unwrap() - share;
                    prop_assert!(difference.unsigned_abs() < total, "a part is a whole unit off its share");
                }
            }
        }

        /// [B-29]
        #[test]
        fn what_is_left_of_a_period_never_grows_and_ends_at_nothing(minor in 0_i64..1_000_000, a in 0_i64..2_700_000, b in 0_i64..2_700_000, currency in currencies()) {
            let period = Period::nth(DateTime::UNIX_EPOCH, Interval::Month, 0);
            let left = |seconds: i64| unused(minor * minor_micros(currency), period, period.start + chrono::TimeDelta::seconds(seconds), currency);
            prop_assert!(left(a.min(b)) >= left(a.max(b)));
            prop_assert_eq!(left(0), minor * minor_micros(currency));
            prop_assert_eq!(unused(minor * minor_micros(currency), period, period.end, currency), 0);
        }
    }

    #[test]
    fn a_third_of_a_dollar_each_leaves_the_odd_cent_to_the_first() {
        assert_eq!(split(1_000_000, &[1, 1, 1], Currency::USD), [340_000, 330_000, 330_000]);
        assert_eq!(split(100_000_000, &[2, 1], "JPY".parse().unwrap()), [67_000_000, 33_000_000]);
    }
}
