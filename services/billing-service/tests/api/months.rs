//! Twenty-four virtual months of organizations that buy, use, change, fail, dispute and leave, in three currencies and across a leap day. Its
//! table is printed, and every sum of it is counted twice: once from the ledger, once from what it tells of.
//! `TRIVET_PROOF_ORGANIZATIONS` makes it larger.
//!
//! Stripe tells of what our guide says to enable, and of nothing else. Many organizations act at once, each of them in its own order; what
//! the service's sweepers would do within a second is done when the clock has moved, without waiting for their turn.

#[path = "months/books.rs"]
mod books;
#[path = "months/customer.rs"]
mod customer;

use std::time::{Duration, Instant};

use billing_service::{grants, lanes, subscriptions, top_ups};
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::selling::sell;
use super::shop::{LANES, Shop};
use customer::{Customer, Did};

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
    trial_days: 14
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

struct Months {
    shop: Shop,
    customers: Vec<Customer>,
}

fn organizations() -> usize {
    std::env::var_os("TRIVET_PROOF_ORGANIZATIONS").map_or(30, |text| text.to_str().and_then(|text| text.parse().ok()).expect("a number"))
}

impl Months {
    fn now(&self) -> DateTime<Utc> {
        self.shop.app.clock.now()
    }

    /// Both clocks go on; what is due by then is done on both sides.
    async fn pass_to(&self, instant: DateTime<Utc>) {
        self.shop.pass((instant - self.now()).to_std().unwrap());
        self.settle().await;
    }

    /// A charge, its payment and what follows from it, until the calendar has no more to say, and neither side to the other.
    async fn settle(&self) {
        for _ in 0..100 {
            self.sweep().await;
            self.shop.settle().await;
            if self.due().await == 0 {
                return;
            }
        }
        panic!("something is due, and nobody does it");
    }

    /// What the sweepers of the service do at this moment too.
    async fn sweep(&self) {
        let (state, on) = (&self.shop.state, CancellationToken::new());
        lanes::drain(LANES, &on, || subscriptions::due::step(state)).await.unwrap();
        lanes::drain(LANES, &on, || subscriptions::grants::step(state)).await.unwrap();
        grants::sweep(state).await.unwrap();
        top_ups::sweep(state).await.unwrap();
    }

    async fn due(&self) -> i64 {
        let due = "select (select count(*) from subscriptions where next_action_at <= $1)
            + (select count(*) from grants where state = 'active' and expires_at <= $1)
            + (select count(*) from subscription_grants where posted_at is null and currency = 'USD')
            + (select count(*) from auto_top_ups t where t.enabled and t.next_at <= $1
                 and not exists (select from top_ups u where u.organization_id = t.organization_id and u.state = 'wanted')
                 and (select sum(a.balance_micros) from accounts a
                      where a.organization_id = t.organization_id and a.currency = 'USD' and a.kind in ('wallet', 'debt')) < t.threshold_micros)";
        sqlx::query_scalar(due).bind(self.now()).fetch_one(&self.shop.app.database.owner).await.unwrap()
    }

    /// What a month's autovacuum does, which the databases of tests have turned off: what waited is no longer in the way of what waits.
    async fn clean(&self) {
        sqlx::query("vacuum (analyze) stripe_events, intents, accounts, grants, subscriptions, auto_top_ups")
            .execute(&self.shop.app.database.owner)
            .await
            .unwrap();
    }

    async fn month(&mut self, month: usize) {
        self.clean().await;
        let start = BEGIN.parse::<DateTime<Utc>>().unwrap() + chrono::Months::new(u32::try_from(month).unwrap());
        // The 29th, 30th and 31st are days of anchors; a month that has none of them ends on its last day.
        for day in 0..3_usize {
            self.pass_to((start + TimeDelta::days(i64::try_from(day).unwrap())).max(self.now())).await;
            let today = self.customers.iter_mut().filter(|customer| customer.number % 3 == day);
            stream::iter(today).for_each_concurrent(LANES, |customer| customer.mend(&self.shop, month)).await;
            self.settle().await;
        }
        self.pass_to(start + TimeDelta::days(13)).await;
        stream::iter(&mut self.customers).for_each_concurrent(LANES, |customer| customer.act(&self.shop, month)).await;
        self.settle().await;
    }

