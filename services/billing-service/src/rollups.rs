//! Sums by hour and day of what was used: kept up beside the writes, rebuilt from the rows at will, and always equal to them [B-61].
//!
//! A write adds what it changes to a table of deltas, where no two writers meet; a worker adds the deltas to the rollups. Who reads
//! takes both together, so that an answer is never behind the rows.

pub mod earlier;
pub mod meters;
pub mod spend;
pub mod usage;
mod verify;

use std::future::Future;

use chassis::in_transaction;
use chassis::postgres::keep_running;
use serde_json::{Value, json};
use sqlx::{PgPool, Postgres, Transaction};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::audit::{self, Decision};
use crate::error::Error;
use crate::state::AppState;

pub use self::verify::differences;

/// The verb in the log of operators.
const ACTION: &str = "usage.rebuild";
/// Deltas that are added in one transaction at most.
pub(crate) const BATCH: i64 = 5_000;
/// The advisory lock of those who add: one at a time is enough, and no two can wait for each other's rows. Whoever takes a month of usage out has
/// it too (migration 0134), with this number.
pub(crate) const LOCK: i64 = 0x726f_6c6c_7570;

/// One look of so many begins at the front.
const FRONT_EVERY: u32 = 60;

/// So many batches of one look at most: where they are full without end, the front has its look all the same.
const LONGEST_LOOK: u32 = 100;

/// What a batch took out of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// How many rows.
    pub rows: i64,
    /// The highest id of them; 0 when there was none.
    pub last: i64,
}

/// Where a worker goes on in a table from which it takes what comes, in the order of ids that begin at 1. What was taken stays in the index
/// until the oldest snapshot has ended, which is a backup's and hours old at times, and whoever begins at the front passes over all of it each
/// time. So a look begins where the one before the last one ended: ids become visible in another order than they are given, and
/// nearly always within a look. What takes longer is found by the next look that begins at the front.
#[derive(Debug, Default)]
pub(crate) struct Bookmark {
    looks: u32,
    /// Where the look before the last one ended.
    former: i64,
    /// Where the last one did.
    last: i64,
}

