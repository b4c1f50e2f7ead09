//! Usage by month, its rollups and its export.

use super::app::App;
use billing_service::config::UsageConfig;
use billing_service::rollups::{Worker, differences, spend, usage};
use billing_service::usage::{Format, PAGE, chunks, partitions};
use chassis::config::Millis;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use futures::future::join_all;
use identity::OrganizationId;
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection};
use testkit::eventually::eventually;
use tokio_util::sync::CancellationToken;

pub async fn insert(app: &App, organization: OrganizationId, rows: i64, select: &str) {
    let statement = format!(
        "insert into usage_events (request_id, organization_id, model, provider, input_tokens, cached_input_tokens, cache_write_tokens,
           output_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens, rate_card_id, currency, price_micros, cost_micros, counted_by,
           outcome, started_at, ended_at, recorded_at)
         select gen_random_uuid(), $1, 'sim-' || n % 3, 'simulator', n, 0, 0, 1, 0, 0, 0, (select min(id) from rate_cards), 'USD', {select}
         from generate_series(1, $2) n"
    );
    sqlx::query(AssertSqlSafe(statement)).bind(organization.uuid()).bind(rows).execute(&app.database.owner).await.unwrap();
}

pub const PLAIN: &str = "10, 8, 'reported', 'completed', timestamptz '2030-01-01', timestamptz '2030-01-01' + n * interval '7 minutes', timestamptz '2030-01-01'";
const ABANDONED: &str = "0, 0, 'abandoned', 'deadline', timestamptz '2030-01-01', timestamptz '2030-01-31 20:00Z' + n * interval '3 minutes', timestamptz '2030-01-01'";

/// Until everything is in the rollups: a month is not taken out before.
async fn folded(app: &App) {
    eventually("everything is in the rollups", || async {
        (app.count(
            "select (select count(*) from usage_deltas) + (select count(*) from spend_deltas) + (select count(*) from tag_spend_deltas)",
        )
        .await
            == 0)
            .then_some(())
    })
    .await;
}

async fn assert_rolled_up(app: &App) {
    assert_eq!(differences(&app.database.pool).await.unwrap(), Vec::<String>::new());
}

/// [B-61] Late rows are rows with an old instant; a replaced row moves to another hour, day and month.
#[tokio::test(flavor = "multi_thread")]
async fn rollups_are_equal_to_the_rows_after_inserts_late_ones_and_replaced_abandoned_rows_and_after_a_rebuild() {
    let app = App::start().await;
    let pool = &app.database.pool;
    let ((ada, _), (eve, _)) = (app.organization(), app.organization());
    for round in 0..4 {
        insert(&app, ada, 300, PLAIN).await;
        insert(&app, eve, 50, ABANDONED).await;
        assert_rolled_up(&app).await;
        let replaced = "update usage_events set counted_by = 'reported', price_micros = 77, cost_micros = 70, input_tokens = 5,
            ended_at = timestamptz '2030-02-01 00:30Z' + random() * interval '1 day'
            where request_id in (select request_id from usage_events where counted_by = 'abandoned' order by request_id limit 25)";
        assert_eq!(sqlx::query(replaced).execute(pool).await.unwrap().rows_affected(), 25);
        assert_rolled_up(&app).await;
        if round % 2 == 0 {
            while usage::fold(pool).await.unwrap() {}
        } else {
            usage::rebuild(pool).await.unwrap();
        }
        assert_rolled_up(&app).await;
    }
    // Writers, those who add and those who rebuild, all at once.
    let insert_one = || insert(&app, ada, 20, PLAIN);
    let (_, added, rebuilt) = tokio::join!(
        join_all((0..8).map(|_| insert_one())),
        join_all((0..4).map(|_| usage::fold(pool))),
        join_all((0..2).map(|_| usage::rebuild(pool)))
    );
    assert!(added.iter().all(Result::is_ok) && rebuilt.iter().all(Result::is_ok), "{added:?} {rebuilt:?}");
    assert_rolled_up(&app).await;
    // And a difference is told.
    app.as_owner(
        "update usage_rollups set cost_micros = cost_micros + 1 where grain = 'day'; delete from usage_deltas where price_micros = 0",
    )
    .await;
    usage::rebuild(pool).await.unwrap();
    assert_rolled_up(&app).await;
    // The service folds too, and who does not get the lock has nothing to wait for.
    folded(&app).await;
    app.as_owner("update usage_rollups set cost_micros = cost_micros + 1 where grain = 'day'").await;
    assert!(!differences(pool).await.unwrap().is_empty());
}

