//! Request bodies, counted in bytes while their requests are in flight: prompts may hold images and files, and a few hundred of the
//! largest would be more than the memory there is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, header};
use identity::OrganizationId;

use crate::error::ApiError;
use crate::meters;

/// Smaller bodies are not counted: the number of requests at once bounds them, and a few large ones must not shut out everybody.
const SMALL: usize = 64 * 1024;

/// One organization holds one of so many parts at most: the others go on while it sends as much as it can.
const PARTS: usize = 4;

/// How many bytes may be held, by all and by one organization; cheap to clone.
#[derive(Debug, Clone)]
pub struct BodyBudget(Arc<Memory>);

#[derive(Debug)]
struct Memory {
    most: usize,
    most_of_one: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    /// Of those that hold something, and of no others: there are no more entries than requests.
    of: HashMap<OrganizationId, usize>,
}

/// A share of it, until it is dropped.
#[derive(Debug)]
pub struct Share {
    budget: BodyBudget,
    organization: OrganizationId,
    bytes: usize,
}

impl Share {
    /// Makes it reach for so many bytes in all.
    fn grow(&mut self, bytes: usize) -> Result<(), ApiError> {
        if bytes <= SMALL || bytes <= self.bytes {
            return Ok(());
        }
        let missing = bytes - self.bytes;
        let mut held = self.budget.held();
        self.budget.has_room(&held, self.organization, missing)?;
        held.all += missing;
        *held.of.entry(self.organization).or_default() += missing;
        drop(held);
        self.bytes = bytes;
        meters::bodies_held(missing);
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut held = self.budget.held();
        held.all -= self.bytes;
        if let Entry::Occupied(mut of_one) = held.of.entry(self.organization) {
            *of_one.get_mut() -= self.bytes;
            if *of_one.get() == 0 {
                of_one.remove();
            }
        }
        drop(held);
        meters::bodies_free(self.bytes);
    }
}

/// A request's body, and its share: it is to be held as long as anything of the body is.
#[derive(Debug)]
pub struct HeldBody {
    /// The body.
    pub bytes: Bytes,
    /// Its share.
    pub share: Share,
}

impl BodyBudget {
    /// This many bytes, but never fewer than the largest body has. One organization holds a quarter of it at most, or one largest body.
    #[must_use]
    pub fn new(bytes: usize, largest_body: usize) -> Self {
        let most = bytes.max(largest_body);
        Self(Arc::new(Memory { most, most_of_one: (most / PARTS).max(largest_body), held: Mutex::default() }))
    }

