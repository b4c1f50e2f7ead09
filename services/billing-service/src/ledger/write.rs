//! The one statement that writes transactions and entries.
//!
//! One, because each statement costs more than what it does here: a fact is written with one trip to the database, and a thousand too.

use chrono::{DateTime, Utc};
use identity::OrganizationId;
use money::Currency;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::chart::Account;
use super::postings::Posting;
use crate::error::Error;
use crate::state::AppState;

/// What becomes a row of `ledger_transactions`.
struct Fact {
    id: Uuid,
    kind: &'static str,
    external_key: String,
    organization: Option<Uuid>,
    occurred_at: DateTime<Utc>,
}

/// What becomes a row of `ledger_entries`.
struct Entry {
    fact: Uuid,
    owner: Option<Uuid>,
    account: Account,
    currency: Currency,
    amount_micros: i64,
}

/// Postings as they are to be written, in their order.
#[derive(Default)]
pub(super) struct Sheet {
    facts: Vec<Fact>,
    entries: Vec<Entry>,
}

/// What became of a sheet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// So many facts, with their entries; the others had been posted before.
    Facts(usize),
    /// Nothing: an account is missing.
    NoAccount,
}

impl Sheet {
    /// Adds a posting whose entries are in `currency`.
    pub(super) fn add(&mut self, state: &AppState, organization: Option<OrganizationId>, currency: Currency, posting: &Posting) {
        let (id, organization) = (state.random.uuid_v7(&state.clock), organization.map(OrganizationId::uuid));
        let (kind, external_key) = (posting.kind.as_str(), posting.external_key.clone());
        self.facts.push(Fact { id, kind, external_key, organization, occurred_at: posting.occurred_at });
        self.enter(id, organization, currency, &posting.entries);
        if let Some((currency, entries)) = &posting.money {
            self.enter(id, None, *currency, entries);
        }
    }

    fn enter(&mut self, fact: Uuid, organization: Option<Uuid>, currency: Currency, entries: &[(Account, i64)]) {
        self.entries.extend(entries.iter().filter(|(_, amount)| *amount != 0).map(|(account, amount_micros)| Entry {
            fact,
            owner: organization.filter(|_| account.belongs_to_organization()),
            account: *account,
            currency,
            amount_micros: *amount_micros,
        }));
    }

    /// The accounts that are written to: owner, kind and currency.
    pub(super) fn accounts(&self) -> impl Iterator<Item = (Option<Uuid>, Account, Currency)> {
        self.entries.iter().map(|entry| (entry.owner, entry.account, entry.currency))
    }

    /// Writes all, or nothing when an account is missing. Each account is found by its owner or as one of the house's: two branches, because
    /// only these can use the index. The lists stand behind a `select`, so that the statement is planned once and not each time
    /// (`docs/architecture/PERFORMANCE.md`, "Plans that are kept").
    ///
    /// # Errors
    /// The database's; it refuses what is not balanced or overdraws.
    pub(super) async fn write(&self, transaction: &mut Transaction<'static, Postgres>) -> Result<Written, Error> {
        let kinds: Vec<&str> = self.facts.iter().map(|fact| fact.kind).collect();
        let keys: Vec<&str> = self.facts.iter().map(|fact| fact.external_key.as_str()).collect();
        let accounts: Vec<&str> = self.entries.iter().map(|entry| entry.account.as_str()).collect();
        let currencies: Vec<&str> = self.entries.iter().map(|entry| entry.currency.code()).collect();
        let owners: Vec<Option<Uuid>> = self.entries.iter().map(|entry| entry.owner).collect();
        let organizations: Vec<Option<Uuid>> = self.facts.iter().map(|fact| fact.organization).collect();
        let written = sqlx::query!(
            r#"with moves as materialized (
                 select m.fact, m.amount, account.id as account_id, m.place
                 from unnest((select $6::uuid[]), (select $7::uuid[]), (select $8::text[]), (select $9::text[]), (select $10::bigint[]))
                   with ordinality as m (fact, owner, kind, currency, amount, place)
                 cross join lateral (
                   select a.id from accounts a where a.organization_id = m.owner and a.kind = m.kind and a.currency = m.currency
                   union all
                   select a.id from accounts a where m.owner is null and a.organization_id is null and a.kind = m.kind and a.currency = m.currency
                 ) account),
               found as materialized (select count(*) = cardinality($6::uuid[]) as every from moves),
               facts as (
                 insert into ledger_transactions (id, kind, external_key, organization_id, occurred_at)
                 select id, kind, key, organization, time
                 from unnest((select $1::uuid[]), (select $2::text[]), (select $3::text[]), (select $4::uuid[]), (select $5::timestamptz[]))
                   with ordinality as t (id, kind, key, organization, time, place)
                 where (select every from found) order by place
                 on conflict on constraint ledger_transactions_fact_key do nothing returning id),
               entries as (
                 insert into ledger_entries (transaction_id, account_id, amount_micros)
                 select m.fact, m.account_id, m.amount from facts join moves m on m.fact = facts.id order by m.place)
               select (select every from found) as "every!", (select count(*) from facts) as "facts!""#,
            &self.facts.iter().map(|fact| fact.id).collect::<Vec<_>>(),
            &kinds as &[&str],
            &keys as &[&str],
            &organizations as &[Option<Uuid>],
            &self.facts.iter().map(|fact| fact.occurred_at).collect::<Vec<_>>(),
            &self.entries.iter().map(|entry| entry.fact).collect::<Vec<_>>(),
            &owners as &[Option<Uuid>],
            &accounts as &[&str],
            &currencies as &[&str],
            &self.entries.iter().map(|entry| entry.amount_micros).collect::<Vec<_>>(),
        )
        .fetch_one(&mut **transaction)
        .await?;
        let facts = usize::try_from(written.facts).map_err(|_| Error::Internal("a count is not negative"))?;
        Ok(if written.every { Written::Facts(facts) } else { Written::NoAccount })
    }
}
