//! What must be true when everything has come to rest.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use billing_service::subscriptions::SubscriptionId;
use contracts::RequestId;
use gateway_bench::stack::Stack;
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::postgres::PgPool;
use sqlx::types::Uuid;

use crate::GRANT;
use crate::hurry;
use crate::incidents::Incidents;
use crate::reports;
use crate::shop::PLAN_CREDIT;

/// How long everything may take to come to rest: deadlines, takeovers of dead consumers, the ends of leases.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long it may take until an event that was never delivered is found: it is looked for when it is two minutes old.
const UNTIL_FOUND: Duration = Duration::from_mins(4);
/// Tokens that may be between the provider and a process: what comes in a fifth of a second, for which it may have to wait on a machine
/// where compilers run.
const ON_THE_WAY: i64 = 40;
/// The same of one stream that reaches its deadline: because both were slow, or it would have been complete. 58 were seen on two cores with
/// a load of nine.
const AT_A_DEADLINE: i64 = 80;
/// The same on average over the streams that were cut there with some on their way. One of them may have all that a single one may, so that
/// a report of few is judged, too.
const AT_DEADLINES: i64 = 12;
/// What the provider sends in the second that a killed process may leave unbilled, a token each five milliseconds, and what is on its way.
const OF_A_SECOND: i64 = 200 + ON_THE_WAY;
/// Milliseconds between two of them.
const PACE: i64 = 5;
/// Of a dollar, in micro-units.
const CENT: i64 = 10_000;

/// What was found.
#[derive(Debug, Default)]
pub struct Books {
    served: usize,
    rows: usize,
    events: usize,
    abandoned: usize,
    /// Answered with an error before the first token was read, though the provider had sent some.
    given_up: usize,
    /// Tokens that were served and are not charged, because the process that knew of them was killed.
    unbilled_tokens: i64,
    /// What is charged of the abandoned ones: input and output.
    abandoned_tokens: i64,
    /// Of the abandoned ones, those that had no checkpoint.
    without_checkpoint: usize,
    /// Of the abandoned ones, those of which more than a second of tokens is not charged: Redis, which keeps what was noted, was away in the
    /// last second of their process. No more is missing than came meanwhile, too.
    beyond_a_second: usize,
    /// Requests that reached their deadline while tokens were on their way.
    cut: usize,
    /// These tokens: sent, never read, not charged.
    unread_tokens: i64,
    /// The most of them that one request had.
    most_unread: i64,
    /// Credit that came with plans: how often.
    plan_credits: usize,
    /// Events of another program, each counted once.
    reports: usize,
    /// What was paid at Stripe, and how much of it went back, in smallest units.
    paid: i64,
    refunded: i64,
}

impl Books {
    /// As it is written at the end.
    #[must_use]
    pub fn report(&self) -> Value {
        json!({"requests_served": self.served, "usage_rows": self.rows, "stripe_events": self.events,
            "abandoned": self.abandoned, "given_up": self.given_up, "abandoned_tokens": self.abandoned_tokens, "without_checkpoint": self.without_checkpoint,
            "unbilled_tokens": self.unbilled_tokens, "beyond_a_second": self.beyond_a_second, "cut": self.cut, "unread_tokens": self.unread_tokens, "most_unread": self.most_unread,
            "plan_credits": self.plan_credits, "reports": self.reports, "paid_cents": self.paid, "refunded_cents": self.refunded})
    }
}

#[derive(Debug, sqlx::FromRow)]
struct Row {
    request_id: Uuid,
    input_tokens: i64,
    output_tokens: i64,
    counted_by: String,
    outcome: String,
    /// In milliseconds since 1970.
    started: i64,
}

/// What people and programs were told, and so must be there.
#[derive(Debug, Default)]
pub struct Told {
    /// Events of Stripe that were acknowledged.
    pub acknowledged: Vec<String>,
    /// Subscriptions to the free plan that have begun.
    pub begun: Vec<String>,
    /// Events of other programs that count.
    pub reported: Vec<String>,
}

