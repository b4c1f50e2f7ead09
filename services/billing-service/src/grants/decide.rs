//! What operators change: always with a name, a reason, and a row of the audit log in the same transaction [B-78].

use chassis::{Problem, in_transaction};
use chrono::{DateTime, Utc};
use contracts::RequestId;
use identity::OrganizationId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{Postgres, Transaction};

use super::burn as pure;
use super::expiry::expire;
use super::issue::{NewGrant, add, give, issue};
use super::lot::{GrantId, Source, Use};
use super::spend::{pay, spendable};
use super::store::{self, Movement};
use super::take_back::refund_usage;
use crate::audit::{self, Change, Decided, Decision};
use crate::error::Error;
use crate::ledger::{self, postings};
use crate::state::AppState;

/// What is to be changed of an organization's credit; amounts in micro-units.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case", deny_unknown_fields)]
pub enum WalletChange {
    /// A lot is given.
    Grant {
        /// What for.
        source: Source,
        /// How much.
        amount: i64,
        /// Lower burns first.
        priority: Option<i32>,
        /// Until when, half-open.
        expires_at: Option<DateTime<Utc>>,
        /// The models it may pay for; all when empty.
        models: Option<Vec<String>>,
        /// The features it may pay for; all when empty.
        features: Option<Vec<String>>,
    },
    /// A correction: above zero it is a lot, below zero it is taken, and owed where the wallet does not reach.
    Adjust {
        /// How much.
        amount: i64,
    },
    /// What is left of a lot is taken back, except what is held.
    Revoke {
        /// Which.
        grant: GrantId,
    },
    /// Credit moves to another organization, lots keeping what they are.
    Transfer {
        /// To whom.
        to: OrganizationId,
        /// How much.
        amount: i64,
    },
    /// What a request was charged is given back, whole or in part, to the lots that paid for it, and once.
    RefundUsage {
        /// Which.
        request: RequestId,
        /// How much.
        amount: i64,
    },
    /// Lots are brought in line with wallet and holds, where a version that knew no lots posted beside them.
    Reconcile,
    /// How far below zero holds may go.
    Overdraft {
        /// How far.
        limit: i64,
    },
}

impl WalletChange {
    /// The verb in the audit log.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        match self {
            Self::Grant { .. } => "wallet.grant",
            Self::Adjust { .. } => "wallet.adjust",
            Self::Revoke { .. } => "wallet.revoke",
            Self::Transfer { .. } => "wallet.transfer",
            Self::RefundUsage { .. } => "wallet.refund_usage",
            Self::Reconcile => "wallet.reconcile",
            Self::Overdraft { .. } => "wallet.overdraft",
        }
    }

    fn check(&self, organization: OrganizationId) -> Result<(), Problem> {
        let amount = |rule| Err(Problem::invalid_field("amount", rule));
        match self {
            Self::Grant { amount: given, .. } if *given <= 0 => amount("must be above zero"),
            Self::Grant { source: Source::Signup, .. } => Err(Problem::invalid_field("source", "is given by signing up only")),
            Self::Adjust { amount: 0 } => amount("must not be zero"),
            Self::Adjust { amount: i64::MIN } => amount("is too large"),
            Self::Transfer { amount: moved, .. } if *moved <= 0 => amount("must be above zero"),
            Self::RefundUsage { amount: given, .. } if *given <= 0 => amount("must be above zero"),
            Self::Transfer { to, .. } if *to == organization => Err(Problem::invalid_field("to", "must be another organization")),
            Self::Overdraft { limit } if *limit < 0 => Err(Problem::invalid_field("limit", "must not be negative")),
            _ => Ok(()),
        }
    }
}

/// Carries out a decision once, whoever repeats it under its key.
///
/// # Errors
/// [`Error::NotFound`] for an organization without a wallet, [`Error::InsufficientFunds`], a refusal that names the field; the database's.
pub async fn decide(state: &AppState, decision: &Decision, organization: OrganizationId, change: &WalletChange) -> Result<Decided, Error> {
    decision.check()?;
    change.check(organization)?;
    let request = serde_json::to_value(change).map_err(|_| Error::Internal("a change cannot be told"))?;
    in_transaction!(state.pool, |transaction| {
        lock(transaction, organization, change).await?;
        if let Some(after) = audit::earlier(transaction, decision, change.action(), Some(organization), &request).await? {
            return Ok(Decided { after, repeated: true });
        }
        let before = snapshot(transaction, organization).await?;
        apply(state, transaction, decision, organization, change).await?;
        let after = snapshot(transaction, organization).await?;
        let logged =
            Change { action: change.action(), organization: Some(organization), request: &request, before: &before, after: &after };
        audit::record(state, transaction, decision, &logged).await?;
        Ok(Decided { after, repeated: false })
    })
}