/// [B-55]
#[tokio::test]
async fn a_request_is_in_usage_once_in_whichever_months_and_also_when_its_month_is_gone() {
    let app = App::start().await;
    let (organization, _) = app.organization();
    let config = UsageConfig { roll_up: Millis(std::time::Duration::from_secs(1)), retention_months: 3, detach: false };
    partitions::keep(&app.database.pool, &config, app.clock.now()).await.unwrap();
    insert(&app, organization, 3, PLAIN).await;
    let again = "insert into usage_events select request_id, organization_id, api_key_id, user_id, model, provider, input_tokens, cached_input_tokens,
        cache_write_tokens, output_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens, rate_card_id, currency, price_micros, cost_micros,
        counted_by, outcome, trace_id, started_at, ended_at + interval '1 month', recorded_at from usage_events limit 1";
    let refused = sqlx::query(again).execute(&app.database.pool).await.unwrap_err();
    assert_eq!(chassis::postgres::constraint(&refused), Some("usage_requests_pkey"));
    let request: uuid::Uuid =
        sqlx::query_scalar("select request_id from usage_events limit 1").fetch_one(&app.database.pool).await.unwrap();
    folded(&app).await;
    partitions::keep(&app.database.pool, &config, "2030-07-01T00:00:00Z".parse().unwrap()).await.unwrap();
    assert_eq!(app.count("select count(*) from usage_events").await, 0, "an old month is still there");
    assert_eq!(app.count("select sum(price_micros)::bigint from usage_retired").await, 30);
    assert_eq!(app.count("select sum(price_micros)::bigint from usage_by_day").await, 30, "the sums are gone with the rows");
    usage::rebuild(&app.database.pool).await.unwrap();
    assert_eq!(app.count("select sum(price_micros)::bigint from usage_by_day").await, 30, "a rebuild lost what has no rows any more");
    let late = "insert into usage_events (request_id, organization_id, model, provider, input_tokens, cached_input_tokens, cache_write_tokens, output_tokens,
        reasoning_tokens, audio_input_tokens, audio_output_tokens, rate_card_id, currency, price_micros, cost_micros, counted_by, outcome, started_at, ended_at, recorded_at)
        select $1, gen_random_uuid(), 'm', 'p', 0, 0, 0, 0, 0, 0, 0, min(id), 'USD', 0, 0, 'reported', 'completed', now(), now(), now() from rate_cards";
    let refused = sqlx::query(late).bind(request).execute(&app.database.pool).await.unwrap_err();
    assert_eq!(chassis::postgres::constraint(&refused), Some("usage_requests_pkey"));
}

const SUMS: &str = "select coalesce(string_agg(price_micros::bigint::text, ' ' order by day), '') from tag_spend_by_day where tag = 'x'";

