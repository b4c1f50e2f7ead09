//! Statements, balances of the past, and the journal: what they say is what the ledger holds.

use std::collections::BTreeMap;
use std::time::Duration;

use super::app::App;
use billing_service::grants::{self, NewGrant, Source};
use billing_service::ledger::trial_balance::trial_balance;
use billing_service::ledger::{self, export};
use chassis::config::Millis;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use futures::TryStreamExt;
use identity::OrganizationId;
use serde_json::{Value, json};
use testkit::http::TestClient;

async fn quiet() -> App {
    App::with(|config| config.sweep = Millis(Duration::from_hours(1))).await
}

fn at(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn path(from: DateTime<Utc>, to: DateTime<Utc>) -> String {
    format!("/v1/statements?from={}&to={}", at(from), at(to))
}

fn micros(value: &Value, field: &str) -> i64 {
    value[field].as_i64().unwrap()
}

/// A few of everything that moves credit, one millisecond after the other, in an order that a number chooses.
async fn live(app: &App, organization: OrganizationId, mut choices: u64) {
    let mut holds = Vec::new();
    for step in 0..24 {
        app.turn.advance(Duration::from_millis(1));
        choices = choices.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let amount = 500 + i64::try_from(choices >> 50).unwrap();
        match (choices >> 33) % 6 {
            0 => {
                let grant = NewGrant { paid: Some(amount), ..NewGrant::plain(Source::Purchase, format!("{step}"), amount) };
                app.give(organization, &grant).await.unwrap();
            }
            1 => {
                let expires_at = Some(app.clock.now() + TimeDelta::milliseconds(4));
                let grant = NewGrant { expires_at, ..NewGrant::plain(Source::Promotion, format!("{step}"), amount) };
                app.give(organization, &grant).await.unwrap();
            }
            2 => assert!(grants::sweep(&app.state()).await.unwrap() >= 0),
            3 | 4 => {
                let answer = app.reserve(&app.reservation(organization, app.request(), 0, amount.unsigned_abs() / 20)).await;
                holds.extend((answer.status == 201).then(|| answer.string("id")));
            }
            _ => match holds.pop() {
                Some(hold) if choices.is_multiple_of(5) => {
                    app.void(&hold).await.expect(204);
                }
                Some(hold) => {
                    app.settle(&hold, &app.usage(0, amount.unsigned_abs() / 15)).await.expect(200);
                }
                None => {}
            },
        }
    }
}

async fn statement(client: &TestClient, from: DateTime<Utc>, to: DateTime<Utc>) -> Value {
    client.get(&path(from, to)).await.expect(200).json
}

/// Amounts and requests of lines of the same thing together, however many lines it was told in.
fn by_reference(movements: &[Value]) -> BTreeMap<(String, String), (i64, i64)> {
    let mut sums = BTreeMap::new();
    for line in movements {
        let text = |field: &str| line[field].as_str().unwrap().to_owned();
        let (amount, requests): &mut (i64, i64) = sums.entry((text("kind"), text("reference"))).or_default();
        *amount += micros(line, "amount_micros");
        *requests += line["requests"].as_i64().unwrap_or(0);
    }
    sums
}

/// [B-36] Periods of any length: they add up, they meet, and they agree with balances and ledger.
#[tokio::test]
async fn statements_add_up_meet_at_their_ends_and_agree_with_the_ledger() {
    for seed in [1, 7, 42] {
        let app = quiet().await;
        let (organization, client) = app.organization();
        app.balance(&client).await;
        if seed == 42 {
            app.as_owner("update wallets set overdraft_limit = 20000000").await;
        }
        let start = app.clock.now();
        live(&app, organization, seed).await;
        app.turn.advance(Duration::from_millis(1));
        let end = app.clock.now();
        app.assert_clean().await;
        let now = ledger::balances(&app.database.pool, organization).await.unwrap().unwrap();
        let whole = statement(&client, start, end).await;
        assert_eq!(whole["opening"], json!({"posted_micros": 0, "held_micros": 0, "debt_micros": 0}), "seed {seed}");
        assert_eq!(
            whole["closing"],
            json!({"posted_micros": now.wallet + now.held - now.debt, "held_micros": now.held, "debt_micros": now.debt}),
            "seed {seed}"
        );
        let mut moved = Vec::new();
        let (mut from, mut before) = (start, whole["opening"].clone());
        for length in [1, 2, 3, 5, 7, 11].into_iter().cycle() {
            let to = (from + TimeDelta::milliseconds(length)).min(end);
            let part = statement(&client, from, to).await;
            let sum: i64 = part["movements"].as_array().unwrap().iter().map(|movement| micros(movement, "amount_micros")).sum();
            assert_eq!(part["opening"], before, "seed {seed}: two periods do not meet");
            assert_eq!(micros(&part["opening"], "posted_micros") + sum, micros(&part["closing"], "posted_micros"), "seed {seed}");
            let balance = client.get(&format!("/v1/balance?at={}", at(to))).await.expect(200).json;
            assert_eq!(micros(&balance, "posted_micros"), micros(&part["closing"], "posted_micros"), "seed {seed}");
            assert_eq!(micros(&balance, "held_micros"), micros(&part["closing"], "held_micros"), "seed {seed}");
            assert!(balance["lots"].is_null());
            moved.extend(part["movements"].as_array().unwrap().clone());
            (from, before) = (to, part["closing"].clone());
            if to == end {
                break;
            }
        }
        assert_eq!(by_reference(&moved), by_reference(whole["movements"].as_array().unwrap()), "seed {seed}: the parts are not the whole");
        assert!(moved.iter().all(|movement| micros(movement, "amount_micros") != 0));
    }
}

#[tokio::test]
async fn a_statement_is_json_csv_or_a_page_as_it_is_asked_for_and_texts_stay_texts() {
    let app = quiet().await;
    let (organization, client) = app.organization();
    let from = app.clock.now();
    let evil = "=HYPERLINK(\"x\"),<script>alert('1')</script>";
    app.give(organization, &NewGrant { paid: Some(5), ..NewGrant::plain(Source::Purchase, evil, 5) }).await;
    app.turn.advance(Duration::from_millis(1));
    let path = path(from, app.clock.now());
    let csv = client.get(&format!("{path}&format=csv")).await.expect(200);
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
    let lines: Vec<&str> = csv.text.lines().collect();
    assert_eq!((lines.len(), lines[0]), (5, "time,kind,reference,amount,balance,currency,requests"));
    assert!(lines[2].contains(",signup_grant,org_") && lines[2].ends_with(",5.000000,5.000000,USD,"), "{}", lines[2]);
    assert!(lines[3].contains(",sale,\"'=HYPERLINK(\"\"x\"\"),<script>") && lines[3].ends_with(",0.000005,5.000005,USD,"), "{}", lines[3]);
    assert!(lines[4].contains(",closing,,,5.000005,"), "{}", lines[4]);
    let page = client.header("accept", "text/html,application/xhtml+xml;q=0.9").get(&path).await.expect(200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.header("content-security-policy").starts_with("default-src 'none'; style-src 'unsafe-inline'"));
    assert!(page.text.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;") && !page.text.contains("<script"), "{}", page.text);
    assert!(!page.text.contains("http") && !page.text.contains("src="), "the page needs something from elsewhere");
    assert_eq!(client.header("accept", "text/csv").get(&path).await.expect(200).text, csv.text);
    assert!(client.header("accept", "text/csv").get(&format!("{path}&format=json")).await.expect(200).json.is_object());
    assert!(client.get(&path).await.expect(200).json.is_object());
}

/// What the `n`th of many requests cost.
const fn cost(n: i64) -> i64 {
    n % 100 + 1
}

/// One request every two minutes from `start`, 20,000 of them, and as many that were free.
async fn use_for_a_month(app: &App, organization: OrganizationId, start: DateTime<Utc>) {
    let mut transaction = app.database.owner.begin().await.unwrap();
    for insert in [
        "insert into ledger_transactions (id, kind, external_key, organization_id, occurred_at)
         select md5(n::text)::uuid, 'settlement', n::text, $1, $2 + n % 20000 * interval '2 minutes' from generate_series(0, 39999) n",
        "insert into ledger_entries (transaction_id, account_id, amount_micros)
         select md5(n::text)::uuid, a.id, case a.kind when 'wallet' then -1 else 1 end * (n % 100 + 1)
         from generate_series(0, 39999) n join accounts a on a.currency = 'USD' and ((a.organization_id = $1 and a.kind = 'wallet')
           or (n < 20000 and a.organization_id is null and a.kind = 'promotion') or (n >= 20000 and a.organization_id = $1 and a.kind = 'holds'))
         where $2 is not null",
    ] {
        sqlx::query(insert).bind(organization.uuid()).bind(start).execute(&mut *transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();
}

/// What requests cost is one line for a day, so a month of any number of them has a statement.
#[tokio::test]
async fn a_month_of_twenty_thousand_requests_is_a_short_statement_that_adds_up() {
    let app = quiet().await;
    let (organization, client) = app.organization();
    app.balance(&client).await;
    let start = app.clock.now();
    use_for_a_month(&app, organization, start).await;
    app.turn.advance(Duration::from_hours(10 * 24 + 12));
    app.give(organization, &NewGrant { paid: Some(7), ..NewGrant::plain(Source::Purchase, "p", 7) }).await;
    let now = ledger::balances(&app.database.pool, organization).await.unwrap().unwrap();
    let end = start + TimeDelta::days(31);
    let whole = statement(&client, start, end).await;
    let lines = whole["movements"].as_array().unwrap();
    let days: Vec<&Value> = lines.iter().filter(|line| line["kind"] == "settlement").collect();
    assert_eq!((lines.len(), days.len()), (30, 28), "28 days, what was given and what was bought");
    for (day, line) in (0..).zip(&days) {
        let of: Vec<i64> = (0..20_000)
            .filter(|n| (start + TimeDelta::minutes(2 * n)).date_naive() == (start + TimeDelta::days(day)).date_naive())
            .collect();
        let last = start + TimeDelta::minutes(2 * of.last().unwrap());
        let expected = (-of.iter().map(|n| cost(*n)).sum::<i64>(), i64::try_from(of.len()).unwrap());
        assert_eq!((micros(line, "amount_micros"), micros(line, "requests")), expected, "day {day}");
        assert_eq!(line["reference"], last.format("%Y-%m-%d").to_string());
        assert_eq!(line["time"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap(), last);
    }
    let bought = lines.iter().position(|line| line["kind"] == "sale").unwrap();
    assert_eq!((&lines[bought - 1]["reference"], &lines[bought]["requests"]), (&json!("2030-01-10"), &Value::Null));
    let mut balance = 0;
    for line in lines {
        balance += micros(line, "amount_micros");
        assert_eq!(micros(line, "balance_micros"), balance);
    }
    assert_eq!((micros(&whole["closing"], "posted_micros"), balance), (now.wallet + now.held - now.debt, balance));
    assert_eq!(micros(&whole["closing"], "held_micros"), now.held);
    // Both halves of the history, by whichever way their balances are found.
    for hours in [1, 5 * 24, 20 * 24, 27 * 24 + 18] {
        let at = start + TimeDelta::hours(hours);
        let (left, right) = (statement(&client, start, at).await, statement(&client, at, end).await);
        let spent: i64 = (0..20_000).filter(|n| 2 * n < hours * 60).map(cost).sum();
        let given = 5_000_000 + if hours > 10 * 24 + 12 { 7 } else { 0 };
        assert_eq!((micros(&left["closing"], "posted_micros"), &left["closing"]), (given - spent, &right["opening"]), "{hours} hours");
    }
    let path = path(start, end);
    let csv = client.get(&format!("{path}&format=csv")).await.expect(200).text;
    assert_eq!(csv.lines().count(), 33);
    assert_eq!(csv.lines().filter(|line| line.contains(",settlement,2030-01-") && line.ends_with(",USD,720")).count(), 27);
    let page = client.get(&format!("{path}&format=html")).await.expect(200).text;
    assert_eq!(page.matches("<td>settlement (720 requests)</td>").count(), 27);
}

/// [B-79]
#[tokio::test]
async fn a_statement_is_of_ones_own_money_and_of_a_period_that_makes_sense() {
    let app = quiet().await;
    let ((ada, client), (_, eve)) = (app.organization(), app.organization());
    app.give(ada, &NewGrant::plain(Source::Promotion, "k", 5)).await;
    let now = app.clock.now();
    let second = TimeDelta::seconds(1);
    let foreign = statement(&eve, now - second, now + second).await;
    assert_eq!((&foreign["movements"], micros(&foreign["closing"], "posted_micros")), (&json!([]), 0));
    app.public.get(&path(now, now + second)).await.expect(401);
    client.get(&path(now, now)).await.expect(422);
    client.get(&path(now, now + TimeDelta::days(367))).await.expect(422);
    client.get("/v1/statements?from=yesterday&to=today").await.expect(400);
    client.get("/v1/statements").await.expect(400);
    client.get("/v1/balance?at=yesterday").await.expect(400);
    // Half-open: what became true at an instant is of the period that begins with it.
    assert_eq!(statement(&client, now - second, now).await["movements"], json!([]));
    assert_eq!(statement(&client, now, now + second).await["movements"].as_array().unwrap().len(), 2);
}

/// [B-34]
#[tokio::test]
async fn the_journal_has_every_transaction_of_the_period_whole_balanced_and_with_account_codes() {
    let app = quiet().await;
    let (organization, client) = app.organization();
    app.balance(&client).await;
    app.turn.advance(Duration::from_millis(1));
    let from = app.clock.now();
    live(&app, organization, 3).await;
    app.give(organization, &NewGrant { paid: Some(7), ..NewGrant::plain(Source::Purchase, "@SUM(A1)", 7) }).await;
    let to = app.clock.now() + TimeDelta::milliseconds(1);
    let journal = async |from, to| -> String {
        let chunks: Vec<_> = export::chunks(app.database.pool.clone(), from, to).try_collect().await.unwrap();
        chunks.iter().map(|chunk| std::str::from_utf8(chunk).unwrap()).collect()
    };
    let text = journal(from, to).await;
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split(',').collect()).collect();
    assert!(rows.iter().all(|row| row.len() == 11), "{text}");
    let value = |cell: &str| cell.replace('.', "").parse::<i64>().unwrap_or(0);
    let mut transactions: Vec<&str> = rows.iter().map(|row| row[1]).collect();
    transactions.dedup();
    let all = app.count("select count(*) from ledger_transactions where kind <> 'signup_grant'").await;
    assert_eq!(i64::try_from(transactions.len()).unwrap(), all, "a transaction is torn or missing");
    for transaction in transactions {
        let of: Vec<&Vec<&str>> = rows.iter().filter(|row| row[1] == transaction).collect();
        let (debit, credit) = (of.iter().map(|row| value(row[9])).sum::<i64>(), of.iter().map(|row| value(row[10])).sum::<i64>());
        assert!(debit == credit && debit > 0 && of.len() >= 2, "{of:?}");
    }
    let wallet = rows.iter().find(|row| row[6] == "wallet").unwrap();
    assert_eq!((wallet[5], wallet[7], wallet[8]), ("2000", organization.to_string().as_str(), "USD"));
    let sale = rows.iter().find(|row| row[3] == "sale" && row[6] == "stripe_clearing" && row[4].contains("SUM")).unwrap();
    assert_eq!((sale[4], sale[5], sale[7], sale[9], sale[10]), ("'@SUM(A1)", "1100", "", "0.000007", ""));
    assert_eq!(journal(to, to).await.lines().count(), 1, "the columns and nothing else");
}

/// Whenever it is asked for, an instant's is the same: what was booked since is taken off.
#[tokio::test]
async fn the_trial_balance_of_an_instant_stays_what_it_was_and_credit_is_told_by_where_it_came_from() {
    let app = quiet().await;
    let (organization, client) = app.organization();
    app.balance(&client).await;
    live(&app, organization, 3).await;
    app.give(organization, &NewGrant { paid: Some(700), ..NewGrant::plain(Source::Purchase, "a", 700) }).await.unwrap();
    let console = app.service(billing_service::admin::SCOPE_READ);
    let of = async |time| console.get(&format!("/v1/admin/ledger/trial-balance?at={}", at(time))).await.expect(200).json;
    app.turn.advance(Duration::from_millis(1));
    let then = app.clock.now();
    let first = of(then).await;
    let sum = |rows: &Value, of: &str, only: &[&str]| -> i64 {
        let rows = rows.as_array().unwrap().iter();
        rows.filter(|row| only.is_empty() || only.contains(&row["account"].as_str().unwrap())).map(|row| row[of].as_i64().unwrap()).sum()
    };
    for _ in 0..2 {
        app.give(organization, &NewGrant::plain(Source::Promotion, app.request().to_string(), 50)).await.unwrap();
        let hold = app.hold(organization, 0, 100).await;
        app.settle(&hold, &app.usage(0, 50)).await.expect(200);
        app.hold(organization, 0, 10).await;
        app.turn.advance(Duration::from_hours(24));
        let now = of(app.clock.now()).await;
        for balance in [&first, &now] {
            assert_eq!(sum(&balance["accounts"], "balance_micros", &[]), 0, "{balance}");
            let credit = sum(&balance["accounts"], "balance_micros", &["wallet", "holds"]);
            assert_eq!(sum(&balance["deferred_revenue"], "remaining_micros", &[]), credit, "{balance}");
        }
        assert_eq!(of(then).await, first, "what came later changed it");
        assert_ne!(now["accounts"], first["accounts"]);
    }
    let sources: Vec<&str> = first["deferred_revenue"].as_array().unwrap().iter().map(|row| row["source"].as_str().unwrap()).collect();
    assert!(sources.contains(&"purchase") && sources.contains(&"signup"), "{sources:?}");
    let csv = trial_balance(&app.database.pool, then).await.unwrap().csv();
    let lines: Vec<&str> = csv.split_terminator("\r\n").collect();
    assert!(lines.iter().any(|line| line.contains(",1100,stripe_clearing,,USD,0.") && line.ends_with(',')), "{csv}");
    assert!(lines.iter().any(|line| line.contains(",,wallet+holds,purchase,USD,,")), "{csv}");
    let before = of("2020-01-01T00:00:00Z".parse().unwrap()).await;
    assert_eq!((&before["accounts"], &before["deferred_revenue"]), (&json!([]), &json!([])));
    console.get("/v1/admin/ledger/trial-balance?at=yesterday").await.expect(400);
}