    /// Reads a body to its end. Whoever calls this knows already that the caller may send one: what is read is held from its first bytes on,
    /// for as long as a client takes to send the rest.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when there is no room for it, [`ApiError::TooManyAtOnce`] when its organization has no more room, both before
    /// any of it is read where its length is announced; [`ApiError::Unreadable`] when it broke off, took too long or is too large.
    pub async fn read(&self, organization: OrganizationId, headers: &HeaderMap, body: Body) -> Result<HeldBody, ApiError> {
        let announced = announced(headers);
        self.check(organization, announced)?;
        let (mut share, mut read) = (self.share(organization), BytesMut::with_capacity(announced.min(SMALL)));
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            share.grow(read.len() + chunk.len())?;
            read.extend_from_slice(&chunk);
        }
        Ok(HeldBody { bytes: read.freeze(), share })
    }

    /// A share of nothing yet.
    fn share(&self, organization: OrganizationId) -> Share {
        Share { budget: self.clone(), organization, bytes: 0 }
    }

    /// Refuses a body of this length before any of it is read. Nothing is taken: who says a length and sends nothing holds nothing.
    fn check(&self, organization: OrganizationId, announced: usize) -> Result<(), ApiError> {
        if announced <= SMALL { Ok(()) } else { self.has_room(&self.held(), organization, announced) }
    }

    /// Refuses so many bytes more where there is no room for them.
    fn has_room(&self, held: &Held, organization: OrganizationId, more: usize) -> Result<(), ApiError> {
        let of_one = held.of.get(&organization).copied().unwrap_or_default();
        if more > self.0.most - held.all {
            return Err(ApiError::Unavailable("room for a body of this size"));
        }
        if more > self.0.most_of_one - of_one {
            return Err(ApiError::TooManyAtOnce("bytes of request bodies"));
        }
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The length that the client says, if it says one.
fn announced(headers: &HeaderMap) -> usize {
    headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use futures::{poll, stream};
    use uuid::Uuid;

    use super::*;

    const ONE: OrganizationId = OrganizationId::from_uuid(Uuid::from_u128(1));
    const OTHER: OrganizationId = OrganizationId::from_uuid(Uuid::from_u128(2));
    const FULL: Result<(), ApiError> = Err(ApiError::Unavailable("room for a body of this size"));
    const TOO_MANY: Result<(), ApiError> = Err(ApiError::TooManyAtOnce("bytes of request bodies"));

    /// What all hold, and how many hold something.
    fn held(budget: &BodyBudget) -> (usize, usize) {
        let held = budget.held();
        assert_eq!(held.all, held.of.values().sum::<usize>());
        (held.all, held.of.len())
    }

    #[test]
    fn shares_grow_to_what_there_is_and_are_free_again_when_dropped() {
        let budget = BodyBudget::new(SMALL, 3 * SMALL);
        let (mut first, mut second, mut small) = (budget.share(ONE), budget.share(ONE), budget.share(ONE));
        for bytes in [1, SMALL, SMALL + 1, 2 * SMALL] {
            assert_eq!(first.grow(bytes), Ok(()));
        }
        assert_eq!(held(&budget), (2 * SMALL, 1));
        assert_eq!((second.grow(SMALL + 1), budget.check(OTHER, SMALL + 1)), (FULL, FULL));
        assert_eq!((small.grow(SMALL), budget.check(ONE, SMALL)), (Ok(()), Ok(())), "what is small needs none");
        drop(first);
        assert_eq!((budget.check(ONE, 3 * SMALL), second.grow(3 * SMALL)), (Ok(()), Ok(())), "one of the largest");
        drop((second, small));
        assert_eq!((held(&budget), budget.check(ONE, 3 * SMALL + 1)), ((0, 0), FULL));
    }

    #[test]
    fn one_organization_holds_a_quarter_and_no_other_waits_for_it() {
        let budget = BodyBudget::new(16 * SMALL, 2 * SMALL);
        let (mut first, mut second, mut of_other) = (budget.share(ONE), budget.share(ONE), budget.share(OTHER));
        assert_eq!((first.grow(2 * SMALL), second.grow(2 * SMALL + 1)), (Ok(()), TOO_MANY), "what is refused takes nothing");
        assert_eq!((held(&budget), budget.check(ONE, 2 * SMALL + 1)), ((2 * SMALL, 1), TOO_MANY));
        assert_eq!((second.grow(2 * SMALL), of_other.grow(4 * SMALL)), (Ok(()), Ok(())), "to the last byte");
        assert_eq!((budget.check(ONE, SMALL + 1), first.grow(2 * SMALL + 1)), (TOO_MANY, TOO_MANY));
        drop(first);
        assert_eq!((held(&budget), budget.check(ONE, 2 * SMALL)), ((6 * SMALL, 2), Ok(())), "and again what was given back");
        drop(second);
        assert_eq!(held(&budget), (4 * SMALL, 1), "who holds nothing is not known any more");
    }

    /// It breaks off with an error, it is given up, or it is read and dropped.
    #[tokio::test]
    async fn whichever_way_a_body_ends_its_share_is_given_back() {
        let budget = BodyBudget::new(16 * SMALL, 4 * SMALL);
        let chunk = || Ok(Bytes::from(vec![b' '; 2 * SMALL]));
        let none = HeaderMap::new();
        let broken = Body::from_stream(stream::iter([chunk(), Err(std::io::Error::other("cut"))]));
        assert!(matches!(budget.read(ONE, &none, broken).await, Err(ApiError::Unreadable(_))));
        assert_eq!(held(&budget), (0, 0));
        let too_much = Body::from_stream(stream::iter([chunk(), chunk(), chunk()]));
        assert_eq!(budget.read(ONE, &none, too_much).await.map(drop), TOO_MANY);
        assert_eq!(held(&budget), (0, 0));
        let endless = Body::from_stream(stream::iter([chunk()]).chain(stream::pending()));
        let mut reading = Box::pin(budget.read(ONE, &none, endless));
        assert!(poll!(reading.as_mut()).is_pending());
        assert_eq!(held(&budget), (2 * SMALL, 1), "what has come is held");
        drop(reading);
        assert_eq!(held(&budget), (0, 0));
        let whole = budget.read(ONE, &none, Body::from_stream(stream::iter([chunk()]))).await.expect("there is room");
        assert_eq!((whole.bytes.len(), held(&budget)), (2 * SMALL, (2 * SMALL, 1)));
        drop(whole);
        assert_eq!(held(&budget), (0, 0));
    }
}
