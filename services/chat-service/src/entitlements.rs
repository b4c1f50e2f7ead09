//! What organizations may do, kept here: a request is judged without asking anybody.
//!
//! billing-service is asked when nothing is known of an organization, by one request at a time for all that wait. A copy is dropped when
//! billing-service says that it has changed; besides, it is read again in passing once in a while, and an old one is none. What
//! cannot be known is refused: there is no default.

mod copies;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chassis::Clock;
use chassis::redis::Redis;
use chassis::streams::{Contact, Message, tail};
use contracts::entitlements::{BILLING_STREAM, Entitlements, EntitlementsChanged, EntitlementsClient};
use futures::FutureExt;
use identity::OrganizationId;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::config::EntitlementsConfig;
use crate::error::ApiError;
use crate::meters;
use copies::{Copies, Look, Waiting};

/// What organizations may do; cheap to clone.
#[derive(Debug, Clone)]
pub struct EntitlementCache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    copies: Mutex<Copies>,
    client: EntitlementsClient,
    clock: Clock,
    tasks: TaskTracker,
}

impl EntitlementCache {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(config: &EntitlementsConfig, client: EntitlementsClient, clock: Clock, tasks: TaskTracker) -> Self {
        Self(Arc::new(Inner { copies: Mutex::new(Copies::new(config)), client, clock, tasks }))
    }

    /// What the organization may do.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when it cannot be known.
    pub async fn get(&self, organization: OrganizationId) -> Result<Arc<Entitlements>, ApiError> {
        let waiting = {
            let mut copies = self.copies();
            match copies.look(organization, self.0.clock.now()) {
                Look::Use(copy) => return Ok(copy),
                Look::UseAndAsk(copy) => {
                    // Nobody waits for it here.
                    drop(self.ask(&mut copies, organization));
                    return Ok(copy);
                }
                Look::Wait(waiting) => waiting,
                Look::Ask => self.ask(&mut copies, organization),
            }
        };
        waiting.await.ok().flatten().ok_or(ApiError::Unavailable("the organization's plan"))
    }

    /// Asks billing-service, in a task of its own: others wait for the answer too.
    fn ask(&self, copies: &mut Copies, organization: OrganizationId) -> Waiting {
        let (answer, waiting) = oneshot::channel();
        let waiting = waiting.shared();
        let asked_at = self.0.clock.now();
        let question = copies.begin(organization, waiting.clone(), asked_at);
        let cache = self.clone();
        let asking = async move {
            let answered = cache.0.client.get(organization).await;
            meters::entitlements_read(answered.is_ok());
            let known = cache.copies().end(organization, question, answered.ok(), asked_at);
            // Those who waited may have left.
            drop(answer.send(known));
        };
        let span = tracing::info_span!("entitlements", otel.kind = "client");
        self.0.tasks.spawn(asking.instrument(span));
        waiting
    }

    /// Hears of changes until the token is cancelled, beginning with those that the oldest copy may have missed.
    pub async fn watch(&self, redis: &Redis, stop: &CancellationToken) {
        let oldest = self.copies().oldest();
        tail(redis, BILLING_STREAM, oldest, &Contact::default(), stop, |message| self.hear(&message)).await;
    }

    fn hear(&self, message: &Message) {
        if message.field("kind") != EntitlementsChanged::KIND {
            return;
        }
        match serde_json::from_str::<EntitlementsChanged>(message.field("payload")) {
            Ok(changed) => self.copies().changed(changed.organization_id),
            Err(error) => {
                // Somebody's changed: nobody's can be relied on.
                tracing::warn!(error.message = %error, "a change of entitlements cannot be read");
                self.copies().changed(None);
            }
        }
    }

    fn copies(&self) -> MutexGuard<'_, Copies> {
        self.0.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
