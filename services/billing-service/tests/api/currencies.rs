//! Credit in one currency, paid in others: what each posting moves in both, and that nothing of it stays when all goes back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use billing_service::ledger::export;
use billing_service::stripe::reconcile::{self, Severity};
use futures::TryStreamExt;
use serde_json::{Value, json};
use testkit::http::{Answer, TestClient};

use super::selling::sell;
use super::shop::Shop;

/// Yen at 150 for a dollar and dinars at 0.4, as the prices of each say.
const CATALOG: &str = r#"
format: 1
plans:
  pro:
    name: Pro
    group: main
    grace_days: 7
    prices: {USD: {month: "20.00"}, JPY: {month: "3000"}}
    included_credit: {amounts: {USD: "15.00"}, expires: period_end}
    seats: {included: 1, max: 9, prices: {USD: {month: "10.00"}, JPY: {month: "1500"}}}
  plain:
    name: Plain
    group: extra
    prices: {JPY: {month: "700"}}
  gulf:
    name: Gulf
    group: main
    grace_days: 7
    prices: {KWD: {month: "6.000"}}
    included_credit: {amounts: {USD: "15.00"}, expires: never}
credit_packs:
  small: {name: Ten dollars of credit, prices: {JPY: "1500"}, credit: {USD: "10.00"}, expires: never}
  large: {name: A hundred and ten, prices: {USD: "100.00", KWD: "40.000"}, credit: {USD: "110.00"}, expires: never}
coupons:
  half: {name: Half, percent_off: 50, duration: once}
"#;

async fn open() -> Shop {
    let shop = Shop::open().await;
    sell(&shop.app, CATALOG).await;
    shop
}

async fn buy(client: &TestClient, mut body: Value) -> Answer {
    body["success_url"] = "https://shop.example.com/thanks".into();
    body["cancel_url"] = "https://shop.example.com/prices".into();
    client.post("/v1/checkout-sessions", &body).await
}

async fn pack(client: &TestClient, pack: &str, currency: &str) -> Answer {
    buy(client, json!({"item": "credit_pack", "credit_pack": pack, "currency": currency})).await.expect(201)
}

async fn plan(client: &TestClient, plan: &str, currency: &str, more: Value) -> Answer {
    let mut body = json!({"item": "plan", "plan": plan, "currency": currency, "interval": "month", "seats": 1});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    buy(client, body).await.expect(201)
}

async fn put(client: &TestClient, setting: &Value) -> Answer {
    client.send("PUT".parse().unwrap(), "/v1/auto-top-up", Some(setting.to_string())).await
}

/// The house's balance of a kind in a currency, in micro-units; zero without an account.
async fn house(shop: &Shop, kind: &str, currency: &str) -> i64 {
    let sum = "select coalesce(sum(balance_micros), 0)::bigint from accounts where organization_id is null and kind = $1 and currency = $2";
    sqlx::query_scalar(sum).bind(kind).bind(currency).fetch_one(&shop.app.database.owner).await.unwrap()
}

