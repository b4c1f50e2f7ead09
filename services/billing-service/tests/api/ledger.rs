//! The ledger: what the database itself refuses, what `verify` finds, and how a posting reaches its accounts.

use super::app::App;
use billing_service::ledger::verify::differences;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use testkit::repository;

/// [B-34]
#[tokio::test]
async fn the_database_refuses_transactions_that_are_not_balanced_or_have_one_entry() {
    let app = App::start().await;
    let (_, client) = app.organization();
    app.balance(&client).await;
    for entries in ["(5), (-4)", "(5)"] {
        let mut transaction = app.database.pool.begin().await.unwrap();
        sqlx::query(
            "insert into ledger_transactions (id, kind, external_key, occurred_at) values (gen_random_uuid(), 'signup_grant', 'x', now())",
        )
        .execute(&mut *transaction)
        .await
        .unwrap();
        let insert = format!(
            "insert into ledger_entries (transaction_id, account_id, amount_micros) select t.id, a.id, v.amount from ledger_transactions t, (select id from accounts where kind = 'wallet' limit 1) a, (values {entries}) v(amount) where t.external_key = 'x'"
        );
        let refused = sqlx::query(sqlx::AssertSqlSafe(insert)).execute(&mut *transaction).await.unwrap_err();
        assert_eq!(chassis::postgres::constraint(&refused), Some("ledger_transactions_balanced"), "{entries}");
    }
    // Nothing was inserted that could be looked at: the end of the transaction finds it.
    let mut transaction = app.database.pool.begin().await.unwrap();
    let empty =
        "insert into ledger_transactions (id, kind, external_key, occurred_at) values (gen_random_uuid(), 'signup_grant', 'x', now())";
    transaction.execute(empty).await.unwrap();
    let refused = transaction.commit().await.unwrap_err();
    assert_eq!(chassis::postgres::constraint(&refused), Some("ledger_transactions_balanced"));
    app.assert_clean().await;
}

/// [B-34]
#[tokio::test]
async fn one_bad_transaction_of_a_batch_is_found_among_good_ones() {
    let app = App::start().await;
    let (_, client) = app.organization();
    app.balance(&client).await;
    for (wrong, rule) in [
        ("-6", "ledger_transactions_balanced"),
        // An account that is not there, and a transaction that is not.
        ("-5), ('c', gen_random_uuid(), 5), ('c', gen_random_uuid(), -5", "ledger_entries_account_id_fkey"),
        ("-5), ('nobody', (select id from a), 5), ('nobody', (select id from a), -5", "ledger_transactions_closed"),
    ] {
        let mut transaction = app.database.pool.begin().await.unwrap();
        let rows = "insert into ledger_transactions (id, kind, external_key, occurred_at)
            select md5(key)::uuid, 'signup_grant', key, now() from unnest(array['a', 'b', 'c']) key";
        transaction.execute(rows).await.unwrap();
        let insert = format!(
            "with a as (select id from accounts where kind = 'promotion') insert into ledger_entries (transaction_id, account_id, amount_micros)
             select md5(v.key)::uuid, v.account, v.amount from (values ('a', (select id from a), 5), ('a', (select id from a), -5),
             ('b', (select id from a), 5), ('b', (select id from a), {wrong})) v (key, account, amount)"
        );
        let refused = transaction.execute(AssertSqlSafe(insert)).await.unwrap_err();
        assert_eq!(chassis::postgres::constraint(&refused), Some(rule), "{wrong}");
    }
    let refused = app.database.owner.execute("delete from accounts").await.unwrap_err();
    assert_eq!(chassis::postgres::constraint(&refused), Some("accounts_append_only"));
    app.assert_clean().await;
}

/// [B-35] [B27]
#[tokio::test]
async fn the_running_role_cannot_change_or_delete_what_was_posted_nor_alter_the_schema() {
    let app = App::start().await;
    let (_, client) = app.organization();
    app.balance(&client).await;
    for statement in [
        "update ledger_entries set amount_micros = 1",
        "delete from ledger_entries",
        "delete from ledger_transactions",
        "update ledger_transactions set kind = 'x'",
        "update accounts set balance_micros = 1",
        "update accounts set organization_id = gen_random_uuid()",
        "insert into accounts (id, kind, currency, balance_micros) values (gen_random_uuid(), 'promotion', 'EUR', 1)",
        "delete from usage_events",
        "update usage_events set organization_id = gen_random_uuid()",
        "update rate_cards set price_input = 0",
        "drop table accounts",
        "alter table accounts add column x text",
        "truncate ledger_entries",
    ] {
        let refused = sqlx::query(statement).execute(&app.database.pool).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("42501"), "{statement}");
    }
    let late = "insert into ledger_entries (transaction_id, account_id, amount_micros) select t.id, a.id, 5 from ledger_transactions t, accounts a limit 1";
    let refused = sqlx::query(late).execute(&app.database.pool).await.unwrap_err();
    assert_eq!(chassis::postgres::constraint(&refused), Some("ledger_transactions_closed"), "an entry joined a closed transaction");
}

