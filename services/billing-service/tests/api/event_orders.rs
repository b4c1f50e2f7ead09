//! The events of a purchase in every order. Each is tried before the next one comes, so that the order is the one that is written here;
//! one comes twice, and one never: the look for gaps finds it.

use std::collections::HashMap;
use std::time::Duration;

use billing_service::stripe::gaps;
use futures::{StreamExt, stream};
use identity::OrganizationId;
use serde_json::{Value, json};
use testkit::eventually;
use testkit::http::TestClient;

use super::selling::sell;
use super::shop::{CATALOG, LANES, Shop};

/// An event by its type and the id of its object.
type Named = (&'static str, String);

/// Somebody who buys, and the five events that have an effect here.
struct Buyer {
    organization: OrganizationId,
    client: TestClient,
    five: [Named; 5],
    order: Vec<usize>,
}

/// All orders of some things.
fn permutations<T: Clone>(of: &[T]) -> Vec<Vec<T>> {
    if of.len() < 2 {
        return vec![of.to_vec()];
    }
    let mut all = Vec::new();
    for (at, first) in of.iter().enumerate() {
        let rest: Vec<T> = of[..at].iter().chain(&of[at + 1..]).cloned().collect();
        all.extend(permutations(&rest).into_iter().map(|mut order| {
            order.insert(0, first.clone());
            order
        }));
    }
    all
}

/// What the newest event of a type is about, by customer.
fn newest(shop: &Shop, kind: &str) -> HashMap<String, String> {
    let text = |event: &Value, name: &str| event["data"]["object"][name].as_str().unwrap().to_owned();
    shop.stripe.events().iter().filter(|event| event["type"] == kind).map(|event| (text(event, "customer"), text(event, "id"))).collect()
}

/// A part of a payment goes back, by somebody at Stripe's dashboard.
async fn refund(shop: &Shop, payment: &str, cents: &str) -> Named {
    let refund = shop.dashboard("/v1/refunds", &[("payment_intent", payment), ("amount", cents)]).await;
    ("refund.created", refund["id"].as_str().unwrap().to_owned())
}

/// The bank asks about what is left of a payment, and decides.
fn dispute(shop: &Shop, payment: &str, won: bool) -> String {
    let dispute = shop.stripe.open_dispute(payment, None, "fraudulent").unwrap();
    let id = dispute["id"].as_str().unwrap();
    shop.stripe.close_dispute(id, won).unwrap();
    id.to_owned()
}

/// Delivers an event, and waits until it was tried: it has its effect, or waits for what it needs.
async fn tell(shop: &Shop, event: &Value) {
    shop.deliver(event).await;
    // Who takes an event puts it off for 25 seconds at least, and who cannot use it yet for one and a quarter at most.
    let tried = "select state <> 'received' or attempts > 0 and next_attempt_at < $2 from stripe_events where event_id = $1";
    let soon = shop.app.clock.now() + chrono::TimeDelta::seconds(20);
    eventually("the event is tried", || async {
        let query = sqlx::query_scalar::<_, bool>(tried).bind(event["id"].as_str()).bind(soon);
        query.fetch_one(&shop.app.database.owner).await.unwrap().then_some(())
    })
    .await;
}

/// All that an organization has of it in the end.
async fn end(shop: &Shop, buyer: &Buyer) -> Value {
    let books: Value = sqlx::query_scalar(
        "select jsonb_build_object(
           'ledger', (select jsonb_agg(entry order by entry) from (
              select concat_ws(' ', t.kind, a.kind, a.organization_id is null, a.currency, e.amount_micros) as entry
              from ledger_transactions t join ledger_entries e on e.transaction_id = t.id join accounts a on a.id = e.account_id
              where t.organization_id = $1) entries),
           'grants', (select jsonb_agg(lot order by lot) from (
              select concat_ws(' ', source, amount_micros, remaining_micros, expires_at::date) as lot from grants where organization_id = $1) lots),
           'subscriptions', (select jsonb_agg(concat_ws(' ', plan_code, status, next_action_at) order by plan_code) from subscriptions
              where organization_id = $1),
           'charges', (select jsonb_agg(concat_ws(' ', period_start, reason) order by period_start, reason) from subscription_charges
              where organization_id = $1),
           'payments', (select jsonb_agg(concat_ws(' ', source, amount_micros, credit_micros, sold, reversed_micros) order by source, amount_micros)
              from stripe_payments where organization_id = $1),
           'reversals', (select jsonb_agg(concat_ws(' ', r.kind, r.amount_micros, r.status, r.posted, r.closed) order by r.kind, r.amount_micros)
              from stripe_reversals r join stripe_payments p using (payment_intent_id) where p.organization_id = $1),
           'invoices', (select jsonb_agg(concat_ws(' ', source, status, total_micros, paid_micros, lines) order by total_micros)
              from stripe_invoices where organization_id = $1))",
    )
    .bind(buyer.organization.uuid())
    .fetch_one(&shop.app.database.owner)
    .await
    .unwrap();
    let mut entitlements = buyer.client.get("/v1/entitlements").await.expect(200).json;
    // It counts the changes, and an order may need one less.
    entitlements.as_object_mut().unwrap().retain(|name, _| name != "version" && name != "organization_id");
    json!({"books": books, "entitlements": entitlements, "balance": shop.app.balance(&buyer.client).await})
}

