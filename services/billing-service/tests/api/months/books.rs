//! The books after all those months: a table of them, and each sum of it counted a second time, from what the ledger had no part in.

use std::fmt::Write as _;

use billing_service::ledger::chart::Account;
use billing_service::stripe::reconcile::{self, Severity};

use super::CURRENCIES;
use crate::shop::Shop;

/// The ledger agrees with itself, and with Stripe.
pub async fn agree(shop: &Shop) {
    shop.app.assert_clean().await;
    let report = reconcile::compare(&shop.state, shop.state.stripe.as_ref().unwrap(), reconcile::GRACE).await.unwrap();
    let wrong: Vec<_> = report.differences.iter().filter(|one| one.severity != Severity::Info).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let [customers, payments, reversals, invoices, credit_notes, sessions] = report.seen;
    println!(
        "compared with Stripe: {customers} customers, {payments} payments, {reversals} reversals, {invoices} invoices, {credit_notes} credit notes, {sessions} pages, {} differences",
        wrong.len()
    );
}

async fn number(shop: &Shop, query: &'static str, currency: &str) -> i64 {
    sqlx::query_scalar(query).bind(currency).fetch_one(&shop.app.database.owner).await.unwrap()
}

/// Prints what the house has by currency, and compares each sum with one that the ledger had no part in.
pub async fn table(shop: &Shop) {
    const BALANCE: &str = "select coalesce(sum(balance_micros), 0)::bigint from accounts where currency = $1 and kind = ";
    println!("{:>22} {:>18} {:>18} {:>18}", "micro-units", "USD", "JPY", "KWD");
    let mut all = std::collections::HashMap::new();
    for kind in Account::ALL {
        let mut row = format!("{:>22}", kind.as_str());
        for currency in CURRENCIES {
            let query: &'static str = format!("{BALANCE}'{}'", kind.as_str()).leak();
            let balance = number(shop, query, currency).await;
            all.insert((kind.as_str(), currency), balance);
            write!(row, " {balance:>18}").unwrap();
        }
        println!("{row}");
    }
    for currency in CURRENCIES {
        let of = |kind: &str| all[&(kind, currency)];
        assert_eq!(all.iter().filter(|((_, of), _)| *of == currency).map(|(_, balance)| balance).sum::<i64>(), 0, "{currency}");
        let rows = shop.stripe.ledger();
        let net: i64 = rows.iter().filter(|row| row.currency.to_uppercase() == currency).map(|row| row.net).sum();
        let net = money::from_minor_units(currency.parse().unwrap(), net).unwrap();
        assert_eq!(-of("stripe_clearing"), net + of("disputes"), "what Stripe has, less the fees of disputes: {currency}");
        let exchanged = "select (select coalesce(sum(exchanged_micros), 0) from stripe_payments where currency = $1 and sold)::bigint
            - (select coalesce(sum(r.exchanged_micros), 0) from stripe_reversals r join stripe_payments p using (payment_intent_id)
               where p.currency = $1 and r.posted and r.status <> 'won')::bigint";
        let bought = "select (select coalesce(sum(bought_micros), 0) from stripe_payments where $1 = 'USD' and sold)::bigint
            - (select coalesce(sum(bought_micros), 0) from stripe_reversals where $1 = 'USD' and posted and status <> 'won')::bigint";
        let expected = number(shop, exchanged, currency).await - number(shop, bought, currency).await;
        assert_eq!(of("exchange"), expected, "{currency}");
        let lots = number(shop, "select coalesce(sum(remaining_micros), 0)::bigint from grants where currency = $1", currency).await;
        assert_eq!(of("wallet") + of("holds"), lots, "what is deferred is what lots have left: {currency}");
        let used = number(shop, "select coalesce(sum(price_micros), 0)::bigint from usage_events where currency = $1", currency).await;
        let cost = number(shop, "select coalesce(sum(cost_micros), 0)::bigint from usage_events where currency = $1", currency).await;
        assert_eq!((of("revenue"), -of("provider_cost"), of("provider_payable")), (used, cost, cost), "{currency}");
        let expired = "select coalesce(-sum(m.amount_micros), 0)::bigint from grant_movements m join grants g on g.id = m.grant_id
            where m.kind = 'expiry' and g.currency = $1";
        // Of what went back with its money the house earned nothing.
        let gone = "select coalesce(sum(t.expired_micros), 0)::bigint from grant_takebacks t join grants g on g.id = t.grant_id
            where g.currency = $1 and not exists (select from ledger_transactions w where t.kind = 'dispute' and w.kind = 'dispute_won' and w.external_key = t.external_key)";
        let kept = number(shop, expired, currency).await - number(shop, gone, currency).await;
        assert_eq!(of("breakage"), kept, "{currency}");
        println!(
            "{currency}: cash {net}, deferred {lots}, revenue {used}, breakage {}, fees {}, cost {cost}, margin {}",
            of("breakage"),
            of("plan_fees"),
            used - cost
        );
    }
}
