//! One question at a time, and one answer for all that it is an answer for: each of those who wait asking anew would wait for as many
//! answers as there are before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use contracts::leases::{LeaseRequest, ModelRequest, SeenLease};
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore, SemaphorePermit};

/// So many requests of one organization wait for the turn to ask; [`LOBBY`] more wait for a place, and are refused without one after [`PATIENCE`]. Each keeps a place of the edge
/// (`TRIVET_HTTP_MAX_CONCURRENCY`, 1,024), so these are the three eighths of them that one organization may make wait for money. It is far more
/// than come at once while a lease is there and filled in passing: they wait only at the first requests and at the end of a wallet.
pub(super) const WAITING: usize = 256;

/// So many wait for a place at most; one more is refused at once.
pub(super) const LOBBY: usize = 128;

/// Longer than it takes those who have places to find what a lease was filled with, so that money which is there is refused to nobody; shorter than
/// billing-service is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where those wait who need an answer to the same question.
#[derive(Debug)]
pub(super) struct Gate {
    /// The turn to ask, and the last question that was refused for want of money.
    one: Arc<Mutex<Option<Refused>>>,
    /// Places to wait in.
    places: Semaphore,
    /// Where to wait for a place.
    lobby: Semaphore,
    /// How long a place is waited for.
    patience: Duration,
    /// How many have come to wait.
    come: AtomicU64,
    /// Questions that failed.
    failures: AtomicU64,
}

/// A question that money did not reach for.
#[derive(Debug)]
struct Refused {
    question: LeaseRequest,
    /// So many had come to wait before it was asked.
    come: u64,
}

/// Why there is no turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// The question that was waited for was not answered.
    Unanswered,
    /// As many wait as may.
    Full,
}

/// The turn to ask, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    refused: OwnedMutexGuard<Option<Refused>>,
    /// So many had come before whoever has it.
    number: u64,
    /// So many had come when it began.
    come: u64,
}

impl Turn {
    /// Whether the answer to this question is known to be that money does not reach: that was said to one that wants no more, and that was
    /// asked while whoever has the turn waited already. Whoever came later asks anew, because money may have come before it did.
    pub(super) fn is_refused(&self, question: &LeaseRequest) -> bool {
        self.refused.as_ref().is_some_and(|refused| self.number < refused.come && wants_no_less(question, &refused.question))
    }

    /// Notes that money did not reach for this question.
    pub(super) fn note_refused(&mut self, question: LeaseRequest) {
        *self.refused = Some(Refused { question, come: self.come });
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            one: Arc::default(),
            places: Semaphore::new(WAITING),
            lobby: Semaphore::new(LOBBY),
            patience: PATIENCE,
            come: AtomicU64::default(),
            failures: AtomicU64::default(),
        }
    }
}

impl Gate {
    /// Waits for the turn to ask.
    ///
    /// # Errors
    /// [`Closed::Full`] when no place came free; [`Closed::Unanswered`] when somebody else's question failed meanwhile.
    pub(super) async fn enter(&self) -> Result<Turn, Closed> {
        let _place = self.place().await.ok_or(Closed::Full)?;
        let number = self.come.fetch_add(1, Ordering::AcqRel);
        let before = self.failures.load(Ordering::Acquire);
        let refused = Arc::clone(&self.one).lock_owned().await;
        if self.failures.load(Ordering::Acquire) != before {
            return Err(Closed::Unanswered);
        }
        Ok(Turn { refused, number, come: self.come.load(Ordering::Acquire) })
    }

    async fn place(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(place) = self.places.try_acquire() {
            return Some(place);
        }
        let _waiting = self.lobby.try_acquire().ok()?;
        tokio::time::timeout(self.patience, self.places.acquire()).await.ok()?.ok()
    }

    /// The turn to ask, unless somebody has it.
    pub(super) fn try_enter(&self) -> Option<Turn> {
        let refused = Arc::clone(&self.one).try_lock_owned().ok()?;
        let come = self.come.load(Ordering::Acquire);
        Some(Turn { refused, number: come, come })
    }

    /// The question of whoever has the turn was not answered.
    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::AcqRel);
    }
}

/// Whether a question is for a request that costs no less than that of the other, and that found no more for it in the same leases: what is
/// refused to the other is refused to it. Money that came back to a lease in between makes it another question.
fn wants_no_less(question: &LeaseRequest, other: &LeaseRequest) -> bool {
    let (Some(model), Some(others)) = (&question.model, &other.model) else { return false };
    let mut leases = found(question, model).into_iter().zip(found(other, others));
    model.model == others.model
        && model.cost_micros >= others.cost_micros
        && leases.all(|((lease, left), (same, as_much))| lease == same && left <= as_much)
}

/// The lease for all requests and the one for the model, as a request saw them, with what it found in each, in micro-units.
fn found(question: &LeaseRequest, model: &ModelRequest) -> [(Option<SeenLease>, i64); 2] {
    let left = |missing: i64| model.cost_micros.saturating_sub(missing);
    [(question.seen, left(question.needed_micros)), (model.seen, left(model.needed_micros))]
}

