//! Twenty-four virtual months of organizations that buy, use, change, fail, dispute and leave, in three currencies and across a leap day. Its
//! table is printed, and every sum of it is counted twice: once from the ledger, once from what it tells of.
//! `TRIVET_PROOF_ORGANIZATIONS` makes it larger.

use std::time::Duration;

use billing_service::stripe::reconcile::{self, Severity};
use chrono::{DateTime, TimeDelta, Utc};
use identity::OrganizationId;
use serde_json::{Value, json};
use testkit::eventually;
use testkit::http::{Answer, TestClient};

use super::catalog::sell;
use super::shop::Shop;

const CATALOG: &str = r#"
format: 1
plans:
  lite:
    name: Lite
    group: main
    grace_days: 7
    prices: {USD: {month: "8.00", year: "80.00"}, JPY: {month: "1200", year: "12000"}, KWD: {month: "2.400", year: "24.000"}}
    included_credit: {amounts: {USD: "5.00"}, expires: period_end}
    seats: {included: 1, max: 9, prices: {USD: {month: "3.00", year: "30.00"}, JPY: {month: "450", year: "4500"}, KWD: {month: "0.910", year: "9.100"}}}
  pro:
    name: Pro
    group: main
    grace_days: 7
    prices: {USD: {month: "20.00", year: "200.00"}, JPY: {month: "3100", year: "31000"}, KWD: {month: "6.150", year: "61.500"}}
    included_credit: {amounts: {USD: "15.00"}, expires: days, days: 45}
    seats: {included: 1, max: 9, prices: {USD: {month: "7.00", year: "70.00"}, JPY: {month: "1050", year: "10500"}, KWD: {month: "2.110", year: "21.100"}}}
credit_packs:
  small: {name: Ten dollars of credit, prices: {USD: "10.00", JPY: "1530", KWD: "3.080"}, credit: {USD: "11.00"}, expires: days, days: 60}
coupons:
  third: {name: A third off, percent_off: 33, duration: months, months: 3}
"#;

const CURRENCIES: [&str; 3] = ["USD", "JPY", "KWD"];
/// Where a month ends; the first of them is where everything begins. The 29th of February of 2032 is one of the days in between.
const BEGIN: &str = "2030-05-29T00:00:00Z";

struct Customer {
    organization: OrganizationId,
    client: TestClient,
    currency: &'static str,
    fails: bool,
    disputed: Option<String>,
}

/// What happened, so that a run in which something never did is no proof of it.
#[derive(Debug, Default)]
struct Seen {
    bought: u32,
    refunds: u32,
    disputes: u32,
    changes: u32,
    cancels: u32,
    failures: u32,
    requests: u32,
}

struct Months {
    shop: Shop,
    customers: Vec<Customer>,
    seen: Seen,
}

fn organizations() -> usize {
    std::env::var_os("TRIVET_PROOF_ORGANIZATIONS").map_or(6, |text| text.to_str().and_then(|text| text.parse().ok()).expect("a number"))
}

impl Months {
    fn now(&self) -> DateTime<Utc> {
        self.shop.app.clock.now()
    }

    /// Both clocks go on; what is due by then is done on both sides.
    async fn pass_to(&self, instant: DateTime<Utc>) {
        self.shop.pass((instant - self.now()).to_std().unwrap());
        // A charge, its payment and what follows from it, until the calendar has no more to say.
        loop {
            self.shop.settle().await;
            let due = self.due().await;
            if due == 0 {
                return;
            }
            eventually("the calendar acts", || async { (self.due().await == 0).then_some(()) }).await;
        }
    }

    async fn due(&self) -> i64 {
        let due = "select (select count(*) from subscriptions where next_action_at <= $1)
            + (select count(*) from grants where state = 'active' and expires_at <= $1)";
        sqlx::query_scalar(due).bind(self.now()).fetch_one(&self.shop.app.database.owner).await.unwrap()
    }

    async fn buy(&mut self, who: usize, mut body: Value) {
        let customer = &self.customers[who];
        body["currency"] = customer.currency.into();
        body["success_url"] = "https://shop.example.com/thanks".into();
        body["cancel_url"] = "https://shop.example.com/prices".into();
        let page = customer.client.post("/v1/checkout-sessions", &body).await.expect(201);
        self.shop.pay(&page);
        self.seen.bought += 1;
    }

    async fn living(&self, who: usize) -> Option<Value> {
        let living = self.customers[who].client.get("/v1/subscription").await.expect(200).json;
        living["data"].get(0).cloned()
    }

