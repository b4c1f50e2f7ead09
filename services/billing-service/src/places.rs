//! Places for calls that take long or much: so many at once in this process, and fewer of one organization, so that nobody keeps the others from
//! them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chassis::Problem;
use http::StatusCode;
use identity::OrganizationId;

const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Places of one kind; clones share them.
#[derive(Debug, Clone)]
pub struct Places {
    most: usize,
    of_one: usize,
    taken: Arc<Mutex<HashMap<OrganizationId, usize>>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    organization: OrganizationId,
    taken: Arc<Mutex<HashMap<OrganizationId, usize>>>,
}

impl Places {
    /// So many in all, and so many of one organization.
    #[must_use]
    pub fn new(most: usize, of_one: usize) -> Self {
        Self { most, of_one, taken: Arc::default() }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// 429 when the organization has as many as it may have, 503 when there is none left; both with `Retry-After`.
    pub fn take(&self, organization: OrganizationId) -> Result<Place, Problem> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.get(&organization).is_some_and(|own| *own >= self.of_one) {
            let title = "The organization has as many such calls under way as it may";
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_at_once", title).retry_after(RETRY_AFTER));
        }
        if taken.values().sum::<usize>() >= self.most {
            let title = "As many such calls are under way as there may be";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", title).retry_after(RETRY_AFTER));
        }
        *taken.entry(organization).or_default() += 1;
        Ok(Place { organization, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.organization) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.organization);
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
        assert!(places.taken.lock().unwrap().is_empty(), "who has none is forgotten");
    }
}
