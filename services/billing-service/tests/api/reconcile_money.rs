//! Each difference of money between our books and Stripe's [B-75], made real alone: its name, whose it is and about what, what a repair
//! does about it, and that nothing is left of it when it is put right.

use billing_service::stripe::reconcile::Severity;
use identity::OrganizationId;

use super::reconcile_desk::{Desk, with_a_pack};
use super::shop::Shop;

const PAID: &str = "select payment_intent_id from stripe_payments";
const PAGE: &str = "select session_id from checkouts where state = 'paid'";
const CLEARING: [&str; 2] = ["clearing", "clearing_total"];

async fn refunded(desk: &Desk) -> String {
    let payment = desk.one(PAID).await;
    let refund = desk.shop.dashboard("/v1/refunds", &[("payment_intent", &payment), ("amount", "2500")]).await;
    refund["id"].as_str().unwrap().to_owned()
}

async fn disputed(desk: &Desk) -> String {
    let dispute = desk.shop.stripe.open_dispute(&desk.one(PAID).await, None, "fraudulent").unwrap();
    dispute["id"].as_str().unwrap().to_owned()
}

/// [B-75] [B-78]
#[tokio::test]
async fn payment_missing_is_a_payment_that_nobody_told_us_of_and_a_repair_sells_what_it_is_for() {
    let desk = with_a_pack().await;
    let page = desk.shop.pack(&desk.client, "small").await.expect(201);
    desk.shop.pay(&page);
    desk.lose();
    let one = desk.is_wrong("payment_missing", &Shop::session(&page), &CLEARING).await;
    assert_eq!((one.ours.as_str(), one.theirs.as_str()), ("nothing", "10000000 USD"));
    desk.is_mended(&one).await;
    assert_eq!(desk.shop.app.balance(&desk.client).await, (120_000_000, 0));
}

/// [B-75]
#[tokio::test]
async fn payment_foreign_is_a_payment_of_our_customer_for_nothing_of_ours_and_a_repair_leaves_it() {
    let desk = with_a_pack().await;
    let payment = foreign_payment(&desk).await;
    let one = desk.differs("payment_foreign", Severity::Warning, &payment, &[]).await;
    assert_eq!((one.organization, one.theirs.as_str()), (Some(desk.organization), "7000000 USD"));
    desk.is_refused(&one).await;
    desk.bent.hide(&payment);
    desk.agrees().await;
}

/// A payment that somebody made at the dashboard.
async fn foreign_payment(desk: &Desk) -> String {
    let customer = desk.shop.stripe_customer(desk.organization).await;
    let cards = desk.client.get("/v1/payment-methods").await.expect(200).json;
    let fields = [
        ("amount", "700"),
        ("currency", "usd"),
        ("customer", customer.as_str()),
        ("payment_method", cards["data"][0]["id"].as_str().unwrap()),
        ("confirm", "true"),
        ("off_session", "true"),
    ];
    desk.shop.dashboard("/v1/payment_intents", &fields).await["id"].as_str().unwrap().to_owned()
}

/// [B-75]
#[tokio::test]
async fn payment_unknown_is_a_sale_for_a_payment_that_stripe_does_not_have() {
    let desk = with_a_pack().await;
    let payment = desk.one(PAID).await;
    desk.bent.hide(&payment);
    let one = desk.is_wrong("payment_unknown", &payment, &CLEARING).await;
    desk.is_refused(&one).await;
    desk.straightened().await;
}

/// [B-75]
#[tokio::test]
async fn payment_owner_is_a_payment_of_another_customer_at_stripe() {
    let desk = with_a_pack().await;
    let (other, client) = desk.shop.customer();
    desk.shop.pay(&desk.shop.pack(&client, "small").await.expect(201));
    desk.shop.settle().await;
    let payment = payment_of(&desk, desk.organization).await;
    desk.bent.say(&payment, "/customer", desk.shop.stripe_customer(other).await);
    let page = desk.one("select session_id from checkouts where item = 'large'").await;
    let one = desk.is_wrong("payment_owner", &page, &["clearing"]).await;
    desk.is_refused(&one).await;
    desk.straightened().await;
}

