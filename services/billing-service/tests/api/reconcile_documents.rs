//! Each difference of customers, invoices, charges and pages [B-75], made real alone; `reconcile_balances` has credit notes and
//! balances, `reconcile_money` says more.

use std::collections::BTreeSet;

use billing_service::stripe::reconcile::{self, Severity};
use serde_json::json;

use super::reconcile_desk::{INVOICE, with_a_pack, with_a_plan};

const PAGE: &str = "select session_id from checkouts where state = 'paid'";

/// [B-75]
#[tokio::test]
async fn customer_missing_is_an_organization_that_waits_for_its_customer() {
    let desk = with_a_pack().await;
    desk.while_ours_say(
        "insert into stripe_customers
           select '00000000-0000-0000-0000-000000000001', 'a@example.com', 'A', 'key', null, 3, '2031-01-01', '2029-01-01'",
    )
    .await;
    let one = desk.differs("customer_missing", Severity::Error, "00000000-0000-0000-0000-000000000001", &[]).await;
    desk.is_refused(&one).await;
    desk.undone("delete from stripe_customers where idempotency_key = 'key'").await;
}

/// [B-75]
#[tokio::test]
async fn customer_none_is_a_note_that_an_organization_bought_nothing_yet_and_its_first_page_ends_it() {
    let desk = with_a_pack().await;
    let (organization, client) = desk.shop.customer();
    client.get("/v1/balance").await.expect(200);
    let state = desk.shop.app.state();
    let made: Result<(), billing_service::error::Error> = chassis::in_transaction!(state.pool, |transaction| {
        billing_service::organizations::ensure_wallet(&state, transaction, organization).await?;
        Ok(())
    });
    made.unwrap();
    let one = desk.differs("customer_none", Severity::Info, &organization.uuid().to_string(), &[]).await;
    assert_eq!(one.organization, Some(organization));
    desk.is_refused(&one).await;
    desk.shop.pack(&client, "small").await.expect(201);
    desk.shop.settle().await;
    desk.agrees().await;
}

/// [B-75]
#[tokio::test]
async fn customer_unknown_is_a_customer_that_stripe_does_not_have() {
    let desk = with_a_pack().await;
    let customer = desk.shop.stripe_customer(desk.organization).await;
    desk.bent.hide(&customer);
    let one = desk.is_wrong("customer_unknown", &customer, &[]).await;
    desk.is_refused(&one).await;
    desk.straightened().await;
}

/// [B-75]
#[tokio::test]
async fn customer_double_is_a_second_customer_of_an_organization() {
    let desk = with_a_pack().await;
    let second = desk.shop.dashboard("/v1/customers", &[("metadata[organization_id]", &desk.organization.to_string())]).await;
    let second = second["id"].as_str().unwrap();
    let one = desk.is_wrong("customer_double", second, &[]).await;
    assert_eq!(one.ours, desk.shop.stripe_customer(desk.organization).await);
    desk.is_refused(&one).await;
    desk.shop.delete_at_stripe(&format!("/v1/customers/{second}")).await;
    desk.agrees().await;
}

/// [B-75] [B-78]
#[tokio::test]
async fn invoice_missing_is_an_invoice_of_which_we_know_nothing_and_a_repair_brings_it() {
    let desk = with_a_plan().await;
    let invoice = desk.one(INVOICE).await;
    desk.while_ours_say("delete from stripe_invoices").await;
    let one = desk.is_wrong("invoice_missing", &invoice, &[]).await;
    desk.is_mended(&one).await;
    assert_eq!(desk.one(INVOICE).await, invoice);
}

/// [B-75]
#[tokio::test]
async fn invoice_unknown_is_an_invoice_that_stripe_does_not_have() {
    let desk = with_a_plan().await;
    let invoice = desk.one(INVOICE).await;
    desk.bent.hide(&invoice);
    let one = desk.is_wrong("invoice_unknown", &invoice, &[]).await;
    desk.is_refused(&one).await;
    desk.straightened().await;
}

