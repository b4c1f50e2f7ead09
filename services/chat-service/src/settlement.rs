//! What a completion used is handed over exactly once, whichever way it ends.
//!
//! A place in a bounded queue is taken before the provider is called, so handing over can neither wait nor fail: it happens in
//! a [`Guard`]'s drop at the latest. A writer settles in Redis, which returns to the lease what was not used and appends the usage for
//! billing-service. It keeps what Redis does not take, and what Redis has not on its disk yet; when the process must end without Redis,
//! billing-service is told directly.

mod checkpoint;
mod guard;
mod writer;

use std::time::{Duration, Instant};

use admission::{Admissions, Counted, End, REMEMBERED};
use contracts::usage::UsageEvent;
use money::Schedule;
use tokio::sync::mpsc;

use crate::config::Durability;
use crate::error::ApiError;
use crate::meters;

pub use checkpoint::Checkpoints;
pub use guard::{Guard, Prompt};
pub use writer::Writer;

/// What is known about a completion before it begins.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its usage event, with nothing used yet.
    pub event: UsageEvent,
    /// What it is priced by.
    pub price: Schedule,
    /// What it was counted for.
    pub counted: Vec<Counted>,
}

/// A settlement on its way.
#[derive(Debug)]
pub struct Record {
    /// What was used.
    pub event: UsageEvent,
    /// What that costs, in micro-units.
    pub price: i64,
    /// What it was counted for.
    pub counted: Vec<Counted>,
    /// Whether there is anything to record.
    pub end: End,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
    /// When it was first told to Redis, if it was.
    pub first_told: Option<Instant>,
    /// Whether it is out of our hands.
    pub taken: bool,
}

impl Record {
    /// A call that was not made, and for which money may have been taken all the same.
    #[must_use]
    pub fn not_made(known: Known) -> Self {
        meters::admitted();
        meters::settled(&known.event);
        Self { event: known.event, price: 0, counted: known.counted, end: End::NotMade, traceparent: None, first_told: None, taken: false }
    }
}

/// How long an answer of Redis may be under way.
const UNDER_WAY: Duration = Duration::from_secs(10);

impl Record {
    /// What to tell Redis now: who tried for long may be telling what Redis knew and has forgotten.
    fn tell(&mut self, now: Instant) -> End {
        let first = *self.first_told.get_or_insert(now);
        let is_forgotten = now.saturating_duration_since(first) >= REMEMBERED.saturating_sub(UNDER_WAY);
        if self.end == End::Used && is_forgotten { End::UsedAgain } else { self.end }
    }
}

/// A place in the queue.
pub type Slot = mpsc::OwnedPermit<Record>;

/// Gives places in the queue; cheap to clone.
#[derive(Debug, Clone)]
pub struct Settlements(mpsc::Sender<Record>);

impl Settlements {
    /// A queue of this many places, and its writer.
    #[must_use]
    pub fn new(places: usize, admissions: Admissions, durability: Durability) -> (Self, Writer) {
        let (sender, receiver) = mpsc::channel(places.max(1));
        (Self(sender), Writer::new(receiver, admissions, durability))
    }