async fn payment_of(desk: &Desk, organization: OrganizationId) -> String {
    let payment = sqlx::query_scalar("select payment_intent_id from stripe_payments where organization_id = $1").bind(organization.uuid());
    payment.fetch_one(&desk.shop.app.database.owner).await.unwrap()
}

/// [B-75]
#[tokio::test]
async fn payment_amount_is_a_payment_of_another_amount_at_stripe() {
    let desk = with_a_pack().await;
    desk.bent.say(&desk.one(PAID).await, "/amount_received", 9_999);
    let one = desk.is_wrong("payment_amount", &desk.one(PAGE).await, &CLEARING).await;
    assert_eq!((one.ours.as_str(), one.theirs.as_str()), ("100000000 USD", "99990000 USD"));
    desk.is_refused(&one).await;
    desk.straightened().await;
}

/// [B-75] What was for nothing gets no sale: the one that there is, is too much as well.
#[tokio::test]
async fn payment_kept_is_a_payment_for_nothing_that_was_not_given_back() {
    let desk = with_a_pack().await;
    desk.while_ours_say("update stripe_payments set sold = false").await;
    let page = desk.one(PAGE).await;
    let one = desk.differs("payment_kept", Severity::Warning, &page, &["clearing", "clearing_total", "sale_unknown"]).await;
    desk.is_refused(&one).await;
    desk.undone("update stripe_payments set sold = true").await;
}

/// [B-75]
#[tokio::test]
async fn sale_missing_is_a_payment_without_a_sale_in_the_ledger() {
    let desk = with_a_pack().await;
    desk.while_ours_say(
        "alter table ledger_transactions disable trigger user;
         update ledger_transactions set kind = 'rounding' where kind = 'sale'",
    )
    .await;
    let one = desk.is_wrong("sale_missing", &desk.one(PAID).await, &[]).await;
    desk.is_refused(&one).await;
    desk.undone("update ledger_transactions set kind = 'sale' where kind = 'rounding'").await;
}

/// [B-75]
#[tokio::test]
async fn sale_unknown_is_a_sale_in_the_ledger_for_which_nothing_was_paid() {
    let desk = with_a_pack().await;
    desk.while_ours_say(
        "alter table ledger_transactions disable trigger user;
         update ledger_transactions set external_key = 'made_up_' || external_key where kind = 'sale'",
    )
    .await;
    let fact = format!("made_up_{}", desk.one(PAID).await);
    let one = desk.is_wrong("sale_unknown", &fact, &["sale_missing"]).await;
    desk.is_refused(&one).await;
    desk.undone("update ledger_transactions set external_key = substr(external_key, 9) where kind = 'sale'").await;
}

/// [B-75] The sums agree: what the sale has too much, a correction has too little.
#[tokio::test]
async fn sale_amount_is_a_sale_in_the_ledger_of_another_amount_than_its_payment() {
    let desk = with_a_pack().await;
    desk.while_ours_say(
        "alter table ledger_entries disable trigger user;
         insert into ledger_transactions (id, kind, external_key, organization_id, occurred_at)
           select '00000000-0000-0000-0000-000000000001', 'rounding', 'made up', organization_id, '2029-01-01' from stripe_payments;
         insert into ledger_entries (transaction_id, account_id, amount_micros)
           select '00000000-0000-0000-0000-000000000001', id, case kind when 'rounding' then -7 else 7 end from accounts
           where kind in ('rounding', 'stripe_clearing') and currency = 'USD';
         update ledger_entries e set amount_micros = amount_micros - 7 from ledger_transactions t, accounts a
           where t.id = e.transaction_id and a.id = e.account_id and t.kind = 'sale' and a.kind = 'stripe_clearing'",
    )
    .await;
    let one = desk.is_wrong("sale_amount", &desk.one(PAID).await, &[]).await;
    assert_eq!((one.ours.as_str(), one.theirs.as_str()), ("100000007 USD", "100000000 USD"));
    desk.is_refused(&one).await;
    desk.undone(
        "update ledger_entries e set amount_micros = amount_micros + 7 from ledger_transactions t, accounts a
           where t.id = e.transaction_id and a.id = e.account_id and t.kind = 'sale' and a.kind = 'stripe_clearing';
         delete from ledger_entries where transaction_id = '00000000-0000-0000-0000-000000000001'",
    )
    .await;
}

