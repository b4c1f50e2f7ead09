//! What takes from a queue: each look reads what it takes, and not all that waits.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use testkit::repository;

use super::app::App;

/// The text of the one query that has these words.
fn query(words: &str) -> String {
    let files = repository::read_folder("services/billing-service/.sqlx");
    let queries =
        files.iter().map(|(_, text)| serde_json::from_str::<serde_json::Value>(text).unwrap()["query"].as_str().unwrap().to_owned());
    let found: Vec<String> = queries.filter(|query| query.contains(words)).collect();
    let [query] = &found[..] else { panic!("not one query has {words:?}: {found:#?}") };
    query.clone()
}

/// What this connection's transaction has read of a table, by whichever plan.
async fn rows_read(connection: &mut PgConnection, table: &str) -> i64 {
    let read = "select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables where relname = $1";
    sqlx::query_scalar(read).bind(table).fetch_one(connection).await.unwrap()
}

/// Statistics that were gathered while nothing waited say that the index of what waits holds nothing, and a plan that believes them reads the
/// whole index instead of looking up one row of it.
/// [B-14]
#[tokio::test]
async fn a_look_reads_no_more_when_a_thousand_times_as_much_waits_as_statistics_know_of() {
    let app = App::start().await;
    let mut connection = app.database.owner.acquire().await.unwrap();
    let events = "insert into stripe_events (event_id, kind, livemode, payload, state, created_at, received_at, next_attempt_at)
        select 'evt_' || n, 'invoice.paid', false, jsonb_build_object('data', jsonb_build_object('object', jsonb_build_object('id', 'in_' || n))),
          $3, now(), now(), '-infinity' from generate_series($1::int, $2) n";
    let intents = "insert into intents (id, kind, subject, idempotency_key, payload, next_attempt_at, created_at, sent_at)
        select gen_random_uuid(), 'x', 'subject ' || n, 'key ' || n, '{}', '-infinity', now(), case when $3 = 'handled' then now() end
        from generate_series($1::int, $2) n";
    for (first, last, state) in [(1, 20_000, "handled"), (20_001, 24_000, "received")] {
        for insert in [events, intents] {
            sqlx::query(insert).bind(first).bind(last).bind(state).execute(&mut *connection).await.unwrap();
        }
        if state == "handled" {
            connection.execute("vacuum (analyze) stripe_events, intents").await.unwrap();
        }
    }
    let instants = "array_fill(now() + interval '1 minute', array[13])";
    for mode in ["force_custom_plan", "force_generic_plan"] {
        connection.execute(AssertSqlSafe(format!("set plan_cache_mode = {mode}"))).await.unwrap();
        for (table, words, types, values) in [
            ("stripe_events", "with first as", "timestamptz, timestamptz[]", format!("now(), {instants}")),
            ("stripe_events", "order by event_id for no key update", "text[]", "array['evt_22000']".to_owned()),
            ("stripe_events", "set next_attempt_at = $3 where event_id", "text, int, timestamptz", "'evt_22000', 0, now()".to_owned()),
            ("stripe_events", "set state = 'parked' where event_id", "text", "'evt_22000'".to_owned()),
            ("intents", "update intents set attempts = attempts + 1", "timestamptz", "now()".to_owned()),
        ] {
            let mut transaction = connection.begin().await.unwrap();
            let before = rows_read(&mut transaction, table).await;
            transaction.execute(AssertSqlSafe(format!("prepare look ({types}) as {}", query(words)))).await.unwrap();
            transaction.execute(AssertSqlSafe(format!("execute look ({values})"))).await.unwrap();
            let read = rows_read(&mut transaction, table).await - before;
            assert!((1..=20).contains(&read), "{words}: {read} rows were read of {table} ({mode})");
            transaction.execute("deallocate look").await.unwrap();
            transaction.rollback().await.unwrap();
        }
    }
}

/// [B-49]
#[tokio::test]
async fn a_look_for_wallets_that_run_low_reads_a_page_of_them_and_not_all() {
    let app = App::start().await;
    let mut connection = app.database.owner.acquire().await.unwrap();
    for statement in [
        "insert into wallets (organization_id, currency, created_at) select gen_random_uuid(), 'USD', now() from generate_series(1, 4000)",
        "insert into auto_top_ups (organization_id, enabled, threshold_micros, amount_micros, monthly_cap_micros, next_at, updated_at)
         select organization_id, true, 1, 1, 1, now(), now() from wallets",
        "vacuum (analyze) auto_top_ups",
    ] {
        connection.execute(statement).await.unwrap();
    }
    let mut transaction = connection.begin().await.unwrap();
    let prepare = format!("prepare look (timestamptz, text, uuid, bigint) as {}", query("row_number() over (order by t.organization_id)"));
    transaction.execute(AssertSqlSafe(prepare)).await.unwrap();
    let before = rows_read(&mut transaction, "auto_top_ups").await;
    let found = transaction.fetch_all("execute look (now(), 'USD', '00000000-0000-0000-0000-000000000000', 50)").await.unwrap();
    let read = rows_read(&mut transaction, "auto_top_ups").await - before;
    assert_eq!(found.len(), 50, "all are low");
    assert!((50..=100).contains(&read), "{read} rows were read");
}