    /// Takes a place for a completion that is about to begin.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when there is none: what could not be settled must not be begun.
    pub fn take_place(&self) -> Result<Slot, ApiError> {
        let place = self.0.clone().try_reserve_owned().map_err(|_| ApiError::Unavailable("a place for the settlement"))?;
        meters::queue(self.0.max_capacity() - self.0.capacity());
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use chassis::http::Client;
    use chassis::redis::{Redis, RedisConfig};
    use chassis::{Clock, Random};
    use contracts::billing::BillingClient;
    use contracts::usage::{CountedBy, Outcome};
    use contracts::{LeaseId, RequestId};
    use identity::jwt::SigningKey;
    use identity::{OrganizationId, ServiceTokens};
    use llm::{Allowances, ChatRequest, Tally};
    use money::{Rates, TokenUsage};
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn queue(places: usize) -> (Settlements, Writer) {
        let config = RedisConfig {
            url: "redis://127.0.0.1:1/0".into(),
            password: None,
            timeout: chassis::config::Millis(std::time::Duration::ZERO),
        };
        Settlements::new(places, Admissions::new(Redis::connect(&config).expect("a URL")), Durability::Memory)
    }

    fn guard(settlements: &Settlements) -> Guard {
        let (clock, random) = (Clock::system(), Random::seeded(1));
        let event = UsageEvent {
            request_id: RequestId::new(&clock, &random),
            lease_id: LeaseId::new(&clock, &random),
            reserved_micros: 1000,
            rate_card_id: 1,
            organization_id: OrganizationId::new(&clock, &random),
            api_key_id: None,
            user_id: None,
            model: "m".into(),
            provider: "p".into(),
            usage: TokenUsage::default(),
            counted_by: CountedBy::Counted,
            outcome: Outcome::Failed,
            started_at: clock.now(),
            ended_at: clock.now(),
            tags: [].into(),
        };
        let request = ChatRequest::parse(br#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#).expect("a request");
        let slot = settlements.take_place().expect("a place");
        let allowances = Allowances { context_window: 1000, max_output_tokens: 100, image_tokens: 100 };
        let price = Rates {
            input: 1_000_000,
            cached_input: 0,
            cache_write: 0,
            cache_write_1h: None,
            output: 2_000_000,
            reasoning: 0,
            audio_input: None,
            audio_output: None,
            image: None,
            request: 0,
        };
        let known = Known { event, price: price.into(), counted: Vec::new() };
        Guard::new(slot, known, Tally::new(1000), Prompt::new(Arc::new(request), allowances), clock, tracing::Span::none())
    }

    fn written(writer: &mut Writer) -> UsageEvent {
        let record = writer.queue.try_recv().expect("a settlement");
        assert!(writer.queue.try_recv().is_err(), "there is only one");
        record.event
    }

    /// [trap 2] Also a panic, or a runtime that stops, leaves a settlement behind.
    #[tokio::test]
    async fn a_guard_that_is_dropped_settles_with_what_is_known() {
        let (settlements, mut writer) = queue(1);
        drop(guard(&settlements));
        let event = written(&mut writer);
        assert_eq!((event.usage, event.outcome), (TokenUsage::default(), Outcome::Failed), "nothing had begun");

        let mut begun = guard(&settlements);
        begun.begun = true;
        begun.tally.event(br#"{"choices":[{"index":0,"delta":{"content":"hello world"}}]}"#);
        let panicked = tokio::spawn(async move {
            let _guard = begun;
            panic!("on purpose");
        });
        assert!(panicked.await.is_err_and(|error| error.is_panic()));
        let event = written(&mut writer);
        assert_eq!((event.usage.output_tokens, event.counted_by, event.outcome), (3, CountedBy::Estimated, Outcome::Shutdown));
    }

    /// [B-43] It is what is charged when a process is killed, and the provider's report may say less than any guess.
    #[test]
    fn a_checkpoint_counts_the_text_of_a_prompt_and_no_file_or_image() {
        let parts = r#"{"type":"text","text":"hello"},{"type":"file","file":{"file_data":"aaaa"}},{"type":"image_url","image_url":{"url":"https://x/y"}}"#;
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":[{parts}]}}]}}"#);
        let request = Arc::new(ChatRequest::parse(body.as_bytes()).expect("a request"));
        let allowances = Allowances { context_window: 1000, max_output_tokens: 100, image_tokens: 100 };
        let noted = Prompt::new(request, allowances).count_so_far(&Tally::new(1000));
        assert!((7..=8).contains(&noted.input_tokens), "{noted:?}");
    }

    /// billing-service, away.
    fn billing() -> BillingClient {
        let key = ring::signature::Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).expect("a key");
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(key.as_ref()));
        let client = Client::new("http://127.0.0.1:1", Duration::from_secs(1)).expect("a client");
        let key = SigningKey::from_pem("test", &pem).expect("a key");
        let tokens = ServiceTokens::new("test", "http://auth.test", key, client.clone(), Clock::system(), Random::system());
        BillingClient::new(client, tokens)
    }

    /// [trap 14]
    #[tokio::test]
    async fn lost_is_what_neither_redis_nor_billing_took_before_the_end() {
        let (settlements, mut writer) = queue(3);
        writer.last_tries = Duration::from_millis(100);
        let (stop, in_flight) = (CancellationToken::new(), guard(&settlements));
        guard(&settlements).release(Outcome::Failed);
        stop.cancel();
        assert_eq!(writer.run(&billing(), &stop).await, 2, "one that waits and one that never ended");
        drop(in_flight);
    }

    #[tokio::test]
    async fn who_tries_longer_than_redis_remembers_says_so() {
        let (settlements, mut writer) = queue(1);
        guard(&settlements).release(Outcome::Completed);
        let mut record = writer.queue.try_recv().expect("a settlement");
        let first = Instant::now();
        let told = [0, 200, 290, 300].map(|seconds| record.tell(first + Duration::from_secs(seconds)));
        assert_eq!(told, [End::Used, End::Used, End::UsedAgain, End::UsedAgain]);
        record.end = End::NotMade;
        assert_eq!(record.tell(first + Duration::from_mins(5)), End::NotMade);
    }

    /// [trap 14]
    #[tokio::test]
    async fn a_place_is_free_again_only_when_its_settlement_was_taken() {
        let (settlements, mut writer) = queue(1);
        let first = guard(&settlements);
        assert!(settlements.take_place().is_err());
        first.release(Outcome::Failed);
        assert!(settlements.take_place().is_err(), "the settlement waits in the queue");
        written(&mut writer);
        assert!(settlements.take_place().is_ok());
    }
}
