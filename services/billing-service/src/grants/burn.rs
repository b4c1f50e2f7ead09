//! Which lots pay, which get something back, and which expire: pure decisions.

use chrono::{DateTime, Utc};

use super::lot::{GrantId, Lot, ModelHold, Use};
use crate::ledger::Balances;

/// Brings lots into the order in which they burn: priority, then the earliest expiry, then the oldest [B-45].
pub fn order(lots: &mut [Lot]) {
    lots.sort_by_key(|lot| (lot.priority, lot.expires_at.is_none(), lot.expires_at, lot.created_at, lot.position));
}

/// What each lot pays of an amount, in the order of the lots; less than all of it when those that may pay do not reach. `at` is when
/// what is paid for was admitted.
#[must_use]
pub fn burn(lots: &[Lot], amount: i64, wanted: Use<'_>, at: DateTime<Utc>) -> Vec<(GrantId, i64)> {
    let mut left = amount.max(0);
    let mut burned = Vec::new();
    for lot in lots.iter().filter(|lot| lot.is_valid_at(at) && lot.pays_for(wanted)) {
        let part = lot.remaining.min(left);
        if part > 0 {
            burned.push((lot.id, part));
            left -= part;
        }
    }
    burned
}

/// A movement that took from a lot, and what of it has not been given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burned {
    /// The movement.
    pub movement: i64,
    /// Its lot.
    pub grant: GrantId,
    /// What can still be given back.
    pub left: i64,
}

/// What of an amount goes back to which movement: in the reverse of the order in which they were recorded [B-45]; less than all of it
/// when less had been taken.
#[must_use]
pub fn unwind(recorded: &[Burned], amount: i64) -> Vec<(Burned, i64)> {
    let mut left = amount.max(0);
    let mut given = Vec::new();
    for burned in recorded.iter().rev() {
        let part = burned.left.min(left);
        if part > 0 {
            given.push((*burned, part));
            left -= part;
        }
    }
    given
}

/// What expires of each lot at `now`: everything but what holds from before its expiry may still need, which is taken to be the lots
/// that burn first.
#[must_use]
pub fn expiring(lots: &[Lot], now: DateTime<Utc>) -> Vec<(&Lot, i64)> {
    let mut kept_before = 0;
    let mut expiring = Vec::new();
    for lot in lots.iter().filter(|lot| !lot.is_valid_at(now)) {
        let kept = lot.remaining.min((lot.held_before - kept_before).max(0));
        kept_before += kept;
        if lot.remaining > kept {
            expiring.push((lot, lot.remaining - kept));
        }
    }
    expiring
}

/// What holds for models rest on, if all that they hold is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Resting {
    /// On lots that may not pay for what is wanted.
    elsewhere: i64,
    /// On lots that may.
    among: i64,
}

/// Lets each hold take the lots that would burn for it. What it finds no lot for was promised by an overdraft, which is anybody's.
fn resting(lots: &[Lot], holds: &[ModelHold], wanted: Use<'_>, now: DateTime<Utc>) -> Resting {
    let expired = expiring(lots, now);
    let gone = |lot: &Lot| expired.iter().filter(|(gone, _)| gone.id == lot.id).map(|(_, amount)| amount).sum::<i64>();
    let mut left: Vec<(&Lot, i64)> = lots.iter().map(|lot| (lot, lot.remaining - gone(lot))).collect();
    let mut resting = Resting::default();
    for hold in holds {
        let mut held = hold.held;
        for (lot, left) in left.iter_mut().filter(|(lot, _)| lot.pays_for(Use::model(&hold.model))) {
            let part = held.min(*left);
            *left -= part;
            held -= part;
            // An expired lot is kept for the hold and counts nowhere else.
            if lot.is_valid_at(now) && !lot.pays_for(wanted) {
                resting.elsewhere += part;
            } else {
                resting.among += part;
            }
        }
        resting.among += held;
    }
    resting
}

/// What may be spent on something now, without any overdraft; below zero when more is owed than that. Holds for a model (`holds`) rest on
/// the lots that burn for it; all others are taken to stand on lots that it may use.
#[must_use]
pub fn spendable(lots: &[Lot], holds: &[ModelHold], balances: Balances, wanted: Use<'_>, now: DateTime<Utc>) -> i64 {
    let expired: i64 = expiring(lots, now).iter().map(|(_, amount)| amount).sum();
    let others: i64 = lots.iter().filter(|lot| lot.is_valid_at(now) && !lot.pays_for(wanted)).map(|lot| lot.remaining).sum();
    balances.available() - expired - (others - resting(lots, holds, wanted, now).elsewhere)
}

