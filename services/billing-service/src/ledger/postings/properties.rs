//! What holds for every posting, whatever the amounts and whatever the balances before it.

use chrono::{DateTime, Utc};
use contracts::RequestId;
use identity::OrganizationId;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const REQUEST: RequestId = RequestId::from_uuid(Uuid::nil());
const AT: DateTime<Utc> = DateTime::UNIX_EPOCH;

fn balances() -> impl Strategy<Value = Balances> {
    // Also what cannot be today: something in the wallet while something is owed.
    let amount = || prop_oneof![Just(0), 0..1_000_000_000_i64];
    (amount(), amount(), amount()).prop_map(|(wallet, held, debt)| Balances { wallet, held, debt })
}

fn amount() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), 0..2_000_000_000_i64]
}

fn rate() -> impl Strategy<Value = Rate> {
    (1..50_000_000_000_i64, 1..50_000_000_i64).prop_map(|(money, credit)| Rate { money, credit })
}

/// Every posting there is, with what its caller has checked before: nobody gives back more than is held, or expires more than is there.
fn all(balances: Balances, amount: i64, price: i64, cost: i64) -> Vec<Posting> {
    let organization = OrganizationId::from_uuid(Uuid::nil());
    let (held, there) = (amount.min(balances.held), amount.min(balances.wallet));
    vec![
        signup_grant(organization, amount, AT),
        grant("k", Account::Promotion, amount, false, balances, AT),
        grant("k", Account::Refunds, amount, true, balances, AT),
        sale("k", Sale::of(price, amount), false, balances, AT),
        sale("k", Sale::of(price, amount), true, balances, AT),
        expiry("k", there, AT),
        revocation("k", Account::Promotion, there, AT),
        adjustment("k", amount, balances, AT),
        transfer_out("k", there, AT),
        transfer_in("k", amount, false, balances, AT),
        reservation(REQUEST, there, AT),
        lease("k", there, AT),
        lease_return("k", held, balances, AT),
        void(REQUEST, held, balances, AT),
        settlement(REQUEST, held, balances, price, cost, AT),
        late_settlement(REQUEST, balances, price, cost, AT),
        shortfall("k", amount, AT),
        usage_refund("k", amount, balances, AT),
        refund("k", Sale::of(price, amount), 0, balances, AT),
        dispute_opened("k", Sale::of(price, amount), 0, balances, AT),
        dispute_won("k", Sale::of(price, amount), 0, balances, AT),
        dispute_lost("k", (Currency::USD, amount), fee_of(Currency::USD, cost), AT),
        dispute_lost("k", (yen(), amount), fee_of(Currency::USD, cost), AT),
        rounding("k", amount, AT),
        credit_note("k", amount, AT),
        balance_correction("k", -amount, AT),
    ]
}

fn yen() -> Currency {
    "JPY".parse().unwrap()
}

#[expect(clippy::unnecessary_wraps, reason = "as a posting takes it")]
const fn fee_of(currency: Currency, amount: i64) -> Option<Fee> {
    Some(Fee { currency, amount })
}