#[cfg(test)]
mod tests {
    use contracts::LeaseId;
    use futures::poll;
    use identity::OrganizationId;
    use uuid::Uuid;

    use super::*;

    /// For a request that costs this much, with so much left in the lease for all requests and none for its model.
    fn question(cost_micros: i64, left: i64) -> LeaseRequest {
        let seen = Some(SeenLease { lease_id: LeaseId::from_uuid(Uuid::nil()), funded_micros: 500 });
        let model = ModelRequest { model: "m".into(), needed_micros: cost_micros, cost_micros, seen: None };
        let organization_id = OrganizationId::from_uuid(Uuid::nil());
        LeaseRequest { organization_id, needed_micros: cost_micros - left, seen, model: Some(model) }
    }

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
            assert!(matches!(each.await, Err(Closed::Unanswered)));
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

    #[tokio::test]
    async fn money_that_is_refused_to_one_is_refused_to_those_who_waited_for_it_and_want_no_less() {
        let gate = Gate::default();
        let before = gate.enter().await.unwrap();
        let (mut asking, mut waiting) = (Box::pin(gate.enter()), Box::pin(gate.enter()));
        assert!(poll!(asking.as_mut()).is_pending() && poll!(waiting.as_mut()).is_pending());
        drop(before);
        let mut turn = asking.await.unwrap();
        assert!(!turn.is_refused(&question(100, 10)), "nobody was refused yet");
        let mut late = Box::pin(gate.enter());
        assert!(poll!(late.as_mut()).is_pending());
        turn.note_refused(question(100, 10));
        drop(turn);
        let turn = waiting.await.unwrap();
        for (cost, left) in [(100, 10), (101, 10), (100, 9), (100, -5)] {
            assert!(turn.is_refused(&question(cost, left)), "{cost} with {left} there");
        }
        for (cost, left) in [(99, 10), (99, 9), (100, 11), (300, 11)] {
            assert!(!turn.is_refused(&question(cost, left)), "{cost} with {left} there");
        }
        drop(turn);
        let turn = late.await.unwrap();
        assert!(!turn.is_refused(&question(100, 10)), "there may have been money before it came");
    }

    #[tokio::test]
    async fn money_that_is_refused_for_one_model_or_one_lease_is_not_refused_for_another() {
        let gate = Gate::default();
        let before = gate.enter().await.unwrap();
        let (mut asking, mut waiting) = (Box::pin(gate.enter()), Box::pin(gate.enter()));
        assert!(poll!(asking.as_mut()).is_pending() && poll!(waiting.as_mut()).is_pending());
        drop(before);
        let mut turn = asking.await.unwrap();
        turn.note_refused(question(100, 10));
        drop(turn);
        let turn = waiting.await.unwrap();
        let same = question(100, 10);
        let seen = same.seen.map(|seen| SeenLease { funded_micros: 501, ..seen });
        let filled = LeaseRequest { seen, ..same.clone() };
        let model = same.model.clone().unwrap();
        let of_its_model = LeaseRequest { model: Some(ModelRequest { seen, needed_micros: 90, ..model.clone() }), ..same.clone() };
        let other_model = LeaseRequest { model: Some(ModelRequest { model: "n".into(), ..model }), ..same.clone() };
        let nameless = LeaseRequest { model: None, ..same.clone() };
        for other in [filled, of_its_model, other_model, nameless] {
            assert!(!turn.is_refused(&other), "{other:?}");
        }
        assert!(turn.is_refused(&same));
    }

    #[tokio::test]
    async fn one_more_than_may_wait_is_refused_unless_one_of_them_leaves_in_time() {
        for (patience, is_refused) in [(Duration::ZERO, true), (Duration::from_hours(1), false)] {
            let gate = Gate { patience, ..Gate::default() };
            let turn = gate.enter().await.unwrap();
            let mut waiting: Vec<_> = (0..WAITING).map(|_| Box::pin(gate.enter())).collect();
            for each in &mut waiting {
                assert!(poll!(each.as_mut()).is_pending());
            }
            let mut next = Box::pin(gate.enter());
            if is_refused {
                assert!(matches!(next.await, Err(Closed::Full)));
                continue;
            }
            assert!(poll!(next.as_mut()).is_pending());
            let mut lobby: Vec<_> = (1..LOBBY).map(|_| Box::pin(gate.enter())).collect();
            for each in &mut lobby {
                assert!(poll!(each.as_mut()).is_pending());
            }
            assert!(matches!(gate.enter().await, Err(Closed::Full)), "nobody waits for a place to wait for a place");
            drop(lobby);
            drop(waiting.pop());
            assert!(poll!(next.as_mut()).is_pending(), "it has a place, and waits for its turn");
            assert_eq!(gate.places.available_permits(), 0);
            drop(turn);
            for each in waiting {
                assert!(each.await.is_ok());
            }
            assert!(next.await.is_ok());
            assert_eq!(gate.places.available_permits(), WAITING);
        }
    }
}
