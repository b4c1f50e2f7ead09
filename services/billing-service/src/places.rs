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
    taken: Mutex<HashMap<OrganizationId, usize>>,
    /// Some place came free.
    freed: Notify,
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
        let mut taken = self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.get(&organization).is_some_and(|own| *own >= self.of_one) {
            let title = "The organization has as many such calls under way as it may";
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_at_once", title).retry_after(RETRY_AFTER));
        }
        if taken.values().sum::<usize>() >= self.most {
            let title = "As many such calls are under way as there may be";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", title).retry_after(RETRY_AFTER));
        }
        *taken.entry(organization).or_default() += 1;
        Ok(Place { organization, shared: Arc::clone(&self.shared) })
    }

    /// Takes a place, and waits for one for so long.
    ///
    /// # Errors
    /// Those of [`Places::take`], when none came free.
    pub async fn wait(&self, organization: OrganizationId, patience: Duration) -> Result<Place, Problem> {
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
        let mut taken = self.shared.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.organization) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.organization);
            }
        }
        drop(taken);
        self.shared.freed.notify_waiters();
    }
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
        assert!(places.shared.taken.lock().unwrap().is_empty(), "who has none is forgotten");
    }
    #[tokio::test]
    async fn who_waits_has_the_place_that_comes_free_and_is_refused_when_none_does() {
        let (places, ada) = (Places::new(1, 1), OrganizationId::from_uuid(Uuid::from_u128(1)));
        let place = places.take(ada).unwrap();
        assert_eq!(places.wait(ada, Duration::ZERO).await.unwrap_err().status().as_u16(), 429);
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(places.wait(ada, Duration::from_hours(1)))).collect();
        for each in &mut waiting {
            assert!(poll!(each.as_mut()).is_pending());
        }
        drop(place);
        for each in waiting {
            drop(each.await.unwrap());
        }
    }
}
