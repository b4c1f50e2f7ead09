//! The chain of seals: each covers a batch of transactions and the seal before it, so that whoever changes a row must change every
//! seal from there on, and the last one is easily kept somewhere else (`ledger verify` prints it, and takes it back with `--expect`).

use std::time::Duration;

use chassis::in_transaction;
use chassis::postgres::keep_running;
use sha2::{Digest, Sha256};
use sqlx::{Postgres, Transaction};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::journal::journaled;
use crate::error::Error;
use crate::rollups::{Bookmark, Taken, along_indexes};
use crate::state::AppState;

/// What the first seal follows.
pub const GENESIS: [u8; 32] = [0; 32];
const VERSION: &[u8] = b"trivet ledger seal v1";
/// Key of the advisory lock of sealers ("seal" in ASCII).
const LOCK: i64 = 0x7365_616c;
const BATCH: i64 = 500;
const EVERY: Duration = Duration::from_secs(1);

/// The hash of a seal over its predecessor's and the digests of its transactions, in the order of their positions.
#[derive(Debug, Clone)]
pub struct Chain(Sha256);

impl Chain {
    /// Begins the seal with this id after the one with that hash.
    #[must_use]
    pub fn after(previous: &[u8], id: i64) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(VERSION);
        hasher.update(previous);
        hasher.update(id.to_be_bytes());
        Self(hasher)
    }

    /// Takes in a transaction.
    pub fn add(&mut self, position: i64, digest: &[u8]) {
        self.0.update(position.to_be_bytes());
        self.0.update(digest);
    }

    /// The seal's hash.
    #[must_use]
    pub fn hash(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// Seals until the token is cancelled; any number of replicas may. A transaction that took longer to commit than those after it may wait for its
/// seal for a minute.
pub async fn seal_until(state: &AppState, stop: &CancellationToken) {
    let bookmark = Mutex::new(Bookmark::default());
    keep_running("ledger-sealer", stop, EVERY, || async {
        let mut bookmark = bookmark.lock().await;
        Ok(bookmark.look(BATCH, |after| seal_after(state, after, false)).await?)
    })
    .await;
}

/// Seals all that waits; returns how many transactions this call sealed.
///
/// # Errors
/// The database's; then the batch that was under way still waits.
pub async fn seal(state: &AppState) -> Result<i64, Error> {
    let mut sealed = 0;
    loop {
        let batch = seal_after(state, 0, true).await?.map_or(0, |taken| taken.rows);
        sealed += batch;
        if batch < BATCH {
            return Ok(sealed);
        }
    }
}

/// Seals a batch of what waits after a position; nothing while another replica does it, unless it is waited for.
async fn seal_after(state: &AppState, after: i64, waits: bool) -> Result<Option<Taken>, Error> {
    in_transaction!(state.pool, |transaction| {
        if waits {
            sqlx::query!("select pg_advisory_xact_lock($1)", LOCK).fetch_one(&mut **transaction).await?;
        } else {
            let mine = sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1) as "mine!""#, LOCK);
            if !mine.fetch_one(&mut **transaction).await? {
                return Ok(None);
            }
        }
        seal_batch(state, transaction, after).await.map(Some)
    })
}

/// One sealer at a time, so that the next one sees the seal it has to follow. Writers of the ledger never wait for it: it reads what
/// is committed, and what commits meanwhile waits for another batch, however low its position.
async fn seal_batch(state: &AppState, transaction: &mut Transaction<'static, Postgres>, after: i64) -> Result<Taken, Error> {
    along_indexes(transaction, after).await?;
    let positions = sqlx::query_scalar!(
        "delete from ledger_unsealed where ctid = any (array(
           select ctid from ledger_unsealed where position > $2 order by position limit $1)) returning position",
        BATCH,
        after
    )
    .fetch_all(&mut **transaction)
    .await?;
    let Some(last) = positions.iter().max().copied() else { return Ok(Taken { rows: 0, last: 0 }) };
    let rows = sqlx::query!(
        r#"select position as "position!", id as "id!", kind as "kind!", external_key as "external_key!", organization_id,
             occurred_at as "occurred_at!", accounts as "accounts!", owners as "owners!: Vec<Option<uuid::Uuid>>", kinds as "kinds!",
             currencies as "currencies!", amounts as "amounts!"
           from ledger_journal where position = any($1) order by position"#,
        &positions
    )
    .fetch_all(&mut **transaction)
    .await?;
    let digests: Vec<(i64, [u8; 32])> = rows.into_iter().map(|row| (row.position, journaled!(row).digest())).collect();
    write(state, transaction, &digests).await?;
    Ok(Taken { rows: i64::try_from(digests.len()).unwrap_or(i64::MAX), last })
}

async fn write(state: &AppState, transaction: &mut Transaction<'static, Postgres>, digests: &[(i64, [u8; 32])]) -> Result<(), Error> {
    let last = sqlx::query!("select id, hash from ledger_seals order by id desc limit 1").fetch_optional(&mut **transaction).await?;
    let (id, previous) = last.map_or((1, GENESIS.to_vec()), |last| (last.id + 1, last.hash));
    let mut chain = Chain::after(&previous, id);
    for (position, digest) in digests {
        chain.add(*position, digest);
    }
    let (positions, digests): (Vec<i64>, Vec<Vec<u8>>) = digests.iter().map(|(position, digest)| (*position, digest.to_vec())).unzip();
    sqlx::query!(
        "insert into ledger_seals (id, from_position, to_position, transactions, previous_hash, hash, sealed_at) values ($1, $2, $3, $4, $5, $6, $7)",
        id,
        positions.first().copied().unwrap_or_default(),
        positions.last().copied().unwrap_or_default(),
        i64::try_from(positions.len()).unwrap_or(i64::MAX),
        previous,
        chain.hash().to_vec(),
        state.clock.now()
    )
    .execute(&mut **transaction)
    .await?;
    sqlx::query!(
        "insert into ledger_sealed (position, seal_id, digest) select position, $1, digest from unnest($2::bigint[], $3::bytea[]) as batch (position, digest)",
        id,
        &positions,
        &digests
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
