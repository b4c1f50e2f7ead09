//! The ledger: accounts, postings, and the one function that writes entries.
//!
//! One lock order for all: an organization's accounts, of several organizations by their ids, then the house's; of one owner by
//! kind. The house's accounts belong to everybody, and a lock on them makes all customers wait: the database moves them when a transaction
//! commits, and until then its own postings are not in them.
//!
//! Lots of credit have no lock of their own: they move under the lock of their organization's accounts, before or after any posting.
//! A posting that changes wallet and holds together is followed by its lots ([`grants::follow`](crate::grants::follow)) in the same
//! transaction.

pub mod chart;
pub mod checks;
pub mod export;
pub mod journal;
pub mod postings;
pub mod seal;
mod transactions;
pub mod trial_balance;
pub mod verify;
mod write;

use std::collections::HashMap;

use identity::OrganizationId;
use money::Currency;
use sqlx::{PgExecutor, Postgres, Transaction};
use uuid::Uuid;

use crate::error::Error;
use crate::state::AppState;
use chart::Account;
use postings::Posting;
use write::{Sheet, Written};

pub use transactions::{__path_list, LedgerEntry, LedgerTransaction, list};

/// The currency of credit: in it models are priced, and every wallet is kept. What is paid in another is exchanged
/// ([`Account::Exchange`]).
pub const CREDIT: Currency = Currency::USD;

/// The balances of one organization, in the currency of credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balances {
    /// What is in the wallet.
    pub wallet: i64,
    /// What is held for requests under way.
    pub held: i64,
    /// What was used beyond the wallet, as a positive amount.
    pub debt: i64,
}

impl Balances {
    /// What may be spent: the limit, defined once [B-39]. Below zero when more is owed than there is.
    #[must_use]
    pub const fn available(&self) -> i64 {
        self.wallet.saturating_sub(self.debt)
    }

    /// What there is after a posting.
    #[must_use]
    pub fn after(self, posting: &Posting) -> Self {
        Self {
            wallet: self.wallet + posting.moved(Account::Wallet),
            held: self.held + posting.moved(Account::Holds),
            debt: self.debt - posting.moved(Account::Debt),
        }
    }

    fn of(rows: impl Iterator<Item = (String, i64)>) -> Self {
        let rows: Vec<_> = rows.collect();
        let balance = |account: Account| rows.iter().filter(|(kind, _)| kind == account.as_str()).map(|(_, balance)| balance).sum::<i64>();
        Self { wallet: balance(Account::Wallet), held: balance(Account::Holds), debt: -balance(Account::Debt) }
    }
}

/// Writes a posting, whose entries are in `currency`; false when the same fact was posted before, in which case no fact and no entry is written.
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
    let mut sheet = Sheet::default();
    sheet.add(state, organization, currency, posting);
    let written = match sheet.write(transaction).await? {
        Written::NoAccount => {
            make_accounts(state, transaction, sheet.accounts()).await?;
            sheet.write(transaction).await?
        }
        written @ Written::Facts(_) => written,
    };
    match written {
        Written::Facts(count) => Ok(count == 1),
        Written::NoAccount => Err(Error::Internal("an entry has no account")),
    }
}

/// Writes postings of facts that were not posted before, in their order: settlements come in batches. Their accounts must be there and
/// locked.
///
/// # Errors
/// The database's; it refuses what is not balanced or overdraws. When a fact was posted before: nothing of the transaction may stay then.
pub async fn post_all(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    currency: Currency,
    postings: &[(OrganizationId, Posting)],
) -> Result<(), Error> {
    let mut sheet = Sheet::default();
    for (organization, posting) in postings {
        sheet.add(state, Some(*organization), currency, posting);
    }
    match sheet.write(transaction).await? {
        Written::Facts(count) if count == postings.len() => Ok(()),
        Written::Facts(_) => Err(Error::Internal("a fact was posted before")),
        Written::NoAccount => Err(Error::Internal("an entry has no account")),
    }
}

/// Makes an organization's own accounts, so that every lock on them finds all.
///
/// # Errors
/// The database's.
pub async fn open(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    currency: Currency,
) -> Result<(), Error> {
    let own: Vec<Account> = Account::ALL.into_iter().filter(|account| account.belongs_to_organization()).collect();
    make_accounts(state, transaction, own.into_iter().map(|account| (Some(organization.uuid()), account, currency))).await
}

