//! The chain of seals: is every transaction what it was when it was sealed, and does every seal follow the one before?

use futures::TryStreamExt;
use sqlx::{Postgres, Transaction};

use super::Summary;
use crate::ledger::journal::journaled;
use crate::ledger::seal::{Chain, GENESIS};

/// The seal that is being read.
struct Open {
    id: i64,
    hash: Vec<u8>,
    transactions: (i64, i64),
    chain: Chain,
}

impl Open {
    /// Compares what was read with what the seal says.
    fn close(self, report: &mut impl FnMut(String)) {
        if self.chain.hash() != *self.hash {
            report(format!("seal {} does not cover the digests of its transactions", self.id));
        }
        if self.transactions.0 != self.transactions.1 {
            report(format!("seal {} covers {} transactions and {} are left of it", self.id, self.transactions.1, self.transactions.0));
        }
    }
}

/// Reports each transaction that is not what was sealed, and each seal that is not what the chain needs.
pub async fn check(
    transaction: &mut Transaction<'static, Postgres>,
    expected: Option<&[u8]>,
    report: &mut impl FnMut(String),
) -> Result<Summary, sqlx::Error> {
    let mut summary = Summary { sealed: 0, seals: 0, head: GENESIS, has_expected: false, differences: 0 };
    let mut open: Option<Open> = None;
    {
        let mut rows = sqlx::query!(
            r#"select x.id as "seal!", x.previous_hash as "previous!", x.hash as "hash!", x.transactions as "transactions!",
                 s.position as "sealed?", s.digest as "digest?", coalesce(j.position, 0) as "position!", j.id as "id?", j.kind as "kind?",
                 j.external_key as "external_key?", j.organization_id as "organization_id?", j.occurred_at as "occurred_at?",
                 j.accounts as "accounts?", j.owners as "owners?: Vec<Option<uuid::Uuid>>", j.kinds as "kinds?", j.currencies as "currencies?",
                 j.amounts as "amounts?"
               from ledger_seals x left join ledger_sealed s on s.seal_id = x.id left join ledger_journal j on j.position = s.position
               order by x.id, s.position"#
        )
        .fetch(&mut **transaction);
        while let Some(row) = rows.try_next().await? {
            if open.as_ref().is_none_or(|open| open.id != row.seal) {
                if let Some(open) = open.take() {
                    open.close(report);
                }
                if row.seal != summary.seals + 1 {
                    report(format!("seal {} is gone", summary.seals + 1));
                } else if row.previous != summary.head {
                    report(format!("seal {} does not follow the one before it", row.seal));
                }
                summary.seals = row.seal;
                summary.head = row.hash.as_slice().try_into().unwrap_or(GENESIS);
                summary.has_expected |= expected == Some(&row.hash);
                let chain = Chain::after(&row.previous, row.seal);
                open = Some(Open { id: row.seal, hash: row.hash, transactions: (0, row.transactions), chain });
            }
            let (Some(position), Some(digest)) = (row.sealed, &row.digest) else { continue };
            if let Some(open) = &mut open {
                open.chain.add(position, digest);
                open.transactions.0 += 1;
            }
            summary.sealed += 1;
            let whole = (|| {
                Some(Whole {
                    position: row.position,
                    id: row.id?,
                    kind: row.kind?,
                    external_key: row.external_key?,
                    organization_id: row.organization_id,
                    occurred_at: row.occurred_at?,
                    accounts: row.accounts?,
                    owners: row.owners?,
                    kinds: row.kinds?,
                    currencies: row.currencies?,
                    amounts: row.amounts?,
                })
            })();
            match whole.map(|whole| journaled!(whole)) {
                None => report(format!("the transaction at position {position} is gone; seal {} holds it", row.seal)),
                Some(found) if found.digest() != *digest.as_slice() => {
                    report(format!("transaction {} (position {position}) is not what seal {} holds", found.id, row.seal));
                }
                Some(_) => {}
            }
        }
    }
    if let Some(open) = open.take() {
        open.close(report);
    }
    unsealed(transaction, report).await?;
    Ok(summary)
}

/// What is under no seal waits for one, or never will be.
async fn unsealed(transaction: &mut Transaction<'static, Postgres>, report: &mut impl FnMut(String)) -> Result<(), sqlx::Error> {
    let mut rows = sqlx::query!(
        "select t.id, t.position from ledger_transactions t
         where not exists (select from ledger_sealed s where s.position = t.position)
           and not exists (select from ledger_unsealed u where u.position = t.position) order by t.position"
    )
    .fetch(&mut **transaction);
    while let Some(row) = rows.try_next().await? {
        report(format!("transaction {} (position {}) is under no seal and waits for none", row.id, row.position));
    }
    Ok(())
}

/// A row of the view, whose columns are all there.
struct Whole {
    position: i64,
    id: uuid::Uuid,
    kind: String,
    external_key: String,
    organization_id: Option<uuid::Uuid>,
    occurred_at: chrono::DateTime<chrono::Utc>,
    accounts: Vec<uuid::Uuid>,
    owners: Vec<Option<uuid::Uuid>>,
    kinds: Vec<String>,
    currencies: Vec<String>,
    amounts: Vec<i64>,
}
