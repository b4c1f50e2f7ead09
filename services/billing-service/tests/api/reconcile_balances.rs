//! Each difference of credit notes and of customers' balances [B-75], made real alone.

use billing_service::audit::Decision;
use billing_service::stripe::reconcile::{self, Severity, repair};

use super::reconcile_desk::{Desk, INVOICE, with_a_plan};

/// Somebody gives the customer five dollars at the dashboard; who that is.
async fn given(desk: &Desk) -> String {
    let customer = desk.shop.stripe_customer(desk.organization).await;
    let path = format!("/v1/customers/{customer}/balance_transactions");
    desk.shop.dashboard(&path, &[("amount", "-500"), ("currency", "usd")]).await;
    customer
}

/// A credit note of five dollars for the customer's balance.
async fn noted(desk: &Desk) -> String {
    let invoice = desk.one(INVOICE).await;
    let fields = [("invoice", invoice.as_str()), ("amount", "500"), ("credit_amount", "500")];
    desk.shop.dashboard("/v1/credit_notes", &fields).await["id"].as_str().unwrap().to_owned()
}

/// [B-75] [B-78] What it put on the customer's balance is as unknown until then.
#[tokio::test]
async fn credit_note_missing_is_a_credit_note_of_which_we_know_nothing_and_a_repair_brings_it() {
    let desk = with_a_plan().await;
    let note = noted(&desk).await;
    desk.lose();
    let one = desk.is_wrong("credit_note_missing", &note, &["customer_balance"]).await;
    assert_eq!((one.ours.as_str(), one.theirs.as_str()), ("nothing", "issued 5000000 USD, to the balance 5000000"));
    desk.is_mended(&one).await;
    assert_eq!(desk.one("select credit_note_id from stripe_credit_notes").await, note);
    assert_eq!(desk.shop.app.count("select count(*) from reconciliation_runs where credit_notes <> 1").await, 0, "it is counted each time");
}

/// [B-75]
#[tokio::test]
async fn credit_note_unknown_is_a_credit_note_that_stripe_does_not_have() {
    let desk = with_a_plan().await;
    let note = noted(&desk).await;
    desk.shop.settle().await;
    desk.bent.hide(&note);
    let one = desk.is_wrong("credit_note_unknown", &note, &[]).await;
    desk.is_refused(&one).await;
    desk.straightened().await;
}

/// [B-75]
#[tokio::test]
async fn credit_note_owner_is_a_credit_note_of_another_customer_at_stripe() {
    let desk = with_a_plan().await;
    let (other, client) = desk.shop.customer();
    desk.shop.pack(&client, "small").await.expect(201);
    let note = noted(&desk).await;
    desk.shop.settle().await;
    desk.bent.say(&note, "/customer", desk.shop.stripe_customer(other).await);
    let one = desk.is_wrong("credit_note_owner", &note, &[]).await;
    desk.is_refused(&one).await;
    desk.straightened().await;
}

/// [B-75] [B-78]
#[tokio::test]
async fn credit_note_status_is_a_credit_note_whose_end_nobody_told_us_of_and_a_repair_brings_it() {
    let desk = with_a_plan().await;
    let note = noted(&desk).await;
    desk.shop.settle().await;
    desk.while_ours_say("update stripe_credit_notes set status = 'void'").await;
    let one = desk.is_wrong("credit_note_status", &note, &[]).await;
    desk.is_mended(&one).await;
}

/// [B-75] [B-78]
#[tokio::test]
async fn credit_note_amount_is_a_credit_note_of_another_amount_at_stripe_and_a_repair_brings_it() {
    let desk = with_a_plan().await;
    let note = noted(&desk).await;
    desk.shop.settle().await;
    desk.while_ours_say("update stripe_credit_notes set balance_micros = balance_micros - 1").await;
    let one = desk.is_wrong("credit_note_amount", &note, &[]).await;
    assert_eq!(one.ours, "issued 5000000 USD, to the balance 4999999");
    desk.is_mended(&one).await;
}

/// [B-75] [B-78] Somebody gave the customer something at the dashboard: whether it stands is for people to decide.
#[tokio::test]
async fn customer_balance_is_a_balance_that_somebody_changed_at_stripe_and_a_repair_books_the_change() {
    let desk = with_a_plan().await;
    let customer = given(&desk).await;
    desk.shop.settle().await;
    let one = desk.is_wrong("customer_balance", &customer, &[]).await;
    assert_eq!((one.ours.as_str(), one.theirs.as_str()), ("0 USD", "5000000 USD"));
    desk.is_mended(&one).await;
    assert_eq!((desk.shop.app.house("customer_balances").await, desk.shop.app.house("adjustments").await), (5_000_000, -5_000_000));
    assert_eq!(desk.shop.app.count("select count(*) from audit_log where action = 'stripe.repair'").await, 1);
    // Decided again upon what was compared before, it is not booked again.
    let state = desk.shop.app.state();
    let decision = Decision::new(&state, "ada", "a test", None);
    assert!(!repair::repair(&state, state.stripe.as_ref().unwrap(), &decision, &one).await.unwrap());
    desk.agrees().await;
}

