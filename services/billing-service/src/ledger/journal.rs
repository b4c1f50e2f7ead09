//! A ledger transaction with its entries, as the journal tells it: what is sealed, verified and exported.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// What digests begin with; another encoding gets another version.
const VERSION: &[u8] = b"trivet ledger transaction v1";

/// A transaction and its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journaled {
    /// Its place in the order of posting.
    pub position: i64,
    /// Its id.
    pub id: Uuid,
    /// What it is about.
    pub kind: String,
    /// The fact.
    pub external_key: String,
    /// Whose it is; the house's when empty.
    pub organization_id: Option<Uuid>,
    /// When it became true.
    pub occurred_at: DateTime<Utc>,
    /// Its entries, in the order they were written.
    pub entries: Vec<JournaledEntry>,
}

/// An entry with what identifies its account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournaledEntry {
    /// The account.
    pub account_id: Uuid,
    /// Whose account; the house's when empty.
    pub owner: Option<Uuid>,
    /// The account's kind.
    pub kind: String,
    /// ISO 4217 code.
    pub currency: String,
    /// The amount, in micro-units.
    pub amount: i64,
}

impl Journaled {
    /// SHA-256 over everything in it, each field with its length in front, so that no two transactions run together.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        let owner = |id: Option<Uuid>| id.map(|id| id.as_bytes().to_vec()).unwrap_or_default();
        field(VERSION);
        field(&self.position.to_be_bytes());
        field(self.id.as_bytes());
        field(self.kind.as_bytes());
        field(self.external_key.as_bytes());
        field(&owner(self.organization_id));
        field(&self.occurred_at.timestamp_micros().to_be_bytes());
        for entry in &self.entries {
            field(entry.account_id.as_bytes());
            field(&owner(entry.owner));
            field(entry.kind.as_bytes());
            field(entry.currency.as_bytes());
            field(&entry.amount.to_be_bytes());
        }
        hasher.finalize().into()
    }
}

/// Reads [`Journaled`] from a row of a query over the view `ledger_journal`, whose columns it takes by name.
macro_rules! journaled {
    ($row:expr) => {
        $crate::ledger::journal::Journaled {
            position: $row.position,
            id: $row.id,
            kind: $row.kind,
            external_key: $row.external_key,
            organization_id: $row.organization_id,
            occurred_at: $row.occurred_at,
            entries: $crate::ledger::journal::entries($row.accounts, $row.owners, $row.kinds, $row.currencies, $row.amounts),
        }
    };
}
pub(crate) use journaled;

/// The entries of a row, whose columns are arrays of one length.
#[must_use]
pub fn entries(
    accounts: Vec<Uuid>,
    owners: Vec<Option<Uuid>>,
    kinds: Vec<String>,
    currencies: Vec<String>,
    amounts: Vec<i64>,
) -> Vec<JournaledEntry> {
    let rows = accounts.into_iter().zip(owners).zip(kinds).zip(currencies).zip(amounts);
    rows.map(|((((account_id, owner), kind), currency), amount)| JournaledEntry { account_id, owner, kind, currency, amount }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction() -> Journaled {
        let entry = |kind: &str, owner, amount| JournaledEntry {
            account_id: Uuid::from_u128(1),
            owner,
            kind: kind.into(),
            currency: "USD".into(),
            amount,
        };
        Journaled {
            position: 7,
            id: Uuid::from_u128(9),
            kind: "sale".into(),
            external_key: "k".into(),
            organization_id: Some(Uuid::nil()),
            occurred_at: DateTime::UNIX_EPOCH,
            entries: vec![entry("wallet", Some(Uuid::nil()), 5), entry("promotion", None, -5)],
        }
    }

    /// Whatever is changed of a transaction changes its digest.
    #[test]
    fn the_digest_covers_every_field_of_a_transaction_and_its_entries() {
        let alterations: [fn(&mut Journaled); 12] = [
            |t| t.position += 1,
            |t| t.id = Uuid::from_u128(10),
            |t| (t.kind, t.external_key) = ("salek".into(), String::new()),
            |t| t.external_key = "l".into(),
            |t| t.organization_id = None,
            |t| t.occurred_at += chrono::TimeDelta::microseconds(1),
            |t| t.entries[0].account_id = Uuid::from_u128(2),
            |t| t.entries[0].owner = None,
            |t| t.entries[0].kind = "holds".into(),
            |t| t.entries[0].currency = "EUR".into(),
            |t| t.entries[0].amount = 6,
            |t| t.entries.swap(0, 1),
        ];
        let before = transaction().digest();
        assert_eq!(before, transaction().digest());
        for (index, change) in alterations.into_iter().enumerate() {
            let mut changed = transaction();
            change(&mut changed);
            assert_ne!(changed.digest(), before, "change {index}");
        }
    }
}