/// There may be as many tags as requests.
#[tokio::test]
async fn sums_of_tags_are_kept_for_as_long_as_a_budget_looks_at_them_and_are_right_after_a_rebuild() {
    let app = App::with(|config| config.usage.roll_up = Millis(std::time::Duration::from_hours(1))).await;
    let (organization, _) = app.organization();
    let pool = &app.database.pool;
    // As the database goes by its own clock: the first instant that is kept, the one before it, and one of this month.
    let kept = "(date_trunc('month', now(), 'UTC') - interval '1 month')";
    for ended in [format!("{kept} - interval '1 microsecond'"), kept.to_owned(), "now()".to_owned()] {
        insert(&app, organization, 3, &format!("10, 8, 'reported', 'completed', now(), {ended}, now()")).await;
    }
    // Sums are all that is compared here, and rows are never changed: they are given their tags by a table that has no trigger yet.
    app.as_owner(
        "alter table usage_events disable trigger user; update usage_events set tags = '[\"x\"]'; alter table usage_events enable trigger user",
    )
    .await;
    usage::rebuild(pool).await.unwrap();
    let sums = || async { sqlx::query_scalar::<_, String>(SUMS).fetch_one(&app.database.owner).await.unwrap() };
    assert_eq!(sums().await, "30 30");
    while spend::fold(pool).await.unwrap() {}
    assert_eq!(differences(pool).await.unwrap(), Vec::<String>::new());
    // In one transaction, for the service forgets by itself too, when it has just begun.
    let mut before = app.database.owner.begin().await.unwrap();
    let older = "insert into tag_spend_rollups select organization_id, tag, currency, min(day) - interval '32 days', 7 from tag_spend_rollups group by 1, 2, 3";
    sqlx::query(older).execute(&mut *before).await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, String>(SUMS).fetch_one(&mut *before).await.unwrap(), "7 30 30");
    before.commit().await.unwrap();
    spend::forget(pool, &CancellationToken::new()).await.unwrap();
    assert_eq!(sums().await, "30 30");
    assert_eq!(differences(pool).await.unwrap(), Vec::<String>::new());
}

/// A request with a tag, of somebody, in January.
async fn insert_one(connection: &mut PgConnection, organization: OrganizationId) {
    let statement = "insert into usage_events (request_id, organization_id, user_id, tags, model, provider, input_tokens, cached_input_tokens, cache_write_tokens,
           output_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens, rate_card_id, currency, price_micros, cost_micros, counted_by,
           outcome, started_at, ended_at, recorded_at)
         select gen_random_uuid(), $1, $1, '[\"x\"]', 'sim-large', 'simulator', 1, 0, 0, 1, 0, 0, 0, min(id), 'USD', 10, 8, 'reported', 'completed',
           timestamptz '2030-01-01Z', timestamptz '2030-01-02Z', timestamptz '2030-01-02Z' from rate_cards";
    sqlx::query(statement).bind(organization.uuid()).execute(connection).await.unwrap();
}

/// [B-61] Ids are given in another order than they become visible, and a worker does not begin at the first one each time.
#[tokio::test]
async fn what_is_committed_long_after_what_came_later_is_added_all_the_same() {
    let app = App::with(|config| config.usage.roll_up = Millis(std::time::Duration::from_hours(1))).await;
    let (pool, (organization, _), mut worker) = (&app.database.pool, app.organization(), Worker::default());
    let waiting =
        "select (select count(*) from usage_deltas) + (select count(*) from spend_deltas) + (select count(*) from tag_spend_deltas)";
    // Whoever makes a month waits for all who write, and who writes after that waits for it.
    partitions::keep(pool, &UsageConfig { retention_months: 0, ..DETACHED }, app.clock.now()).await.unwrap();
    let mut early = app.database.owner.begin().await.unwrap();
    insert_one(&mut early, organization).await;
    for _ in 0..4 {
        insert_one(&mut pool.acquire().await.unwrap(), organization).await;
        worker.add(pool).await.unwrap();
    }
    early.commit().await.unwrap();
    // The service's own worker may have been at it at one of these, which is none then.
    for _ in 0..70 {
        worker.add(pool).await.unwrap();
    }
    assert_eq!(app.count(waiting).await, 0);
    assert_rolled_up(&app).await;
    for sums in
        ["select sum(price_micros)::bigint from usage_rollups where grain = 'day'", "select sum(price_micros)::bigint from spend_rollups"]
    {
        assert_eq!(app.count(sums).await, 50, "{sums}");
    }
}

/// What each month came to, by currency, as the rows say that are in the table.
async fn of_rows(app: &App) -> Vec<String> {
    let sums = "select to_char(ended_at at time zone 'UTC', 'YYYY-MM') || ' ' || currency || ' ' || count(*) || ' ' || sum(price_micros) || ' ' || sum(cost_micros)
        from usage_events group by to_char(ended_at at time zone 'UTC', 'YYYY-MM'), currency order by 1";
    sqlx::query_scalar(sums).fetch_all(&app.database.owner).await.unwrap()
}