    /// Nothing is open any more, and long enough ago to be compared.
    async fn end(&mut self) {
        self.pass_to(BEGIN.parse::<DateTime<Utc>>().unwrap() + chrono::Months::new(24) + TimeDelta::days(9)).await;
        for customer in &mut self.customers {
            customer.end_dispute(&self.shop, true);
        }
        self.settle().await;
        self.shop.pass(Duration::from_mins(30));
    }

    /// Everything that the proof is about did happen: a run in which something never did is no proof of it.
    async fn everything_happened(&self) {
        let did = |what: fn(&Did) -> u32| self.customers.iter().map(|customer| i64::from(what(&customer.did))).sum::<i64>();
        let changed = |kind: &'static str| async move {
            sqlx::query_scalar::<_, i64>("select count(*) from subscription_changes where command ->> 'kind' = $1")
                .bind(kind)
                .fetch_one(&self.shop.app.database.owner)
                .await
                .unwrap()
        };
        let ended = "select count(*) from subscription_changes where command ->> 'kind' = 'grace_over'";
        let topped_up = "select count(*) from top_ups where state = 'paid'";
        let trials = "select count(*) from subscription_changes where command ->> 'kind' = 'begin_trial'";
        let yearly = "select count(*) from subscriptions where state #>> '{terms,interval}' = 'year'";
        for (what, count) in [
            ("plans bought", did(|did| did.plans)),
            ("trials", self.shop.app.count(trials).await),
            ("plans by the year", self.shop.app.count(yearly).await),
            ("renewals", changed("renew").await),
            ("upgrades", changed("upgrade").await),
            ("downgrades", changed("downgrade").await),
            ("changes of seats", changed("change_seats").await),
            ("cancellations", changed("cancel_at_period_end").await),
            ("cards that fail", did(|did| did.failures)),
            ("plans ended by unpaid invoices", self.shop.app.count(ended).await),
            ("packs of credit", did(|did| did.packs)),
            ("top-ups", self.shop.app.count(topped_up).await),
            ("requests", did(|did| did.requests)),
            ("refunds", did(|did| did.refunds)),
            ("disputes won", did(|did| did.disputes_won)),
            ("disputes lost", did(|did| did.disputes_lost)),
        ] {
            println!("{count:>9} {what}");
            assert!(count > 0, "no {what}");
        }
    }
}

/// [B-34] [B-47] [B-48] [B-49] [B-75] [B-76]
#[tokio::test(flavor = "multi_thread")]
async fn after_twenty_four_months_in_three_currencies_both_books_agree_to_the_smallest_unit() {
    let began = Instant::now();
    let shop = Shop::open().await.by_the_guide();
    sell(&shop.app, CATALOG).await;
    let customers = (0..organizations()).map(|number| Customer::new(&shop, number, CURRENCIES[number % CURRENCIES.len()])).collect();
    let mut months = Months { shop, customers };
    months.pass_to(BEGIN.parse().unwrap()).await;
    for month in 0..24 {
        months.month(month).await;
        println!("month {month} of 24, {}, {:.1?}", months.now(), began.elapsed());
    }
    months.end().await;
    let lived = began.elapsed();
    books::agree(&months.shop).await;
    months.everything_happened().await;
    books::table(&months.shop).await;
    let count = 24.0 * f64::from(u32::try_from(organizations()).unwrap());
    println!(
        "{} organizations, {} requests to Stripe, {} events of Stripe, {:.1} months of an organization in a second, {lived:.1?} and {:.1?} to compare",
        organizations(),
        months.shop.stripe.requests(),
        months.shop.app.count("select count(*) from stripe_events").await,
        count / lived.as_secs_f64(),
        began.elapsed().saturating_sub(lived),
    );
}
