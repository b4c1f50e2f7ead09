//! Usage in Stripe's meters when something is in the way: of one meter or customer, and nothing else has to wait for it or counts twice.

use std::time::Duration;

use billing_service::stripe::meters::{plan, retention, sender};
use sqlx::Executor;
use stripe_simulator::{Fault, FaultKind};
use testkit::eventually;
use tokio_util::sync::CancellationToken;

use super::shop::Shop;
use super::stripe_meter_desk::{
    EVENTS, PENDING, SENT, begin, compare, customer, deliver, errors, flush, hourly, hours, in_doubt, keep, lose, meter_at_stripe, metered,
    mirror, open, quiet, report, sums, sums_since, used, work, wrong,
};

/// [B-66] [B-75] Of one meter neither what was counted nor what Stripe has can be read: that is told, and all the rest goes on.
#[tokio::test]
async fn what_cannot_be_counted_or_read_of_one_meter_keeps_back_nothing_else() {
    let shop = open().await;
    mirror(&shop, "sum").await;
    keep(&shop, "broken", &["--chat-usage", "USD"]).await;
    let ((ada_id, ada), (eve_id, eve)) = (customer(&shop, "sum").await, customer(&shop, "sum").await);
    for client in [&ada, &eve] {
        work(client, "1", begin(), "7").await;
    }
    used(&shop, ada_id, begin(), 500).await;
    shop.app
        .as_owner(
            "alter function stripe_meter_counts rename to counted;
             create function stripe_meter_counts(mirror uuid, since timestamptz, until timestamptz)
             returns table (organization_id uuid, hour timestamptz, units numeric) language plpgsql set search_path = public as $$ begin
                 if current_setting('statement_timeout') <> '0' then
                     raise exception 'it takes longer than a request may' using errcode = '57014';
                 end if;
                 if (select event_name = 'broken' from stripe_meters where id = mirror) then
                     raise exception 'it is too much' using errcode = '54000';
                 end if;
                 return query select * from counted(mirror, since, until);
             end $$;
             grant execute on function stripe_meter_counts, counted to billing_app",
        )
        .await;
    shop.pass(Duration::from_mins(75));
    plan::all(&shop.app.state()).await.unwrap_err();
    deliver(&shop).await;
    for organization in [ada_id, eve_id] {
        assert_eq!(sums(&shop, "jobs", organization).await, [(0, 70)]);
    }
    assert_eq!(errors(&compare(&shop).await), [("unreadable", "broken 2029-12-31")]);
    shop.app.as_owner("drop function stripe_meter_counts; alter function counted rename to stripe_meter_counts").await;
    report(&shop).await;
    assert_eq!(errors(&compare(&shop).await), []);
    // Stripe does not tell which meters there are, when the first is looked for; of the second it does not tell one sum.
    let refuses = |path: &str| Fault::next(FaultKind::Refused, "GET", path);
    let meter = format!("/v1/billing/meters/{}", meter_at_stripe(&shop, "jobs").await);
    shop.stripe.turn_knobs(|knobs| knobs.faults = vec![refuses(&meter), refuses("/v1/billing/meters")]);
    lose(&shop, begin()).await;
    let found = compare(&shop).await;
    let told: Vec<_> =
        errors(&found).into_iter().map(|(kind, object)| (kind, object.split_once(' ').map_or(object, |(name, _)| name))).collect();
    assert_eq!(told, [("unreadable", "broken"), ("unreadable", "jobs"), ("meter_sum", "jobs")]);
    assert_eq!(shop.app.count("select count(*) from reconciliation_runs").await, 3);
}

/// [B-66] [B-40] However much debt there ever was, what an hour added to it is found without reading that.
#[tokio::test]
async fn an_hour_of_overage_is_counted_without_reading_the_debt_of_all_time() {
    let shop = quiet(Shop::with(|config| config.signup_grant = 1500).await).await;
    keep(&shop, "overage", &["--chat-overage", "USD"]).await;
    let (organization, client) = shop.app.organization();
    let reservation = shop.app.reserve(&shop.app.reservation(organization, shop.app.request(), 0, 100)).await.expect(201);
    shop.app.settle(&reservation.string("id"), &shop.app.usage(0, 200)).await.expect(200);
    assert_eq!(shop.app.balance(&client).await, (1500 - 2400, 0));
    shop.app
        .as_owner(
            "begin;
             insert into ledger_transactions (id, kind, external_key, occurred_at)
             select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid, 'late_settlement', 'old-' || n, at
             from generate_series(1, 2000) n cross join lateral (select '2029-06-01T00:00:00Z'::timestamptz + n * interval '1 minute' as at) a;
             insert into ledger_entries (transaction_id, account_id, amount_micros)
             select t.id, a.id, case a.kind when 'debt' then -1 else 1 end from ledger_transactions t
             cross join (select id, kind from accounts where kind = 'debt' or kind = 'revenue') a where t.external_key like 'old-%';
             commit;
             analyze ledger_transactions, ledger_entries, accounts",
        )
        .await;
    let mut transaction = shop.app.database.owner.begin().await.unwrap();
    let units: Vec<String> = sqlx::query_scalar("select c.units::text from stripe_meters m cross join stripe_meter_counts(m.id, $1, $2) c")
        .bind(begin())
        .bind(begin() + hours(1))
        .fetch_all(&mut *transaction)
        .await
        .unwrap();
    assert_eq!(units, ["900"]);
    let read: i64 = sqlx::query_scalar(
        "select sum(seq_tup_read + idx_tup_fetch)::bigint from pg_stat_xact_user_tables where relname in ('ledger_entries', 'ledger_transactions')",
    )
    .fetch_one(&mut *transaction)
    .await
    .unwrap();
    assert!(read < 100, "{read} rows were read");
}