impl Bookmark {
    /// One look: takes batch after batch, until one is not full or a hundred were. `take` is told after which id, and answers what it took, or nothing while another
    /// replica is at it.
    ///
    /// # Errors
    /// Those of `take`; the next look then does not begin at the front again, which may take too long.
    pub(crate) async fn look<Take, Batch>(&mut self, full: i64, take: Take) -> Result<(), Error>
    where
        Take: Fn(i64) -> Batch,
        Batch: Future<Output = Result<Option<Taken>, Error>>,
    {
        let before = (self.looks, self.former);
        let begin = if self.looks.is_multiple_of(FRONT_EVERY) { 0 } else { self.former };
        (self.looks, self.former) = (self.looks.wrapping_add(1), self.last);
        let mut after = begin;
        for _ in 0..LONGEST_LOOK {
            let Some(taken) = take(after).await? else {
                if after == begin {
                    // It was none.
                    (self.looks, self.former) = before;
                }
                return Ok(());
            };
            after = after.max(taken.last);
            self.last = self.last.max(after);
            if taken.rows < full {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Has the next statements of a transaction find rows by an index, in its order. What is known of such a table is of another hour than how much
/// waits, and taken for little, all that waits is read and sorted for each batch. A look that begins at the front may take a minute: it passes over
/// all that was taken and is not vacuumed yet, and a process that has only just begun has nowhere else to begin.
///
/// # Errors
/// The database's.
pub(crate) async fn along_indexes(transaction: &mut Transaction<'static, Postgres>, after: i64) -> Result<(), Error> {
    sqlx::query!(
        "select set_config('enable_seqscan', 'off', true) as scans, set_config('enable_bitmapscan', 'off', true) as bitmaps,
           set_config('statement_timeout', case when $1 then '60s' else current_setting('statement_timeout') end, true) as time",
        after == 0
    )
    .fetch_one(&mut **transaction)
    .await?;
    Ok(())
}

/// Begins a batch under one of the advisory locks; false while another replica is at it.
async fn begin(transaction: &mut Transaction<'static, Postgres>, lock: i64, after: i64) -> Result<bool, Error> {
    let mine = sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1) as "mine!""#, lock).fetch_one(&mut **transaction).await?;
    if mine {
        along_indexes(transaction, after).await?;
    }
    Ok(mine)
}

/// Whether a batch was full, so that there may be more.
fn is_full(taken: Option<Taken>) -> bool {
    taken.is_some_and(|taken| taken.rows == BATCH)
}

/// Adds deltas to the rollups again and again, and remembers where it has come to.
#[derive(Debug, Default)]
pub struct Worker {
    meters: Bookmark,
    usage: Bookmark,
    people: Bookmark,
    tags: Bookmark,
}

impl Worker {
    /// Adds what has come. What was written long before it was committed may wait for a later call, and is counted all the same.
    ///
    /// # Errors
    /// The database's: the first of a kind that could not be added; it does not keep the others.
    pub async fn add(&mut self, pool: &PgPool) -> Result<(), Error> {
        let Self { meters, usage, people, tags } = self;
        let meters = meters.look(BATCH, |after| self::meters::fold_after(pool, after));
        let usage = usage.look(BATCH, |after| self::usage::fold_after(pool, after));
        // One after the other: they have one lock.
        let spend = async {
            let people = people.look(BATCH, |after| spend::fold_people_after(pool, after)).await;
            tags.look(BATCH, |after| spend::fold_tags_after(pool, after)).await.and(people)
        };
        let added = tokio::join!(Box::pin(meters), Box::pin(usage), Box::pin(spend));
        added.0.and(added.1).and(added.2)
    }
}

/// Adds deltas until the token is cancelled.
pub async fn run(state: &AppState, stop: &CancellationToken) {
    let worker = Mutex::new(Worker::default());
    keep_running("rollups", stop, state.config.usage.roll_up.0, || async { Ok(worker.lock().await.add(&state.pool).await?) }).await;
}

/// Makes all rollups anew from the rows, and logs who wanted it [B-78]. Answers are right all the while.
///
/// # Errors
/// A decision without a name or a reason; the database's.
pub async fn rebuild(state: &AppState, decision: &Decision) -> Result<(), Error> {
    decision.check()?;
    meters::rebuild(&state.pool).await?;
    in_transaction!(state.pool, |transaction| {
        usage::rebuild_in(transaction).await?;
        // Done anew whether or not it was done under this key before; logged once.
        if audit::earlier(transaction, decision, ACTION, None, &Value::Null).await?.is_some() {
            return Ok(());
        }
        let after = json!({"rebuilt": ["usage", "meters"]});
        let logged = audit::Change { action: ACTION, organization: None, request: &Value::Null, before: &Value::Null, after: &after };
        audit::record(state, transaction, decision, &logged).await
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Looks once at a table in which these ids are visible and two rows are a full batch; after which ids it looked.
    async fn look(bookmark: &mut Bookmark, visible: &Mutex<Vec<i64>>) -> Vec<i64> {
        let looked = Mutex::new(Vec::new());
        let take = |after: i64| {
            looked.lock().unwrap().push(after);
            let mut visible = visible.lock().unwrap();
            let mut ids: Vec<i64> = visible.iter().copied().filter(|id| *id > after).collect();
            ids.sort_unstable();
            ids.truncate(2);
            visible.retain(|id| !ids.contains(id));
            let taken = Taken { rows: i64::try_from(ids.len()).unwrap(), last: ids.last().copied().unwrap_or(0) };
            async move { Ok::<_, Error>(Some(taken)) }
        };
        bookmark.look(2, take).await.unwrap();
        looked.into_inner().unwrap()
    }

    #[tokio::test]
    async fn a_look_begins_where_the_one_before_the_last_one_ended_and_every_sixtieth_at_the_front() {
        let (mut bookmark, visible) = (Bookmark::default(), Mutex::new(vec![2, 3, 4]));
        assert_eq!(look(&mut bookmark, &visible).await, [0, 3], "a full batch and one that is not");
        assert_eq!(look(&mut bookmark, &visible).await, [0]);
        assert_eq!(look(&mut bookmark, &visible).await, [4]);
        visible.lock().unwrap().extend([1, 7]);
        assert_eq!(look(&mut bookmark, &visible).await, [4], "it does not see what is before that");
        visible.lock().unwrap().push(6);
        assert_eq!(look(&mut bookmark, &visible).await, [4], "but sees what comes a look later");
        assert_eq!(*visible.lock().unwrap(), [1]);
        for _ in 5..FRONT_EVERY {
            assert_eq!(look(&mut bookmark, &visible).await, [7]);
        }
        assert_eq!(look(&mut bookmark, &visible).await, [0]);
        assert!(visible.lock().unwrap().is_empty());
        assert_eq!(look(&mut bookmark, &visible).await, [7], "and goes on where it was");
    }

    #[tokio::test]
    async fn a_look_at_batches_that_are_full_without_end_ends() {
        let (mut bookmark, looked) = (Bookmark::default(), Mutex::new(Vec::new()));
        let take = |after: i64| {
            looked.lock().unwrap().push(after);
            async move { Ok::<_, Error>(Some(Taken { rows: 2, last: after + 2 })) }
        };
        for _ in 0..3 {
            bookmark.look(2, take).await.unwrap();
        }
        let began: Vec<_> = looked.into_inner().unwrap().into_iter().step_by(usize::try_from(LONGEST_LOOK).unwrap()).collect();
        assert_eq!(began, [0, 0, 200]);
    }

    #[tokio::test]
    async fn a_look_at_the_front_that_another_replica_kept_from_it_is_made_the_next_time_and_one_that_failed_is_not() {
        let (mut bookmark, visible) = (Bookmark::default(), Mutex::new(vec![1]));
        bookmark.look(2, |_| async { Ok(None) }).await.unwrap();
        assert_eq!(look(&mut bookmark, &visible).await, [0]);
        for _ in 1..FRONT_EVERY {
            look(&mut bookmark, &visible).await;
        }
        assert!(bookmark.look(2, |_| async { Err(Error::Internal("too slow")) }).await.is_err());
        assert_eq!(look(&mut bookmark, &visible).await, [1]);
    }
}