/// [B-75]
#[tokio::test]
async fn invoice_owner_is_an_invoice_of_another_customer_at_stripe() {
    let desk = with_a_plan().await;
    let (other, client) = desk.shop.customer();
    desk.shop.pack(&client, "small").await.expect(201);
    desk.shop.settle().await;
    let invoice = desk.one(INVOICE).await;
    desk.bent.say(&invoice, "/customer", desk.shop.stripe_customer(other).await);
    let one = desk.is_wrong("invoice_owner", &invoice, &[]).await;
    desk.is_refused(&one).await;
    desk.straightened().await;
}

/// [B-75] [B-78]
#[tokio::test]
async fn invoice_status_is_an_invoice_whose_end_nobody_told_us_of_and_a_repair_brings_it() {
    let desk = with_a_plan().await;
    desk.while_ours_say("update stripe_invoices set status = 'open', paid_at = null").await;
    let one = desk.is_wrong("invoice_status", &desk.one(INVOICE).await, &[]).await;
    desk.is_mended(&one).await;
}

/// [B-75] [B-78]
#[tokio::test]
async fn invoice_amount_is_an_invoice_of_another_total_at_stripe_and_a_repair_brings_it() {
    let desk = with_a_plan().await;
    desk.while_ours_say("update stripe_invoices set total_micros = total_micros + 1").await;
    let one = desk.is_wrong("invoice_amount", &desk.one(INVOICE).await, &[]).await;
    assert_eq!((one.ours.as_str(), one.theirs.as_str()), ("paid 100000001 USD", "paid 100000000 USD"));
    desk.is_mended(&one).await;
}

/// [B-75] [B-76]
#[tokio::test]
async fn invoice_sums_is_an_invoice_whose_lines_do_not_come_to_its_total() {
    let desk = with_a_plan().await;
    let invoice = desk.one(INVOICE).await;
    desk.bent.say(&invoice, "/lines/data/0/amount", 1);
    let one = desk.is_wrong("invoice_sums", &invoice, &[]).await;
    desk.is_refused(&one).await;
    desk.straightened().await;
}

/// [B-75]
#[tokio::test]
async fn charge_double_is_a_charge_with_two_invoices_that_were_paid() {
    let desk = with_a_plan().await;
    let (first, of_charge) = (desk.one(INVOICE).await, "select id::text from subscription_charges where reason <> 'start'");
    let charge = desk.one(of_charge).await;
    desk.shop.pass(std::time::Duration::from_hours(31 * 24));
    desk.shop.renewed(2).await;
    let other: String = sqlx::query_scalar("select invoice_id from stripe_invoices where invoice_id <> $1")
        .bind(&first)
        .fetch_one(&desk.shop.app.database.owner)
        .await
        .unwrap();
    desk.agrees().await;
    desk.bent.say(&other, "/metadata/charge_id", charge.as_str());
    let one = desk.is_wrong("charge_double", &charge, &[]).await;
    assert_eq!((one.ours.as_str(), one.theirs.as_str()), ("1 payments", "2 paid of 2 invoices"));
    desk.is_refused(&one).await;
    desk.straightened().await;
}

/// [B-75]
#[tokio::test]
async fn charge_payable_is_a_charge_that_was_given_up_with_an_invoice_that_can_be_paid() {
    let desk = with_a_plan().await;
    let charge = "00000000-0000-0000-0000-000000000001";
    let customer = desk.shop.stripe_customer(desk.organization).await;
    desk.shop.dashboard("/v1/invoices", &[("customer", &customer), ("auto_advance", "false"), ("metadata[charge_id]", charge)]).await;
    desk.shop.settle().await;
    desk.while_ours_say(
        "insert into subscription_charges select '00000000-0000-0000-0000-000000000001', subscription_id, organization_id, period_start,
           'given up', currency, lines, 1, '2029-01-01' from subscription_charges limit 1;
         insert into intents (id, kind, subject, idempotency_key, payload, next_attempt_at, created_at, sent_at)
           select gen_random_uuid(), 'subscription.void', 'x', 'x', jsonb_build_object('charge_id', id, 'charged', 'y'), now(), now(), now()
           from subscription_charges where reason = 'given up'",
    )
    .await;
    let one = desk.is_wrong("charge_payable", charge, &[]).await;
    desk.is_refused(&one).await;
    desk.undone("delete from subscription_charges where reason = 'given up'; delete from intents where kind = 'subscription.void'").await;
}

