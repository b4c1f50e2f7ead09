//! Our books beside Stripe's [B-75, B-76].

use std::sync::Arc;
use std::time::Duration;

use billing_service::admin::reconcile::{self as command, Reconcile};
use billing_service::operations::status;
use billing_service::stripe::reconcile::{self, Difference, Report, Severity};
use chassis::config::Millis;
use clap::Parser;
use identity::{OrganizationId, Scopes};
use sqlx::Executor;
use testkit::http::TestClient;

use super::shop::Shop;

/// What somebody who buys may do.
const BUYS: [&str; 2] = ["billing:read", "billing:write"];

const MONTH: Duration = Duration::from_hours(32 * 24);

/// Later than whatever may be on its way.
async fn compare(shop: &Shop) -> Report {
    shop.pass(Duration::from_mins(20));
    let state = shop.app.state();
    reconcile::compare(&state, state.stripe.as_ref().unwrap(), reconcile::GRACE).await.unwrap()
}

fn kinds(report: &Report) -> Vec<&str> {
    let mut kinds: Vec<&str> = report.differences.iter().filter(|one| one.severity != Severity::Info).map(|one| one.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// The payments of an organization, that with the most credit first.
async fn payments(shop: &Shop, organization: OrganizationId) -> Vec<String> {
    sqlx::query_scalar(
        "select payment_intent_id from stripe_payments where organization_id = $1 order by credit_micros desc, payment_intent_id",
    )
    .bind(organization.uuid())
    .fetch_all(&shop.app.database.owner)
    .await
    .unwrap()
}

/// Somebody with a pack, and a plan that was renewed.
async fn customer(shop: &Shop) -> (OrganizationId, TestClient) {
    let (organization, client) = shop.app.organization_with(Scopes::known(BUYS));
    shop.pay(&shop.pack(&client, "large").await.expect(201));
    shop.settle().await;
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    (organization, client)
}

/// Nothing of what just happened at Stripe is ever delivered.
fn lose(shop: &Shop) {
    assert!(!shop.news().is_empty(), "nothing happened");
}

/// [B-75] A purchase, a plan with a renewal, refunds, a dispute that is won and one that is lost: not one difference.
#[tokio::test]
async fn after_all_that_can_happen_to_money_there_is_no_difference() {
    let shop = Shop::open().await;
    let mut disputed = Vec::new();
    for won in [Some(true), Some(false), None] {
        let (organization, _) = customer(&shop).await;
        let payment = payments(&shop, organization).await[0].clone();
        shop.dashboard("/v1/refunds", &[("payment_intent", &payment), ("amount", "3333")]).await;
        shop.settle().await;
        let dispute = shop.stripe.open_dispute(&payment, None, "fraudulent").unwrap();
        shop.settle().await;
        disputed.push((dispute["id"].as_str().unwrap().to_owned(), won));
    }
    shop.pass(MONTH);
    shop.renewed(3).await;
    for (dispute, won) in disputed {
        if let Some(won) = won {
            shop.stripe.close_dispute(&dispute, won).unwrap();
        }
    }
    shop.settle().await;
    let report = compare(&shop).await;
    assert_eq!(report.differences, [], "{report:?}");
    assert_eq!(report.seen, [3, 9, 6, 3, 0, 6]);
    assert_eq!(shop.app.count("select count(*) from reconciliation_runs where errors + warnings + infos = 0 and payments = 9").await, 1);
    shop.app.assert_clean().await;
}

/// [B-75] [B-76] Each thing that can be wrong here is found and named; put right, it is gone.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one shop, made wrong in one way after the other")]
async fn each_deliberate_difference_is_found_and_named_and_gone_when_it_is_put_right() {
    let shop = Shop::open().await;
    customer(&shop).await;
    customer(&shop).await;
    shop.pass(MONTH);
    shop.renewed(2).await;
    // A page that nobody has paid.
    let (_, idle) = shop.app.organization_with(Scopes::known(BUYS));
    shop.pack(&idle, "small").await.expect(201);
    shop.settle().await;
    assert_eq!(compare(&shop).await.differences, []);
    let wrongs: [(&'static str, &'static str, &[&str]); 18] = [
        (
            "update stripe_payments set amount_micros = amount_micros + 1 where source = 'charge'",
            "update stripe_payments set amount_micros = amount_micros - 1 where source = 'charge'",
            &["payment_amount", "sale_amount"],
        ),
        (
            "create table kept as select payment_intent_id, organization_id from stripe_payments;
          update stripe_payments set organization_id = (select max(organization_id::text)::uuid from kept)",
            "update stripe_payments p set organization_id = k.organization_id from kept k where k.payment_intent_id = p.payment_intent_id; drop table kept",
            &["payment_owner", "sale_amount"],
        ),
        (
            "insert into stripe_payments select 'pi_made_up', organization_id, 'top_up', gen_random_uuid(), currency, 5, 5, true, 0, '2029-01-01' from stripe_payments limit 1",
            "delete from stripe_payments where payment_intent_id = 'pi_made_up'",
            &["payment_unknown", "sale_missing"],
        ),
        (
            "insert into stripe_payments select 'pi_twice', organization_id, source, source_id, currency, 5, 5, true, 0, '2029-01-01' from stripe_payments where source = 'charge' limit 1",
            "delete from stripe_payments where payment_intent_id = 'pi_twice'",
            &["charge_double", "payment_unknown", "sale_missing"],
        ),
        (
            "update stripe_payments set sold = false where source = 'charge'",
            "update stripe_payments set sold = true where source = 'charge'",
            &["clearing", "clearing_total", "payment_kept", "sale_unknown"],
        ),
        (
            "update stripe_payments set reversed_micros = 1 where source = 'charge'",
            "update stripe_payments set reversed_micros = 0 where source = 'charge'",
            &["reversed_sum"],
        ),
        (
            "insert into stripe_reversals select 're_made_up', payment_intent_id, 'refund', 5, 'succeeded', false, 0, 0, false, 0, '2029-01-01' from stripe_payments limit 1",
            "delete from stripe_reversals",
            &["refund_unknown"],
        ),
        (
            "insert into stripe_reversals select 'dp_made_up', payment_intent_id, 'dispute', 5, 'lost', false, 0, 0, false, 0, '2029-01-01' from stripe_payments limit 1",
            "delete from stripe_reversals",
            &["dispute_unknown"],
        ),
        ("update stripe_invoices set status = 'open'", "update stripe_invoices set status = 'paid'", &["invoice_status"]),
        (
            "update stripe_invoices set total_micros = total_micros + 1",
            "update stripe_invoices set total_micros = total_micros - 1",
            &["invoice_amount"],
        ),
        (
            "create table kept as select * from stripe_invoices; delete from stripe_invoices",
            "insert into stripe_invoices select * from kept; drop table kept",
            &["invoice_missing"],
        ),
        (
            "create table kept as select invoice_id, organization_id from stripe_invoices;
          update stripe_invoices set organization_id = (select max(organization_id::text)::uuid from kept)",
            "update stripe_invoices i set organization_id = k.organization_id from kept k where k.invoice_id = i.invoice_id; drop table kept",
            &["invoice_owner"],
        ),
        (
            "create table kept as select * from stripe_invoices limit 1; update kept set invoice_id = 'in_made_up', created_at = '2029-01-01'; insert into stripe_invoices select * from kept",
            "delete from stripe_invoices where invoice_id = 'in_made_up'; drop table kept",
            &["invoice_unknown"],
        ),
        (
            "insert into subscription_charges select gen_random_uuid(), subscription_id, organization_id, period_start, 'forgotten', currency, lines, 1, '2029-01-01' from subscription_charges limit 1",
            "delete from subscription_charges where reason = 'forgotten'",
            &["charge_lost"],
        ),
        (
            "create table kept as select id from checkouts where state = 'paid'; update checkouts set state = 'expired' where kind = 'credit_pack' and id in (select id from kept)",
            "update checkouts set state = 'paid' where id in (select id from kept); drop table kept",
            &["checkout_unpaid"],
        ),
        (
            "create table kept as select id from checkouts where state = 'open'; update checkouts set state = 'paid', ended_at = '2029-01-01' where id in (select id from kept)",
            "update checkouts set state = 'open' where id in (select id from kept); drop table kept",
            &["checkout_unproved"],
        ),
        (
            "create table kept as select organization_id, customer_id from stripe_customers order by customer_id limit 1;
          update stripe_customers set customer_id = 'cus_other' where organization_id in (select organization_id from kept)",
            "update stripe_customers c set customer_id = k.customer_id from kept k where k.organization_id = c.organization_id; drop table kept",
            &["customer_double", "customer_unknown"],
        ),
        (
            "insert into stripe_customers select gen_random_uuid(), 'a@example.com', 'A', 'key', null, 3, '2031-01-01', '2029-01-01'",
            "delete from stripe_customers where idempotency_key = 'key'",
            &["customer_missing"],
        ),
    ];
    for (wrong, right, expected) in wrongs {
        shop.app.as_owner(wrong).await;
        let report = compare(&shop).await;
        let found = kinds(&report);
        assert!(expected.iter().all(|kind| found.contains(kind)), "{wrong}: {report:#?}");
        assert!(report.differences.iter().all(|one| !one.sentence.is_empty() && !one.object.is_empty()));
        shop.app.as_owner(right).await;
        let after = compare(&shop).await;
        assert_eq!(after.differences, [], "after {right}");
    }
    // Money that appears in the ledger only: that cannot be undone.
    shop.app
        .as_owner(
            "insert into ledger_transactions (id, kind, external_key, organization_id, occurred_at)
               select '00000000-0000-0000-0000-000000000001', 'rounding', 'made up', organization_id, '2029-01-01' from stripe_payments limit 1;
             insert into ledger_entries (transaction_id, account_id, amount_micros)
               select '00000000-0000-0000-0000-000000000001', id, case kind when 'rounding' then 7 else -7 end from accounts
               where kind in ('rounding', 'stripe_clearing') and currency = 'USD'",
        )
        .await;
    let report = compare(&shop).await;
    assert_eq!(kinds(&report), ["clearing", "clearing_total"], "{report:#?}");
}

/// [B-75] [B-78] What was never delivered is named; a repair, with a name and a reason, brings it, once.
#[tokio::test]
async fn a_repair_mends_what_was_never_delivered_once_and_is_logged() {
    let shop = Shop::open().await;
    let ((ada_id, ada), (eve_id, eve)) = (customer(&shop).await, customer(&shop).await);
    let ada_paid = payments(&shop, ada_id).await[0].clone();
    shop.dashboard("/v1/refunds", &[("payment_intent", &ada_paid), ("amount", "5000")]).await;
    shop.pay(&shop.pack(&ada, "small").await.expect(201));
    let eve_paid = payments(&shop, eve_id).await[0].clone();
    let dispute = shop.stripe.open_dispute(&eve_paid, None, "fraudulent").unwrap();
    lose(&shop);
    let young = {
        let state = shop.app.state();
        reconcile::compare(&state, state.stripe.as_ref().unwrap(), reconcile::GRACE).await.unwrap()
    };
    assert_eq!(young.count(Severity::Error), 0, "what is a moment old is on its way: {young:#?}");
    let report = compare(&shop).await;
    assert_eq!(
        kinds(&report),
        ["clearing", "clearing_total", "dispute_missing", "payment_missing", "refund_missing", "reversed_sum"],
        "{report:#?}"
    );
    let owner = |kind: &str, object: &str| {
        let of_kind: Vec<&Difference> = report.differences.iter().filter(|one| one.kind == kind).collect();
        assert!(of_kind.len() == 1 && (object.is_empty() || of_kind[0].object == object), "{of_kind:?}");
        of_kind[0].organization
    };
    assert_eq!((owner("refund_missing", ""), owner("payment_missing", "")), (Some(ada_id), Some(ada_id)));
    assert_eq!(owner("dispute_missing", dispute["id"].as_str().unwrap()), Some(eve_id));
    assert_eq!(owner("clearing", "stripe_clearing"), Some(ada_id), "a dispute that is open has moved no money of ours");
    let before = (shop.app.balance(&ada).await, shop.app.balance(&eve).await);
    let state = shop.app.state();
    assert!(command::run(Reconcile::default(), &state).await.unwrap_err().to_string().contains("differences"));
    assert_eq!((shop.app.balance(&ada).await, shop.app.balance(&eve).await), before, "a comparison changes nothing");
    let nameless = Reconcile { repair: vec!["all".into()], actor: Some(" ".into()), reason: Some("missed".into()), ..Reconcile::default() };
    command::run(nameless, &state).await.unwrap_err();
    assert_eq!((shop.app.balance(&ada).await, shop.app.balance(&eve).await), before, "nobody decided that");
    for _ in 0..2 {
        let repair = Reconcile {
            repair: vec!["all".into()],
            actor: Some("ada".into()),
            reason: Some("missed".into()),
            idempotency_key: Some("r1".into()),
            grace: None,
        };
        command::run(repair, &state).await.unwrap();
        assert_eq!(shop.app.balance(&ada).await, (before.0.0 - 55_000_000 + 10_000_000, 0));
        assert_eq!(shop.app.balance(&eve).await, (before.1.0 - 110_000_000, 0));
    }
    assert_eq!(
        shop.app.count("select count(*) from audit_log where action = 'stripe.repair' and actor = 'ada' and reason = 'missed'").await,
        3
    );
    shop.settle().await;
    assert_eq!(compare(&shop).await.differences, []);
    shop.app.assert_clean().await;
}

/// [B-75] What is a moment old is excused because it may be on its way; where somebody says that nothing is, it is a difference like any.
#[tokio::test]
async fn a_comparison_without_grace_excuses_nothing_however_young_it_is() {
    let shop = Shop::open().await;
    let (_, client) = customer(&shop).await;
    let state = shop.app.state();
    let within = |grace| command::run(Reconcile { grace, ..Reconcile::default() }, &state);
    within(Some(0)).await.unwrap();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    lose(&shop);
    within(None).await.unwrap();
    let refused = within(Some(0)).await.unwrap_err().to_string();
    assert!(refused.contains("3 differences that are errors"), "{refused}");
    let report = reconcile::compare(&state, state.stripe.as_ref().unwrap(), Duration::ZERO).await.unwrap();
    assert_eq!(kinds(&report), ["clearing", "clearing_total", "payment_missing"], "{report:#?}");
    // As long as somebody says, to the second.
    shop.pass(Duration::from_mins(20));
    within(Some(1200 + 60)).await.unwrap();
    within(Some(1200 - 60)).await.unwrap_err();
}

/// [B-75] Nor does nobody hear that none came.
#[tokio::test]
async fn a_comparison_that_failed_comes_again_the_same_night_and_one_that_came_the_next_night() {
    const NIGHT: Duration = Duration::from_hours(24);
    let shop = Shop::open().await;
    let mut state = shop.app.state();
    let mut config = (*state.config).clone();
    config.stripe.reconcile = Millis(NIGHT);
    state.config = Arc::new(config);
    let step = async || reconcile::step(&state, state.stripe.as_ref().unwrap(), NIGHT).await;
    let overdue = async || {
        let status = status(&state).await.unwrap();
        let line = status.lines.iter().find(|line| line.metric == "billing_reconciliation_overdue_seconds").unwrap();
        (line.value, line.beyond)
    };
    assert!(step().await.unwrap().is_some());
    assert!(step().await.unwrap().is_none());
    assert_eq!(overdue().await, (0, false));
    shop.app.turn.advance(NIGHT);
    shop.app
        .as_owner(
            "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'not now'; end $$;
             create trigger refuse before insert on reconciliation_runs for each row execute function refuse()",
        )
        .await;
    step().await.unwrap_err();
    assert!(step().await.unwrap().is_none(), "not each minute");
    shop.app.turn.advance(Duration::from_hours(3));
    step().await.unwrap_err();
    assert_eq!(overdue().await, (3 * 3600, false));
    shop.app.turn.advance(Duration::from_hours(4));
    assert_eq!(overdue().await, (7 * 3600, true));
    shop.app.as_owner("drop trigger refuse on reconciliation_runs").await;
    assert!(step().await.unwrap().is_some());
    shop.app.turn.advance(Duration::from_hours(23));
    assert_eq!((step().await.unwrap().is_none(), overdue().await), (true, (0, false)));
}

/// [B-75] More than a day is no grace.
#[test]
fn how_long_something_may_be_on_its_way_is_at_most_a_day() {
    #[derive(clap::Parser)]
    struct Terminal {
        #[command(flatten)]
        reconcile: Reconcile,
    }
    let grace = |seconds: &str| Terminal::try_parse_from(["stripe-reconcile", "--grace", seconds]).map(|told| told.reconcile.grace);
    assert_eq!((grace("0").unwrap(), grace("86400").unwrap()), (Some(0), Some(86_400)));
    for wrong in ["86401", "-1", "1m", ""] {
        assert!(grace(wrong).is_err(), "{wrong}");
    }
}

/// [B-75] Decisions and failures that were never delivered, and money that is none of ours.
#[tokio::test]
async fn what_somebody_does_at_stripe_alone_is_named_for_what_it_is() {
    let shop = Shop::open().await;
    let (organization, client) = customer(&shop).await;
    let payment = payments(&shop, organization).await[0].clone();
    let dispute = shop.stripe.open_dispute(&payment, None, "fraudulent").unwrap();
    shop.settle().await;
    shop.stripe.close_dispute(dispute["id"].as_str().unwrap(), false).unwrap();
    lose(&shop);
    let report = compare(&shop).await;
    assert_eq!(kinds(&report), ["clearing", "clearing_total", "dispute_state"], "{report:#?}");
    let customer = shop.stripe_customer(organization).await;
    let card = client.get("/v1/payment-methods").await.expect(200).json["data"][0]["id"].as_str().unwrap().to_owned();
    let fields = [
        ("amount", "700"),
        ("currency", "usd"),
        ("customer", customer.as_str()),
        ("payment_method", card.as_str()),
        ("confirm", "true"),
        ("off_session", "true"),
    ];
    shop.dashboard("/v1/payment_intents", &fields).await;
    shop.dashboard("/v1/customers", &[("metadata[organization_id]", &organization.to_string())]).await;
    let report = compare(&shop).await;
    assert_eq!(kinds(&report), ["clearing", "clearing_total", "customer_double", "dispute_state", "payment_foreign"], "{report:#?}");
    let foreign = report.differences.iter().find(|one| one.kind == "payment_foreign").unwrap();
    assert_eq!((foreign.severity, foreign.organization, foreign.theirs.as_str()), (Severity::Warning, Some(organization), "7000000 USD"));
}

/// [B-79] The running role may add what was found, and neither change nor remove it.
#[tokio::test]
async fn what_was_found_cannot_be_changed_by_the_service() {
    let shop = Shop::open().await;
    compare(&shop).await;
    for statement in
        ["update reconciliation_runs set errors = 0", "delete from reconciliation_differences", "delete from reconciliation_runs"]
    {
        let refused = shop.app.database.pool.execute(statement).await.unwrap_err();
        assert!(refused.to_string().contains("permission denied"), "{refused}");
    }
}
