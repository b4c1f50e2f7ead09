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

/// A table of which some rows wait.
struct Queue {
    table: &'static str,
    /// Puts rows from $1 to $2 into it, in the state $3: `handled` or `received`.
    insert: &'static str,
    /// The queries that take from it: words of each, the types of its values, and values.
    looks: &'static [(&'static str, &'static str, &'static str)],
}

/// Nothing of them is for the service that runs beside, which looks by a clock of 2030 and sells no credit in yen.
const QUEUES: &[Queue] = &[
    Queue {
        table: "stripe_events",
        insert: "insert into stripe_events (event_id, kind, livemode, payload, state, created_at, received_at, next_attempt_at)
            select 'evt_' || n, 'invoice.paid', false, jsonb_build_object('data', jsonb_build_object('object', jsonb_build_object('id', 'in_' || n))),
              $3, now(), now(), '-infinity' from generate_series($1::int, $2) n",
        looks: &[
            ("with first as", "timestamptz, timestamptz[]", "now(), array_fill(now() + interval '1 minute', array[13])"),
            ("order by event_id for no key update", "text[], text, text, uuid, text", "array['evt_22000'], 'cus_1', 'pi_1', null, 'key 22000'"),
            ("set next_attempt_at = $3 where event_id", "text, int, timestamptz", "'evt_22000', 0, now()"),
            ("set state = 'parked' where event_id", "text", "'evt_22000'"),
        ],
    },
    Queue {
        table: "intents",
        insert: "insert into intents (id, kind, subject, idempotency_key, payload, next_attempt_at, created_at, sent_at)
            select gen_random_uuid(), 'x', 'subject ' || n, 'key ' || n, '{}', '-infinity', now(), case when $3 = 'handled' then now() end
            from generate_series($1::int, $2) n",
        looks: &[("update intents set attempts = attempts + 1", "timestamptz, timestamptz", "now(), now() + interval '1 minute'")],
    },
    Queue {
        table: "stripe_customers",
        insert: "insert into stripe_customers (organization_id, email, name, idempotency_key, customer_id, next_attempt_at, created_at)
            select gen_random_uuid(), '', '', 'key ' || n, case when $3 = 'handled' then 'cus_' || n end, '-infinity', now()
            from generate_series($1::int, $2) n",
        looks: &[("update stripe_customers set attempts = attempts + 1", "timestamptz", "now()")],
    },
    Queue {
        table: "subscription_grants",
        insert: "insert into subscription_grants (id, subscription_id, organization_id, period_start, reason, currency, amount_micros, created_at, posted_at)
            select gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), now(), 'x', 'JPY', 1, now(), case when $3 = 'handled' then now() end
            from generate_series($1::int, $2) n",
        looks: &[("where posted_at is null and currency", "text, timestamptz", "'JPY', now()")],
    },
    Queue {
        table: "webhook_deliveries",
        insert: "insert into webhook_deliveries (id, endpoint_id, organization_id, message_id, kind, payload, state, next_attempt_at, created_at)
            select gen_random_uuid(), e.id, e.organization_id, 'msg_' || n, 'x', '{}', case $3 when 'handled' then 'delivered' else 'waiting' end,
              '2040-01-01'::timestamptz - n * interval '1 second', now() from generate_series($1::int, $2) n
            cross join webhook_endpoints e",
        looks: &[("with recursive busy as", "timestamptz, bigint", "'2041-01-01', 2")],
    },
    Queue {
        table: "stripe_meter_reports",
        insert: "insert into stripe_meter_reports (identifier, stripe_meter_id, organization_id, hour, version, value, dated, state, next_attempt_at, created_at)
            select 'report ' || n, m.id, gen_random_uuid(), now(), 1, 1, now(), case $3 when 'handled' then 'sent' else 'pending' end, '-infinity', now()
            from generate_series($1::int, $2) n cross join stripe_meters m",
        looks: &[("pg_try_advisory_xact_lock(hashtextextended('stripe_meter_reports", "timestamptz", "now()")],
    },
];