/// What may be taken of a lot now, so that no hold goes without: what may be spent on each thing that the lot pays for.
#[must_use]
pub fn takable(lot: &Lot, lots: &[Lot], holds: &[ModelHold], balances: Balances, now: DateTime<Utc>) -> i64 {
    let models = lot.models.iter().flatten().map(|model| Use::model(model));
    let uses = [Use::ANYTHING, Use::CHAT].into_iter().filter(|_| lot.models.is_none()).chain(models);
    // What pays for everything pays for chats too, and less of it is free for the one than for the other.
    let free = uses.filter(|wanted| lot.pays_for(*wanted)).map(|wanted| spendable(lots, holds, balances, wanted, now)).min();
    lot.remaining.min(balances.wallet).min(free.unwrap_or(i64::MAX)).max(0)
}

/// What holds for models keep of what something else might use as well: so much may come back when they end.
#[must_use]
pub fn bound(lots: &[Lot], holds: &[ModelHold], wanted: Use<'_>, now: DateTime<Utc>) -> i64 {
    resting(lots, holds, wanted, now).among
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::super::lot::Source;
    use super::*;

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn lot(id: u128, remaining: i64, priority: i32, expires_in: Option<i64>, age: i64) -> Lot {
        Lot {
            id: GrantId::from_uuid(Uuid::from_u128(id)),
            source: Source::Promotion,
            remaining,
            priority,
            position: i64::try_from(id).unwrap(),
            expires_at: expires_in.map(|millis| NOW + TimeDelta::milliseconds(millis)),
            created_at: NOW - TimeDelta::milliseconds(age),
            models: None,
            features: None,
            version: 1,
            held_before: 0,
        }
    }

    fn ids(lots: &[Lot]) -> Vec<u128> {
        lots.iter().map(|lot| lot.id.uuid().as_u128()).collect()
    }

    fn lots() -> impl Strategy<Value = Vec<Lot>> {
        let one = (1..1000_i64, 0..3_i32, proptest::option::of(-5..50_i64), 0..50_i64, 0..600_i64, any::<bool>());
        proptest::collection::vec(one, 0..8).prop_map(|rows| {
            let mut lots: Vec<Lot> = rows
                .into_iter()
                .zip(1..)
                .map(|((remaining, priority, expires_in, age, held_before, restricted), id)| {
                    let lot = lot(id, remaining, priority, expires_in, age);
                    Lot { held_before, models: restricted.then(|| vec!["m".to_owned()]), ..lot }
                })
                .collect();
            order(&mut lots);
            lots
        })
    }

    /// [B-45]
    #[test]
    fn lots_burn_by_priority_then_by_earliest_expiry_then_by_age() {
        let mut lots =
            [lot(1, 5, 9, Some(1), 9), lot(2, 5, 1, None, 9), lot(3, 5, 1, Some(9), 1), lot(4, 5, 1, Some(8), 1), lot(5, 5, 1, Some(9), 2)];
        order(&mut lots);
        assert_eq!(ids(&lots), [4, 5, 3, 2, 1]);
        let burned = burn(&lots, 12, Use::ANYTHING, NOW);
        let parts: Vec<(u128, i64)> = burned.into_iter().map(|(id, part)| (id.uuid().as_u128(), part)).collect();
        assert_eq!(parts, [(4, 5), (5, 5), (3, 2)]);
    }

    /// [B-46]
    #[test]
    fn a_lot_pays_a_millisecond_before_it_expires_and_neither_at_that_instant_nor_after() {
        let lots = [lot(1, 5, 1, Some(0), 0)];
        let burned = |millis| burn(&lots, 5, Use::ANYTHING, NOW + TimeDelta::milliseconds(millis)).len();
        assert_eq!((burned(-1), burned(0), burned(1)), (1, 0, 0));
        let due = |millis| expiring(&lots, NOW + TimeDelta::milliseconds(millis)).len();
        assert_eq!((due(-1), due(0), due(1)), (0, 1, 1));
        let balances = Balances { wallet: 5, held: 0, debt: 0 };
        let there = |millis| spendable(&lots, &[], balances, Use::ANYTHING, NOW + TimeDelta::milliseconds(millis));
        assert_eq!((there(-1), there(0), there(1)), (5, 0, 0));
    }

    #[test]
    fn a_restricted_lot_pays_for_its_models_and_features_and_for_nothing_else() {
        let models = Lot { models: Some(vec!["m".into()]), ..lot(1, 5, 1, None, 0) };
        let features = Lot { features: Some(vec!["images".into()]), ..lot(1, 5, 1, None, 0) };
        let pays = |lot: &Lot| {
            [Use::model("m"), Use::model("n"), Use::model("n").feature("images"), Use::ANYTHING].map(|wanted| lot.pays_for(wanted))
        };
        assert_eq!(pays(&models), [true, false, false, false]);
        assert_eq!(pays(&features), [false, false, true, false]);
        assert_eq!(pays(&lot(1, 5, 1, None, 0)), [true; 4]);
    }

    #[test]
    fn what_is_held_since_before_an_expiry_stays_until_it_is_settled_once_and_not_for_each_lot() {
        let lots =
            [Lot { held_before: 7, ..lot(1, 5, 1, Some(0), 0) }, Lot { held_before: 7, ..lot(2, 5, 1, Some(0), 0) }, lot(3, 5, 1, None, 0)];
        let due: Vec<i64> = expiring(&lots, NOW).into_iter().map(|(_, amount)| amount).collect();
        assert_eq!(due, [3]);
        assert_eq!(spendable(&lots, &[], Balances { wallet: 8, held: 7, debt: 0 }, Use::ANYTHING, NOW), 5);
    }

    proptest! {
        /// [B-45]
        #[test]
        fn burning_takes_all_it_can_from_lots_that_may_pay_and_unwinding_gives_it_back_in_reverse(
            lots in lots(), amount in 0..3000_i64, back in 0..3000_i64, model in any::<bool>()
        ) {
            let wanted = if model { Use::model("m") } else { Use::ANYTHING };
            let burned = burn(&lots, amount, wanted, NOW);
            let sum: i64 = burned.iter().map(|(_, part)| part).sum();
            let there: i64 = lots.iter().filter(|lot| lot.is_valid_at(NOW) && lot.pays_for(wanted)).map(|lot| lot.remaining).sum();
            prop_assert_eq!(sum, amount.min(there));
            for (position, (id, part)) in burned.iter().enumerate() {
                let lot = lots.iter().find(|lot| lot.id == *id).unwrap();
                prop_assert!(*part <= lot.remaining && lot.is_valid_at(NOW) && lot.pays_for(wanted));
                prop_assert!(*part == lot.remaining || position + 1 == burned.len(), "a later lot paid before an earlier one was empty");
            }
            let recorded: Vec<Burned> = burned.iter().zip(1..).map(|((grant, left), movement)| Burned { movement, grant: *grant, left: *left }).collect();
            let given = unwind(&recorded, back);
            prop_assert_eq!(given.iter().map(|(_, part)| part).sum::<i64>(), back.min(sum));
            prop_assert!(given.windows(2).all(|pair| pair[0].0.movement > pair[1].0.movement), "not in reverse");
            prop_assert!(given.iter().all(|(burned, part)| *part <= burned.left));
        }

        /// [B-37] Holds that were let through by what may be spent are payable, whatever the restrictions.
        #[test]
        fn what_may_be_spent_is_never_more_than_the_lots_that_may_pay(lots in lots(), held in 0..500_i64, debt in 0..500_i64, model in any::<bool>()) {
            let wanted = if model { Use::model("m") } else { Use::ANYTHING };
            let wallet = lots.iter().map(|lot| lot.remaining).sum::<i64>() - held;
            let payable: i64 = lots.iter().filter(|lot| lot.is_valid_at(NOW) && lot.pays_for(wanted)).map(|lot| lot.remaining).sum();
            let kept: i64 = lots.iter().filter(|lot| !lot.is_valid_at(NOW)).map(|lot| lot.remaining).sum::<i64>()
                - expiring(&lots, NOW).iter().map(|(_, amount)| amount).sum::<i64>();
            let there = spendable(&lots, &[], Balances { wallet, held, debt }, wanted, NOW);
            prop_assert_eq!(there, payable - (held - kept) - debt);
        }

        /// [B-37] What a lease for one model has taken stays payable, and so does what is promised to others beside it.
        #[test]
        fn what_a_hold_for_a_model_may_use_is_promised_to_nothing_else(lots in lots(), wish in 0..3000_i64, other in any::<bool>()) {
            let lots: Vec<Lot> = lots.into_iter().map(|lot| Lot { held_before: 0, ..lot }).filter(|lot| lot.is_valid_at(NOW)).collect();
            let all: i64 = lots.iter().map(|lot| lot.remaining).sum();
            let held = wish.min(all);
            let wanted = if other { Use::model("n") } else { Use::CHAT };
            let holds = [ModelHold { model: "m".to_owned(), held }];
            let there = spendable(&lots, &holds, Balances { wallet: all - held, held, debt: 0 }, wanted, NOW);
            let used = burn(&lots, held, Use::model("m"), NOW);
            let payable = |lot: &&Lot| lot.pays_for(wanted);
            let burned = |lot: &Lot| used.iter().filter(|(id, _)| *id == lot.id).map(|(_, part)| part).sum::<i64>();
            let left: i64 = lots.iter().filter(payable).map(|lot| lot.remaining - burned(lot)).sum();
            prop_assert_eq!(there, left);
            let back: i64 = lots.iter().filter(payable).map(burned).sum();
            prop_assert_eq!(bound(&lots, &holds, wanted, NOW), back);
        }
    }
}