/// Waits until nothing is held, then compares everything.
///
/// # Errors
/// Whatever does not agree.
pub async fn agree(stack: &mut Stack, http: &Client, told: &Told, incidents: &Incidents) -> Result<Books> {
    let pool = PgPool::connect(&stack.postgres.url("postgres", "billing")).await?;
    let mut books = Books::default();
    at_rest(stack, &pool).await?;
    sales_agree(&mut books, stack, http, &pool).await?;
    let served = served(stack, http).await?;
    let rows =
        "select request_id, input_tokens, output_tokens, counted_by, outcome, (extract(epoch from started_at) * 1000)::bigint as started
        from usage_events";
    let rows: Vec<Row> = sqlx::query_as(rows).fetch_all(&pool).await?;
    (books.served, books.rows) = (served.len(), rows.len());
    let known: HashMap<String, &Row> = rows.iter().map(|row| (RequestId::from_uuid(row.request_id).to_string(), row)).collect();
    ensure!(known.len() == rows.len(), "a request is charged twice");
    for row in &rows {
        compare(&mut books, row, served.get(&RequestId::from_uuid(row.request_id).to_string()), incidents)?;
    }
    let allowed = AT_DEADLINES * i64::try_from(books.cut)? + AT_A_DEADLINE;
    ensure!(
        books.unread_tokens <= allowed,
        "{} requests that reached their deadline had {} tokens on their way, up to {} each; {allowed} may be",
        books.cut,
        books.unread_tokens,
        books.most_unread
    );
    let lost = served.iter().find(|(id, row)| row["output_tokens"] != 0 && !known.contains_key(*id));
    ensure!(lost.is_none(), "a request that was served has no usage row: {lost:?}");
    plans(&mut books, &pool, &told.begun).await?;
    ledger(&pool).await?;
    events(&mut books, &pool, &told.acknowledged).await?;
    books.reports = reports::agree(&pool, &told.reported).await?;
    for check in ["ledger", "usage"] {
        stack.program("billing-service")?.operate(&[check, "verify"]).with_context(|| format!("{check} verify"))?;
    }
    stripe_agrees(stack, &pool).await?;
    Ok(books)
}

/// Nothing differs at Stripe, however young it is and however little it matters, but that somebody has bought nothing. It is asked again for
/// as long as an event may be on its way, or lost and looked for.
async fn stripe_agrees(stack: &mut Stack, pool: &PgPool) -> Result<()> {
    let began = Instant::now();
    loop {
        let told = stack.program("billing-service")?.output(&["stripe", "reconcile", "--grace", "0"]);
        let differs = told.and_then(|told| match unexpected(&told) {
            Some(line) => Err(anyhow::anyhow!("{line} of {told}")),
            None => Ok(()),
        });
        let Err(error) = differs else { return Ok(()) };
        ensure!(began.elapsed() < UNTIL_FOUND, "{error:#}");
        hurry::up(pool).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A difference that a comparison told of, and that does not follow from what is done here.
fn unexpected(told: &str) -> Option<&str> {
    told.lines().find(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("error" | "warning" | "info")) && words.next() != Some("customer_none")
    })
}

/// One request, as usage and as the provider tell of it.
fn compare(books: &mut Books, row: &Row, served: Option<&Value>, incidents: &Incidents) -> Result<()> {
    let number = |field: &str| served.and_then(|served| served[field].as_i64()).unwrap_or(0);
    let (input, output) = (number("input_tokens"), number("output_tokens"));
    let is_abandoned = row.counted_by == "abandoned";
    if is_abandoned {
        books.abandoned += 1;
        books.abandoned_tokens += row.input_tokens + row.output_tokens;
        books.without_checkpoint += usize::from(row.input_tokens + row.output_tokens == 0);
    }
    if (row.input_tokens, row.output_tokens) == (input, output) {
        return Ok(());
    }
    let is_less = row.input_tokens <= input && row.output_tokens <= output;
    // The one exception: what a killed process had not noted is not charged, and what a killed provider had not sent nobody received.
    let ended = served.map(|served| &served["ended"]);
    let is_ended = matches!(row.outcome.as_str(), "deadline" | "shutdown");
    // A request that was given up before its first token was read got an error and is not charged, whatever was on its way: at its deadline
    // that may be all of a short answer, and is never more than a short answer has.
    let is_unread = ended.is_some_and(|ended| *ended == "client_gone" || (is_ended && *ended == "completed"));
    let is_uncharged = !is_abandoned && row.input_tokens + row.output_tokens == 0;
    let is_given_up = row.outcome != "completed" && is_uncharged && is_unread && output <= ON_THE_WAY;
    // At its deadline, and when its process is asked to end, a request is charged for what was read: a few tokens may have been between the
    // two, the last ones, too.
    let unread = output - row.output_tokens;
    let is_cut = is_ended && row.counted_by == "counted" && unread <= AT_A_DEADLINE && is_unread;
    // Who left before the first token was read is charged the prompt; that it was the deadline which ended it is not in the row then.
    let is_left = row.outcome == "client_closed" && row.output_tokens == 0 && is_unread && output <= ON_THE_WAY;
    let is_excused = is_abandoned || is_given_up || is_cut || is_left || ended.is_some_and(|ended| *ended == "killed");
    ensure!(is_less && is_excused, "usage has {row:?} and the provider {served:?}");
    books.given_up += usize::from(is_given_up);
    if is_cut && !is_given_up {
        books.cut += 1;
        books.unread_tokens += unread;
        books.most_unread = books.most_unread.max(unread);
    }
    if is_abandoned {
        let unnoted = incidents.unnoted(row.started);
        let unnoted =
            unnoted.with_context(|| format!("its process lived until it was settled for it: {row:?}, {served:?}, {incidents:?}"))?;
        ensure!(
            unread <= OF_A_SECOND + unnoted / PACE,
            "more than a second of tokens is not charged, and Redis was away for {unnoted} ms: {row:?}, {served:?}, {incidents:?}"
        );
        books.beyond_a_second += usize::from(unread > OF_A_SECOND);
        books.unbilled_tokens += input - row.input_tokens + output - row.output_tokens;
    }
    Ok(())
}