/// What the rows of queues refer to.
const REFERRED_TO: &str = "
    alter table subscription_grants drop constraint subscription_grants_subscription_id_fkey;
    insert into webhook_endpoints (id, organization_id, url, created_at) values (gen_random_uuid(), gen_random_uuid(), '', now());
    insert into stripe_meters (id, event_name, display_name, source, meter_name, aggregation, decimals, formula, since, stripe_id, next_attempt_at, created_at)
    values (gen_random_uuid(), 'x', 'x', 'meter', 'x', 'sum', 0, 'sum', now(), 'mtr_x', now(), now());";

/// Statistics that were gathered while nothing waited say that the index of what waits holds nothing, and a plan that believes them reads the
/// whole index instead of looking up one row of it.
#[tokio::test]
async fn a_look_reads_no_more_when_a_thousand_times_as_much_waits_as_statistics_know_of() {
    let app = App::start().await;
    let mut connection = app.database.owner.acquire().await.unwrap();
    connection.execute(REFERRED_TO).await.unwrap();
    for Queue { table, insert, looks } in QUEUES {
        for (first, last, state) in [(1, 20_000, "handled"), (20_001, 24_000, "received")] {
            let inserted = sqlx::query(*insert).bind(first).bind(last).bind(state).execute(&mut *connection).await.unwrap();
            assert_eq!(inserted.rows_affected(), u64::try_from(last - first + 1).unwrap(), "{table}");
            if state == "handled" {
                connection.execute(AssertSqlSafe(format!("vacuum (analyze) {table}"))).await.unwrap();
            }
        }
        for mode in ["force_custom_plan", "force_generic_plan"] {
            connection.execute(AssertSqlSafe(format!("set plan_cache_mode = {mode}"))).await.unwrap();
            for (words, types, values) in *looks {
                let mut transaction = connection.begin().await.unwrap();
                let before = rows_read(&mut transaction, table).await;
                transaction.execute(AssertSqlSafe(format!("prepare look ({types}) as {}", query(words)))).await.unwrap();
                let outcome = transaction.execute(AssertSqlSafe(format!("execute look ({values})"))).await.unwrap();
                assert_eq!(outcome.rows_affected(), 1, "{words}: nothing was found");
                let read = rows_read(&mut transaction, table).await - before;
                assert!((1..=40).contains(&read), "{words}: {read} rows were read of {table} ({mode})");
                transaction.execute("deallocate look").await.unwrap();
                transaction.rollback().await.unwrap();
            }
        }
    }
}

/// A customer whose endpoint is slow, and for whom thousands of messages wait, holds up nobody else's.
#[tokio::test]
async fn the_next_message_is_found_without_passing_over_what_waits_for_endpoints_that_are_busy() {
    let app = App::start().await;
    let mut connection = app.database.owner.acquire().await.unwrap();
    for statement in [
        "insert into webhook_endpoints (id, organization_id, url, created_at, busy_until)
         select gen_random_uuid(), gen_random_uuid(), n::text, now(), case when n < 5 then '2050-01-01'::timestamptz end from generate_series(1, 5) n",
        "insert into webhook_deliveries (id, endpoint_id, organization_id, message_id, kind, payload, state, next_attempt_at, created_at)
         select gen_random_uuid(), e.id, e.organization_id, 'msg_' || n, 'x', '{}', 'waiting', '2040-01-01'::timestamptz + n * interval '1 second', now()
         from webhook_endpoints e cross join generate_series(1, 4000) n where e.busy_until is not null or n = 4000",
        "vacuum (analyze) webhook_deliveries",
    ] {
        connection.execute(statement).await.unwrap();
    }
    let mut transaction = connection.begin().await.unwrap();
    transaction.execute(AssertSqlSafe(format!("prepare look (timestamptz, bigint) as {}", query("with recursive busy as")))).await.unwrap();
    let before = rows_read(&mut transaction, "webhook_deliveries").await;
    let found = transaction.fetch_all("execute look ('2041-01-01', 2)").await.unwrap();
    let read = rows_read(&mut transaction, "webhook_deliveries").await - before;
    assert_eq!(found.len(), 1);
    assert_eq!(sqlx::Row::get::<&str, _>(&found[0], "url"), "5");
    assert!((1..=40).contains(&read), "{read} rows were read");
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