/// [B-75] [B-78]
#[tokio::test]
async fn refund_missing_is_a_refund_that_nobody_told_us_of_and_a_repair_takes_its_credit() {
    let desk = with_a_pack().await;
    let refund = refunded(&desk).await;
    desk.lose();
    let one = desk.is_wrong("refund_missing", &refund, &["clearing", "clearing_total", "reversed_sum"]).await;
    desk.is_mended(&one).await;
    assert_eq!(desk.shop.app.balance(&desk.client).await, (82_500_000, 0));
}

/// [B-75]
#[tokio::test]
async fn refund_unknown_is_a_refund_that_stripe_does_not_have() {
    let desk = with_a_pack().await;
    let refund = refunded(&desk).await;
    desk.shop.settle().await;
    desk.bent.hide(&refund);
    let one = desk.is_wrong("refund_unknown", &refund, &["clearing", "clearing_total", "reversed_sum"]).await;
    desk.is_refused(&one).await;
    desk.straightened().await;
}

/// [B-75]
#[tokio::test]
async fn refund_amount_is_a_refund_of_another_amount_at_stripe() {
    let desk = with_a_pack().await;
    let refund = refunded(&desk).await;
    desk.shop.settle().await;
    desk.while_ours_say("update stripe_reversals set amount_micros = amount_micros + 1").await;
    let one = desk.is_wrong("refund_amount", &refund, &[]).await;
    assert_eq!((one.ours.as_str(), one.theirs.as_str()), ("25000001 succeeded", "25000000 taken"));
    desk.is_refused(&one).await;
    desk.undone("update stripe_reversals set amount_micros = amount_micros - 1").await;
}

/// [B-75] Whether the credit returns is for people to decide, also when the event comes.
#[tokio::test]
async fn refund_failed_is_a_refund_that_failed_after_its_credit_was_taken() {
    let desk = with_a_pack().await;
    let refund = refunded(&desk).await;
    desk.shop.settle().await;
    desk.bent.say(&refund, "/status", "failed");
    let one = desk.is_wrong("refund_failed", &refund, &["clearing", "clearing_total", "reversed_sum"]).await;
    desk.is_refused(&one).await;
    assert_eq!(desk.shop.app.balance(&desk.client).await, (82_500_000, 0));
    desk.straightened().await;
}

/// [B-75] [B-78]
#[tokio::test]
async fn dispute_missing_is_a_dispute_that_nobody_told_us_of_and_a_repair_takes_its_credit() {
    let desk = with_a_pack().await;
    let dispute = disputed(&desk).await;
    desk.lose();
    let one = desk.is_wrong("dispute_missing", &dispute, &["reversed_sum"]).await;
    desk.is_mended(&one).await;
    assert_eq!(desk.shop.app.balance(&desk.client).await, (0, 0));
}

/// [B-75]
#[tokio::test]
async fn dispute_unknown_is_a_dispute_that_stripe_does_not_have() {
    let desk = with_a_pack().await;
    let dispute = disputed(&desk).await;
    desk.shop.settle().await;
    desk.bent.hide(&dispute);
    let one = desk.is_wrong("dispute_unknown", &dispute, &["reversed_sum"]).await;
    desk.is_refused(&one).await;
    desk.straightened().await;
}

/// [B-75]
#[tokio::test]
async fn dispute_amount_is_a_dispute_about_another_amount_at_stripe() {
    let desk = with_a_pack().await;
    let dispute = disputed(&desk).await;
    desk.shop.settle().await;
    desk.while_ours_say("update stripe_reversals set amount_micros = amount_micros - 1").await;
    let one = desk.is_wrong("dispute_amount", &dispute, &[]).await;
    desk.is_refused(&one).await;
    desk.undone("update stripe_reversals set amount_micros = amount_micros + 1").await;
}

/// [B-75] [B-78]
#[tokio::test]
async fn dispute_state_is_a_decision_that_nobody_told_us_of_and_a_repair_brings_it() {
    let desk = with_a_pack().await;
    let dispute = disputed(&desk).await;
    desk.shop.settle().await;
    desk.shop.stripe.close_dispute(&dispute, true).unwrap();
    desk.lose();
    let one = desk.is_wrong("dispute_state", &dispute, &["reversed_sum"]).await;
    desk.is_mended(&one).await;
    assert_eq!(desk.shop.app.balance(&desk.client).await, (110_000_000, 0));
}

