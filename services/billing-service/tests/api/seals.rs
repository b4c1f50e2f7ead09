//! The chain of seals: whoever changes what was posted, with all rights of the schema's owner, is found out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::app::App;
use billing_service::ledger::seal::seal;
use billing_service::ledger::verify::{check, differences};
use sqlx::{AssertSqlSafe, Executor};
use uuid::Uuid;

/// An organization with a grant, two holds and a settlement, all of them under seals.
async fn sealed() -> App {
    let app = App::start().await;
    let (organization, _) = app.organization();
    let (settled, _held) = (app.hold(organization, 10, 10).await, app.hold(organization, 100, 100).await);
    app.settle(&settled, &app.usage(10, 10)).await.expect(200);
    seal(&app.state()).await.unwrap();
    assert_eq!(app.count("select count(*) from ledger_unsealed").await, 0);
    app.assert_clean().await;
    app
}

async fn transaction(app: &App, kind: &'static str) -> (Uuid, i64) {
    let row = sqlx::query_as("select id, position from ledger_transactions where kind = $1 order by position limit 1").bind(kind);
    row.fetch_one(&app.database.owner).await.unwrap()
}

const FREE: &str = "alter table ledger_transactions disable trigger user; alter table ledger_entries disable trigger user;
    alter table ledger_sealed disable trigger user; alter table ledger_seals disable trigger user;";

#[tokio::test]
async fn a_changed_transaction_is_named() {
    for change in [
        // All sums are still right.
        "update ledger_entries e set amount_micros = amount_micros * 2 from ledger_transactions t where t.id = transaction_id and t.kind = 'settlement'
           and e.account_id in (select id from accounts where kind like 'provider_%');
         update accounts set balance_micros = balance_micros * 2 where kind like 'provider_%'",
        "update ledger_transactions set organization_id = gen_random_uuid() where kind = 'settlement'",
        "update ledger_transactions set occurred_at = occurred_at - interval '1 day' where kind = 'settlement'",
        "update ledger_transactions set external_key = 'another' where kind = 'settlement'",
    ] {
        let app = sealed().await;
        let (id, position) = transaction(&app, "settlement").await;
        app.database.owner.execute(AssertSqlSafe(format!("{FREE} {change}"))).await.unwrap();
        assert_eq!(differences(&app.database.pool).await.unwrap(), [named(&app, id, position).await], "{change}");
    }
}

async fn named(app: &App, id: Uuid, position: i64) -> String {
    let seal: i64 = sqlx::query_scalar("select seal_id from ledger_sealed where position = $1")
        .bind(position)
        .fetch_one(&app.database.owner)
        .await
        .unwrap();
    format!("transaction {id} (position {position}) is not what seal {seal} holds")
}