proptest! {
    /// [B-34] [B-40]
    #[test]
    fn every_posting_sums_to_zero_and_leaves_no_account_on_its_wrong_side(
        balances in balances(), amount in amount(), price in amount(), cost in amount()
    ) {
        for posting in all(balances, amount, price, cost) {
            prop_assert_eq!(posting.entries.iter().map(|(_, amount)| amount).sum::<i64>(), 0, "{:?}", posting);
            prop_assert!(posting.entries.len() >= 2);
            prop_assert!(balances.wallet + posting.moved(Account::Wallet) >= 0, "{:?}", posting);
            prop_assert!(balances.held + posting.moved(Account::Holds) >= 0, "{:?}", posting);
            prop_assert!(posting.moved(Account::Debt) <= balances.debt, "more was repaid than is owed: {:?}", posting);
        }
    }

    /// [B-40]
    #[test]
    fn a_settlement_posts_all_that_was_used_and_owes_only_what_the_wallet_does_not_have(
        balances in balances(), hold in amount(), price in amount(), cost in amount()
    ) {
        let settled = settlement(REQUEST, hold, balances, price, cost, AT);
        prop_assert_eq!(settled.moved(Account::Revenue), price, "what was used is posted whole");
        prop_assert_eq!(settled.moved(Account::Holds), -hold, "the hold is resolved whole");
        prop_assert_eq!(settled.moved(Account::Wallet) + settled.moved(Account::Debt), hold - price, "nothing is lost");
        if settled.moved(Account::Debt) < 0 {
            prop_assert_eq!(balances.wallet + settled.moved(Account::Wallet), 0, "debt only when the wallet is empty");
        }
    }

    /// What comes back goes to the debt before it goes to the wallet.
    #[test]
    fn debt_is_repaid_by_what_returns(balances in balances(), hold in amount(), price in amount()) {
        let settled = settlement(REQUEST, hold, balances, price.min(hold), 0, AT);
        let given = |posting: Posting| (posting, hold);
        for (posting, returns) in [(void(REQUEST, hold, balances, AT), hold), (settled, hold - price.min(hold)),
            given(grant("k", Account::Promotion, hold, false, balances, AT)), given(usage_refund("k", hold, balances, AT)),
            given(dispute_won("k", Sale::of(price, hold), 0, balances, AT)), given(sale("k", Sale::of(price, hold), false, balances, AT))] {
            prop_assert_eq!(posting.moved(Account::Debt), returns.min(balances.debt));
            prop_assert_eq!(posting.moved(Account::Wallet), returns - returns.min(balances.debt));
        }
    }

    /// [B-37] What stands below zero in a wallet on an overdraft is made up before debt is repaid.
    #[test]
    fn what_returns_to_an_overdrawn_wallet_brings_it_to_zero_first(overdrawn in 1..1_000_000_i64, debt in amount(), amount in amount()) {
        let balances = Balances { wallet: -overdrawn, held: amount, debt };
        let posting = void(REQUEST, amount, balances, AT);
        prop_assert!(posting.moved(Account::Wallet) >= overdrawn.min(amount));
        prop_assert_eq!(posting.moved(Account::Debt), (amount - overdrawn).clamp(0, debt));
    }

    /// [B-48]
    #[test]
    fn money_given_back_for_credit_that_was_burned_is_owed(balances in balances(), amount in amount()) {
        for posting in [refund("k", Sale::of(amount, amount), 0, balances, AT), dispute_opened("k", Sale::of(amount, amount), 0, balances, AT), adjustment("k", amount, balances, AT)] {
            prop_assert_eq!(-posting.moved(Account::Wallet), amount.min(balances.wallet));
            prop_assert_eq!(-posting.moved(Account::Debt), (amount - balances.wallet).max(0));
        }
    }

    /// [B-48] What had expired was the house's: with the money that bought it, it is so no longer, and nobody owes it.
    #[test]
    fn money_given_back_for_credit_that_had_expired_takes_it_from_what_the_house_earned(balances in balances(), amount in amount(), part in 0..100_i64) {
        let expired = amount / 100 * part;
        for posting in [refund("k", Sale::of(amount, amount), expired, balances, AT), dispute_opened("k", Sale::of(amount, amount), expired, balances, AT)] {
            prop_assert_eq!(posting.moved(Account::Breakage), -expired);
            prop_assert_eq!(-posting.moved(Account::Wallet) - posting.moved(Account::Debt), amount - expired);
        }
        let won = dispute_won("k", Sale::of(amount, amount), expired, balances, AT);
        prop_assert_eq!((won.moved(Account::Breakage), won.moved(Account::Wallet) + won.moved(Account::Debt)), (expired, amount - expired));
    }

    /// [B-48] A dispute that is won leaves everything as it was; one that is lost costs the house its fee and no more.
    #[test]
    fn a_closed_dispute_leaves_its_fee_on_the_disputes_and_nothing_else(balances in balances(), amount in amount(), fee in 0..50_000_000_i64) {
        let opened = dispute_opened("k", Sale::of(amount, amount), 0, balances, AT);
        let after = Balances {
            wallet: balances.wallet + opened.moved(Account::Wallet),
            debt: balances.debt - opened.moved(Account::Debt),
            ..balances
        };
        let won = dispute_won("k", Sale::of(amount, amount), 0, after, AT);
        prop_assert_eq!(opened.moved(Account::Disputes) + won.moved(Account::Disputes), 0);
        prop_assert_eq!(after.available() + won.moved(Account::Wallet) + won.moved(Account::Debt), balances.available());
        let lost = dispute_lost("k", (Currency::USD, amount), fee_of(Currency::USD, fee), AT);
        prop_assert_eq!(opened.moved(Account::Disputes) + lost.moved(Account::Disputes), -fee);
        prop_assert_eq!(lost.moved(Account::StripeClearing), amount + fee);
        let abroad = dispute_lost("k", (yen(), amount), fee_of(Currency::USD, fee), AT);
        prop_assert_eq!(opened.moved(Account::Disputes) + abroad.moved(Account::Disputes), 0);
        prop_assert_eq!(abroad.money, Some((Currency::USD, vec![(Account::Disputes, -fee), (Account::StripeClearing, fee)])));
    }

    /// [B-47] The customer gets the credit whole; the difference to the money is promotion or the plan's fee, never both.
    #[test]
    fn a_sale_splits_into_money_bonus_and_fee(paid in amount(), credit in amount()) {
        let sold = sale("k", Sale::of(paid, credit), true, Balances { wallet: 0, held: 0, debt: 0 }, AT);
        prop_assert_eq!((sold.moved(Account::Wallet), sold.moved(Account::StripeClearing)), (credit, -paid));
        prop_assert_eq!(sold.moved(Account::PlanFees) + sold.moved(Account::Promotion), paid - credit);
        prop_assert!(sold.moved(Account::PlanFees) == 0 || sold.moved(Account::Promotion) == 0);
    }

    /// [B-48] In however many parts, a sale that is given back whole leaves nothing anywhere.
    #[test]
    fn the_parts_of_a_sale_that_are_given_back_sum_to_the_sale(paid in 1..2_000_000_000_i64, credit in amount(), parts in prop::collection::vec(1..1_000_000_i64, 1..8)) {
        let sale = Sale::of(paid, credit);
        let whole: i64 = parts.iter().sum();
        let (mut money, mut given, mut share) = (0, 0, 0);
        for (number, part) in parts.iter().enumerate() {
            share += part;
            let next = if number + 1 == parts.len() { paid } else { i64::try_from(i128::from(paid) * i128::from(share) / i128::from(whole)).unwrap() };
            let part = sale.part(money, next);
            prop_assert!(part.paid >= 0 && part.credit >= 0);
            (money, given) = (next, given + part.credit);
        }
        prop_assert_eq!((money, given), (paid, credit));
    }

    /// [B-34] [B-27] Each of the two sides of an exchange sums to zero by itself, for all that can become of a sale.
    #[test]
    fn a_posting_of_two_currencies_sums_to_zero_in_each(
        balances in balances(), paid in 1..2_000_000_000_i64, credit in amount(), rate in rate(), code in prop_oneof![Just("JPY"), Just("KWD"), Just("EUR")]
    ) {
        let sold = Sale::exchanged(paid, credit, code.parse().unwrap(), rate);
        prop_assert!(sold.bonus() >= 0 && sold.fee() >= 0, "{:?}", sold);
        prop_assert!(sold.bonus() == 0 || sold.fee() == 0, "credit was given away while money was left: {:?}", sold);
        for posting in [sale("k", sold, false, balances, AT), refund("k", sold, 0, balances, AT), dispute_opened("k", sold, 0, balances, AT), dispute_won("k", sold, 0, balances, AT)] {
            let (currency, money) = posting.money.clone().unwrap();
            prop_assert_eq!(currency.code(), code);
            prop_assert_eq!(posting.entries.iter().map(|(_, amount)| amount).sum::<i64>(), 0, "{:?}", posting);
            prop_assert_eq!(money.iter().map(|(_, amount)| amount).sum::<i64>(), 0, "{:?}", posting);
            prop_assert!(money.iter().all(|(account, _)| !account.belongs_to_organization()));
        }
    }

    /// [B-48] Whatever a balance paid of a sale or a payment paid beside it, all of the payment can go back, in any parts, and of the sale no
    /// more than was sold.
    #[test]
    fn the_parts_of_a_payment_that_are_given_back_sum_to_the_payment_whatever_a_balance_moved(
        paid in 0..2_000_000_000_i64, credit in amount(), balance in -2_000_000_000..2_000_000_000_i64, cuts in prop::collection::vec(0..4_000_000_000_i64, 0..8)
    ) {
        let sold = Sale { balance, ..Sale::of(paid, credit) };
        let (nothing, money) = (Balances { wallet: 0, held: 0, debt: 0 }, sold.money().max(0));
        let mut ends: Vec<i64> = cuts.into_iter().filter(|cut| *cut < money).chain([money]).collect();
        ends.sort_unstable();
        let sale = sale("k", sold, false, nothing, AT);
        prop_assert_eq!(sale.moved(Account::CustomerBalances), -balance);
        prop_assert_eq!(sale.moved(Account::StripeClearing), -sold.money());
        let (mut left, mut before, mut credited) = (sale.moved(Account::StripeClearing).min(0), 0, 0);
        for end in ends {
            let part = sold.part(before, end);
            let back = refund("k", part, 0, nothing, AT);
            prop_assert_eq!(back.entries.iter().map(|(_, amount)| amount).sum::<i64>(), 0, "{:?}", back);
            prop_assert_eq!(back.moved(Account::CustomerBalances), 0);
            prop_assert_eq!(-back.moved(Account::Refunds), end.max(paid) - before.max(paid));
            (left, before, credited) = (left + back.moved(Account::StripeClearing), end, credited + part.credit);
        }
        prop_assert_eq!(left, 0);
        prop_assert!(credited <= credit && (balance > 0 || paid == 0 || credited == credit));
    }

    /// [B-48] In however many parts a sale of two currencies goes back, nothing of it stays on any account of the house.
    #[test]
    fn the_parts_of_an_exchange_that_are_given_back_sum_to_the_exchange(
        paid in 1..2_000_000_000_i64, credit in amount(), rate in rate(), cuts in prop::collection::vec(0..2_000_000_000_i64, 0..8)
    ) {
        let sold = Sale::exchanged(paid, credit, "JPY".parse().unwrap(), rate);
        let mut ends: Vec<i64> = cuts.into_iter().filter(|cut| *cut < paid).chain([paid]).collect();
        ends.sort_unstable();
        let nothing = Balances { wallet: 0, held: 0, debt: 0 };
        let mut left = vec![sale("k", sold, false, nothing, AT)];
        let mut before = 0;
        for end in ends {
            left.push(refund("k", sold.part(before, end), 0, nothing, AT));
            before = end;
        }
        for account in Account::ALL {
            let here: i64 = left.iter().map(|posting| posting.moved(account)).sum();
            let there: i64 = left.iter().filter_map(|posting| posting.money.as_ref()).flat_map(|(_, entries)| entries).filter(|(entry, _)| *entry == account).map(|(_, amount)| amount).sum();
            prop_assert!(there == 0 && (here == 0 || account.belongs_to_organization()), "{:?} has {} and {}", account, here, there);
        }
    }
}

/// A dispute over a sale that was given back already takes nothing: there is no transaction without entries.
#[test]
fn a_dispute_that_took_nothing_moves_nothing_when_it_ends_and_its_fee_alone_is_posted() {
    let fee = |currency| Some(Fee { currency, amount: 15 });
    assert!(dispute_lost("k", (Currency::USD, 0), None, AT).moves_nothing());
    for currency in [Currency::USD, "JPY".parse().expect("a currency")] {
        assert!(!dispute_lost("k", (Currency::USD, 0), fee(currency), AT).moves_nothing());
    }
}