/// Both books hold, each by itself and beside the other.
async fn assert_clean(shop: &Shop) {
    shop.app.assert_clean().await;
    shop.pass(Duration::from_mins(20));
    let state = shop.app.state();
    let report = reconcile::compare(&state, state.stripe.as_ref().unwrap(), reconcile::GRACE).await.unwrap();
    let wrong: Vec<_> = report.differences.iter().filter(|one| one.severity != Severity::Info).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// The last payment.
async fn payment(shop: &Shop) -> String {
    let newest = sqlx::query_scalar("select payment_intent_id from stripe_payments order by paid_at desc limit 1");
    newest.fetch_one(&shop.app.database.owner).await.unwrap()
}

async fn refund(shop: &Shop, amount: i64) {
    let payment = payment(shop).await;
    shop.dashboard("/v1/refunds", &[("payment_intent", &payment), ("amount", &amount.to_string())]).await;
    shop.settle().await;
}

/// [B-47] [B-27]
#[tokio::test]
async fn a_pack_for_yen_gives_dollars_of_credit_and_the_exchange_stands_between_them() {
    let shop = open().await;
    let (_, client) = shop.customer();
    shop.pay(&pack(&client, "small", "JPY").await);
    shop.settle().await;
    assert_eq!(shop.app.balance(&client).await, (10_000_000, 0));
    assert_eq!((house(&shop, "stripe_clearing", "JPY").await, house(&shop, "exchange", "JPY").await), (-1_500_000_000, 1_500_000_000));
    assert_eq!((house(&shop, "exchange", "USD").await, house(&shop, "stripe_clearing", "USD").await), (-10_000_000, 0));
    assert_clean(&shop).await;
}

/// [B-47] The catalogue's own price in dollars says what of the credit a customer paid for.
#[tokio::test]
async fn the_bonus_of_a_pack_for_dinars_is_what_it_is_in_dollars() {
    let shop = open().await;
    let (_, client) = shop.customer();
    shop.pay(&pack(&client, "large", "KWD").await);
    shop.settle().await;
    assert_eq!(shop.app.balance(&client).await, (110_000_000, 0));
    assert_eq!((house(&shop, "exchange", "USD").await, house(&shop, "promotion", "USD").await), (-100_000_000, -10_000_000));
    assert_eq!(house(&shop, "exchange", "KWD").await, 40_000_000);
    assert_clean(&shop).await;
}

/// [B-47] Fifteen of twenty dollars are credit: so are three quarters of the yen, and the rest is earned in yen.
#[tokio::test]
async fn what_of_a_plans_price_in_yen_is_no_credit_is_earned_in_yen() {
    let shop = open().await;
    let (_, client) = shop.customer();
    shop.pay(&plan(&client, "pro", "JPY", json!({"seats": 3})).await);
    shop.settle().await;
    assert_eq!(shop.app.balance(&client).await, (15_000_000, 0));
    assert_eq!((house(&shop, "exchange", "JPY").await, house(&shop, "plan_fees", "JPY").await), (2_250_000_000, 3_750_000_000));
    assert_eq!((house(&shop, "exchange", "USD").await, house(&shop, "plan_fees", "USD").await), (-15_000_000, 0));
    let (_, other) = shop.customer();
    shop.pay(&plan(&other, "pro", "JPY", json!({"coupon": "half"})).await);
    shop.settle().await;
    assert_eq!(house(&shop, "exchange", "USD").await, -25_000_000, "half the price bought ten of the fifteen dollars");
    assert_eq!((house(&shop, "promotion", "USD").await, house(&shop, "plan_fees", "JPY").await), (-5_000_000, 3_750_000_000));
    assert_clean(&shop).await;
}

/// [B-48] [B-27]
#[tokio::test]
async fn a_refund_in_parts_takes_the_credit_in_parts_and_leaves_nothing_exchanged() {
    let shop = open().await;
    for (code, currency, whole, parts) in [("pro", "JPY", 3000, [701, 1, 1150, 1148]), ("gulf", "KWD", 6000, [10, 3330, 2650, 10])] {
        let (organization, client) = shop.customer();
        shop.pay(&plan(&client, code, currency, json!({})).await);
        shop.settle().await;
        assert_eq!(shop.app.balance(&client).await, (15_000_000, 0));
        assert_eq!(parts.iter().sum::<i64>(), whole);
        let mut left = 15_000_000;
        for part in parts {
            refund(&shop, part).await;
            let (now, _) = shop.app.balance(&client).await;
            assert!(now < left, "{part} {currency} took no credit");
            left = now;
            assert_clean(&shop).await;
        }
        assert_eq!((left, shop.app.debt(organization).await), (0, 0));
        for kind in ["stripe_clearing", "exchange", "plan_fees"] {
            assert_eq!((house(&shop, kind, currency).await, house(&shop, kind, "USD").await), (0, 0), "{kind}");
        }
    }
}

/// [B-48] A dispute moves the money in its own currency, and its fee with it.
#[tokio::test]
async fn disputes_of_yen_are_won_and_lost_in_yen() {
    let shop = open().await;
    for won in [true, false] {
        let (_, client) = shop.customer();
        let before = (house(&shop, "stripe_clearing", "JPY").await, house(&shop, "exchange", "JPY").await);
        shop.pay(&pack(&client, "small", "JPY").await);
        shop.settle().await;
        let dispute = shop.stripe.open_dispute(&payment(&shop).await, None, "fraudulent").unwrap();
        shop.settle().await;
        assert_eq!((shop.app.balance(&client).await, house(&shop, "disputes", "JPY").await), ((0, 0), 1_500_000_000));
        shop.stripe.close_dispute(dispute["id"].as_str().unwrap(), won).unwrap();
        shop.settle().await;
        let (credit, money) = if won { (10_000_000, 1_500_000_000) } else { (0, 0) };
        assert_eq!(shop.app.balance(&client).await, (credit, 0));
        let fee = house(&shop, "disputes", "JPY").await;
        assert_eq!((fee < 0, house(&shop, "exchange", "JPY").await - before.1), (!won, money));
        assert_eq!(house(&shop, "stripe_clearing", "JPY").await - before.0, -money - fee, "won: {won}");
        assert_eq!(house(&shop, "exchange", "USD").await, -10_000_000, "of the one that was won");
        assert_clean(&shop).await;
    }
}

/// [B-48] Stripe takes the fee in the currency in which it settles with us: 15.00 dollars are no 1,500 yen.
#[tokio::test]
async fn the_fee_of_a_dispute_of_yen_is_in_the_dollars_that_stripe_settles_in() {
    let shop = open().await;
    shop.stripe.settles_in("usd", 666_667);
    for (disputes, page) in [(1, "small"), (2, "plain")] {
        let (_, client) = shop.customer();
        shop.pay(&if page == "small" { pack(&client, page, "JPY").await } else { plan(&client, page, "JPY", json!({})).await });
        shop.settle().await;
        let dispute = shop.stripe.open_dispute(&payment(&shop).await, None, "fraudulent").unwrap();
        shop.settle().await;
        shop.stripe.close_dispute(dispute["id"].as_str().unwrap(), false).unwrap();
        shop.settle().await;
        assert_eq!((house(&shop, "disputes", "JPY").await, house(&shop, "stripe_clearing", "JPY").await), (0, 0), "{page}");
        let fees = disputes * 15_000_000;
        assert_eq!((house(&shop, "disputes", "USD").await, house(&shop, "stripe_clearing", "USD").await), (-fees, fees), "{page}");
        assert_eq!(house(&shop, "exchange", "JPY").await, 0);
        assert_clean(&shop).await;
    }
}

/// A customer pays in one currency, whatever it buys.
#[tokio::test]
async fn a_pack_in_another_currency_than_that_of_the_first_purchase_is_refused() {
    let shop = open().await;
    let (_, client) = shop.customer();
    shop.pay(&pack(&client, "large", "KWD").await);
    shop.settle().await;
    for (code, currency) in [("large", "USD"), ("small", "JPY")] {
        let refused = buy(&client, json!({"item": "credit_pack", "credit_pack": code, "currency": currency})).await.expect(422);
        let error = json!([{"field": "currency", "rule": "must be KWD, in which the organization pays"}]);
        assert_eq!(refused.json["errors"], error, "{currency}");
    }
    assert_eq!(shop.app.count("select count(*) from checkouts").await, 1);
    shop.pay(&pack(&client, "large", "KWD").await);
    shop.settle().await;
    assert_eq!(shop.app.balance(&client).await, (220_000_000, 0));
}

/// [B-49] Automatic purchases are in the currency of credit, and who pays in another is told so.
#[tokio::test]
async fn who_pays_in_yen_has_no_automatic_top_up_and_one_that_was_on_goes_off() {
    let shop = open().await;
    let (organization, client) = shop.customer();
    let on = json!({"enabled": true, "threshold_micros": 0, "amount_micros": 1_000_000, "monthly_cap_micros": 1_000_000});
    // A card is added in the portal before anything was bought, and so before there is a currency.
    client.post("/v1/portal-sessions", &json!({"return_url": "https://shop.example.com"})).await.expect(201);
    shop.pays_with(organization, "pm_card_visa").await;
    put(&client, &on).await.expect(200);
    shop.pay(&plan(&client, "pro", "JPY", json!({})).await);
    shop.settle().await;
    assert_eq!(client.get("/v1/auto-top-up").await.expect(200).json["enabled"], false);
    let refused = put(&client, &on).await.expect(409);
    assert_eq!((refused.string("code").as_str(), &refused.json["errors"][0]["field"]), ("currency_of_top_up", &json!("enabled")));
    let off = json!({"enabled": false, "threshold_micros": 0, "amount_micros": 1_000_000, "monthly_cap_micros": 1_000_000});
    put(&client, &off).await.expect(200);
}

/// An amount as the export writes it, with six digits after the point, in micro-units; zero where a column is empty.
fn micros(text: &str) -> i64 {
    let Some((whole, fraction)) = text.split_once('.') else {
        assert_eq!(text, "", "an amount without its digits");
        return 0;
    };
    assert_eq!(fraction.len(), 6, "{text}");
    format!("{whole}{fraction}").parse().unwrap()
}

/// [B-27] What an accountant reads of books in three currencies: nothing is added up across them, and all of it is there.
#[tokio::test]
async fn each_transaction_of_the_export_balances_in_each_of_its_currencies_and_every_row_says_its_own() {
    let shop = open().await;
    for (item, currency) in [("large", "USD"), ("small", "JPY"), ("large", "KWD")] {
        let (_, client) = shop.customer();
        shop.pay(&pack(&client, item, currency).await);
        shop.settle().await;
    }
    let (from, to) = ("2000-01-01T00:00:00Z".parse().unwrap(), "2100-01-01T00:00:00Z".parse().unwrap());
    let chunks: Vec<_> = export::chunks(shop.app.database.pool.clone(), from, to).try_collect().await.unwrap();
    let csv = String::from_utf8(chunks.concat()).unwrap();
    let mut sums: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    let mut cash: BTreeMap<&str, i64> = BTreeMap::new();
    let mut transactions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in csv.lines().skip(1) {
        let cells: Vec<_> = line.split(',').collect();
        let [_, transaction, _, _, _, code, account, _, currency, debit, credit] = cells[..] else { panic!("not eleven columns: {line}") };
        assert!(!code.is_empty() && (debit.is_empty() != credit.is_empty()), "{line}");
        let amount = micros(credit) - micros(debit);
        *sums.entry((transaction, currency)).or_default() += amount;
        transactions.entry(transaction).or_default().insert(currency);
        if account == "stripe_clearing" {
            *cash.entry(currency).or_default() += amount;
        }
    }
    let unbalanced: Vec<_> = sums.iter().filter(|(_, sum)| **sum != 0).collect();
    assert!(unbalanced.is_empty(), "{unbalanced:?}");
    let exchanged: BTreeSet<_> = transactions.values().filter(|currencies| currencies.len() > 1).cloned().collect();
    assert_eq!(exchanged, BTreeSet::from([BTreeSet::from(["JPY", "USD"]), BTreeSet::from(["KWD", "USD"])]));
    // A yen has no parts and a dinar a thousand: each is written in its own unit.
    assert_eq!(cash, BTreeMap::from([("USD", -100_000_000), ("JPY", -1_500_000_000), ("KWD", -40_000_000)]));
}