/// [B-66] A sum may lack what was just sent: nothing is concluded from it then.
#[tokio::test]
async fn a_sum_that_may_lack_what_was_just_sent_decides_nothing() {
    let (shop, organization, client) = metered("sum").await;
    work(&client, "1", begin(), "7").await;
    shop.pass(Duration::from_mins(75));
    in_doubt(&shop, FaultKind::ErrorAfterEffect).await;
    shop.pass(Duration::from_hours(30));
    // As much again is sent at this moment, and Stripe's sum has the first one alone: as it would if it had the second one alone.
    work(&client, "2", begin(), "7").await;
    sqlx::query(
        "insert into stripe_meter_reports (identifier, stripe_meter_id, organization_id, hour, version, value, dated, customer_id, state, next_attempt_at, sent_at, created_at)
         select stripe_meter_identifier('jobs', organization_id, hour, 2), stripe_meter_id, organization_id, hour, 2, value, dated, customer_id, 'sent', $1, $1, $1
         from stripe_meter_reports",
    )
    .bind(shop.app.clock.now())
    .execute(&shop.app.database.owner)
    .await
    .unwrap();
    shop.app.as_owner("update stripe_meter_reports set next_attempt_at = 'epoch' where state = 'pending'").await;
    eventually("a look", || async {
        flush(&shop).await;
        (shop.app.count("select count(*) from stripe_meter_reports where attempts = 2 and claimed_until is null").await == 1).then_some(())
    })
    .await;
    assert_eq!((shop.app.count(PENDING).await, sums(&shop, "jobs", organization).await), (1, vec![(0, 70)]));
    let customer = shop.stripe_customer(organization).await;
    let at = begin().timestamp().to_string();
    let arrives =
        [("event_name", "jobs"), ("timestamp", at.as_str()), ("payload[stripe_customer_id]", &customer), ("payload[value]", "70")];
    shop.dashboard(EVENTS, &arrives).await;
    shop.pass(Duration::from_mins(20));
    deliver(&shop).await;
    assert_eq!((shop.app.count(SENT).await, sums(&shop, "jobs", organization).await), (2, vec![(0, 140)]));
    assert_eq!(wrong(&compare(&shop).await), []);
}

/// [B-67] While one replica claims a report, which no other can see yet, another leaves all of that organization and meter alone.
#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_never_claim_reports_of_one_organization_and_meter_together() {
    let (shop, _, client) = metered("sum").await;
    hourly(&shop, &client, 6).await;
    shop.pass(Duration::from_mins(10));
    flush(&shop).await;
    shop.app
        .as_owner(
            "create function wait_for_the_test() returns trigger language plpgsql as $$ begin
                 perform pg_advisory_xact_lock_shared(4711);
                 return new;
             end $$;
             create trigger held before update on stripe_meter_reports for each row when (new.claimed_until is not null) execute function wait_for_the_test()",
        )
        .await;
    let mut test = shop.app.database.owner.begin().await.unwrap();
    test.execute("select pg_advisory_xact_lock(4711)").await.unwrap();
    plan::all(&shop.app.state()).await.unwrap();
    let replica = || {
        let state = shop.app.state();
        tokio::spawn(async move { sender::step(&state, state.stripe.as_ref().unwrap()).await })
    };
    let (one, other) = (replica(), replica());
    let waiting = eventually("one claims, and another one has nothing to claim", || async {
        let waiting = shop.app.count("select count(*) from pg_locks where locktype = 'advisory' and objid = 4711 and not granted").await;
        (waiting > 1 || waiting == 1 && (one.is_finished() || other.is_finished())).then_some(waiting)
    })
    .await;
    test.rollback().await.unwrap();
    assert_eq!(waiting, 1);
    deliver(&shop).await;
    assert_eq!(shop.app.count(SENT).await, 6);
}

/// What Stripe has, of hours that nobody looks at any more, goes; what waits for somebody stays.
#[tokio::test]
async fn reports_that_stripe_has_go_after_seventy_days_and_what_was_set_aside_stays() {
    let (shop, organization, client) = metered("sum").await;
    hourly(&shop, &client, 3).await;
    shop.pass(Duration::from_mins(10));
    report(&shop).await;
    shop.app
        .as_owner("update stripe_meter_reports set state = 'parked', reason = 'other', sent_at = null where hour = '2030-01-01T00:00:00Z'")
        .await;
    shop.pass(Duration::from_hours(70 * 24 - 2));
    let state = shop.app.state();
    let keep = async || retention::keep(&state.pool, shop.app.clock.now(), &CancellationToken::new()).await.unwrap();
    assert_eq!((keep().await, keep().await), (1, 0));
    let left = "select count(*) from stripe_meter_reports where extract(hour from hour at time zone 'UTC') in (0, 2)";
    assert_eq!(shop.app.count(left).await, 2);
    assert_eq!(shop.app.count("select count(*) from stripe_meter_reports").await, 2);
    assert_eq!(sums_since(&shop, "jobs", organization, begin()).await, [(0, 10), (1, 10), (2, 10)]);
    report(&shop).await;
    assert_eq!(errors(&compare(&shop).await).len(), 1, "what was set aside");
}
