//! Writes the copy in Redis anew whenever what an organization may do has changed.

use std::time::Duration;

use anyhow::Context;
use chassis::idempotency;
use chassis::outbox::{self, Relay};
use chassis::postgres::keep_running;
use chassis::streams::{Consumer, HandleError, Handler, Message};
use chrono::TimeDelta;
use contracts::entitlements::{BILLING_STREAM, EntitlementsChanged};
use identity::OrganizationId;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{copy, read};
use crate::error::Error;
use crate::state::AppState;

/// The consumer group that writes copies.
pub const GROUP: &str = "entitlements";
const PAGE: i64 = 1000;
const HOUSEKEEPING: Duration = Duration::from_hours(1);
/// How long what was published, and what was answered, is kept.
const KEEP: TimeDelta = TimeDelta::days(30);

/// Publishes this service's facts.
#[must_use]
pub fn relay(state: &AppState) -> Relay {
    Relay::new(state.pool.clone(), state.redis.clone(), BILLING_STREAM, state.clock.clone())
}

/// Forgets facts that were published, and answers that were recorded, a month ago [B-12].
pub async fn housekeeping(state: &AppState, stop: &CancellationToken) {
    keep_running("housekeeping", stop, HOUSEKEEPING, || async {
        let before = state.clock.now() - KEEP;
        outbox::prune(&state.pool, before).await?;
        idempotency::prune(&state.pool, before).await?;
        Ok(())
    })
    .await;
}

/// This replica as a writer of copies. Others follow the stream too: what is handled here stays on it.
#[must_use]
pub fn consumer(state: &AppState) -> Consumer {
    Consumer { delete_acknowledged: false, ..state.consumer(BILLING_STREAM, GROUP) }
}

/// Writes copies. Doing it twice is as good as once.
#[derive(Debug, Clone)]
pub struct Copies(pub AppState);

impl Handler for Copies {
    async fn handle(&self, batch: &[Message]) -> Result<(), HandleError> {
        for message in batch.iter().filter(|message| message.field("kind") == EntitlementsChanged::KIND) {
            let changed = serde_json::from_str(message.field("payload")).context("not a change of entitlements");
            let changed: EntitlementsChanged = changed.map_err(HandleError::Rejected)?;
            let done = match changed.organization_id {
                Some(organization) => self.write(organization).await,
                None => self.drop_all().await,
            };
            done.map_err(HandleError::Unavailable)?;
        }
        Ok(())
    }
}

impl Copies {
    async fn write(&self, organization: OrganizationId) -> anyhow::Result<()> {
        let mut connection = self.0.pool.acquire().await?;
        let entitlements = read(&mut connection, organization).await.map_err(|error: Error| anyhow::anyhow!(error.chain()))?;
        copy::write(&self.0.redis, &entitlements).await?;
        Ok(())
    }

    /// Everybody's copy is old; each is written again when it is asked for.
    async fn drop_all(&self) -> anyhow::Result<()> {
        let mut after = Uuid::nil();
        loop {
            let page = sqlx::query_scalar!(
                "select organization_id from wallets where organization_id > $1 order by organization_id limit $2",
                after,
                PAGE
            )
            .fetch_all(&self.0.pool)
            .await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = *last;
            let organizations: Vec<OrganizationId> = page.into_iter().map(OrganizationId::from_uuid).collect();
            copy::drop_all(&self.0.redis, &organizations).await?;
        }
    }
}