/// As it was noted when they were taken out.
async fn noted(app: &App) -> Vec<String> {
    let sums = "select to_char(month, 'YYYY-MM') || ' ' || currency || ' ' || requests || ' ' || price_micros || ' ' || cost_micros from usage_retired order by 1";
    sqlx::query_scalar(sums).fetch_all(&app.database.owner).await.unwrap()
}

/// A service that adds to its rollups when the test says so, with months from January on.
async fn with_months() -> App {
    let app = App::with(|config| config.usage.roll_up = Millis(std::time::Duration::from_hours(1))).await;
    partitions::keep(&app.database.pool, &DETACHED, app.clock.now()).await.unwrap();
    app
}

/// Adds all there is to the rollups.
async fn fold(app: &App) {
    while usage::fold(&app.database.pool).await.unwrap() || spend::fold(&app.database.pool).await.unwrap() {}
}

const DETACHED: UsageConfig = UsageConfig { roll_up: Millis(std::time::Duration::from_secs(1)), retention_months: 3, detach: true };
const MONTHS: &str =
    "select count(*) from pg_inherits where inhparent = 'usage_events'::regclass and inhrelid::regclass::text ~ '_2030_0[1-4]$'";

/// [B-61]
#[tokio::test]
async fn what_is_noted_of_a_month_that_goes_is_what_its_rows_came_to_and_it_stays_while_the_rollups_are_behind() {
    let app = with_months().await;
    let (pool, (ada, _), (eve, _)) = (&app.database.pool, app.organization(), app.organization());
    let keep = async || partitions::keep(pool, &DETACHED, "2030-08-01T00:00:00Z".parse().unwrap()).await.unwrap();
    insert(&app, ada, 300, PLAIN).await;
    insert(&app, eve, 50, ABANDONED).await;
    app.as_owner(
        "insert into usage_events (request_id, organization_id, model, provider, input_tokens, cached_input_tokens, cache_write_tokens, output_tokens,
           reasoning_tokens, audio_input_tokens, audio_output_tokens, rate_card_id, currency, price_micros, cost_micros, counted_by, outcome, started_at, ended_at,
           recorded_at)
         select gen_random_uuid(), organization_id, model, provider, 1, 0, 0, 1, 0, 0, 0, rate_card_id, 'EUR', 3, 2, counted_by, outcome, started_at,
           ended_at + interval '40 days', recorded_at from usage_events where counted_by = 'reported' limit 40",
    )
    .await;
    fold(&app).await;
    // Some move to the next month, others end in it at last.
    let replaced =
        "update usage_events set counted_by = 'reported', price_micros = 77, cost_micros = 70, ended_at = timestamptz '2030-02-03Z'
        where request_id in (select request_id from usage_events where counted_by = 'abandoned' order by request_id limit 25)";
    assert_eq!(sqlx::query(replaced).execute(pool).await.unwrap().rows_affected(), 25);
    let came_to = of_rows(&app).await;
    assert_eq!(came_to.len(), 3, "{came_to:?}");
    keep().await;
    assert_eq!((app.count(MONTHS).await, noted(&app).await.len()), (4, 0), "something is not in the rollups");
    fold(&app).await;
    keep().await;
    assert_eq!((app.count(MONTHS).await, noted(&app).await), (0, came_to));
    let detached = "select (select count(*) from usage_events_2030_01) + (select count(*) from usage_events_2030_02)";
    assert_eq!((app.count(detached).await, app.count("select count(*) from usage_events").await), (390, 0));
    let by_day = "select sum(price_micros)::bigint from usage_by_day";
    let before = app.count(by_day).await;
    usage::rebuild(pool).await.unwrap();
    assert_eq!(app.count(by_day).await, before, "a rebuild lost what has no rows any more");
    assert_rolled_up(&app).await;
}