/// Makes those of the accounts, named by owner, kind and currency, that are not there yet. They are looked for first: an insert, even one
/// that does nothing about a conflict, waits for whoever changes the row that it would conflict with, and the house's accounts are changed
/// by everybody.
async fn make_accounts(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    accounts: impl Iterator<Item = (Option<Uuid>, Account, Currency)>,
) -> Result<(), Error> {
    let accounts: Vec<_> = accounts.collect();
    let ids: Vec<Uuid> = accounts.iter().map(|_| state.random.uuid_v7(&state.clock)).collect();
    let owners: Vec<Option<Uuid>> = accounts.iter().map(|(owner, ..)| *owner).collect();
    let kinds: Vec<String> = accounts.iter().map(|(_, account, _)| account.as_str().to_owned()).collect();
    let currencies: Vec<String> = accounts.iter().map(|(.., currency)| currency.code().to_owned()).collect();
    sqlx::query!(
        "insert into accounts (id, organization_id, kind, currency)
         select id, owner, kind, currency
         from unnest((select $1::uuid[]), (select $2::uuid[]), (select $3::text[]), (select $4::text[])) as wanted (id, owner, kind, currency)
         where case when owner is null
             then not exists (select from accounts a where a.organization_id is null and a.kind = wanted.kind and a.currency = wanted.currency)
           else not exists (select from accounts a where a.organization_id = owner and a.kind = wanted.kind and a.currency = wanted.currency) end
         order by owner nulls last, kind, currency
         on conflict on constraint accounts_owner_kind_currency_key do nothing",
        &ids,
        &owners as &[Option<Uuid>],
        &kinds,
        &currencies
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Reads an organization's balances in the currency of credit without waiting for anybody; none when it has no accounts yet.
///
/// # Errors
/// The database's.
pub async fn balances(executor: impl PgExecutor<'_>, organization: OrganizationId) -> Result<Option<Balances>, sqlx::Error> {
    let rows = sqlx::query!(
        "select kind, balance_micros from accounts where organization_id = $1 and currency = $2",
        organization.uuid(),
        CREDIT.code()
    )
    .fetch_all(executor)
    .await?;
    Ok((!rows.is_empty()).then(|| Balances::of(rows.into_iter().map(|row| (row.kind, row.balance_micros)))))
}

/// Locks the organization's own accounts in the currency of credit until the transaction ends, and reads their balances.
///
/// # Errors
/// The database's.
pub async fn lock(transaction: &mut Transaction<'static, Postgres>, organization: OrganizationId) -> Result<Balances, Error> {
    let rows = sqlx::query!(
        "select kind, balance_micros from accounts where organization_id = $1 and currency = $2 order by kind for no key update",
        organization.uuid(),
        CREDIT.code()
    )
    .fetch_all(&mut **transaction)
    .await?;
    Ok(Balances::of(rows.into_iter().map(|row| (row.kind, row.balance_micros))))
}

/// Locks the accounts of several organizations and reads their balances, so that transactions which post to the same ones in different
/// orders wait for each other in a line and not in a circle.
///
/// # Errors
/// The database's.
pub async fn lock_all(
    transaction: &mut Transaction<'static, Postgres>,
    organizations: &[Uuid],
) -> Result<HashMap<OrganizationId, Balances>, Error> {
    let rows = sqlx::query!(
        r#"select organization_id as "organization_id!", kind, balance_micros from accounts
           where organization_id = any((select $1::uuid[])::uuid[]) and currency = $2 order by organization_id, kind for no key update"#,
        organizations,
        CREDIT.code()
    )
    .fetch_all(&mut **transaction)
    .await?;
    let mut own: HashMap<OrganizationId, Vec<(String, i64)>> = HashMap::new();
    for row in rows {
        own.entry(OrganizationId::from_uuid(row.organization_id)).or_default().push((row.kind, row.balance_micros));
    }
    Ok(own.into_iter().map(|(organization, rows)| (organization, Balances::of(rows.into_iter()))).collect())
}