#[tokio::test]
async fn two_transactions_that_changed_places_are_both_named() {
    let app = sealed().await;
    let ((first, low), (second, high)) = (transaction(&app, "signup_grant").await, transaction(&app, "settlement").await);
    let swap = format!(
        "{FREE} alter table ledger_transactions alter position drop identity;
         update ledger_transactions set position = -1 where id = '{first}';
         update ledger_transactions set position = {low} where id = '{second}';
         update ledger_transactions set position = {high} where id = '{first}';"
    );
    app.database.owner.execute(AssertSqlSafe(swap)).await.unwrap();
    let mut expected = [named(&app, second, low).await, named(&app, first, high).await];
    let mut found = differences(&app.database.pool).await.unwrap();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_deleted_transaction_is_named_by_its_position() {
    let app = sealed().await;
    let (id, position) = transaction(&app, "settlement").await;
    let delete =
        format!("{FREE} delete from ledger_entries where transaction_id = '{id}'; delete from ledger_transactions where id = '{id}'");
    app.database.owner.execute(AssertSqlSafe(delete)).await.unwrap();
    let found = differences(&app.database.pool).await.unwrap();
    assert!(found.iter().any(|line| line.starts_with(&format!("the transaction at position {position} is gone"))), "{found:?}");
}

#[tokio::test]
async fn a_transaction_that_was_taken_out_of_its_seal_or_slipped_past_the_sealer_is_reported() {
    let app = sealed().await;
    let (id, position) = transaction(&app, "settlement").await;
    let forget = format!("{FREE} delete from ledger_sealed where position = {position}");
    app.database.owner.execute(AssertSqlSafe(forget)).await.unwrap();
    let found = differences(&app.database.pool).await.unwrap();
    assert!(found.iter().any(|line| line.contains("does not cover the digests")), "{found:?}");
    assert!(found.contains(&format!("transaction {id} (position {position}) is under no seal and waits for none")), "{found:?}");
}

/// Who makes the rest of the chain anew as well is found out by anybody who kept a seal.
#[tokio::test]
async fn a_seal_that_is_gone_and_one_that_follows_another_are_reported_and_a_kept_seal_is_looked_for() {
    let app = sealed().await;
    let (organization, _) = app.organization();
    app.hold(organization, 10, 10).await;
    seal(&app.state()).await.unwrap();
    let kept = check(&app.database.pool, None, |line| panic!("{line}")).await.unwrap();
    assert!(!kept.has_expected && kept.seals >= 2 && kept.sealed == 6, "{kept:?}");
    assert!(check(&app.database.pool, Some(&kept.head), |_| {}).await.unwrap().has_expected);
    app.database.owner.execute(AssertSqlSafe(format!("{FREE} update ledger_seals set hash = sha256(hash) where id = 1"))).await.unwrap();
    let found = differences(&app.database.pool).await.unwrap();
    assert!(found.contains(&"seal 2 does not follow the one before it".to_owned()), "{found:?}");
    assert!(found.contains(&"seal 1 does not cover the digests of its transactions".to_owned()), "{found:?}");
    app.database.owner.execute("delete from ledger_sealed where seal_id = 1; delete from ledger_seals where id = 1").await.unwrap();
    assert!(differences(&app.database.pool).await.unwrap().contains(&"seal 1 is gone".to_owned()));
}

/// Positions are given before they are committed, in another order: a low one that comes late must be sealed all the same.
#[tokio::test]
async fn what_commits_out_of_order_and_while_sealing_is_sealed_once_and_nothing_is_left_out() {
    let app = App::start().await;
    let (organization, client) = app.organization();
    app.balance(&client).await;
    let insert = "with t as (insert into ledger_transactions (id, kind, external_key, occurred_at) values (gen_random_uuid(), 'late', $1, now()) returning id)
        insert into ledger_entries (transaction_id, account_id, amount_micros)
        select t.id, a.id, case a.kind when 'transfers' then 1 else -1 end from t, accounts a where a.kind in ('transfers', 'adjustments')";
    let transaction =
        "insert into ledger_transactions (id, kind, external_key, occurred_at) values (gen_random_uuid(), 'late', 'low', now())";
    let mut low = app.database.owner.begin().await.unwrap();
    low.execute(transaction).await.unwrap();
    let mut gone = app.database.pool.begin().await.unwrap();
    gone.execute(AssertSqlSafe(transaction.replace("'low'", "'gone'"))).await.unwrap();
    gone.rollback().await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let sealers = (0..3).map(|_| {
        let (state, stop) = (app.state(), Arc::clone(&stop));
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                seal(&state).await.unwrap();
            }
        })
    });
    let sealers: Vec<_> = sealers.collect();
    let writers = (0..4).map(|writer| {
        let pool = app.database.pool.clone();
        tokio::spawn(async move {
            for n in 0..25 {
                sqlx::query(insert).bind(format!("{writer}-{n}")).execute(&pool).await.unwrap();
            }
        })
    });
    for writer in futures::future::join_all(writers).await {
        writer.unwrap();
    }
    app.hold(organization, 10, 10).await;
    seal(&app.state()).await.unwrap();
    low.execute(
        "insert into ledger_entries (transaction_id, account_id, amount_micros)
         select t.id, a.id, case a.kind when 'transfers' then 1 else -1 end from ledger_transactions t, accounts a
         where t.external_key = 'low' and a.kind in ('transfers', 'adjustments')",
    )
    .await
    .unwrap();
    low.commit().await.unwrap();
    stop.store(true, Ordering::SeqCst);
    for sealer in sealers {
        sealer.await.unwrap();
    }
    seal(&app.state()).await.unwrap();
    let summary = check(&app.database.pool, None, |line| panic!("{line}")).await.unwrap();
    assert_eq!(summary.sealed, 103);
    assert_eq!(app.count("select count(*) from ledger_unsealed").await, 0);
}