/// What the house owes customers for their balances, and what was booked by hand.
async fn booked(desk: &Desk) -> (i64, i64) {
    let owed = "select coalesce(sum(balance_micros), 0)::bigint from accounts where kind = 'customer_balances'";
    let by_hand = "select coalesce(sum(balance_micros), 0)::bigint from accounts where kind = 'adjustments'";
    (desk.shop.app.count(owed).await, desk.shop.app.count(by_hand).await)
}

/// [B-75] The page of customers is read long before the ledger: a credit note came in between.
#[tokio::test]
async fn what_moved_a_balance_while_it_was_compared_is_a_note_and_no_error() {
    let desk = with_a_plan().await;
    noted(&desk).await;
    desk.shop.settle().await;
    desk.bent.say(&desk.shop.stripe_customer(desk.organization).await, "/balance", 0);
    let state = desk.shop.app.state();
    let report = reconcile::compare(&state, state.stripe.as_ref().unwrap(), reconcile::GRACE).await.unwrap();
    let [one] = &report.differences[..] else { panic!("{report:#?}") };
    assert_eq!((one.kind, one.severity), ("customer_balance", Severity::Info));
    assert!(repair::refusal(one, &report.differences).is_some());
    assert!(desk.repair(&one.object).await.is_ok(), "a note is no error");
    assert_eq!(booked(&desk).await, (5_000_000, 0));
}

/// [B-75] [B-78] A repair asks Stripe again, and does not book what is so no longer.
#[tokio::test]
async fn a_balance_that_is_another_by_now_is_not_repaired() {
    let desk = with_a_plan().await;
    noted(&desk).await;
    desk.shop.settle().await;
    let customer = desk.shop.stripe_customer(desk.organization).await;
    desk.bent.say(&customer, "/balance", 0);
    let one = desk.is_wrong("customer_balance", &customer, &[]).await;
    desk.bent.straighten();
    let state = desk.shop.app.state();
    let decision = Decision::new(&state, "ada", "a test", None);
    assert!(!repair::repair(&state, state.stripe.as_ref().unwrap(), &decision, &one).await.unwrap());
    assert_eq!(booked(&desk).await, (5_000_000, 0));
    desk.agrees().await;
}

/// [B-75] [B-78] What the credit note brings when it is repaired would be booked twice.
#[tokio::test]
async fn a_balance_is_not_repaired_beside_another_difference_that_may_be_why() {
    let desk = with_a_plan().await;
    noted(&desk).await;
    desk.lose();
    let report = desk.compare().await;
    let balance = report.differences.iter().find(|one| one.kind == "customer_balance").unwrap();
    assert_eq!((report.differences.len(), balance.severity), (2, Severity::Error));
    assert!(repair::refusal(balance, &report.differences).unwrap().contains("credit_note_missing"));
    assert!(desk.repair(&balance.object).await.is_err());
    assert_eq!(booked(&desk).await, (0, 0));
    desk.repair("all").await.unwrap();
    assert_eq!(booked(&desk).await, (5_000_000, 0));
    desk.agrees().await;
}

/// [B-75] [B-78]
#[tokio::test]
async fn a_balance_of_which_a_part_waits_to_be_returned_is_a_note_and_is_not_repaired() {
    let desk = with_a_plan().await;
    let customer = given(&desk).await;
    desk.shop.settle().await;
    let wait = "insert into intents (id, kind, subject, organization_id, idempotency_key, payload, next_attempt_at, created_at)
        select '00000000-0000-0000-0000-000000000001', 'balance.return', 'one', organization_id, 'one', '{}', '2999-01-01', '2029-01-01'
        from stripe_customers";
    desk.shop.app.as_owner(wait).await;
    let one = desk.differs("customer_balance", Severity::Info, &customer, &[]).await;
    desk.is_refused(&one).await;
    desk.shop.app.as_owner("update intents set sent_at = '2029-01-01' where idempotency_key = 'one'").await;
    let one = desk.is_wrong("customer_balance", &customer, &[]).await;
    desk.is_mended(&one).await;
}

/// [B-75] It could not be compared, and is there nevertheless.
#[tokio::test]
async fn a_customer_in_a_currency_that_is_none_of_ours_is_not_taken_for_gone() {
    let desk = with_a_plan().await;
    let customer = given(&desk).await;
    desk.bent.say(&customer, "/currency", "zzz");
    let one = desk.differs("unreadable", Severity::Error, &customer, &[]).await;
    assert_eq!(one.theirs, "no readable currency");
    desk.bent.straighten();
    desk.is_wrong("customer_balance", &customer, &[]).await;
}

/// [B-75] A restricted key from before credit notes were read.
#[tokio::test]
async fn a_key_that_may_not_read_credit_notes_keeps_nothing_else_from_being_compared() {
    let desk = with_a_plan().await;
    desk.shop.app.as_owner("update stripe_invoices set status = 'open'").await;
    given(&desk).await;
    desk.bent.forbid("/v1/credit_notes");
    desk.is_wrong("invoice_status", &desk.one(INVOICE).await, &["unreadable"]).await;
    desk.shop.app.as_owner("update stripe_invoices set status = 'paid'").await;
    let one = desk.differs("unreadable", Severity::Error, "credit_notes", &[]).await;
    assert!(one.theirs.contains("403"), "{one:?}");
    desk.is_refused(&one).await;
}
