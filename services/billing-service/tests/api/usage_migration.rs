//! Usage becomes a table of months where there are rows already, and rules that other migrations made.

use std::time::Duration;

use billing_service::MIGRATIONS;
use billing_service::rollups::differences;
use chassis::config::Millis;
use chassis::postgres::{Migrations, PostgresConfig, connect, constraint};
use sqlx::{Connection, Executor, PgConnection};
use testkit::postgres::PostgresServer;

const ROWS: &str = "
    insert into usage_events (request_id, organization_id, user_id, model, provider, input_tokens, cached_input_tokens, cache_write_tokens, output_tokens,
      reasoning_tokens, audio_input_tokens, audio_output_tokens, rate_card_id, currency, price_micros, cost_micros, counted_by, outcome, started_at, ended_at, recorded_at)
    select gen_random_uuid(), gen_random_uuid(), case when n % 3 > 0 then gen_random_uuid() end, 'm', 'p', n, 0, 0, 0, 0, 0, 0, (select min(id) from rate_cards), 'USD', n, n,
      case n % 10 when 0 then 'abandoned' else 'reported' end, 'completed', now(), timestamptz '2025-11-15 00:00Z' + n * interval '1 day', now()
    from generate_series(1, 200) n;
    alter table usage_events add column lease uuid;
    grant update (lease) on usage_events to billing_app;
    create index usage_events_lease on usage_events (lease);";

/// [B-55] [B-61]
#[tokio::test]
async fn usage_from_before_there_were_months_is_in_them_whole_claimed_rolled_up_and_under_the_same_rules() {
    let server = PostgresServer::start().await.unwrap();
    server.empty("old", "billing_migrator").await.unwrap();
    let mut owner = PgConnection::connect(&server.url("billing_migrator", "old")).await.unwrap();
    let months = MIGRATIONS.files.iter().position(|(name, _)| *name == "0042_usage_partitions").unwrap();
    Migrations { files: &MIGRATIONS.files[..months], ..MIGRATIONS }.apply(&mut owner).await.unwrap();
    owner.execute(ROWS).await.unwrap();
    MIGRATIONS.apply(&mut owner).await.unwrap();
    let config = PostgresConfig {
        url: server.url("billing_app", "old"),
        password: None,
        max_connections: 2,
        statement_timeout: Millis(Duration::from_secs(20)),
        wait_timeout: Millis(Duration::from_secs(10)),
    };
    let pool = connect(&config, "test").unwrap();
    let count = async |query: &'static str| sqlx::query_scalar::<_, i64>(query).fetch_one(&pool).await.unwrap();
    assert_eq!(count("select count(*) from usage_events").await, 200);
    assert_eq!(count("select count(*) from usage_events u join usage_requests r using (request_id)").await, 200);
    assert_eq!(count("select sum(price_micros)::bigint from usage_by_day").await, 201 * 100);
    assert_eq!(count("select count(*) from pg_class where relname = 'usage_events_2025_11'").await, 1);
    assert_eq!(count("select count(*) from pg_indexes where indexname in ('usage_events_lease', 'usage_events_organization')").await, 2);
    assert_eq!(differences(&pool).await.unwrap(), Vec::<String>::new());
    let update = async |statement: &'static str| sqlx::query(statement).execute(&pool).await;
    let refused = update("update usage_events set price_micros = 0 where counted_by = 'reported'").await.unwrap_err();
    assert_eq!(constraint(&refused), Some("usage_events_settled"));
    assert_eq!(
        update("update usage_events set price_micros = 7, lease = gen_random_uuid() where counted_by = 'abandoned'")
            .await
            .unwrap()
            .rows_affected(),
        20
    );
    let foreign = owner.execute("update usage_events set rate_card_id = 0 where counted_by = 'abandoned'").await.unwrap_err();
    assert_eq!(constraint(&foreign), Some("usage_events_rate_card_id_fkey"));
    assert_eq!(differences(&pool).await.unwrap(), Vec::<String>::new());
}