/// Locks all organizations that a change is about, in the order of the ledger's locks.
async fn lock(transaction: &mut Transaction<'static, Postgres>, organization: OrganizationId, change: &WalletChange) -> Result<(), Error> {
    let mut organizations = vec![organization];
    if let WalletChange::Transfer { to, .. } = change {
        organizations.push(*to);
    }
    organizations.sort_unstable();
    for organization in organizations {
        ledger::lock(transaction, organization).await?;
        // Whoever has no wallet has no accounts either.
        ledger::balances(&mut **transaction, organization).await?.ok_or(Error::NotFound)?;
    }
    Ok(())
}

/// A wallet as the audit log shows it.
async fn snapshot(transaction: &mut Transaction<'static, Postgres>, organization: OrganizationId) -> Result<Value, Error> {
    let balances = ledger::balances(&mut **transaction, organization).await?.ok_or(Error::NotFound)?;
    let overdraft = store::overdraft(&mut **transaction, organization).await?;
    Ok(json!({
        "wallet_micros": balances.wallet, "held_micros": balances.held, "debt_micros": balances.debt, "overdraft_limit_micros": overdraft,
    }))
}

async fn apply(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    decision: &Decision,
    organization: OrganizationId,
    change: &WalletChange,
) -> Result<(), Error> {
    match change {
        WalletChange::Grant { source, amount, priority, expires_at, models, features } => {
            let grant = NewGrant {
                priority: *priority,
                expires_at: *expires_at,
                models: models.clone(),
                features: features.clone(),
                reason: Some(decision.reason.clone()),
                ..NewGrant::plain(*source, &decision.key, *amount)
            };
            granted(issue(state, transaction, organization, &grant).await?)
        }
        WalletChange::Adjust { amount } if *amount > 0 => {
            let grant = NewGrant { reason: Some(decision.reason.clone()), ..NewGrant::plain(Source::Adjustment, &decision.key, *amount) };
            granted(issue(state, transaction, organization, &grant).await?)
        }
        WalletChange::Adjust { amount } => take(state, transaction, organization, -amount, &decision.key).await,
        WalletChange::Revoke { grant } => revoke(state, transaction, organization, *grant).await,
        WalletChange::Transfer { to, amount } => transfer(state, transaction, decision, organization, *to, *amount).await,
        WalletChange::RefundUsage { request, amount } => {
            let given = refund_usage(state, transaction, organization, *request, *amount).await?;
            if given { Ok(()) } else { Err(Problem::invalid_field("request", "was given back before").into()) }
        }
        WalletChange::Reconcile => reconcile(state, transaction, decision, organization).await,
        WalletChange::Overdraft { limit } => {
            sqlx::query!("update wallets set overdraft_limit = $2 where organization_id = $1", organization.uuid(), limit)
                .execute(&mut **transaction)
                .await?;
            Ok(())
        }
    }
}

/// The key of a command may be that of a fact which gave a lot by another way.
fn granted(grant: Option<GrantId>) -> Result<(), Error> {
    grant.map(|_| ()).ok_or_else(|| Problem::invalid_field("idempotency_key", "is the key of another grant").into())
}

async fn take(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    amount: i64,
    key: &str,
) -> Result<(), Error> {
    let now = state.clock.now();
    expire(state, transaction, organization).await?;
    let balances = ledger::lock(transaction, organization).await?;
    let posting = postings::adjustment(key, amount, balances, now);
    ledger::post(state, transaction, Some(organization), crate::ledger::CREDIT, &posting).await?;
    pay(state, transaction, organization, Movement::Adjustment, posting.credit_used(), Use::ANYTHING, key, (now, now), None).await
}