/// [B-61]
#[tokio::test]
async fn usage_that_comes_while_a_month_is_added_up_keeps_that_month_until_it_is_in_the_rollups() {
    let app = with_months().await;
    let (pool, (organization, _), now) = (&app.database.pool, app.organization(), "2030-08-01T00:00:00Z".parse().unwrap());
    let keep = async || partitions::keep(pool, &DETACHED, now).await;
    // Making months waits for the table, too.
    partitions::keep(pool, &UsageConfig { retention_months: 0, ..DETACHED }, now).await.unwrap();
    insert_one(&mut pool.acquire().await.unwrap(), organization).await;
    fold(&app).await;
    let mut late = app.database.owner.begin().await.unwrap();
    insert_one(&mut late, organization).await;
    let waits = "select count(*) from pg_locks where relation = 'usage_events'::regclass and mode = 'AccessExclusiveLock' and not granted
        and database = (select oid from pg_database where datname = current_database())";
    // On a slow machine it may have given way by then; the month stays either way.
    let (_, ()) = tokio::join!(keep(), async {
        eventually("the month was added up", || async { (app.count(waits).await == 1).then_some(()) }).await;
        late.commit().await.unwrap();
    });
    assert_eq!((app.count(MONTHS).await, noted(&app).await.len()), (4, 0));
    fold(&app).await;
    let came_to = of_rows(&app).await;
    keep().await.unwrap();
    assert_eq!((app.count(MONTHS).await, noted(&app).await), (0, came_to));
}

#[tokio::test]
async fn a_month_that_is_not_kept_is_dropped_also_when_whoever_took_it_out_did_not_come_to_it() {
    let app = with_months().await;
    let (pool, (organization, _)) = (&app.database.pool, app.organization());
    insert_one(&mut pool.acquire().await.unwrap(), organization).await;
    fold(&app).await;
    let taken = "select usage_partitions_retire('2030-05-01Z', false)";
    assert_eq!(sqlx::query_scalar::<_, String>(taken).fetch_all(pool).await.unwrap(), ["usage_events_2030_01"], "one at a time");
    let gone = "select count(*) from pg_class where relname in ('usage_gone_2030_01', 'usage_events_2030_01')";
    assert_eq!((app.count(gone).await, app.count("select count(*) from usage_events").await), (1, 0));
    partitions::keep(pool, &DETACHED, "2030-06-01T00:00:00Z".parse().unwrap()).await.unwrap();
    assert_eq!((app.count(gone).await, app.count(MONTHS).await), (0, 2), "February was detached, March is young enough");
    assert_eq!(app.count("select count(*) from pg_class where relname = 'usage_events_2030_02'").await, 1);
    assert_eq!(app.count("select sum(price_micros)::bigint from usage_retired").await, 10);
}

#[tokio::test]
async fn months_are_made_ahead_take_what_came_before_them_and_keep_the_rules_of_the_table() {
    let app = App::start().await;
    let (organization, _) = app.organization();
    insert(&app, organization, 5, "10, 8, 'reported', 'completed', now(), timestamptz '2031-05-31 23:59:59.999999Z', now()").await;
    insert(&app, organization, 5, "10, 8, 'reported', 'completed', now(), timestamptz '2031-06-01 00:00Z', now()").await;
    assert_eq!(app.count("select count(*) from usage_events_default").await, 10);
    let config = UsageConfig { roll_up: Millis(std::time::Duration::from_secs(1)), retention_months: 0, detach: true };
    let keep = async |now: &str| partitions::keep(&app.database.pool, &config, now.parse().unwrap()).await.unwrap();
    keep("2031-05-31T23:59:59Z").await;
    keep("2031-05-31T23:59:59Z").await;
    assert_eq!(app.count("select count(*) from usage_events_2031_05").await, 5);
    assert_eq!(app.count("select count(*) from usage_events_2031_06").await, 5);
    assert_eq!(app.count("select count(*) from usage_events_default").await, 0);
    assert_eq!(app.count("select count(*) from pg_class where relname = 'usage_events_2031_08'").await, 1);
    assert_rolled_up(&app).await;
    // What is settled stays as it is, in every month, and the service may not take rows out.
    let refused = sqlx::query("update usage_events set price_micros = 0").execute(&app.database.pool).await.unwrap_err();
    assert_eq!(chassis::postgres::constraint(&refused), Some("usage_events_settled"));
    assert!(sqlx::query("delete from usage_events").execute(&app.database.pool).await.is_err());
    assert!(sqlx::query("update usage_events set request_id = gen_random_uuid()").execute(&app.database.pool).await.is_err());
    assert!(sqlx::query("insert into usage_requests values (gen_random_uuid())").execute(&app.database.pool).await.is_err());
}

