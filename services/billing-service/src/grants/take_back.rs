//! Money that goes back takes its credit with it, at most once; what of it was burned is owed [B-48], and what had expired is not. Usage that is given back returns
//! to the lots that paid for it, the last first [B-45, B-50].

use chassis::Problem;
use contracts::RequestId;
use identity::OrganizationId;
use money::Currency;
use sqlx::{Postgres, Transaction};

use super::burn::unwind;
use super::expiry::expire;
use super::issue::{NewGrant, add};
use super::lot::{GrantId, Source, Use};
use super::spend::pay;
use super::store::{self, Movement};
use crate::catalog::stored;
use crate::error::Error;
use crate::ledger::chart::Account;
use crate::ledger::postings::{self, Exchange, Fee, Posting, Sale};
use crate::ledger::{self, CREDIT};
use crate::state::AppState;

/// How a dispute ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dispute {
    /// The charge stands.
    Won,
    /// The charge is reversed.
    Lost {
        /// What the payment provider takes for it, if it does.
        fee: Option<Fee>,
    },
}

/// Takes back a part of a sale (`sale`, the paid object) because its money was given back (`key`, the refund). Returns the credit that
/// was taken, which is never more than is left of the sale after earlier refunds and disputes; none when this refund was here before.
///
/// # Errors
/// [`Error::NotFound`] when the organization bought no credit by that name; the database's.
pub async fn refund(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    sale: &str,
    part: Sale,
    key: &str,
) -> Result<Option<i64>, Error> {
    take_back(state, transaction, organization, sale, part, Movement::Refund, key).await
}

/// The same because its money is disputed (`key`, the dispute).
///
/// # Errors
/// As [`refund`].
pub async fn open_dispute(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    sale: &str,
    part: Sale,
    key: &str,
) -> Result<Option<i64>, Error> {
    take_back(state, transaction, organization, sale, part, Movement::Dispute, key).await
}

async fn take_back(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    sale: &str,
    part: Sale,
    movement: Movement,
    key: &str,
) -> Result<Option<i64>, Error> {
    let now = state.clock.now();
    expire(state, transaction, organization).await?;
    let balances = ledger::lock(transaction, organization).await?;
    let lot = sqlx::query!(
        r#"select id, amount_micros - coalesce((select sum(t.amount_micros) from grant_takebacks t where t.grant_id = g.id and not (t.kind = 'dispute'
             and exists (select from ledger_transactions w where w.kind = 'dispute_won' and w.external_key = t.external_key))), 0)::bigint as "left!",
             (-coalesce((select sum(m.amount_micros) from grant_movements m where m.grant_id = g.id and m.kind = 'expiry'), 0)
              - coalesce((select sum(t.expired_micros) from grant_takebacks t where t.grant_id = g.id and not (t.kind = 'dispute'
                  and exists (select from ledger_transactions w where w.kind = 'dispute_won' and w.external_key = t.external_key))), 0))::bigint as "expired!"
           from grants g where source in ('purchase', 'plan') and external_key = $1 and organization_id = $2"#,
        sale,
        organization.uuid()
    )
    .fetch_optional(&mut **transaction)
    .await?
    .ok_or(Error::NotFound)?;
    // What was taken back before is not taken twice, and no money for it; a dispute that was won took nothing.
    let beyond = (part.credit - lot.left).max(0);
    let part = part.without(beyond);
    if part.credit <= 0 {
        return Ok(None);
    }
    let expired = lot.expired.clamp(0, part.credit);
    let inserted = sqlx::query!(
        "insert into grant_takebacks (grant_id, kind, external_key, amount_micros, paid_micros, currency, exchanged_micros, bought_micros, balance_micros, occurred_at, expired_micros)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         on conflict on constraint grant_takebacks_fact_key do nothing",
        lot.id,
        movement.as_str(),
        key,
        part.credit,
        part.paid,
        part.exchange.map(|exchange| exchange.currency.code()),
        part.exchange.map(|exchange| exchange.money),
        part.exchange.map(|exchange| exchange.credit),
        part.balance,
        now,
        expired
    )
    .execute(&mut **transaction)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(None);
    }
    let posting = if movement == Movement::Refund {
        postings::refund(key, part, expired, balances, now)
    } else {
        postings::dispute_opened(key, part, expired, balances, now)
    };
    ledger::post(state, transaction, Some(organization), CREDIT, &posting).await?;
    let first = Some(GrantId::from_uuid(lot.id));
    pay(state, transaction, organization, movement, posting.credit_used(), Use::ANYTHING, key, (now, now), first).await?;
    Ok(Some(part.credit))
}

