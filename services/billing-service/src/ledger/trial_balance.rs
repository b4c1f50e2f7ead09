//! The trial balance: what every account has as an instant begins, and what of customers' credit came from where. An accountant closes a
//! month by it: bought credit that is left is deferred revenue.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use sqlx::PgPool;

use super::chart::Account;
use crate::balance::history;
use crate::error::{Error, check_instants};
use crate::spreadsheet::{Cell, row};

/// As an instant begins: of everything that was booked before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrialBalance {
    /// The instant.
    pub at: DateTime<Utc>,
    /// Accounts of the chart, by code and currency: all organizations' together. They sum to zero in each currency.
    pub accounts: Vec<AccountBalance>,
    /// What lots have left, by where they came from: together the accounts `wallet` and `holds`, since there are lots.
    pub deferred_revenue: Vec<DeferredRevenue>,
}

/// What is on an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccountBalance {
    /// Its code in journals.
    pub account_code: u16,
    /// Its name.
    pub account: &'static str,
    /// ISO 4217 code.
    pub currency: String,
    /// In micro-units, signed as a credit.
    pub balance_micros: i64,
}

/// What is left of one kind of credit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeferredRevenue {
    /// `signup`, `plan`, `purchase`, `promotion`, `refund` or `adjustment`.
    pub source: String,
    /// ISO 4217 code.
    pub currency: String,
    /// In micro-units.
    pub remaining_micros: i64,
}

/// Reads one picture: what there is now, less what was booked since, for which all that was ever booked is read. What is being booked
/// at this moment may have its instant before one that is as young: of a second ago it is final.
///
/// # Errors
/// An instant that cannot be stored; the database's.
pub async fn trial_balance(pool: &PgPool, at: DateTime<Utc>) -> Result<TrialBalance, Error> {
    check_instants(&[at])?;
    let mut transaction = history(pool).await?;
    // That takes longer than a request may.
    sqlx::query!("set local statement_timeout = 0").execute(&mut *transaction).await?;
    let accounts = sqlx::query!(
        r#"select kind as "kind!", currency as "currency!", sum(amount)::bigint as "balance!" from (
             select kind, currency, balance_micros as amount from accounts
             union all
             select a.kind, a.currency, -e.amount_micros from ledger_transactions t join ledger_entries e on e.transaction_id = t.id
             join accounts a on a.id = e.account_id where t.occurred_at >= $1) moved
           group by 1, 2 having sum(amount) <> 0"#,
        at
    )
    .fetch_all(&mut *transaction)
    .await?;
    let lots = sqlx::query_as!(
        DeferredRevenue,
        r#"select source as "source!", currency as "currency!", sum(amount)::bigint as "remaining_micros!" from (
             select source, currency, remaining_micros as amount from grants
             union all
             select g.source, g.currency, -m.amount_micros from grant_movements m join grants g on g.id = m.grant_id where m.occurred_at >= $1) moved
           group by 1, 2 having sum(amount) <> 0 order by 1, 2"#,
        at
    )
    .fetch_all(&mut *transaction)
    .await?;
    transaction.commit().await?;
    let accounts = accounts.into_iter().map(|row| {
        let account = Account::named(&row.kind).ok_or(Error::Internal("an account is not in the chart"))?;
        let (account_code, account) = (account.code(), account.as_str());
        Ok(AccountBalance { account_code, account, currency: row.currency, balance_micros: row.balance })
    });
    let mut accounts = accounts.collect::<Result<Vec<_>, Error>>()?;
    accounts.sort_by(|one, other| (one.account_code, &one.currency).cmp(&(other.account_code, &other.currency)));
    Ok(TrialBalance { at, accounts, deferred_revenue: lots })
}

impl TrialBalance {
    /// As CSV: the accounts, and below them what credit is left by where it came from, with `wallet+holds` in the place of an account.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut csv = "at,account_code,account,source,currency,debit,credit\r\n".to_owned();
        let at = self.at.to_rfc3339_opts(SecondsFormat::Micros, true);
        let mut line = |code: Cell<'_>, account: &str, source: Cell<'_>, currency: &str, balance: i64| {
            let (debit, credit) =
                if balance < 0 { (Cell::Amount(balance.saturating_neg()), Cell::Empty) } else { (Cell::Empty, Cell::Amount(balance)) };
            row(&mut csv, &[Cell::Text(&at), code, Cell::Text(account), source, Cell::Text(currency), debit, credit]);
        };
        for of in &self.accounts {
            line(Cell::Integer(of.account_code.into()), of.account, Cell::Empty, &of.currency, of.balance_micros);
        }
        for of in &self.deferred_revenue {
            line(Cell::Empty, "wallet+holds", Cell::Text(&of.source), &of.currency, of.remaining_micros);
        }
        csv
    }
}