    async fn change(&mut self, who: usize, change: Value) -> bool {
        let Some(living) = self.living(who).await else { return false };
        let body = json!({"subscription_id": living["id"], "change": change});
        let answer: Answer = self.customers[who].client.post("/v1/subscription/changes", &body).await;
        assert!(matches!(answer.status.as_u16(), 200 | 409), "{}", answer.text);
        self.seen.changes += u32::from(answer.status == 200);
        answer.status == 200
    }

    /// The newest payment that was never asked back, and its amount in smallest units.
    async fn payment(&self, who: usize) -> Option<(String, i64)> {
        let newest: Option<String> = sqlx::query_scalar(
            "select payment_intent_id from stripe_payments p where organization_id = $1 and sold and amount_micros > 0
               and not exists (select from stripe_reversals r where r.payment_intent_id = p.payment_intent_id)
             order by paid_at desc, payment_intent_id limit 1",
        )
        .bind(self.customers[who].organization.uuid())
        .fetch_optional(&self.shop.app.database.owner)
        .await
        .unwrap();
        let newest = newest?;
        let amount = self.shop.stripe.object(&newest)["amount_received"].as_i64()?;
        Some((newest, amount))
    }

    async fn refund(&mut self, who: usize, divisor: i64) {
        let Some((payment, amount)) = self.payment(who).await else { return };
        let part = (amount / divisor / 10 * 10).max(10);
        self.shop.dashboard("/v1/refunds", &[("payment_intent", &payment), ("amount", &part.to_string())]).await;
        self.seen.refunds += 1;
    }

    async fn card(&mut self, who: usize, fails: bool) {
        let organization = self.customers[who].organization;
        if fails {
            self.shop.card_fails(organization).await;
            self.seen.failures += 1;
        } else {
            let customer = self.shop.stripe_customer(organization).await;
            let card = self.shop.dashboard("/v1/payment_methods/pm_card_visa/attach", &[("customer", &customer)]).await;
            let card = card["id"].as_str().unwrap().to_owned();
            let body = [("invoice_settings[default_payment_method]", card.as_str())];
            self.shop.dashboard(&format!("/v1/customers/{customer}"), &body).await;
            let open = self.customers[who].client.get("/v1/invoices").await.expect(200).json;
            for invoice in open["data"].as_array().unwrap().iter().filter(|invoice| invoice["status"] == "open") {
                let path = format!("/v1/invoices/{}/pay", invoice["id"].as_str().unwrap());
                self.shop.dashboard(&path, &[("payment_method", &card)]).await;
            }
        }
        self.customers[who].fails = fails;
    }

    /// A request of `sim-large`, as far as the wallet reaches; it uses half of what it holds.
    async fn use_up(&mut self, who: usize, tokens: u64) {
        let app = &self.shop.app;
        let hold = app.reserve(&app.reservation(self.customers[who].organization, app.request(), tokens, tokens)).await;
        if hold.status == 201 {
            app.settle(&hold.string("id"), &app.usage(tokens / 2, tokens / 2)).await.expect(200);
            self.seen.requests += 1;
        }
    }

    /// One thing that a customer does in a month.
    async fn act(&mut self, who: usize, month: usize) {
        self.use_up(who, 60_000 + 37_000 * ((who * 5 + month * 3) % 11) as u64).await;
        match (who * 5 + month * 7) % 13 {
            0 => self.buy(who, json!({"item": "credit_pack", "credit_pack": "small"})).await,
            1 => self.refund(who, 3).await,
            2 => self.refund(who, 1).await,
            3 | 4 if self.customers[who].disputed.is_none() => {
                if let Some((payment, _)) = self.payment(who).await {
                    let dispute = self.shop.stripe.open_dispute(&payment, None, "fraudulent").unwrap();
                    self.customers[who].disputed = Some(dispute["id"].as_str().unwrap().to_owned());
                    self.seen.disputes += 1;
                }
            }
            5 => drop(self.change(who, json!({"kind": "plan", "plan": "pro", "interval": "month", "seats": 2})).await),
            6 => drop(self.change(who, json!({"kind": "plan", "plan": "lite", "interval": "month", "seats": 1})).await),
            7 => drop(self.change(who, json!({"kind": "seats", "seats": 1 + month % 5})).await),
            8 => self.seen.cancels += u32::from(self.change(who, json!({"kind": "cancel"})).await),
            9 => drop(self.change(who, json!({"kind": "uncancel"})).await),
            10 if !self.customers[who].fails => self.card(who, true).await,
            11 => drop(self.change(who, json!({"kind": "plan", "plan": "pro", "interval": "year", "seats": 1})).await),
            _ => {}
        }
    }