/// Closes a dispute: won, its credit returns to where it came from; lost, the money is gone. False when it was closed before.
///
/// # Errors
/// [`Error::NotFound`] when none of that name was opened for the organization; the database's.
pub async fn close_dispute(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    key: &str,
    outcome: Dispute,
) -> Result<bool, Error> {
    let now = state.clock.now();
    let balances = ledger::lock(transaction, organization).await?;
    let taken = sqlx::query!(
        r#"select t.amount_micros, coalesce(t.paid_micros, t.amount_micros) as "paid!", t.currency, t.exchanged_micros, t.bought_micros, t.balance_micros, t.expired_micros
           from grant_takebacks t join grants g on g.id = t.grant_id
           where t.kind = 'dispute' and t.external_key = $1 and g.organization_id = $2"#,
        key,
        organization.uuid()
    )
    .fetch_optional(&mut **transaction)
    .await?
    .ok_or(Error::NotFound)?;
    // Won and lost are two kinds of postings, and a dispute ends once.
    let closed = sqlx::query_scalar!(
        r#"select exists (select from ledger_transactions where kind in ('dispute_won', 'dispute_lost') and external_key = $1) as "closed!""#,
        key
    );
    if closed.fetch_one(&mut **transaction).await? {
        return Ok(false);
    }
    let exchange = match (taken.currency, taken.exchanged_micros, taken.bought_micros) {
        (Some(currency), Some(money), Some(credit)) => Some(Exchange { currency: stored::currency(&currency)?, money, credit }),
        _ => None,
    };
    let part = Sale { paid: taken.paid, credit: taken.amount_micros, exchange, balance: taken.balance_micros };
    // A lost one moves the money alone, in the currency it is in.
    let currency = exchange.filter(|_| outcome != Dispute::Won).map_or(CREDIT, |exchange| exchange.currency);
    let posting = match outcome {
        Dispute::Won => postings::dispute_won(key, part, taken.expired_micros, balances, now),
        Dispute::Lost { fee } => postings::dispute_lost(key, (currency, part.money()), fee, now),
    };
    give_back(state, transaction, organization, currency, &posting, (Movement::Dispute, key)).await
}

/// Gives usage of a request back as credit, whole or in part, at most once for each request. False when that was done before.
///
/// # Errors
/// A refusal that names the field when the organization made no such request or was charged less for it; the database's.
pub async fn refund_usage(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    request: RequestId,
    amount: i64,
) -> Result<bool, Error> {
    let balances = ledger::lock(transaction, organization).await?;
    let price = sqlx::query_scalar!(
        "select price_micros from usage_events where request_id = $1 and organization_id = $2",
        request.uuid(),
        organization.uuid()
    );
    let unknown = || Problem::invalid_field("request", "must be one of the organization, of a month whose usage is kept");
    let price = price.fetch_optional(&mut **transaction).await?.ok_or_else(unknown)?;
    if amount <= 0 || amount > price {
        return Err(Problem::invalid_field("amount", "must be above zero, and not more than the request was charged").into());
    }
    let key = request.to_string();
    let posting = postings::usage_refund(&key, amount, balances, state.clock.now());
    give_back(state, transaction, organization, CREDIT, &posting, (Movement::Burn, &key)).await
}

/// Posts what returns, and brings the wallet's part of it back to the lots that it came from; what came from none (it had been owed, and
/// was repaid since) becomes a lot.
async fn give_back(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    currency: Currency,
    posting: &Posting,
    (movement, key): (Movement, &str),
) -> Result<bool, Error> {
    let now = posting.occurred_at;
    let amount = posting.moved(Account::Wallet).max(0);
    let given = unwind(&store::recorded(transaction, organization, movement, key).await?, amount);
    let rest = amount - given.iter().map(|(_, part)| part).sum::<i64>();
    if !ledger::post(state, transaction, Some(organization), currency, posting).await? {
        return Ok(false);
    }
    let key = format!("{}:{key}", posting.kind.as_str());
    store::reverse(transaction, &key, &given, now).await?;
    if rest > 0 {
        let grant = NewGrant::plain(Source::Refund, key, rest);
        add(state, transaction, organization, &grant, now).await?;
    }
    Ok(true)
}
