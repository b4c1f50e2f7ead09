//! The ledger: accounts, postings, and the one function that writes entries.

pub mod chart;
pub mod postings;
mod transactions;
pub mod verify;

use identity::OrganizationId;
use money::Currency;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use crate::error::Error;
use crate::state::AppState;
use chart::Account;
use postings::Posting;

pub use transactions::{__path_list, LedgerEntry, LedgerTransaction, list};

/// The balances of one organization, locked against others until the transaction ends.
#[derive(Debug, Clone, Copy)]
pub struct Balances {
    /// What may be spent.
    pub wallet: i64,
    /// What is held for requests under way.
    pub held: i64,
    /// What was used beyond the wallet, as a positive amount.
    pub debt: i64,
}

/// Writes a posting; false when the same fact was posted before, in which case nothing is written.
///
/// # Errors
/// The database's; it refuses what is not balanced or overdraws.
pub async fn post(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: Option<OrganizationId>,
    currency: Currency,
    posting: &Posting,
) -> Result<bool, Error> {
    let id = state.random.uuid_v7(&state.clock);
    let inserted = sqlx::query!(
        "insert into ledger_transactions (id, kind, external_key, organization_id, occurred_at) values ($1, $2, $3, $4, $5)
         on conflict on constraint ledger_transactions_fact_key do nothing",
        id,
        posting.kind.as_str(),
        posting.external_key,
        organization.map(OrganizationId::uuid),
        posting.occurred_at
    )
    .execute(&mut **transaction)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(false);
    }
    for (account, amount) in posting.entries.iter().filter(|(_, amount)| *amount != 0) {
        let account = account_id(state, transaction, *account, organization, currency).await?;
        sqlx::query!("insert into ledger_entries (transaction_id, account_id, amount_micros) values ($1, $2, $3)", id, account, amount)
            .execute(&mut **transaction)
            .await?;
    }
    Ok(true)
}

/// The row of an account; made when it is first needed.
async fn account_id(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    account: Account,
    organization: Option<OrganizationId>,
    currency: Currency,
) -> Result<Uuid, Error> {
    let owner = organization.filter(|_| account.belongs_to_organization()).map(OrganizationId::uuid);
    sqlx::query!(
        "insert into accounts (id, organization_id, kind, currency) values ($1, $2, $3, $4) on conflict on constraint accounts_owner_kind_currency_key do nothing",
        state.random.uuid_v7(&state.clock),
        owner,
        account.as_str(),
        currency.code()
    )
    .execute(&mut **transaction)
    .await?;
    let id = sqlx::query_scalar!(
        "select id from accounts where organization_id is not distinct from $1 and kind = $2 and currency = $3",
        owner,
        account.as_str(),
        currency.code()
    )
    .fetch_one(&mut **transaction)
    .await?;
    Ok(id)
}

/// Locks the organization's own accounts and reads their balances. The house's accounts are never locked here: they belong to
/// everybody, and a lock on them would make all customers wait for each other.
///
/// # Errors
/// The database's.
pub async fn lock(transaction: &mut Transaction<'static, Postgres>, organization: OrganizationId) -> Result<Balances, Error> {
    let rows = sqlx::query!(
        "select kind, balance_micros from accounts where organization_id = $1 order by id for no key update",
        organization.uuid()
    )
    .fetch_all(&mut **transaction)
    .await?;
    let balance = |account: Account| rows.iter().filter(|row| row.kind == account.as_str()).map(|row| row.balance_micros).sum();
    Ok(Balances { wallet: balance(Account::Wallet), held: balance(Account::Holds), debt: -balance(Account::Debt) })
}