/// Until nothing is held, in flight or waiting to be posted.
async fn at_rest(stack: &Stack, pool: &PgPool) -> Result<()> {
    let began = Instant::now();
    let held = "select (select coalesce(sum(balance_micros), 0)::bigint from accounts where kind = 'holds'),
        (select count(*) from leases where state <> 'closed'), (select count(*) from stripe_events where state = 'received'),
        (select count(*) from intents where sent_at is null) + (select count(*) from stripe_customers where customer_id is null)
          + (select count(*) from subscription_grants where posted_at is null)";
    loop {
        hurry::up(pool).await?;
        let waiting: (i64, i64, i64, i64) = sqlx::query_as(held).fetch_one(pool).await?;
        let streams = unposted(stack).await;
        if waiting == (0, 0, 0, 0) && streams.as_ref().is_ok_and(|length| *length == 0) {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "held, leases, events and wishes of Stripe {waiting:?}, streams {streams:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What each customer paid at Stripe, and got back, is what we sold to them and took back, to the cent; nothing was set aside.
async fn sales_agree(books: &mut Books, stack: &Stack, http: &Client, pool: &PgPool) -> Result<()> {
    let (began, url) = (Instant::now(), format!("{}/_simulator/ledger", stack.base("stripe-simulator")?));
    let ours = "select c.customer_id, coalesce(sum(p.amount_micros), 0)::bigint, coalesce(sum(p.reversed_micros), 0)::bigint
        from stripe_payments p join stripe_customers c using (organization_id) group by c.customer_id order by c.customer_id";
    loop {
        let ours: Vec<(String, i64, i64)> = sqlx::query_as(ours).fetch_all(pool).await?;
        let theirs: Value = http.get(&url).send().await?.json().await?;
        let cents = |row: &Value, field: &str| row[field].as_i64().unwrap_or(0);
        let row = |row: &Value| (row["customer"].as_str().unwrap_or_default().to_owned(), cents(row, "charged"), cents(row, "refunded"));
        let rows = theirs.as_array().context("rows")?.iter().map(row);
        let theirs: Vec<(String, i64, i64)> = rows.filter(|(_, paid, _)| *paid != 0).collect();
        let in_cents = |(customer, paid, back): &(String, i64, i64)| (customer.clone(), paid / CENT, back / CENT);
        if ours.iter().map(in_cents).eq(theirs.iter().cloned()) {
            (books.paid, books.refunded) = theirs.iter().fold((0, 0), |(paid, back), row| (paid + row.1, back + row.2));
            break;
        }
        // An event may still be on its way, or lost and looked for.
        ensure!(began.elapsed() < UNTIL_FOUND, "we have {ours:?} and Stripe has {theirs:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let parked: i64 = sqlx::query_scalar("select count(*) from stripe_events where state = 'parked'").fetch_one(pool).await?;
    ensure!(parked == 0, "{parked} events were set aside");
    Ok(())
}

async fn unposted(stack: &Stack) -> Result<u64> {
    let mut connection = stack.redis.redis.connection();
    let mut length = 0;
    for shard in contracts::Shard::all() {
        length += redis::cmd("XLEN").arg(shard.usage_stream()).query_async::<u64>(&mut connection).await?;
    }
    Ok(length)
}

async fn served(stack: &Stack, http: &Client) -> Result<HashMap<String, Value>> {
    let (began, url) = (Instant::now(), format!("{}/ledger", stack.base("llm-simulator")?));
    loop {
        let page: Value = http.get(&url).send().await?.json().await?;
        ensure!(page["dropped"] == 0, "the provider keeps too few rows");
        let rows = page["data"].as_array().context("rows")?;
        if page["open"] == 0 {
            return Ok(rows.iter().filter_map(|row| Some((row["request_id"].as_str()?.to_owned(), row.clone()))).collect());
        }
        ensure!(began.elapsed() < PATIENCE, "{} requests do not end at the provider", page["open"]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whoever was told that the free plan has begun got its credit, once; whoever got no answer got it once, or not at all.
async fn plans(books: &mut Books, pool: &PgPool, begun: &[String]) -> Result<()> {
    let grants = "select subscription_id, organization_id, amount_micros, posted_at is not null from subscription_grants";
    let grants: Vec<(Uuid, Uuid, i64, bool)> = sqlx::query_as(grants).fetch_all(pool).await?;
    let wrong = grants.iter().find(|(_, _, amount, is_posted)| *amount != PLAN_CREDIT || !is_posted);
    ensure!(wrong.is_none(), "{wrong:?} is no posted credit of the plan, which is {PLAN_CREDIT}");
    let organizations: BTreeSet<Uuid> = grants.iter().map(|(_, organization, ..)| *organization).collect();
    ensure!(organizations.len() == grants.len(), "an organization got the credit of its plan twice: {grants:?}");
    let subscriptions: BTreeSet<String> = grants.iter().map(|(id, ..)| SubscriptionId::from_uuid(*id).to_string()).collect();
    let lost = begun.iter().find(|id| !subscriptions.contains(*id));
    ensure!(lost.is_none(), "{lost:?} has begun, as its customer was told, and brought no credit");
    books.plan_credits = grants.len();
    Ok(())
}

/// What each organization has is what it began with and bought and what came with its plan, less what its usage costs and what it gave back; revenue is all of the
/// usage.
async fn ledger(pool: &PgPool) -> Result<()> {
    let balances = "select a.organization_id, sum(a.balance_micros)::bigint,
        coalesce((select sum(u.price_micros) from usage_events u where u.organization_id = a.organization_id), 0)::bigint,
        coalesce((select sum(p.credit_micros) from stripe_payments p where p.organization_id = a.organization_id), 0)::bigint
          - coalesce((select sum(r.credit_micros) from stripe_reversals r join stripe_payments p using (payment_intent_id)
                      where p.organization_id = a.organization_id), 0)::bigint
          + coalesce((select sum(g.amount_micros) from subscription_grants g
                      where g.organization_id = a.organization_id and g.posted_at is not null), 0)::bigint
        from accounts a where a.organization_id is not null group by a.organization_id";
    for (organization, balance, charged, bought) in sqlx::query_as::<_, (Uuid, i64, i64, i64)>(balances).fetch_all(pool).await? {
        ensure!(balance + charged == GRANT + bought, "{organization} has {balance}, was charged {charged} and bought {bought}");
    }
    let sums = "select (select coalesce(sum(balance_micros), 0)::bigint from accounts where kind = 'revenue'),
        (select coalesce(sum(price_micros), 0)::bigint from usage_events),
        (select coalesce(sum(balance_micros), 0)::bigint from accounts where kind = 'provider_payable'),
        (select coalesce(sum(cost_micros), 0)::bigint from usage_events)";
    let (revenue, charged, payable, cost): (i64, i64, i64, i64) = sqlx::query_as(sums).fetch_one(pool).await?;
    ensure!((revenue, payable) == (charged, cost), "revenue {revenue} of {charged}, payable {payable} of {cost}");
    Ok(())
}

/// What was acknowledged is there, once, and was worked through.
async fn events(books: &mut Books, pool: &PgPool, acknowledged: &[String]) -> Result<()> {
    let handled: Vec<String> =
        sqlx::query_scalar("select event_id from stripe_events where state in ('handled', 'ignored')").fetch_all(pool).await?;
    let handled: BTreeSet<&str> = handled.iter().map(String::as_str).collect();
    let lost = acknowledged.iter().find(|id| !handled.contains(id.as_str()));
    ensure!(lost.is_none(), "{lost:?} was acknowledged and is lost");
    books.events = handled.len();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_comparison_tells_is_a_difference_but_that_somebody_bought_nothing() {
        let bought_nothing = "info    customer_none      org_1 org_1\n        ours: ; theirs: . A sentence.\n";
        let sums = "run 0197: 1 customers, 0 payments\n0 errors, 0 warnings, 1 notes\n";
        assert_eq!(unexpected(&format!("{bought_nothing}{sums}")), None);
        for line in ["error   payment_missing    org_1 pi_1", "warning meter_behind       - m", "info    invoice_missing    org_1 in_1"] {
            assert_eq!(unexpected(&format!("{bought_nothing}{line}\n{sums}")), Some(line));
        }
    }
}
