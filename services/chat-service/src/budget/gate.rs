//! One question at a time, and one failure for all that wait: each of them asking anew would wait for as many failures as there are before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, OwnedMutexGuard};

/// Where those wait who need an answer to the same question.
#[derive(Debug, Default)]
pub(super) struct Gate {
    one: Arc<Mutex<()>>,
    /// Questions that failed.
    failures: AtomicU64,
}

/// The question that was waited for was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unanswered;

impl Gate {
    /// Waits for the turn to ask.
    ///
    /// # Errors
    /// [`Unanswered`] when somebody else's question failed meanwhile.
    pub(super) async fn enter(&self) -> Result<OwnedMutexGuard<()>, Unanswered> {
        let before = self.failures.load(Ordering::Acquire);
        let turn = Arc::clone(&self.one).lock_owned().await;
        if self.failures.load(Ordering::Acquire) == before { Ok(turn) } else { Err(Unanswered) }
    }

    /// The turn to ask, unless somebody has it.
    pub(super) fn try_enter(&self) -> Option<OwnedMutexGuard<()>> {
        Arc::clone(&self.one).try_lock_owned().ok()
    }

    /// The question of whoever has the turn was not answered.
    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn who_waits_while_a_question_fails_is_told_so_and_does_not_ask_again() {
        let gate = Gate::default();
        let asking = gate.enter().await.unwrap();
        let mut waiting: Vec<_> = (0..20).map(|_| Box::pin(gate.enter())).collect();
        for each in &mut waiting {
            assert!(poll!(each.as_mut()).is_pending());
        }
        gate.failed();
        drop(asking);
        for each in waiting {
            assert!(matches!(each.await, Err(Unanswered)));
        }
        assert!(gate.enter().await.is_ok(), "who comes after it asks");
    }

    #[tokio::test]
    async fn who_waits_while_a_question_is_answered_has_the_turn() {
        let gate = Gate::default();
        let asking = gate.enter().await.unwrap();
        assert!(gate.try_enter().is_none());
        let mut waiting = Box::pin(gate.enter());
        assert!(poll!(waiting.as_mut()).is_pending());
        drop(asking);
        assert!(waiting.await.is_ok());
    }
}
