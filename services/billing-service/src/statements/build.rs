//! A statement from the ledger's own entries.

use chassis::{Problem, in_transaction};
use chrono::{DateTime, Utc};
use identity::OrganizationId;
use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;

use crate::balance::before;
use crate::error::Error;
use crate::ledger::Balances;

/// Movements that one statement may have: they are in memory together.
const MOST: usize = 10_000;

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
    /// What came and went, the oldest first.
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
    /// When.
    pub time: DateTime<Utc>,
    /// What it was about, such as `settlement`.
    pub kind: String,
    /// The fact, such as a request id.
    pub reference: String,
    /// What came, or went (below zero), in micro-units.
    pub amount_micros: i64,
    /// What was owned after it, in micro-units.
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
/// 422 when the period has too many movements for one statement; the database's.
pub async fn read(pool: &PgPool, organization: OrganizationId, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Statement, Error> {
    in_transaction!(pool, |transaction| {
        sqlx::query!("set transaction isolation level repeatable read, read only").execute(&mut **transaction).await?;
        let opening = before(&mut **transaction, organization, from).await?;
        let closing = before(&mut **transaction, organization, to).await?;
        // What only goes between the organization's own accounts sums to zero, and is no movement.
        let rows = sqlx::query!(
            r#"select t.occurred_at, t.kind, t.external_key, sum(e.amount_micros)::bigint as "amount!" from accounts a
               join ledger_entries e on e.account_id = a.id join ledger_transactions t on t.id = e.transaction_id
               where a.organization_id = $1 and a.currency = $5 and t.occurred_at >= $2 and t.occurred_at < $3
               group by t.id having sum(e.amount_micros) <> 0 order by t.occurred_at, t.position limit $4"#,
            organization.uuid(),
            from,
            to,
            i64::try_from(MOST + 1).unwrap_or(i64::MAX),
            crate::ledger::CREDIT.code()
        )
        .fetch_all(&mut **transaction)
        .await?;
        if rows.len() > MOST {
            return Err(Problem::invalid_field("to", "must be earlier: a statement has at most 10000 movements").into());
        }
        let movements = rows.into_iter().map(|row| Movement {
            time: row.occurred_at,
            kind: row.kind,
            reference: row.external_key,
            amount_micros: row.amount,
            balance_micros: 0,
        });
        Statement::new(organization, (from, to), (opening, closing), movements.collect())
    })
}
