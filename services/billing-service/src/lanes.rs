//! Work that is done several pieces at a time.

use std::future::Future;

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
    let lane = |_| async {
        while !stop.is_cancelled() && work().await? {}
        Ok(())
    };
    join_all((0..lanes).map(lane)).await.into_iter().collect()
}
