//! How much a lease is filled with.

use chrono::TimeDelta;

/// A lease should last so long at the recent rate.
const LASTS_SECONDS: i64 = 30;
/// A lease never takes more of what is available than this part, so that the others and the balance that people see have the rest.
const PART: i64 = 4;

/// What decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// What must be there, in micro-units; zero when it only runs low.
    pub needed: i64,
    /// What the wallet has.
    pub available: i64,
    /// What of that a lease may take a part of beyond what is needed: all, or what may pay for its model alone.
    pub own: i64,
    /// What the lease was filled with the last time, and how long that lasted.
    pub last: Option<(i64, TimeDelta)>,
    /// The size to begin with.
    pub start: i64,
}

/// The amount to put in; none when what is needed is not there. Near the end of a wallet it is down to what one request needs, so
/// that nothing lies in a lease which another request could use.
#[must_use]
pub fn size(demand: Demand) -> Option<i64> {
    let Demand { needed, available, own, last, start } = demand;
    if needed > available || available <= 0 {
        return None;
    }
    let target = last.map_or(start, |(amount, lasted)| {
        let enough = i128::from(amount) * i128::from(LASTS_SECONDS * 1000) / i128::from(lasted.num_milliseconds().max(1));
        i64::try_from(enough).unwrap_or(i64::MAX).max(start)
    });
    Some(target.min(own.min(available) / PART).max(needed))
}

/// Below this remainder a lease should be filled again.
#[must_use]
pub const fn low(amount: i64) -> i64 {
    amount / 4
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEMAND: Demand = Demand { needed: 0, available: 5_000_000, own: i64::MAX, last: None, start: 100_000 };

    #[test]
    fn a_lease_follows_the_rate_at_which_it_is_used() {
        assert_eq!(size(DEMAND), Some(100_000), "nothing is known yet");
        let last = Some((100_000, TimeDelta::seconds(6)));
        assert_eq!(size(Demand { last, ..DEMAND }), Some(500_000), "thirty seconds at the rate of the last six");
        let last = Some((500_000, TimeDelta::hours(1)));
        assert_eq!(size(Demand { last, ..DEMAND }), Some(100_000), "it shrinks again");
    }

    #[test]
    fn near_the_end_it_is_down_to_one_request() {
        assert_eq!(size(Demand { available: 40_000, needed: 12_000, ..DEMAND }), Some(12_000));
        assert_eq!(size(Demand { available: 12_000, needed: 12_000, ..DEMAND }), Some(12_000), "to the last micro-unit");
        assert_eq!(size(Demand { available: 11_999, needed: 12_000, ..DEMAND }), None);
        assert_eq!(size(Demand { available: 0, ..DEMAND }), None);
        assert_eq!(size(Demand { own: 40_000, needed: 4_000, ..DEMAND }), Some(10_000), "the rest is for everything");
    }

    proptest! {
        #[test]
        fn what_is_needed_is_there_and_never_more_than_the_wallet_has(
            needed in 0..2_000_000_i64, available in -10..10_000_000_i64, own in 0..10_000_000_i64, last in proptest::option::of((1..i64::MAX, 0..100_000_i64))
        ) {
            let last = last.map(|(amount, lasted)| (amount, TimeDelta::milliseconds(lasted)));
            match size(Demand { needed, available, own, last, start: 100_000 }) {
                Some(amount) => prop_assert!(amount >= needed && amount <= available),
                None => prop_assert!(available < needed || available <= 0),
            }
        }
    }
}
