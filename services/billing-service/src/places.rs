//! Places for calls that take long or much: so many at once in this process, and fewer of one organization, so that nobody keeps the others from
//! them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chassis::Problem;
use http::StatusCode;
use identity::OrganizationId;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

const RETRY_AFTER: Duration = Duration::from_secs(1);

/// So many of one organization wait for a place at most: each keeps one of the edge (`TRIVET_HTTP_MAX_CONCURRENCY`), which are there for all.
const WAITING_OF_ONE: usize = 64;

/// For how long a place is waited for where most calls are short.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Places of one kind; clones share them.
#[derive(Debug, Clone)]
pub struct Places {
    most: usize,
    of_one: usize,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    taken: Counts,
    waiting: Counts,
    /// Some place came free.
    freed: Notify,
}

/// How many each organization has; who has none is not in it.
#[derive(Debug, Default)]
struct Counts(Mutex<HashMap<OrganizationId, usize>>);

impl Counts {
    /// One more, if `may` says so of its own and of all.
    fn add(&self, organization: OrganizationId, may: impl FnOnce(usize, usize) -> Result<(), Problem>) -> Result<(), Problem> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        may(counts.get(&organization).copied().unwrap_or(0), counts.values().sum())?;
        *counts.entry(organization).or_default() += 1;
        Ok(())
    }

    fn remove(&self, organization: OrganizationId) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = counts.get_mut(&organization) {
            *own -= 1;
            if *own == 0 {
                counts.remove(&organization);
            }
        }
    }
}

/// One that waits, until it is dropped.
struct Waiting<'a> {
    organization: OrganizationId,
    waiting: &'a Counts,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waiting.remove(self.organization);
    }
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    organization: OrganizationId,
    shared: Arc<Shared>,
}

impl Places {
    /// So many in all, and so many of one organization.
    #[must_use]
    pub fn new(most: usize, of_one: usize) -> Self {
        Self { most, of_one, shared: Arc::default() }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// 429 when the organization has as many as it may have, 503 when there is none left; both with `Retry-After`.
    pub fn take(&self, organization: OrganizationId) -> Result<Place, Problem> {
        self.shared.taken.add(organization, |own, all| {
            if own >= self.of_one {
                Err(too_many())
            } else if all >= self.most {
                let title = "As many such calls are under way as there may be";
                Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", title).retry_after(RETRY_AFTER))
            } else {
                Ok(())
            }
        })?;
        Ok(Place { organization, shared: Arc::clone(&self.shared) })
    }

    /// Takes a place, and waits for one for so long.
    ///
    /// # Errors
    /// Those of [`Places::take`], when none came free; 429 at once when as many of the organization wait already as may.
    pub async fn wait(&self, organization: OrganizationId, patience: Duration) -> Result<Place, Problem> {
        if let Ok(place) = self.take(organization) {
            return Ok(place);
        }
        self.shared.waiting.add(organization, |own, _| if own >= WAITING_OF_ONE { Err(too_many()) } else { Ok(()) })?;
        let _waiting = Waiting { organization, waiting: &self.shared.waiting };
        let until = Instant::now() + patience;
        loop {
            // Heard of from here on, so that none comes free between the look and the waiting.
            let freed = self.shared.freed.notified();
            match self.take(organization) {
                Err(problem) if timeout_at(until, freed).await.is_err() => return Err(problem),
                Err(_) => {}
                taken => return taken,
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.taken.remove(self.organization);
        self.shared.freed.notify_waiters();
    }
}

fn too_many() -> Problem {
    let title = "The organization has as many such calls under way as it may";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_at_once", title).retry_after(RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use futures::poll;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn nobody_has_more_places_than_his_own_and_all_have_those_there_are() {
        let (places, [ada, bob, eve]) = (Places::new(3, 2), [1, 2, 3].map(|number| OrganizationId::from_uuid(Uuid::from_u128(number))));
        let status = |whose| places.take(whose).map_err(|problem| (problem.status().as_u16(), problem.retry_after_header())).map(drop);
        let (second, mine) = (Some(Duration::from_secs(1)), [places.take(ada).unwrap(), places.take(ada).unwrap()]);
        assert_eq!(status(ada), Err((429, second)));
        let his = places.take(bob).unwrap();
        assert_eq!((status(eve), status(bob)), (Err((503, second)), Err((503, second))));
        drop(mine);
        assert_eq!((status(eve), status(ada)), (Ok(()), Ok(())));
        drop(his);
        assert!(places.shared.taken.0.lock().unwrap().is_empty(), "who has none is forgotten");
    }
    #[tokio::test]
    async fn who_waits_has_the_place_that_comes_free_and_is_refused_when_none_does() {
        let (places, ada) = (Places::new(1, 1), OrganizationId::from_uuid(Uuid::from_u128(1)));
        let place = places.take(ada).unwrap();
        assert_eq!(places.wait(ada, Duration::ZERO).await.unwrap_err().status().as_u16(), 429);
        let mut waiting: Vec<_> = (0..WAITING_OF_ONE).map(|_| Box::pin(places.wait(ada, Duration::from_hours(1)))).collect();
        for each in &mut waiting {
            assert!(poll!(each.as_mut()).is_pending());
        }
        assert_eq!(places.wait(ada, Duration::from_hours(1)).await.unwrap_err().status().as_u16(), 429, "one more than may wait");
        drop(place);
        for each in waiting {
            drop(each.await.unwrap());
        }
        assert!(places.shared.waiting.0.lock().unwrap().is_empty());
    }
}