/// [B-75]
#[tokio::test]
async fn charge_lost_is_a_charge_that_nothing_is_about_to_collect() {
    let desk = with_a_plan().await;
    desk.while_ours_say(
        "insert into subscription_charges select '00000000-0000-0000-0000-000000000001', subscription_id, organization_id, period_start,
           'forgotten', currency, lines, 1, '2029-01-01' from subscription_charges limit 1",
    )
    .await;
    let one = desk.is_wrong("charge_lost", "00000000-0000-0000-0000-000000000001", &[]).await;
    desk.is_refused(&one).await;
    desk.undone("delete from subscription_charges where reason = 'forgotten'").await;
}

/// [B-75] Of a void invoice nobody pays: what is still open then is lost, and what somebody has waived is not.
#[tokio::test]
async fn charge_lost_is_an_open_charge_whose_invoices_are_void_and_a_repair_waives_it() {
    let desk = with_a_plan().await;
    let charge = "00000000-0000-0000-0000-000000000001";
    let customer = desk.shop.stripe_customer(desk.organization).await;
    let fields = [("customer", customer.as_str()), ("auto_advance", "false"), ("metadata[charge_id]", charge)];
    let invoice = desk.shop.dashboard("/v1/invoices", &fields).await["id"].as_str().unwrap().to_owned();
    let item = [("customer", customer.as_str()), ("invoice", &invoice), ("amount", "500"), ("currency", "usd")];
    desk.shop.dashboard("/v1/invoiceitems", &item).await;
    desk.shop.dashboard(&format!("/v1/invoices/{invoice}/finalize"), &[]).await;
    desk.shop.dashboard(&format!("/v1/invoices/{invoice}/void"), &[]).await;
    desk.shop.settle().await;
    desk.while_ours_say(
        "insert into subscription_charges select '00000000-0000-0000-0000-000000000001', subscription_id, organization_id, period_start,
           'forgotten', currency, lines, 1, '2029-01-01' from subscription_charges limit 1",
    )
    .await;
    desk.while_ours_say(
        "update subscriptions set state = jsonb_set(state, '{open}', (select jsonb_agg(jsonb_build_object(
           'period_start', period_start, 'reason', reason, 'failed', false, 'grant', null)) from subscription_charges where reason = 'forgotten'))",
    )
    .await;
    let one = desk.is_wrong("charge_lost", &invoice, &[]).await;
    assert_eq!((one.ours.as_str(), one.theirs.as_str()), ("0 payments", "0 paid of 1 invoices"));
    desk.is_mended(&one).await;
    let open = "select jsonb_array_length(state -> 'open')::bigint from subscriptions";
    assert_eq!(desk.shop.app.count(open).await, 0, "it is waived");
    desk.undone("delete from subscription_charges where reason = 'forgotten'").await;
}

/// [B-75] [B-78]
#[tokio::test]
async fn checkout_unpaid_is_a_page_that_was_completed_and_a_repair_brings_its_effect() {
    let desk = with_a_pack().await;
    let page = desk.one(PAGE).await;
    desk.while_ours_say("update checkouts set state = 'open', ended_at = null").await;
    let one = desk.is_wrong("checkout_unpaid", &page, &[]).await;
    desk.is_mended(&one).await;
    assert_eq!(desk.shop.app.balance(&desk.client).await, (110_000_000, 0));
}

/// [B-75]
#[tokio::test]
async fn checkout_unproved_is_a_page_that_counts_as_paid_here_alone() {
    let desk = with_a_pack().await;
    let page = desk.one(PAGE).await;
    desk.bent.hide(&page);
    let one = desk.is_wrong("checkout_unproved", &page, &[]).await;
    desk.is_refused(&one).await;
    desk.straightened().await;
}

/// [B-75]
#[tokio::test]
async fn checkout_owner_is_a_page_of_another_customer_at_stripe() {
    let desk = with_a_pack().await;
    let (other, client) = desk.shop.customer();
    desk.shop.pack(&client, "small").await.expect(201);
    desk.shop.settle().await;
    let page = desk.one(PAGE).await;
    desk.bent.say(&page, "/customer", desk.shop.stripe_customer(other).await);
    let one = desk.is_wrong("checkout_owner", &page, &[]).await;
    desk.is_refused(&one).await;
    desk.straightened().await;
}

