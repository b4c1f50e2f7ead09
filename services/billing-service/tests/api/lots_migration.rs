//! Lots begin where organizations have credit already.

use billing_service::MIGRATIONS;
use billing_service::ledger::verify::differences;
use chassis::postgres::{Migrations, PostgresConfig, connect};
use sqlx::{Connection, Executor, PgConnection};
use testkit::postgres::PostgresServer;

#[tokio::test]
async fn credit_from_before_there_were_lots_is_one_lot_for_each_organization() {
    let server = PostgresServer::start().await.unwrap();
    server.empty("old", "billing_migrator").await.unwrap();
    let mut owner = PgConnection::connect(&server.url("billing_migrator", "old")).await.unwrap();
    let lots = MIGRATIONS.files.iter().position(|(name, _)| *name == "0010_chart").unwrap();
    Migrations { files: &MIGRATIONS.files[..lots], ..MIGRATIONS }.apply(&mut owner).await.unwrap();
    // One with something on hold, one with nothing left.
    owner
        .execute(
            "begin;
             insert into wallets (organization_id, currency, created_at) values (gen_random_uuid(), 'USD', now()), (gen_random_uuid(), 'USD', now());
             insert into accounts (id, organization_id, kind, currency)
             select gen_random_uuid(), organization_id, kind, 'USD' from wallets, (values ('wallet'), ('holds'), ('debt')) k (kind);
             insert into accounts (id, kind, currency) values (gen_random_uuid(), 'promotion', 'USD') on conflict do nothing;
             insert into ledger_transactions (id, kind, external_key, occurred_at) values (gen_random_uuid(), 'signup_grant', 'x', now());
             insert into ledger_entries (transaction_id, account_id, amount_micros)
             select t.id, a.id, case a.kind when 'promotion' then -1000 when 'wallet' then 700 else 300 end from ledger_transactions t, accounts a
             where a.kind = 'promotion' or a.kind in ('wallet', 'holds') and a.organization_id = (select organization_id from wallets limit 1);
             insert into reservations (id, request_id, request_hash, organization_id, model, provider, currency, amount_micros, state, created_at, expires_at)
             select gen_random_uuid(), gen_random_uuid(), '', organization_id, 'm', 'p', 'USD', 300, 'held', now(), now() from wallets limit 1;
             commit;",
        )
        .await
        .unwrap();
    MIGRATIONS.apply(&mut owner).await.unwrap();
    let lots: Vec<(String, i64, i64, String)> =
        sqlx::query_as("select source, amount_micros, remaining_micros, state from grants").fetch_all(&mut owner).await.unwrap();
    assert_eq!(lots, [("signup".to_owned(), 1000, 1000, "active".to_owned())]);
    let config = PostgresConfig {
        url: server.url("billing_app", "old"),
        password: None,
        max_connections: 2,
        statement_timeout: chassis::config::Millis(std::time::Duration::from_secs(20)),
        wait_timeout: chassis::config::Millis(std::time::Duration::from_secs(10)),
    };
    let pool = connect(&config, "test").unwrap();
    assert_eq!(differences(&pool).await.unwrap(), Vec::<String>::new());
}