#[tokio::test]
async fn an_archived_month_stays_as_a_table_and_the_ledger_still_agrees_with_usage() {
    let app = App::start().await;
    let (organization, _) = app.organization();
    let config = UsageConfig { roll_up: Millis(std::time::Duration::from_secs(1)), retention_months: 3, detach: true };
    partitions::keep(&app.database.pool, &config, app.clock.now()).await.unwrap();
    let hold = app.hold(organization, 10, 10).await;
    app.settle(&hold, &app.usage(10, 10)).await.expect(200);
    app.assert_clean().await;
    folded(&app).await;
    partitions::keep(&app.database.pool, &config, "2030-04-30T23:59:59Z".parse().unwrap()).await.unwrap();
    assert_eq!(app.count("select count(*) from usage_events").await, 1, "a month was taken out before its last instant was old enough");
    partitions::keep(&app.database.pool, &config, "2030-05-01T00:00:00Z".parse().unwrap()).await.unwrap();
    assert_eq!(
        (app.count("select count(*) from usage_events").await, app.count("select count(*) from usage_events_2030_01").await),
        (0, 1)
    );
    app.assert_clean().await;
}

pub async fn text_of(app: &App, organization: Option<OrganizationId>, format: Format) -> (String, usize, usize) {
    let (from, to): (DateTime<Utc>, DateTime<Utc>) = ("2030-01-01T00:00:00Z".parse().unwrap(), "2031-01-01T00:00:00Z".parse().unwrap());
    let chunks: Vec<_> = chunks(app.database.pool.clone(), organization, from, to, format).try_collect().await.unwrap();
    let largest = chunks.iter().map(|chunk| std::str::from_utf8(chunk).unwrap().lines().count()).max().unwrap_or(0);
    (chunks.iter().map(|chunk| std::str::from_utf8(chunk).unwrap()).collect(), chunks.len(), largest)
}

/// [B20] Many rows end at one instant: a page must end in the middle of them and the next go on behind it (Polar's incident B20).
#[tokio::test]
async fn an_export_has_every_row_of_its_organization_once_in_order_and_holds_no_more_than_a_page() {
    let app = App::start().await;
    let ((ada, client), (eve, _)) = (app.organization(), app.organization());
    let many = "10, 8, 'reported', 'completed', timestamptz '2030-01-01', timestamptz '2030-01-01' + n / 2500 * interval '20 days', timestamptz '2030-01-01'";
    insert(&app, ada, 20_000, many).await;
    insert(&app, eve, 10, PLAIN).await;
    let (text, pages, largest) = text_of(&app, Some(ada), Format::Csv).await;
    let page = usize::try_from(PAGE).unwrap();
    assert!(pages >= 20_000 / page && largest <= page + 1, "{pages} pages, {largest} lines in one");
    let mut lines = text.split_terminator("\r\n");
    assert!(
        lines.next().unwrap().starts_with("request_id,organization_id,") && !text.contains("cost_micros"),
        "our cost is nobody's business"
    );
    let keys: Vec<(&str, &str)> = lines.map(|line| (line.rsplit(',').nth(1).unwrap(), line.split(',').next().unwrap())).collect();
    assert_eq!(keys.len(), 20_000);
    assert!(keys.is_sorted_by(|one, next| one < next), "a row is twice in it or in the wrong place");
    let (text, ..) = text_of(&app, None, Format::Jsonl).await;
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((rows.len(), &rows[0]["cost_micros"]), (20_010, &Value::from(8)));
    let served = client.get("/v1/usage/export?format=jsonl&from=2030-01-01T00:00:00Z&to=2030-01-02T00:00:00Z").await.expect(200);
    assert_eq!((served.text.lines().count(), served.header("content-type")), (2_499, "application/jsonl"));
    client.get("/v1/usage/export?format=csv&from=2030-01-02T00:00:00Z&to=2030-01-01T00:00:00Z").await.expect(422);
    client.get("/v1/usage/export?format=xml&from=2030-01-01T00:00:00Z&to=2030-01-02T00:00:00Z").await.expect(400);
}
