//! What a stream has used so far, noted once in a while: when this process dies, that much is charged.
//!
//! Between two notes there is never more than one pause and what a note takes, as long as Redis answers: counting does not wait for the
//! table of the tokenizer, what Redis did not take is tried again at once, and one that is late puts off the next only until it is through.

use std::time::Duration;

use admission::Admissions;
use contracts::RequestId;
use identity::OrganizationId;
use llm::Tally;
use money::TokenUsage;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::Prompt;

/// Until Redis is asked again that did not take a note, and until a note that is late is looked at again.
const AGAIN: Duration = Duration::from_millis(100);

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

    /// Counts and notes, beside the stream; not while the one before is still under way, but soon after.
    pub fn note(&mut self, tally: &Tally) {
        let is_late = self.under_way.as_ref().is_some_and(|before| !before.is_finished());
        self.next = Instant::now() + if is_late { self.every.min(AGAIN) } else { self.every };
        if is_late {
            return;
        }
        let (tally, prompt, admissions) = (tally.clone(), self.prompt.clone(), self.admissions.clone());
        let (organization, request, every, priced) = (self.organization, self.request, self.every, self.prompt.clone());
        self.under_way = Some(tokio::spawn(async move {
            let counting = tokio::task::spawn_blocking(move || tally.reported().unwrap_or_else(|| prompt.count_so_far(&tally)));
            let Ok(usage) = counting.await.map(|usage| priced.priced(usage)) else { return };
            chassis::step!("checkpoint.counted");
            if keep(&admissions, organization, request, &usage, every).await {
                chassis::step!("checkpoint.noted");
            }
        }));
    }
}

/// Notes it, again while Redis does not take it, until it is time for a newer one; whether it was taken.
async fn keep(admissions: &Admissions, organization: OrganizationId, request: RequestId, usage: &TokenUsage, every: Duration) -> bool {
    let began = Instant::now();
    while let Err(error) = admissions.checkpoint(organization, request, usage).await {
        tracing::debug!(error.message = error.category(), "a checkpoint was not noted");
        if began.elapsed() >= every {
            return false;
        }
        sleep(every.min(AGAIN)).await;
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use contracts::Shard;
    use llm::{Allowances, ChatRequest};
    use testkit::{TestRedis, eventually};

    use super::*;

    /// No second checkpoint is due within a test.
    const NEVER: Duration = Duration::from_hours(1);
    const ALLOWANCES: Allowances = Allowances { context_window: 1000, max_output_tokens: 100, image_tokens: 0 };

    async fn checkpoints(redis: &TestRedis) -> (Checkpoints, String) {
        let (clock, random) = (testkit::clock().0, chassis::Random::seeded(1));
        let (organization, request) = (OrganizationId::new(&clock, &random), RequestId::new(&clock, &random));
        let body = br#"{"model":"sim-small","messages":[{"role":"user","content":"hello"}],"stream":true}"#;
        let prompt = Prompt::new(Arc::new(ChatRequest::parse(body).unwrap()), ALLOWANCES);
        let flight = Shard::of(organization).key(&format!("flight:{request}"));
        let () = redis::cmd("HSET").arg(&flight).arg("note").arg("{}").query_async(&mut redis.redis.connection()).await.unwrap();
        (Checkpoints::new(Admissions::new(redis.redis.clone()), organization, request, prompt, NEVER), flight)
    }

    async fn noted(redis: &TestRedis, flight: &str) -> Option<String> {
        redis::cmd("HGET").arg(flight).arg("checkpoint").query_async(&mut redis.redis.connection()).await.ok().flatten()
    }

    /// [B-58] The bound of what a killed process leaves uncharged holds also when Redis was away for a moment.
    #[tokio::test]
    async fn a_checkpoint_that_redis_did_not_take_is_taken_when_it_is_back_and_not_only_when_the_next_is_due() {
        let mut redis = TestRedis::start().await;
        let (checkpoints, flight) = checkpoints(&redis).await;
        let (admissions, usage) = (checkpoints.admissions.clone(), TokenUsage::text(9, 2));
        let keep = |every| keep(&admissions, checkpoints.organization, checkpoints.request, &usage, every);
        redis.kill();
        assert!(!keep(Duration::ZERO).await, "the next one is due");
        let (taken, restarted) = tokio::join!(keep(NEVER), redis.restart());
        restarted.unwrap();
        assert!(taken && noted(&redis, &flight).await.is_some());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_checkpoint_that_is_late_puts_off_the_next_one_only_until_it_is_through() {
        let redis = TestRedis::start().await;
        let (mut checkpoints, flight) = checkpoints(&redis).await;
        redis.pause();
        checkpoints.note(&Tally::new(1000));
        checkpoints.note(&Tally::new(1000));
        assert!(checkpoints.next() < Instant::now() + NEVER / 2, "it is looked at again soon");
        redis.resume();
        eventually("the checkpoint", || noted(&redis, &flight)).await;
        eventually("the next one", || {
            checkpoints.note(&Tally::new(1000));
            let is_begun = checkpoints.next() > Instant::now() + NEVER / 2;
            async move { is_begun.then_some(()) }
        })
        .await;
    }
}