/// [B-75]
#[tokio::test]
async fn reversal_unposted_is_a_refund_of_which_the_ledger_has_nothing() {
    let desk = with_a_pack().await;
    let refund = refunded(&desk).await;
    desk.shop.settle().await;
    desk.while_ours_say(
        "alter table ledger_transactions disable trigger user;
         update ledger_transactions set external_key = 'made_up_' || external_key where kind = 'refund'",
    )
    .await;
    let one = desk.is_wrong("reversal_unposted", &refund, &[]).await;
    desk.is_refused(&one).await;
    desk.undone("update ledger_transactions set external_key = substr(external_key, 9) where kind = 'refund'").await;
}

/// [B-75]
#[tokio::test]
async fn reversed_sum_is_what_went_back_of_a_payment_by_our_count_alone() {
    let desk = with_a_pack().await;
    desk.while_ours_say("update stripe_payments set reversed_micros = 1").await;
    let one = desk.is_wrong("reversed_sum", &desk.one(PAID).await, &[]).await;
    assert_eq!((one.ours.as_str(), one.theirs.as_str()), ("1", "0"));
    desk.is_refused(&one).await;
    desk.undone("update stripe_payments set reversed_micros = 0").await;
}

const MONEY_MADE_UP: &str = "insert into ledger_transactions (id, kind, external_key, organization_id, occurred_at)
       select '00000000-0000-0000-0000-000000000001', 'rounding', 'made up', organization_id, '2029-01-01' from stripe_payments;
     insert into ledger_entries (transaction_id, account_id, amount_micros)
       select '00000000-0000-0000-0000-000000000001', id, case kind when 'rounding' then 7 else -7 end from accounts
       where kind in ('rounding', 'stripe_clearing') and currency = 'USD'";
const MONEY_BACK: &str = "insert into ledger_transactions (id, kind, external_key, organization_id, occurred_at)
       select '00000000-0000-0000-0000-000000000002', 'rounding', 'taken back', organization_id, '2029-01-01' from stripe_payments;
     insert into ledger_entries (transaction_id, account_id, amount_micros)
       select '00000000-0000-0000-0000-000000000002', id, case kind when 'rounding' then -7 else 7 end from accounts
       where kind in ('rounding', 'stripe_clearing') and currency = 'USD'";

/// [B-75] The ledger is mended by another posting, and by nothing else.
#[tokio::test]
async fn clearing_is_money_of_an_organization_that_only_the_ledger_has() {
    let desk = with_a_pack().await;
    desk.while_ours_say(MONEY_MADE_UP).await;
    let one = desk.is_wrong("clearing", "stripe_clearing", &["clearing_total"]).await;
    assert_eq!((one.ours.as_str(), one.theirs.as_str()), ("-100000007 USD", "-100000000 USD"));
    desk.is_refused(&one).await;
    desk.undone(MONEY_BACK).await;
}

/// [B-75]
#[tokio::test]
async fn clearing_total_is_money_in_all_that_only_the_ledger_has() {
    let desk = with_a_pack().await;
    desk.while_ours_say(MONEY_MADE_UP).await;
    let one = desk.differs("clearing_total", Severity::Error, "stripe_clearing", &["clearing"]).await;
    assert_eq!((one.organization, one.ours.as_str()), (None, "-100000007 USD"));
    desk.is_refused(&one).await;
    desk.undone(MONEY_BACK).await;
}

/// [B-75] [B-20]
#[tokio::test]
async fn unreadable_is_an_object_without_what_is_needed_of_it() {
    let desk = with_a_pack().await;
    let payment = foreign_payment(&desk).await;
    desk.bent.say(&payment, "/currency", "zzz");
    let one = desk.differs("unreadable", Severity::Error, &payment, &[]).await;
    assert_eq!((one.organization, one.theirs.as_str()), (None, "no readable currency"));
    desk.is_refused(&one).await;
    desk.bent.hide(&payment);
    desk.agrees().await;
}