/// [B-35]
#[tokio::test]
async fn where_the_running_role_may_update_a_row_it_cannot_make_it_another() {
    let app = App::start().await;
    let (organization, _) = app.organization();
    let hold = app.hold(organization, 10, 10).await;
    app.settle(&hold, &app.usage(10, 10)).await.expect(200);
    for (statement, rule) in [
        ("update accounts set id = gen_random_uuid()", "accounts_fixed"),
        ("update usage_events set price_micros = 0", "usage_events_settled"),
        ("update usage_events set counted_by = 'abandoned'", "usage_events_settled"),
    ] {
        let refused = sqlx::query(statement).execute(&app.database.pool).await.unwrap_err();
        assert_eq!(chassis::postgres::constraint(&refused), Some(rule), "{statement}");
    }
    let account = "insert into accounts (id, kind, currency) values (gen_random_uuid(), 'promotion', 'EUR')";
    sqlx::query(account).execute(&app.database.pool).await.unwrap();
    app.assert_clean().await;
}

/// [B-36]
#[tokio::test]
async fn verify_finds_each_kind_of_drift_and_nothing_else() {
    let transaction = "alter table ledger_transactions disable trigger ledger_transactions_balanced;
        alter table ledger_entries disable trigger ledger_entries_open;
        insert into ledger_transactions (id, kind, external_key, occurred_at) values (gen_random_uuid(), 'x', 'x', now());";
    let unbalanced = "insert into ledger_entries (transaction_id, account_id, amount_micros)
        select t.id, a.id, case a.kind when 'promotion' then 5 else -4 end from ledger_transactions t, accounts a
        where t.kind = 'x' and a.kind in ('promotion', 'provider_cost')";
    for (drift, expected) in [
        (transaction.to_owned() + unbalanced, "sums to 1 over 2 entries"),
        (transaction.to_owned(), "sums to 0 over 0 entries"),
        ("update accounts set balance_micros = balance_micros + 1 where kind = 'promotion'".into(), "and its entries sum to -5000000"),
        (
            "update reservations set state = 'voided' where state = 'held'".into(),
            "has 1500 on hold, and its reservations and leases come to 0",
        ),
        (
            "alter table usage_events disable trigger user; update usage_events set price_micros = price_micros + 1".into(),
            "revenue is 150 USD and usage comes to 151",
        ),
    ] {
        let app = App::start().await;
        let (organization, _) = app.organization();
        let (settled, _held) = (app.hold(organization, 10, 10).await, app.hold(organization, 100, 100).await);
        app.settle(&settled, &app.usage(10, 10)).await.expect(200);
        app.assert_clean().await;
        app.database.owner.execute(AssertSqlSafe(drift)).await.unwrap();
        let found = differences(&app.database.pool).await.unwrap();
        assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
    }
}

/// A plan that cannot use the index reads the accounts of all organizations for each posting.
#[tokio::test]
async fn a_posting_finds_its_accounts_by_the_index() {
    let app = App::start().await;
    let queries = repository::read_folder("services/billing-service/.sqlx");
    let queries =
        queries.iter().map(|(_, text)| serde_json::from_str::<serde_json::Value>(text).unwrap()["query"].as_str().unwrap().to_owned());
    let writes: Vec<String> = queries.filter(|query| query.contains("insert into ledger_entries")).collect();
    let [write] = &writes[..] else { panic!("one statement writes entries: {writes:#?}") };
    let mut connection = app.database.owner.acquire().await.unwrap();
    connection.execute("set enable_seqscan = off; set plan_cache_mode = force_generic_plan").await.unwrap();
    let types = "uuid[], text[], text[], uuid[], timestamptz[], uuid[], uuid[], text[], text[], bigint[]";
    connection.execute(AssertSqlSafe(format!("prepare posting ({types}) as {write}"))).await.unwrap();
    let id = "array[gen_random_uuid()]";
    let values = format!("{id}, '{{grant}}', '{{key}}', {id}, array[now()], {id}, {id}, '{{wallet}}', '{{USD}}', '{{1}}'");
    let rows = connection.fetch_all(AssertSqlSafe(format!("explain execute posting ({values})"))).await.unwrap();
    let plan = rows.iter().map(|row| row.get(0)).collect::<Vec<String>>().join("\n");
    for condition in ["Index Cond: ((organization_id = m.owner) AND", "Index Cond: ((organization_id IS NULL) AND"] {
        assert!(plan.contains(condition), "no {condition} in\n{plan}");
    }
}

