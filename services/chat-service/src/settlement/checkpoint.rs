//! What a stream has used so far, noted once in a while: when this process dies, that much is charged.

use std::time::Duration;

use admission::Admissions;
use contracts::RequestId;
use identity::OrganizationId;
use llm::Tally;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Prompt;

/// Keeps count of one stream.
#[derive(Debug)]
pub struct Checkpoints {
    admissions: Admissions,
    organization: OrganizationId,
    request: RequestId,
    prompt: Prompt,
    every: Duration,
    next: Instant,
    under_way: Option<JoinHandle<()>>,
}

impl Checkpoints {
    pub(super) fn new(admissions: Admissions, organization: OrganizationId, request: RequestId, prompt: Prompt, every: Duration) -> Self {
        Self { admissions, organization, request, prompt, every, next: Instant::now() + every, under_way: None }
    }

    /// When the next one is due.
    #[must_use]
    pub const fn next(&self) -> Instant {
        self.next
    }

    /// Counts and notes, beside the stream; not while the one before is still under way.
    pub fn note(&mut self, tally: &Tally) {
        self.next = Instant::now() + self.every;
        if self.under_way.as_ref().is_some_and(|before| !before.is_finished()) {
            return;
        }
        let (tally, prompt, admissions) = (tally.clone(), self.prompt.clone(), self.admissions.clone());
        let (organization, request) = (self.organization, self.request);
        self.under_way = Some(tokio::spawn(async move {
            let counting = tokio::task::spawn_blocking(move || tally.reported().unwrap_or_else(|| prompt.count(&tally).0));
            let Ok(usage) = counting.await else { return };
            chassis::step!("checkpoint.counted");
            if let Err(error) = admissions.checkpoint(organization, request, &usage).await {
                tracing::debug!(error.message = error.category(), "a checkpoint was not noted");
                return;
            }
            chassis::step!("checkpoint.noted");
        }));
    }
}