/// Everybody is told in an order of their own: one event twice, one lost, and between them what Stripe tells besides and means nothing here.
async fn tell_all(shop: &Shop, buyers: &[Buyer]) {
    let mut told: HashMap<(String, String), Value> = HashMap::new();
    let mut besides = Vec::new();
    for event in shop.news() {
        let kind = event["type"].as_str().unwrap().to_owned();
        if ["payment_intent.", "charge.succeeded", "charge.refunded", "payment_method."].iter().any(|start| kind.starts_with(start)) {
            besides.push(event.clone());
        }
        told.insert((kind, event["data"]["object"]["id"].as_str().unwrap().to_owned()), event);
    }
    let besides = &besides;
    let told = &told;
    stream::iter(buyers.iter().enumerate())
        .for_each_concurrent(LANES, |(number, buyer)| async move {
            let lost = number % 5;
            let events: Vec<&Value> = buyer
                .order
                .iter()
                .filter(|at| **at != lost)
                .map(|at| {
                    let (kind, object) = &buyer.five[*at];
                    &told[&((*kind).to_owned(), object.clone())]
                })
                .collect();
            assert_eq!(events.len(), 4);
            for (at, event) in events.iter().enumerate() {
                tell(shop, event).await;
                shop.deliver(&besides[(number * 4 + at) % besides.len()]).await;
                if at == number % 3 {
                    tell(shop, event).await;
                }
            }
            tell(shop, events[number % 4]).await;
        })
        .await;
}

/// The look for gaps brings what was lost, what waited has its turn, and all have the same: what that is.
async fn ends_alike(shop: &Shop, buyers: &[Buyer]) -> Value {
    let stripe = shop.state.stripe.as_ref().unwrap();
    shop.pass(Duration::from_mins(5));
    let mut found = 0;
    loop {
        // What waits for something that is found later must not keep it from being found.
        let round = gaps::round(&shop.state, stripe, 4).await.unwrap();
        found += round.found;
        if round.done {
            break;
        }
    }
    // First all that waits for nothing, at one instant: what fails meanwhile does not come again before it.
    let (due, now) = ("select count(*) from stripe_events where state = 'received' and next_attempt_at <= $1", shop.app.clock.now());
    eventually("what was found is tried", || async {
        let due = sqlx::query_scalar::<_, i64>(due).bind(now).fetch_one(&shop.app.database.owner).await.unwrap();
        (due == 0).then_some(())
    })
    .await;
    shop.handled_in_time().await;
    assert!(found >= 120, "{found} were lost");
    shop.send().await;
    let first = end(shop, &buyers[0]).await;
    for buyer in buyers {
        assert_eq!(end(shop, buyer).await, first, "{:?} of {:?}", buyer.order, buyer.five);
    }
    let kinds: Vec<&str> = buyers[0].five.iter().map(|(kind, _)| *kind).collect();
    let nothing = sqlx::query_scalar::<_, i64>("select count(*) from stripe_events where kind = any($1) and state <> 'handled'");
    assert_eq!(nothing.bind(&kinds).fetch_one(&shop.app.database.owner).await.unwrap(), 0, "one of {kinds:?} means nothing here");
    assert_eq!(shop.app.count("select count(*) from stripe_events where state not in ('handled', 'ignored')").await, 0);
    shop.assert_reconciled().await;
    first
}

