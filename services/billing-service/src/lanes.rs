//! Work that is done several pieces at a time.

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// Repeats a step until it says that nothing is left, or the token is cancelled: once alone, so that a look in vain is one look, and then in
/// several lanes at once. What the steps take they must take from each other.
///
/// # Errors
/// The first that a step failed with; its lane ends then, and the others go on to their own end.
pub async fn drain<Step>(lanes: usize, stop: &CancellationToken, work: impl Fn() -> Step + Sync) -> Result<(), Error>
where
    Step: Future<Output = Result<bool, Error>> + Send,
{
    if stop.is_cancelled() || !work().await? {
        return Ok(());
    }
    side_by_side(lanes, || async {
        while !stop.is_cancelled() && work().await? {}
        Ok(())
    })
    .await
}

/// Does a step with each, in several lanes at once.
///
/// # Errors
/// The first that a step failed with; its lane ends then, and the others go on to their own end. What may fail without the next one's failing too
/// is for the step to [set aside](crate::aside).
pub async fn each<Row, Step>(lanes: usize, rows: Vec<Row>, step: impl Fn(Row) -> Step) -> Result<(), Error>
where
    Step: Future<Output = Result<(), Error>>,
{
    let rows = Mutex::new(rows.into_iter());
    let next = || rows.lock().unwrap_or_else(PoisonError::into_inner).next();
    side_by_side(lanes, || async {
        while let Some(row) = next() {
            step(row).await?;
        }
        Ok(())
    })
    .await
}

async fn side_by_side<Lane>(lanes: usize, lane: impl Fn() -> Lane) -> Result<(), Error>
where
    Lane: Future<Output = Result<(), Error>>,
{
    join_all((0..lanes).map(|_| lane())).await.into_iter().collect()
}