/// [B-75]
#[tokio::test]
async fn checkout_unknown_is_a_page_of_an_id_that_we_never_gave() {
    let desk = with_a_pack().await;
    let customer = desk.shop.stripe_customer(desk.organization).await;
    let fields = [
        ("mode", "setup"),
        ("currency", "usd"),
        ("customer", customer.as_str()),
        ("success_url", "https://shop.example.com/thanks"),
        ("metadata[checkout_id]", "00000000-0000-0000-0000-000000000001"),
    ];
    let page = desk.shop.dashboard("/v1/checkout/sessions", &fields).await["id"].as_str().unwrap().to_owned();
    desk.shop.stripe.complete_checkout(&page, "pm_card_visa").unwrap();
    let one = desk.differs("checkout_unknown", Severity::Warning, &page, &[]).await;
    assert_eq!(one.organization, Some(desk.organization));
    desk.is_refused(&one).await;
    desk.bent.hide(&page);
    desk.agrees().await;
}

/// [B-75] A kind without a test of its own fails this one.
#[test]
fn each_kind_of_difference_has_a_test_of_its_own() {
    let meters = [include_str!("stripe_meters.rs"), include_str!("stripe_meter_decisions.rs"), include_str!("stripe_meter_losses.rs")];
    let tests = [include_str!("reconcile_money.rs"), include_str!("reconcile_documents.rs"), include_str!("reconcile_balances.rs")]
        .concat()
        + &meters.concat();
    let without: BTreeSet<&str> = reconcile::kinds()
        .filter(|kind| {
            let own = tests.contains(&format!("async fn {kind}_is_"));
            let asserted = tests.contains(&format!("(\"{kind}\", ")) || tests.contains(&format!(".0, \"{kind}\""));
            !(asserted && (own || kind.starts_with("meter_")))
        })
        .collect();
    assert_eq!(json!(without), json!([]));
}

/// [B-75] Whoever reads of a difference finds what to do.
#[test]
fn each_kind_of_difference_has_a_row_in_the_guide() {
    let guide = testkit::repository::read("docs/guides/BILLING.md");
    let rows: Vec<&str> = guide.lines().filter(|line| line.starts_with("| `")).filter_map(|line| line.split('|').nth(1)).collect();
    let without: Vec<&str> = reconcile::kinds().filter(|kind| !rows.iter().any(|row| row.contains(&format!("`{kind}`")))).collect();
    assert_eq!(without, [""; 0]);
}

/// [B-75] Several pages of each list: all of it is compared, in both directions, and a page at once is held.
#[tokio::test]
async fn a_long_history_is_compared_page_by_page() {
    let desk = with_a_pack().await;
    let customer = desk.shop.stripe_customer(desk.organization).await;
    let cards = desk.client.get("/v1/payment-methods").await.expect(200).json;
    let card = cards["data"][0]["id"].as_str().unwrap();
    let fields = [
        ("amount", "100"),
        ("currency", "usd"),
        ("customer", customer.as_str()),
        ("payment_method", card),
        ("confirm", "true"),
        ("off_session", "true"),
    ];
    let mut paid = BTreeSet::new();
    for _ in 0..249 {
        paid.insert(desk.shop.dashboard("/v1/payment_intents", &fields).await["id"].as_str().unwrap().to_owned());
    }
    let report = desk.compare().await;
    let foreign = report.differences.iter().filter(|one| one.kind == "payment_foreign").map(|one| one.object.clone());
    assert_eq!(foreign.collect::<BTreeSet<_>>(), paid);
    assert_eq!((report.differences.len(), report.seen[1], report.most_held), (249, 250, 100));
    // The oldest is on the last page, and ours knows what was sold for it: hidden, it is missed.
    let oldest = desk.one("select payment_intent_id from stripe_payments").await;
    desk.bent.hide(&oldest);
    let report = desk.compare().await;
    let unknown: Vec<&str> = report.differences.iter().filter(|one| one.kind == "payment_unknown").map(|one| one.object.as_str()).collect();
    assert_eq!(unknown, [oldest.as_str()]);
    assert_eq!(desk.shop.app.count("select count(*) from reconciliation_listed").await, 0, "rows of a run go with it");
}
