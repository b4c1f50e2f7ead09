//! A database that was restored from a backup, beside a Stripe and a Redis that have gone on since.

use std::time::Duration;

use admission::{Funded, Funding};
use billing_service::leases::sweep_leases;
use billing_service::stripe::collect::{self, Collection};
use billing_service::stripe::{gaps, worker};
use billing_service::subscriptions::{due, store};
use billing_service::usage::UsageEvents;
use chassis::config::Millis;
use chassis::postgres::{PostgresConfig, connect};
use chassis::streams::{HandleError, Handler};
use contracts::usage::UsageEvent;
use contracts::{LeaseId, Shard};
use futures::future::join_all;
use identity::OrganizationId;
use money::{Currency, TokenUsage};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use testkit::{TestDatabase, eventually};
use url::Url;

use super::app::{App, GRANT};
use super::gateway::RESERVED;
use super::shop::Shop;
use super::usage_events::messages;

/// The first period of who buys on 1 January.
const MONTH: Duration = Duration::from_hours(31 * 24);
const MINUTE: Duration = Duration::from_mins(1);
/// All credit that was given: nothing is used, and it lasts for ninety days.
const WALLET: &str = "select balance_micros from accounts where kind = 'wallet' and organization_id is not null";
const ACTIVE: &str = "select count(*) from subscriptions where status = 'active'";

/// A service whose sweepers and calendar come when the test says so.
async fn without_sweeper() -> App {
    App::with(|config| config.sweep = Millis(Duration::from_hours(1))).await
}

/// Somebody with a plan.
async fn with_a_plan() -> (Shop, OrganizationId) {
    let shop = Shop::with(|config| config.sweep = Millis(Duration::from_hours(1))).await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    assert_eq!((shop.app.count(WALLET).await, shop.at_stripe()), (60_000_000, 10_000));
    (shop, organization)
}

/// How a role reaches a database of the same server.
fn reach(config: &PostgresConfig, role: &str, database: &str) -> PostgresConfig {
    let mut url: Url = config.url.parse().unwrap();
    url.set_username(role).unwrap();
    url.set_path(database);
    PostgresConfig { url: url.into(), ..config.clone() }
}

/// Runs a statement as whoever may do anything on the server.
async fn on_server(config: &PostgresConfig, statement: String) -> Result<(), sqlx::Error> {
    let mut server = PgConnection::connect(&reach(config, "postgres", "postgres").url).await?;
    server.execute(AssertSqlSafe(statement)).await.map(drop)
}

