//! Places for reading bodies by which alone it is known who sends them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::edge::shed;
use crate::problem::Problem;

/// Bodies that are read at once.
const MOST: usize = 64;
/// Of them those from one address: three quarters, for behind a proxy that is not named (`TRIVET_TRUSTED_PROXIES`) all come from one.
const OF_ONE: usize = 48;

/// Places for reading bodies by which alone it is known who sends them, as where a signature is over the body. They are few: whoever sends such
/// bodies slowly keeps out those who send others, and not everybody who uses the listener; and from one address not even all of those. An
/// extension of each request; each listener has its own.
#[derive(Debug, Clone, Default)]
pub struct StrangersBodies(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A place, until it is dropped: for as long as the body is read.
#[derive(Debug)]
pub struct StrangersPlace {
    client: IpAddr,
    taken: StrangersBodies,
}

impl StrangersBodies {
    /// Takes a place for a client.
    ///
    /// # Errors
    /// 503 with `Retry-After` when there is none left.
    pub fn place(&self, client: IpAddr) -> Result<StrangersPlace, Problem> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= MOST || taken.get(&client).is_some_and(|own| *own >= OF_ONE) {
            return Err(shed());
        }
        *taken.entry(client).or_default() += 1;
        Ok(StrangersPlace { client, taken: self.clone() })
    }
}

impl Drop for StrangersPlace {
    fn drop(&mut self) {
        let mut taken = self.taken.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_three_quarters_of_the_places_and_all_addresses_those_there_are() {
        let (places, [one, two, three]) = (StrangersBodies::default(), [1, 2, 3].map(|last| IpAddr::from([10, 0, 0, last])));
        let take = |client: IpAddr| places.place(client).map_err(|problem| problem.status().as_u16());
        let held: Vec<_> = (0..OF_ONE).map(|_| take(one).unwrap()).collect();
        assert_eq!(take(one).map(drop), Err(503));
        let others: Vec<_> = (0..MOST - OF_ONE).map(|_| take(two).unwrap()).collect();
        assert_eq!(take(three).map(drop), Err(503));
        drop(held);
        assert!(take(three).is_ok() && take(one).is_ok() && take(two).is_ok());
        drop(others);
        assert!(places.0.lock().unwrap().is_empty(), "who has none is forgotten");
    }
}