async fn revoke(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    grant: GrantId,
) -> Result<(), Error> {
    let now = state.clock.now();
    expire(state, transaction, organization).await?;
    let balances = ledger::lock(transaction, organization).await?;
    let lots = store::lots(&mut **transaction, organization, now).await?;
    let lot = lots.iter().find(|lot| lot.id == grant).ok_or(Error::NotFound)?;
    if is_sold(transaction, grant).await? {
        return Err(Problem::invalid_field("grant", "was paid for: it is refunded and not revoked").into());
    }
    let holds = store::model_holds(&mut **transaction, organization).await?;
    let amount = pure::takable(lot, &lots, &holds, balances, now);
    if amount == 0 {
        return Err(Error::InsufficientFunds);
    }
    let key = format!("{grant}:{}", lot.version);
    let posting = postings::revocation(&key, lot.source.given_by(), amount, now);
    ledger::post(state, transaction, Some(organization), crate::ledger::CREDIT, &posting).await?;
    store::move_lots(transaction, Movement::Revocation, &key, &[(grant, -amount)], now).await
}

/// Whether a lot was paid for, here or where it was transferred from: the key of a lot that moved ends with the one it was part of.
async fn is_sold(transaction: &mut Transaction<'static, Postgres>, grant: GrantId) -> Result<bool, Error> {
    let sold = sqlx::query_scalar!(
        r#"with recursive origin as (
             select id, external_key from grants where id = $1
             union
             select g.id, g.external_key from origin o
             join grants g on g.id = case when o.external_key ~ ':grt_[0-9a-f]{32}$' then right(o.external_key, 32)::uuid end
           )
           select exists (select from ledger_transactions t join origin o on t.external_key = o.external_key where t.kind = 'sale') as "sold!""#,
        grant.uuid()
    );
    Ok(sold.fetch_one(&mut **transaction).await?)
}

/// The ledger is the truth: what it has more becomes a lot, what it has less is taken from lots in the order in which they burn.
async fn reconcile(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    decision: &Decision,
    organization: OrganizationId,
) -> Result<(), Error> {
    let now = state.clock.now();
    let balances = ledger::lock(transaction, organization).await?;
    let lots = store::lots(&mut **transaction, organization, now).await?;
    let mut more = balances.wallet + balances.held - lots.iter().map(|lot| lot.remaining).sum::<i64>();
    if more > 0 {
        let grant = NewGrant { reason: Some(decision.reason.clone()), ..NewGrant::plain(Source::Adjustment, &decision.key, more) };
        return granted(add(state, transaction, organization, &grant, now).await?);
    }
    let mut taken = Vec::new();
    for lot in &lots {
        let part = lot.remaining.min(-more);
        if part > 0 {
            taken.push((lot.id, -part));
            more += part;
        }
    }
    store::move_lots(transaction, Movement::Adjustment, &decision.key, &taken, now).await
}

/// Only credit that may pay for everything moves: what is restricted was given to one organization for one purpose.
async fn transfer(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    decision: &Decision,
    from: OrganizationId,
    to: OrganizationId,
    amount: i64,
) -> Result<(), Error> {
    let now = state.clock.now();
    let there = spendable(state, transaction, from, Use::ANYTHING).await?;
    let overdraft = store::overdraft(&mut **transaction, from).await?;
    if amount > there.micros - overdraft {
        return Err(Error::InsufficientFunds);
    }
    let lots = store::lots(&mut **transaction, from, now).await?;
    let parts = pure::burn(&lots, amount, Use::ANYTHING, now);
    let key = &decision.key;
    ledger::post(state, transaction, Some(from), crate::ledger::CREDIT, &postings::transfer_out(key, amount, now)).await?;
    let out: Vec<(GrantId, i64)> = parts.iter().map(|(grant, part)| (*grant, -part)).collect();
    store::move_lots(transaction, Movement::Transfer, key, &out, now).await?;
    for (grant, part) in parts {
        let lot = lots.iter().find(|lot| lot.id == grant).ok_or(Error::Internal("a lot is gone"))?;
        let key = format!("{key}:{grant}");
        let given = NewGrant {
            priority: Some(lot.priority),
            expires_at: lot.expires_at,
            reason: Some(decision.reason.clone()),
            ..NewGrant::plain(lot.source, &key, part)
        };
        let balances = ledger::lock(transaction, to).await?;
        let posting = postings::transfer_in(&key, part, false, balances, now);
        granted(give(state, transaction, to, &given, &posting).await?)?;
    }
    Ok(())
}

/// Whose a lot is.
///
/// # Errors
/// [`Error::NotFound`]; the database's.
pub async fn owner(state: &AppState, grant: GrantId) -> Result<OrganizationId, Error> {
    let owner = sqlx::query_scalar!("select organization_id from grants where id = $1", grant.uuid()).fetch_optional(&state.pool).await?;
    owner.map(OrganizationId::from_uuid).ok_or(Error::NotFound)
}
