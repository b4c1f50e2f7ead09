//! A new lot, for a fact that gives one once.

use chrono::{DateTime, Utc};
use identity::OrganizationId;
use sqlx::types::Json;
use sqlx::{Postgres, Transaction};

use super::lot::{GrantId, Source, Use};
use super::spend::pay;
use super::store::{self, Movement};
use crate::error::Error;
use crate::ledger::chart::Account;
use crate::ledger::postings::{self, Exchange, Posting, Sale};
use crate::ledger::{self, Balances};
use crate::state::AppState;

/// Priority of a lot that may pay for everything.
const PRIORITY: i32 = 100;
/// Priority of one that may not: it burns first, so that the others stay for what only they can pay.
const PRIORITY_RESTRICTED: i32 = 50;

/// A lot to be given.
#[derive(Debug, Clone)]
pub struct NewGrant {
    /// What gives it.
    pub source: Source,
    /// The fact, unique for its source.
    pub key: String,
    /// The amount, in micro-units, above zero.
    pub amount: i64,
    /// The money that was paid for it, in micro-units without tax; nobody paid when empty.
    pub paid: Option<i64>,
    /// How the money and the credit met, when they are of two currencies.
    pub exchange: Option<Exchange>,
    /// What of the money the customer's balance at Stripe paid.
    pub balance: i64,
    /// Lower burns first; empty for what its restriction suggests.
    pub priority: Option<i32>,
    /// It may pay before this instant and not at it.
    pub expires_at: Option<DateTime<Utc>>,
    /// The models it may pay for; all when empty.
    pub models: Option<Vec<String>>,
    /// The features it may pay for; all when empty.
    pub features: Option<Vec<String>>,
    /// Why, for people.
    pub reason: Option<String>,
}

impl NewGrant {
    /// A lot that pays for everything and never expires.
    #[must_use]
    pub fn plain(source: Source, key: impl Into<String>, amount: i64) -> Self {
        Self {
            source,
            key: key.into(),
            amount,
            paid: None,
            exchange: None,
            balance: 0,
            priority: None,
            expires_at: None,
            models: None,
            features: None,
            reason: None,
        }
    }

    fn is_restricted(&self) -> bool {
        names(self.models.as_ref()).is_some() || names(self.features.as_ref()).is_some()
    }

    fn posting(&self, organization: OrganizationId, balances: Balances, at: DateTime<Utc>) -> Posting {
        match (self.source, self.paid) {
            (Source::Signup, _) => postings::signup_grant(organization, self.amount, at),
            // One paid object is sold once, whatever it is sold as [B-47].
            (_, Some(paid)) => {
                let sale = Sale { paid, credit: self.amount, exchange: self.exchange, balance: self.balance };
                postings::sale(&self.key, sale, self.is_restricted(), balances, at)
            }
            (source, None) => {
                let key = format!("{}:{}", source.as_str(), self.key);
                postings::grant(key, source.given_by(), self.amount, self.is_restricted(), balances, at)
            }
        }
    }
}

/// A list without names restricts nothing.
fn names(list: Option<&Vec<String>>) -> Option<&Vec<String>> {
    list.filter(|list| !list.is_empty())
}

/// Gives a lot to an organization that has a wallet; none when the same fact gave one before, and nothing is changed. What is owed is
/// repaid first, unless the lot is restricted.
///
/// # Errors
/// The database's.
pub async fn issue(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    grant: &NewGrant,
) -> Result<Option<GrantId>, Error> {
    let balances = ledger::lock(transaction, organization).await?;
    let posting = grant.posting(organization, balances, state.clock.now());
    give(state, transaction, organization, grant, &posting).await
}

/// The same with a posting of the caller's.
pub(super) async fn give(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    grant: &NewGrant,
    posting: &Posting,
) -> Result<Option<GrantId>, Error> {
    let Some(id) = add(state, transaction, organization, grant, posting.occurred_at).await? else { return Ok(None) };
    if !ledger::post(state, transaction, Some(organization), ledger::CREDIT, posting).await? {
        return Err(Error::Internal("credit was posted before, without its lot"));
    }
    let repaid = posting.moved(Account::Debt);
    let key = format!("{}:{}", grant.source.as_str(), grant.key);
    pay(
        state,
        transaction,
        organization,
        Movement::Repayment,
        repaid,
        Use::ANYTHING,
        &key,
        (posting.occurred_at, posting.occurred_at),
        None,
    )
    .await?;
    Ok(Some(id))
}

/// A lot of credit that is posted by the caller at this instant; none when the same fact gave one before.
pub(super) async fn add(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    grant: &NewGrant,
    at: DateTime<Utc>,
) -> Result<Option<GrantId>, Error> {
    let Some(id) = insert(state, transaction, organization, grant).await? else { return Ok(None) };
    store::move_lots(transaction, Movement::Grant, &grant.key, &[(id, grant.amount)], at).await?;
    Ok(Some(id))
}

async fn insert(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    grant: &NewGrant,
) -> Result<Option<GrantId>, Error> {
    let id = GrantId::new(&state.clock, &state.random);
    let priority = grant.priority.unwrap_or(if grant.is_restricted() { PRIORITY_RESTRICTED } else { PRIORITY });
    let inserted = sqlx::query!(
        "insert into grants (id, organization_id, source, external_key, amount_micros, currency, priority, expires_at, models, features, reason, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) on conflict on constraint grants_fact_key do nothing",
        id.uuid(),
        organization.uuid(),
        grant.source.as_str(),
        grant.key,
        grant.amount,
        ledger::CREDIT.code(),
        priority,
        grant.expires_at,
        names(grant.models.as_ref()).map(Json) as _,
        names(grant.features.as_ref()).map(Json) as _,
        grant.reason,
        state.clock.now()
    )
    .execute(&mut **transaction)
    .await?;
    Ok((inserted.rows_affected() == 1).then_some(id))
}
