//! A statement from the ledger's own entries. What requests cost is added up by the database, one line for each day, so that a month of
//! any number of requests is a short statement.

use chassis::Problem;
use chrono::{DateTime, Utc};
use identity::OrganizationId;
use serde::Serialize;
use sqlx::{PgPool, Postgres, Transaction};
use utoipa::ToSchema;

use crate::balance::{before, history};
use crate::error::Error;
use crate::ledger::Balances;
use crate::ledger::postings::Kind;

/// Lines that one statement may have: they are in memory together.
const MOST: usize = 10_000;
/// Kinds that come with each request: one line for a day (UTC) of each.
const FOLDED: [Kind; 2] = [Kind::Settlement, Kind::LateSettlement];

/// What an organization had, what came and went, and what it has then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Statement {
    /// Whose it is.
    pub organization_id: OrganizationId,
    /// ISO 4217 code.
    #[schema(example = "USD")]
    pub currency: &'static str,
    /// When the period begins.
    pub from: DateTime<Utc>,
    /// The instant before which it ends.
    pub to: DateTime<Utc>,
    /// What there was when it began.
    pub opening: StatementBalance,
    /// What came and went, the oldest first: what requests cost in one line for each day (UTC) and kind, everything else by itself.
    pub movements: Vec<Movement>,
    /// What there was when it ended: the opening balance and all movements.
    pub closing: StatementBalance,
}

/// A balance, in micro-units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct StatementBalance {
    /// What was owned: available and held together; below zero when something was owed.
    pub posted_micros: i64,
    /// What of it was held for requests under way.
    pub held_micros: i64,
    /// What was owed.
    pub debt_micros: i64,
}

impl From<Balances> for StatementBalance {
    fn from(balances: Balances) -> Self {
        Self { posted_micros: balances.wallet + balances.held - balances.debt, held_micros: balances.held, debt_micros: balances.debt }
    }
}

/// What came or went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Movement {
    /// When; the last request's, where it is of several.
    pub time: DateTime<Utc>,
    /// What it was about, such as `settlement`.
    pub kind: String,
    /// The fact, such as a payment; the day (`2030-01-31`, UTC), where it is of requests.
    pub reference: String,
    /// How many requests cost it; null for what is not of requests.
    pub requests: Option<i64>,
    /// What came, or went (below zero), in micro-units.
    pub amount_micros: i64,
    /// What the opening balance and all lines up to this one come to, in micro-units.
    pub balance_micros: i64,
}

impl Statement {
    /// Puts a statement together and proves that it adds up.
    fn new(
        organization_id: OrganizationId,
        (from, to): (DateTime<Utc>, DateTime<Utc>),
        (opening, closing): (Balances, Balances),
        mut movements: Vec<Movement>,
    ) -> Result<Self, Error> {
        let (opening, closing) = (StatementBalance::from(opening), StatementBalance::from(closing));
        let mut balance = opening.posted_micros;
        for movement in &mut movements {
            balance += movement.amount_micros;
            movement.balance_micros = balance;
        }
        if balance != closing.posted_micros {
            return Err(Error::Internal("a statement does not add up"));
        }
        Ok(Self { organization_id, currency: crate::ledger::CREDIT.code(), from, to, opening, movements, closing })
    }
}

/// Reads the statement for `[from, to)`, from one consistent picture.
///
/// # Errors
/// 422 when the period has too many lines for one statement; the database's.
pub async fn read(pool: &PgPool, organization: OrganizationId, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Statement, Error> {
    let mut transaction = history(pool).await?;
    let opening = before(&mut transaction, organization, from).await?;
    let closing = before(&mut transaction, organization, to).await?;
    let movements = movements(&mut transaction, organization, (from, to)).await?;
    transaction.commit().await?;
    Statement::new(organization, (from, to), (opening, closing), movements)
}

async fn movements(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
) -> Result<Vec<Movement>, Error> {
    // What only goes between the organization's own accounts sums to zero, and is no movement.
    let rows = sqlx::query!(
        r#"select max(occurred_at) as "time!", kind as "kind!", coalesce(day, min(external_key)) as "reference!",
             case when day is not null then count(*) end as requests, sum(amount)::bigint as "amount!"
           from (
             select t.id, t.position, t.occurred_at, t.kind, t.external_key, sum(e.amount_micros) as amount,
               case when t.kind = any($5) then to_char(t.occurred_at at time zone 'UTC', 'YYYY-MM-DD') end as day
             from ledger_transactions t join ledger_entries e on e.transaction_id = t.id join accounts a on a.id = e.account_id
             where t.organization_id = $1 and t.occurred_at >= $2 and t.occurred_at < $3 and a.organization_id = $1 and a.currency = $4
             group by t.id having sum(e.amount_micros) <> 0
           ) moved
           group by kind, day, case when day is null then id end order by max(occurred_at), max(position) limit $6"#,
        organization.uuid(),
        from,
        to,
        crate::ledger::CREDIT.code(),
        &FOLDED.map(|kind| kind.as_str().to_owned()),
        i64::try_from(MOST + 1).unwrap_or(i64::MAX)
    )
    .fetch_all(&mut **transaction)
    .await?;
    if rows.len() > MOST {
        return Err(Problem::invalid_field("to", "must be earlier: a statement has at most 10000 lines").into());
    }
    let movements = rows.into_iter().map(|row| Movement {
        time: row.time,
        kind: row.kind,
        reference: row.reference,
        requests: row.requests,
        amount_micros: row.amount,
        balance_micros: 0,
    });
    Ok(movements.collect())
}