/// A copy of a database that nobody can connect to any more.
async fn copy(config: &PostgresConfig, name: &str, number: u32) -> TestDatabase {
    let copy = format!("{name}_{number}");
    // Whoever was connecting a moment ago may be seen only now.
    eventually("a copy", || async {
        on_server(config, format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'")).await.unwrap();
        on_server(config, format!("create database {copy} owner billing_migrator template {name}")).await.ok()
    })
    .await;
    let config = reach(config, "billing_app", &copy);
    let owner = PostgresConfig { max_connections: 2, ..reach(&config, "billing_migrator", &copy) };
    TestDatabase { pool: connect(&config, "test").unwrap(), owner: connect(&owner, "test").unwrap(), config }
}

/// Two copies of the database as it is now, on which no service is. The service is cut off from its own: what it did there and at Stripe from now
/// on would be in neither.
async fn copies(shop: &Shop) -> [TestDatabase; 2] {
    let config = &shop.app.database.config;
    let url: Url = config.url.parse().unwrap();
    let name = url.path().trim_start_matches('/');
    on_server(config, format!("alter database {name} allow_connections false")).await.unwrap();
    [copy(config, name, 1).await, copy(config, name, 2).await]
}

/// From now on this is the database.
fn on(shop: &mut Shop, database: TestDatabase) {
    shop.state = shop.app.state_with(database.pool.clone());
    shop.app.database = database;
}

/// What has happened at Stripe is heard of, by its list alone, and has its effect.
async fn hear(shop: &Shop) {
    shop.pass(5 * MINUTE);
    while !gaps::round(&shop.state, shop.state.stripe.as_ref().unwrap(), 10).await.unwrap().done {}
    while worker::handle_one(&shop.state).await.unwrap() {}
    assert_eq!(shop.app.count("select count(*) from stripe_events where state not in ('handled', 'ignored')").await, 0);
}

/// The calendar decides what is due, and what that wants of Stripe is sent.
async fn renew(shop: &Shop) {
    while due::step(&shop.state).await.unwrap() {}
    shop.send().await;
    assert_eq!(shop.app.count("select count(*) from intents where sent_at is null").await, 0);
}

/// The ids of all charges.
async fn charges(shop: &Shop) -> Vec<uuid::Uuid> {
    let ids = sqlx::query_scalar("select id from subscription_charges order by period_start");
    ids.fetch_all(&shop.app.database.owner).await.unwrap()
}

/// The second period was charged once, whatever else happened, and has plan and credit.
async fn assert_renewed_once(shop: &Shop) {
    let payments = "select count(*) from stripe_payments where sold";
    let given = "select count(*) from subscription_grants where posted_at is not null";
    assert_eq!(shop.at_stripe(), 20_000, "the period was paid twice, or not at all");
    assert_eq!((shop.app.count(payments).await, shop.app.count(given).await), (2, 2));
    assert_eq!((shop.app.count(WALLET).await, shop.app.count(ACTIVE).await), (120_000_000, 1));
    let invoices = shop.stripe.events().iter().filter(|event| event["type"] == "invoice.created").count();
    assert_eq!(invoices, 1, "an invoice was begun a second time");
    shop.assert_clean().await;
}

/// A plan is renewed after the backup was made, and that is restored when so much time has passed. The renewal is then decided anew before Stripe's
/// list is looked through, or after that.
async fn restored_after(time: Duration, hears_first: bool) {
    let (mut shop, _) = Box::pin(with_a_plan()).await;
    shop.pass(MONTH.checked_sub(15 * MINUTE).unwrap());
    hear(&shop).await;
    let [lost, backup] = copies(&shop).await;
    on(&mut shop, lost);
    shop.pass(15 * MINUTE);
    renew(&shop).await;
    hear(&shop).await;
    assert_renewed_once(&shop).await;
    let decided = charges(&shop).await;

    shop.pass(time);
    on(&mut shop, backup);
    assert_eq!((charges(&shop).await.len(), shop.app.count(WALLET).await), (1, 60_000_000));
    if hears_first {
        hear(&shop).await;
        assert_eq!(shop.app.count(WALLET).await, 60_000_000, "nobody knows yet for what it was");
    }
    renew(&shop).await;
    hear(&shop).await;
    assert_eq!(charges(&shop).await, decided, "the same charge has another name");
    assert_renewed_once(&shop).await;
    let looks = "select count(*) from stripe_event_position where look_first_until is not null";
    assert_eq!(shop.app.count(looks).await, i64::from(time > 60 * MINUTE), "whether what is wanted is looked for first");
    shop.assert_reconciled().await;
}

/// [B-63] [B-77] Stripe plays back what was done under the stored key.
#[tokio::test]
async fn what_was_charged_after_the_backup_is_not_charged_again_when_that_is_restored_at_once() {
    for hears_first in [false, true] {
        Box::pin(restored_after(MINUTE, hears_first)).await;
    }
}

/// [B-64] [B-77]
#[tokio::test]
async fn what_was_charged_after_the_backup_is_not_charged_again_when_that_is_restored_within_a_day() {
    for hears_first in [false, true] {
        Box::pin(restored_after(Duration::from_hours(5), hears_first)).await;
    }
}

/// [B-64] [B-77] Stripe has forgotten the stored key.
#[tokio::test]
async fn what_was_charged_after_the_backup_is_not_charged_again_when_that_is_restored_two_days_later() {
    for hears_first in [false, true] {
        Box::pin(restored_after(Duration::from_hours(48), hears_first)).await;
    }
}

/// Collects the second period as an older version did, which named charges at random: the key is taken by what it made, and its invoice is for a
/// charge that nobody knows.
async fn collect_as_before(shop: &Shop, organization: OrganizationId) {
    let living = store::living(&mut shop.state.pool.acquire().await.unwrap(), organization).await.unwrap();
    let (id, customer) = (living[0].id, shop.stripe_customer(organization).await);
    let operation = format!("subscription.charge-{id}-{}-renewal", living[0].subscription.period.end.timestamp_millis());
    let collection = Collection {
        customer: &customer,
        key: &operation,
        operation: &operation,
        currency: Currency::USD,
        lines: vec![("team".to_owned(), 100_000_000)],
        metadata: [("charge_id", shop.app.random.uuid_v7(&shop.app.clock).to_string()), ("reason", "renewal".to_owned())],
        automatic_tax: false,
    };
    collect::collect(shop.state.stripe.as_ref().unwrap(), &collection).await.unwrap();
}

/// [B-64] [B-77]
#[tokio::test]
async fn what_an_older_version_collected_for_a_charge_that_is_decided_anew_counts_for_that() {
    let (shop, organization) = Box::pin(with_a_plan()).await;
    shop.pass(MONTH);
    collect_as_before(&shop, organization).await;
    shop.settle().await;
    assert_eq!((shop.app.count(WALLET).await, shop.at_stripe()), (60_000_000, 20_000), "nobody knows for what it is");
    while due::step(&shop.state).await.unwrap() {}
    shop.settle().await;
    assert_renewed_once(&shop).await;
    shop.assert_reconciled().await;
}

/// [B-77] Its invoice is open, under another name.
#[tokio::test]
async fn what_an_older_version_asked_for_in_vain_is_no_lost_charge() {
    let (shop, organization) = Box::pin(with_a_plan()).await;
    shop.pass(MONTH);
    shop.card_fails(organization).await;
    collect_as_before(&shop, organization).await;
    while due::step(&shop.state).await.unwrap() {}
    shop.settle().await;
    assert_eq!(shop.app.count("select count(*) from subscriptions where status = 'past_due'").await, 1);
    assert_eq!(shop.app.count("select count(*) from stripe_invoices where status = 'open'").await, 1);
    shop.assert_reconciled().await;
}

/// Redis has a lease of the organization's of a time that the database does not know. Its own time is over.
async fn later_lease(app: &App, organization: OrganizationId) {
    let instance = app.admissions.instance(Shard::of(organization), "named before").await.unwrap();
    let later = Funding {
        organization_id: organization,
        model: None,
        lease_id: LeaseId::new(&app.clock, &app.random),
        epoch: 900,
        funded_micros: 100_000,
        low_micros: 25_000,
        until: app.clock.now(),
        instance: &instance,
        is_new: true,
    };
    assert_eq!(app.admissions.fund(&later).await.unwrap(), Funded::Yes);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_redis_has_much_later_leases_than_the_database_the_next_one_is_there_at_once() {
    let app = without_sweeper().await;
    let (organization, client) = app.organization();
    later_lease(&app, organization).await;
    let answers = join_all((0..64).map(|_| app.lease(organization, RESERVED, None))).await;
    let first = answers[0].json["id"].clone();
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.json["id"] == first), "one lease for all: {:?}", answers[0].text);
    let (held, epoch) = ("select sum(held_micros)::bigint from leases", "select epoch from leases");
    assert_eq!((app.count(epoch).await, app.count(held).await), (901, 100_000), "one lease, above all that Redis has seen");
    app.used(organization).await;
    assert_eq!(app.balance(&client).await, (GRANT - RESERVED, RESERVED));
    app.assert_clean().await;
}