/// [B-16] [B-18] [B-19] [B9] [B25] A plan is bought on a page while the trial of another one ends and its invoice is paid; a part of the
/// first payment goes back, and the bank takes the second one. Five events that each mean something here, of four objects (Stripe has no
/// subscription of ours, and tells of none), are of one moment.
#[tokio::test]
async fn all_120_orders_of_five_events_of_a_plan_end_alike_with_duplicates_and_drops() {
    let shop = Shop::open().await;
    sell(&shop.app, &CATALOG.replace("group: extra\n", "group: extra\n    trial_days: 14\n")).await;
    shop.settle().await;
    let customers: Vec<_> = (0..120).map(|_| shop.customer()).collect();
    stream::iter(&customers)
        .for_each_concurrent(LANES, |(_, client)| async { shop.pay(&shop.plan(client, "plain").await.expect(201)) })
        .await;
    for event in shop.news().iter().filter(|event| event["type"] == "checkout.session.completed") {
        shop.deliver(event).await;
    }
    shop.handled().await;
    shop.send().await;
    shop.pass(Duration::from_hours(14 * 24 + 1));
    eventually("the trials end", || async {
        (shop.app.count("select count(*) from subscription_charges where reason <> 'start'").await == 120).then_some(())
    })
    .await;
    shop.send().await;
    eventually("all is asked for", || async {
        (shop.app.count("select count(*) from intents where sent_at is null").await == 0).then_some(())
    })
    .await;
    let (invoices, first) = (newest(&shop, "invoice.paid"), newest(&shop, "payment_intent.succeeded"));
    let pages: Vec<String> = stream::iter(&customers)
        .map(async |(_, client)| {
            let page = shop.plan(client, "team").await.expect(201);
            shop.pay(&page);
            Shop::session(&page)
        })
        .buffered(LANES)
        .collect()
        .await;
    let second = newest(&shop, "payment_intent.succeeded");
    let mut buyers = Vec::new();
    for ((order, page), (organization, client)) in permutations(&[0_usize, 1, 2, 3, 4]).into_iter().zip(pages).zip(customers) {
        let customer = shop.stripe_customer(organization).await;
        let five = [
            ("checkout.session.completed", page),
            ("invoice.finalized", invoices[&customer].clone()),
            ("invoice.paid", invoices[&customer].clone()),
            refund(&shop, &second[&customer], "3333").await,
            ("charge.dispute.closed", dispute(&shop, &first[&customer], false)),
        ];
        buyers.push(Buyer { organization, client, five, order });
    }
    tell_all(&shop, &buyers).await;
    let end = ends_alike(&shop, &buyers).await;
    assert_eq!(end["balance"], json!([60_000_000 - 19_998_000, 0]), "{end}");
    assert_eq!(end["books"]["grants"], json!(["plan 60000000 40002000 2030-04-15"]));
    assert_eq!(end["books"]["invoices"].as_array().unwrap().len(), 1, "{end}");
    assert_eq!(end["entitlements"]["plans"].as_array().unwrap().len(), 2, "{end}");
}

/// [B-16] [B-18] [B-19] [B9] [B25] Of a pack Stripe tells one thing that means something here, that its page was paid; what else can come of
/// it is the other four: two parts go back, and the bank asks about the rest and gives it back.
#[tokio::test]
async fn all_120_orders_of_five_events_of_a_pack_end_alike_with_duplicates_and_drops() {
    let shop = Shop::open().await;
    shop.settle().await;
    let customers: Vec<_> = (0..120).map(|_| shop.customer()).collect();
    let pages: Vec<String> = stream::iter(&customers)
        .map(async |(_, client)| {
            let page = shop.pack(client, "large").await.expect(201);
            shop.pay(&page);
            Shop::session(&page)
        })
        .buffered(LANES)
        .collect()
        .await;
    let payments = newest(&shop, "payment_intent.succeeded");
    let mut buyers = Vec::new();
    for ((order, page), (organization, client)) in permutations(&[0_usize, 1, 2, 3, 4]).into_iter().zip(pages).zip(customers) {
        let payment = &payments[&shop.stripe_customer(organization).await];
        let (first, second) = (refund(&shop, payment, "3333").await, refund(&shop, payment, "1001").await);
        let dispute = dispute(&shop, payment, true);
        let page = ("checkout.session.completed", page);
        let five = [page, first, second, ("charge.dispute.created", dispute.clone()), ("charge.dispute.closed", dispute)];
        buyers.push(Buyer { organization, client, five, order });
    }
    tell_all(&shop, &buyers).await;
    let end = ends_alike(&shop, &buyers).await;
    assert_eq!(end["balance"], json!([110_000_000 - 36_663_000 - 11_011_000, 0]), "{end}");
    assert_eq!(end["books"]["subscriptions"], Value::Null);
}
