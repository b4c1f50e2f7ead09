//! The ledger: accounts, postings, and the one function that writes entries.
//!
//! One lock order for all: an organization's accounts, of several organizations by their ids, then the house's; of one owner by
//! kind. The house's accounts belong to everybody, and a lock on them makes all customers wait: the database moves them when a transaction
//! commits, and until then its own postings are not in them.
//!
//! Lots of credit have no lock of their own: they move under the lock of their organization's accounts, before or after any posting.
//! A posting that changes wallet and holds together is followed by its lots ([`grants::follow`](crate::grants::follow)) in the same
//! transaction.

mod batch;
pub mod chart;
pub mod export;
pub mod journal;
pub mod postings;
pub mod seal;
mod transactions;
pub mod verify;

use std::collections::HashMap;

use identity::OrganizationId;
use money::Currency;
use sqlx::{PgExecutor, Postgres, Transaction};
use uuid::Uuid;

use crate::error::Error;
use crate::state::AppState;
use chart::Account;
use postings::Posting;

pub use batch::post_all;
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

/// Writes a posting, whose entries are in `currency`; false when the same fact was posted before, in which case nothing is written.
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
    let entries: Vec<(Account, i64)> = posting.entries.iter().copied().filter(|(_, amount)| *amount != 0).collect();
    let accounts: Vec<Account> = entries.iter().map(|(account, _)| *account).collect();
    make_accounts(state, transaction, organization, currency, &accounts).await?;
    insert_entries(transaction, id, organization, currency, &entries).await?;
    if let Some((currency, entries)) = &posting.money {
        let entries: Vec<(Account, i64)> = entries.iter().copied().filter(|(_, amount)| *amount != 0).collect();
        let accounts: Vec<Account> = entries.iter().map(|(account, _)| *account).collect();
        make_accounts(state, transaction, None, *currency, &accounts).await?;
        insert_entries(transaction, id, None, *currency, &entries).await?;
    }
    Ok(true)
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
    make_accounts(state, transaction, Some(organization), currency, &own).await
}

/// Makes those of the accounts that are not there yet. They are looked for first: an insert, even one that does nothing about a conflict,
/// waits for whoever changes the row that it would conflict with, and the house's accounts are changed by everybody.
async fn make_accounts(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: Option<OrganizationId>,
    currency: Currency,
    accounts: &[Account],
) -> Result<(), Error> {
    let organization = organization.map(OrganizationId::uuid);
    let ids: Vec<Uuid> = accounts.iter().map(|_| state.random.uuid_v7(&state.clock)).collect();
    let owners: Vec<Option<Uuid>> = accounts.iter().map(|account| organization.filter(|_| account.belongs_to_organization())).collect();
    let kinds: Vec<String> = accounts.iter().map(|account| account.as_str().to_owned()).collect();
    sqlx::query!(
        "insert into accounts (id, organization_id, kind, currency)
         select id, owner, kind, $4 from unnest($1::uuid[], $2::uuid[], $3::text[]) as wanted (id, owner, kind)
         where case when owner is null then not exists (select from accounts a where a.organization_id is null and a.kind = wanted.kind and a.currency = $4)
           else not exists (select from accounts a where a.organization_id = owner and a.kind = wanted.kind and a.currency = $4) end
         order by owner nulls last, kind
         on conflict on constraint accounts_owner_kind_currency_key do nothing",
        &ids,
        &owners as &[Option<Uuid>],
        &kinds,
        currency.code()
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Writes the entries of a transaction in the order of locks. Two joins and not one over a nullable owner, because only these can
/// use the index.
async fn insert_entries(
    transaction: &mut Transaction<'static, Postgres>,
    id: Uuid,
    organization: Option<OrganizationId>,
    currency: Currency,
    entries: &[(Account, i64)],
) -> Result<(), Error> {
    let (own, house): (Vec<_>, Vec<_>) = entries.iter().copied().partition(|(account, _)| account.belongs_to_organization());
    let columns = |entries: &[(Account, i64)]| -> (Vec<String>, Vec<i64>) {
        entries.iter().map(|(account, amount)| (account.as_str().to_owned(), *amount)).unzip()
    };
    let ((own_kinds, own_amounts), (house_kinds, house_amounts)) = (columns(&own), columns(&house));
    let inserted = sqlx::query!(
        "insert into ledger_entries (transaction_id, account_id, amount_micros)
         select $1, moved.id, moved.amount from (
           select a.id, a.organization_id, a.kind, e.amount from unnest($4::text[], $5::bigint[]) as e (kind, amount)
           join accounts a on a.organization_id = $2 and a.kind = e.kind and a.currency = $3
           union all
           select a.id, a.organization_id, a.kind, e.amount from unnest($6::text[], $7::bigint[]) as e (kind, amount)
           join accounts a on a.organization_id is null and a.kind = e.kind and a.currency = $3
         ) moved order by moved.organization_id nulls last, moved.kind",
        id,
        organization.map(OrganizationId::uuid),
        currency.code(),
        &own_kinds,
        &own_amounts,
        &house_kinds,
        &house_amounts
    )
    .execute(&mut **transaction)
    .await?;
    let all = u64::try_from(entries.len()).is_ok_and(|expected| inserted.rows_affected() == expected);
    if all { Ok(()) } else { Err(Error::Internal("an entry has no account")) }
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
           where organization_id = any($1) and currency = $2 order by organization_id, kind for no key update"#,
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