/// It was open when the backup was made, and has ended since: nobody knows what was taken from it.
#[tokio::test]
async fn what_a_lease_holds_that_ended_after_the_backup_comes_back_when_its_requests_must_be_over_and_the_next_one_is_there_at_once() {
    let app = without_sweeper().await;
    let (organization, client) = app.organization();
    let before = app.used(organization).await;
    later_lease(&app, organization).await;
    app.admissions.forget(organization, None, before.lease_id).await.unwrap();
    let after = app.used(organization).await;
    assert_ne!(after.lease_id, before.lease_id);
    let states = "select string_agg(state || ' ' || held_micros, ', ' order by epoch) from leases";
    let states: String = sqlx::query_scalar(states).fetch_one(&app.database.owner).await.unwrap();
    assert_eq!(states, "lost 100000, open 100000");
    assert_eq!(app.count("select max(epoch) from leases").await, 901);
    assert_eq!((app.settled(&before, 150).await, app.settled(&after, 150).await), (RESERVED, 150));
    eventually("the postings", || async { (app.count("select count(*) from usage_events").await == 2).then_some(()) }).await;
    app.turn.advance(Duration::from_mins(7));
    for _ in 0..2 {
        sweep_leases(&app.state()).await.unwrap();
    }
    assert_eq!(app.balance(&client).await, (GRANT - 300, 0));
    app.assert_clean().await;
}

/// [B-43] Refused, it would be set aside, and refused again whenever it is replayed.
#[tokio::test]
async fn what_was_paid_from_a_lease_that_the_database_does_not_know_is_paid_by_the_wallet_or_owed() {
    let app = without_sweeper().await;
    let (organization, client) = app.organization();
    let known = app.used(organization).await;
    let unknown = || UsageEvent { request_id: app.request(), lease_id: LeaseId::new(&app.clock, &app.random), ..known.clone() };
    let (handler, name) = (UsageEvents::new(app.state()), "billing_settlements_of_unknown_leases_total");
    let (event, counted) = (unknown(), app.metric(name).await);
    for _ in 0..2 {
        handler.handle(&messages(std::slice::from_ref(&event))).await.unwrap();
    }
    assert_eq!(app.balance(&client).await, (GRANT - RESERVED - 150, RESERVED), "paid once, and by no other lease");
    let dear = UsageEvent { usage: TokenUsage::text(0, 1_000_000), ..unknown() };
    handler.handle(&messages(&[dear])).await.unwrap();
    // All but what lies in the lease.
    assert_eq!(app.debt(organization).await, 12_000_000 - (GRANT - 100_000 - 150));
    assert_eq!(app.count("select count(*) from usage_events where lease_id is null").await, 2);
    assert!(app.metric(name).await >= counted + 2.0, "nobody is told");

    let (stranger, _) = app.organization();
    let theirs = app.used(stranger).await;
    let foreign = UsageEvent { request_id: app.request(), lease_id: theirs.lease_id, ..known.clone() };
    let refused = handler.handle(&messages(&[foreign])).await;
    assert!(matches!(refused, Err(HandleError::Rejected(_))), "on the lease of somebody else");
    app.assert_clean().await;
}