    /// What was left open by the month before: failed cards are mended, disputes end, and who left comes again.
    async fn mend(&mut self, who: usize, month: usize) {
        if self.customers[who].fails && !(who + month).is_multiple_of(3) {
            self.card(who, false).await;
        }
        if let Some(dispute) = self.customers[who].disputed.take() {
            self.shop.stripe.close_dispute(&dispute, (who + month).is_multiple_of(2)).unwrap();
        }
        if self.living(who).await.is_none() {
            if self.customers[who].fails {
                self.card(who, false).await;
            }
            let coupon = (who + month).is_multiple_of(2).then_some("third");
            let plan = ["lite", "pro"][(who + month / 3) % 2];
            self.buy(who, json!({"item": "plan", "plan": plan, "interval": "month", "seats": 1, "coupon": coupon})).await;
        }
    }
}

/// [B-34] [B-47] [B-48] [B-75] [B-76]
#[tokio::test]
async fn after_twenty_four_months_in_three_currencies_both_books_agree_to_the_smallest_unit() {
    let shop = Shop::open().await;
    sell(&shop.app, CATALOG).await;
    let mut months = Months { shop, customers: Vec::new(), seen: Seen::default() };
    let begin: DateTime<Utc> = BEGIN.parse().unwrap();
    months.pass_to(begin).await;
    for number in 0..organizations() {
        let (organization, client) = months.shop.customer();
        let currency = CURRENCIES[number % CURRENCIES.len()];
        months.customers.push(Customer { organization, client, currency, fails: false, disputed: None });
    }
    for month in 0..24_usize {
        let start = begin + chrono::Months::new(u32::try_from(month).unwrap());
        // The 29th, 30th and 31st are days of anchors; a month that has none of them ends on its last day.
        for day in 0..3_usize {
            months.pass_to((start + TimeDelta::days(i64::try_from(day).unwrap())).max(months.now())).await;
            for who in (day..organizations()).step_by(3) {
                months.mend(who, month).await;
            }
            months.shop.settle().await;
        }
        months.pass_to(start + TimeDelta::days(13)).await;
        for who in 0..organizations() {
            months.act(who, month).await;
        }
        months.shop.settle().await;
        println!("month {month} of 24, {}", months.now());
    }
    let end = begin + chrono::Months::new(24) + TimeDelta::days(9);
    months.pass_to(end).await;
    for who in 0..organizations() {
        if let Some(dispute) = months.customers[who].disputed.take() {
            months.shop.stripe.close_dispute(&dispute, true).unwrap();
        }
    }
    months.shop.settle().await;
    months.shop.pass(Duration::from_mins(30));
    months.shop.app.assert_clean().await;
    let state = months.shop.app.state();
    let report = reconcile::compare(&state, state.stripe.as_ref().unwrap()).await.unwrap();
    let wrong: Vec<_> = report.differences.iter().filter(|one| one.severity != Severity::Info).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let Seen { bought, refunds, disputes, changes, cancels, failures, requests } = months.seen;
    for (name, number) in [
        ("bought", bought),
        ("refunds", refunds),
        ("disputes", disputes),
        ("changes", changes),
        ("cancels", cancels),
        ("failures", failures),
        ("requests", requests),
    ] {
        assert!(number > 0, "no {name}");
    }
    println!("{:?}", months.seen);
    table(&months.shop).await;
}

async fn number(shop: &Shop, query: &'static str, currency: &str) -> i64 {
    sqlx::query_scalar(query).bind(currency).fetch_one(&shop.app.database.owner).await.unwrap()
}

/// Prints what the house has by currency, and compares each sum with one that the ledger had no part in.
async fn table(shop: &Shop) {
    const BALANCE: &str = "select coalesce(sum(balance_micros), 0)::bigint from accounts where currency = $1 and kind = ";
    println!("{:>22} {:>18} {:>18} {:>18}", "micro-units", "USD", "JPY", "KWD");
    let mut all = std::collections::HashMap::new();
    for kind in billing_service::ledger::chart::Account::ALL {
        let mut row = format!("{:>22}", kind.as_str());
        for currency in CURRENCIES {
            let query: &'static str = format!("{BALANCE}'{}'", kind.as_str()).leak();
            let balance = number(shop, query, currency).await;
            all.insert((kind.as_str(), currency), balance);
            row += &format!(" {balance:>18}");
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
        assert_eq!(of("breakage"), number(shop, expired, currency).await, "{currency}");
        println!(
            "{currency}: cash {net}, deferred {lots}, revenue {used}, breakage {}, fees {}, cost {cost}, margin {}",
            of("breakage"),
            of("plan_fees"),
            used - cost
        );
    }
}