/// What this connection has read of the ledger, by whichever plan, since it told the server's statistics last.
async fn ledger_rows_read(connection: &mut PgConnection) -> i64 {
    let read = "select (sum(coalesce(seq_tup_read, 0)) + sum(coalesce(idx_tup_fetch, 0)))::bigint from pg_stat_xact_user_tables
        where relname in ('ledger_transactions', 'ledger_entries')";
    sqlx::query_scalar(read).fetch_one(connection).await.unwrap()
}

/// A plan that was made while the ledger was empty is kept while it grows: then a posting would cost more with each one before it.
#[tokio::test]
async fn a_posting_reads_no_more_of_the_ledger_when_there_is_more_of_it() {
    let app = App::start().await;
    let (_, client) = app.organization();
    app.balance(&client).await;
    let mut connection = app.database.owner.acquire().await.unwrap();
    connection.execute("vacuum (analyze) ledger_transactions, ledger_entries, accounts").await.unwrap();
    connection.execute("set plan_cache_mode = force_generic_plan").await.unwrap();
    for (first, last, most) in [(1, 2, 1_000), (3, 4_000, i64::MAX), (4_001, 4_002, 100)] {
        let mut transaction = connection.begin().await.unwrap();
        let before = ledger_rows_read(&mut transaction).await;
        for insert in [
            "insert into ledger_transactions (id, kind, external_key, occurred_at)
             select md5(n::text)::uuid, 'signup_grant', n::text, now() from generate_series($1::int, $2) n",
            "insert into ledger_entries (transaction_id, account_id, amount_micros)
             select md5(n::text)::uuid, (select id from accounts where kind = 'promotion' and currency = 'USD'), amount
             from generate_series($1::int, $2) n, unnest(array[5, -5]) amount",
        ] {
            sqlx::query(insert).bind(first).bind(last).execute(&mut *transaction).await.unwrap();
        }
        let read = ledger_rows_read(&mut transaction).await - before;
        assert!(read <= most, "{read} rows were read for {} postings", last - first + 1);
        transaction.commit().await.unwrap();
    }
    drop(connection);
    app.assert_clean().await;
}

const HOUSE: &str = "select coalesce(sum(balance_micros), 0)::bigint from accounts where kind = 'promotion' and currency = 'USD'";

/// Writes a posting of so much between the organization's wallet and an account of the house.
async fn give(connection: &mut PgConnection, organization: sqlx::types::Uuid, key: &str, amount: i64) {
    let id: sqlx::types::Uuid = sqlx::query_scalar(
        "insert into ledger_transactions (id, kind, external_key, organization_id, occurred_at) values (gen_random_uuid(), 'grant', $1, $2, now()) returning id",
    )
    .bind(key)
    .bind(organization)
    .fetch_one(&mut *connection)
    .await
    .unwrap();
    let entries = "insert into ledger_entries (transaction_id, account_id, amount_micros)
        select $1, a.id, case when a.organization_id is null then -$3 else $3 end from accounts a
        where a.currency = 'USD' and (a.organization_id = $2 and a.kind = 'wallet' or a.organization_id is null and a.kind = 'promotion')";
    sqlx::query(entries).bind(id).bind(organization).bind(amount).execute(connection).await.unwrap();
}

/// The accounts of the house belong to everybody: who has posted to one and goes on working holds up nobody.
/// [B-34]
#[tokio::test]
async fn postings_of_two_organizations_to_one_account_of_the_house_do_not_wait_for_each_other() {
    let app = App::start().await;
    let (first, client) = app.organization();
    app.balance(&client).await;
    let (second, client) = app.organization();
    app.balance(&client).await;
    let (mut one, mut other) = (app.database.pool.begin().await.unwrap(), app.database.pool.begin().await.unwrap());
    let before: i64 = sqlx::query_scalar(HOUSE).fetch_one(&app.database.owner).await.unwrap();
    give(&mut one, first.uuid(), "one", 5).await;
    give(&mut one, first.uuid(), "one again", 6).await;
    // Would be refused after the time that a lock is waited for.
    give(&mut other, second.uuid(), "other", 7).await;
    other.commit().await.unwrap();
    one.commit().await.unwrap();
    let after: i64 = sqlx::query_scalar(HOUSE).fetch_one(&app.database.owner).await.unwrap();
    assert_eq!(before - after, 5 + 6 + 7);
    assert_eq!(app.count("select count(*) from house_moves").await, 0, "nothing stays beside");
    assert_eq!(differences(&app.database.pool).await.unwrap().iter().filter(|line| line.starts_with("account ")).count(), 0);
}
