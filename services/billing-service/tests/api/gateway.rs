//! What chat-service does to billing-service, done by a test: reservations and their ends, requests in flight, leases, usage events.

use admission::{Admission, End, Note, Settlement, Verdict};
use contracts::leases::{LeaseRequest, SeenLease};
use contracts::usage::{CountedBy, FIELD, Outcome, TAKEN, UsageEvent};
use contracts::{LeaseId, RequestId, Shard};
use identity::OrganizationId;
use money::TokenUsage;
use serde_json::{Value, json};
use testkit::http::Answer;

use super::app::App;

/// What is taken for each request of [`App::used`].
pub const RESERVED: i64 = 1500;

impl App {
    pub fn request(&self) -> RequestId {
        RequestId::new(&self.clock, &self.random)
    }

    /// The body of a reservation of `sim-large`: input costs 3 micro-units a token, output 12.
    pub fn reservation(&self, organization: OrganizationId, request: RequestId, input: u64, output: u64) -> Value {
        let expires_at = self.clock.now() + chrono::TimeDelta::minutes(10);
        json!({"request_id": request, "organization_id": organization, "api_key_id": null, "user_id": null, "model": "sim-large",
               "provider": "simulator", "max_input_tokens": input, "max_output_tokens": output, "audio": false, "expires_at": expires_at})
    }

    pub async fn reserve(&self, body: &Value) -> Answer {
        self.private.post("/internal/v1/reservations", body).await
    }

    /// A hold for a request of `sim-large`; its id.
    pub async fn hold(&self, organization: OrganizationId, input: u64, output: u64) -> String {
        self.reserve(&self.reservation(organization, self.request(), input, output)).await.expect(201).string("id")
    }

    /// The body of a settlement.
    pub fn usage(&self, input: u64, output: u64) -> Value {
        json!({"usage": {"input_tokens": input, "output_tokens": output}, "counted_by": "reported", "outcome": "completed",
               "started_at": self.clock.now(), "ended_at": self.clock.now()})
    }

    pub async fn settle(&self, reservation: &str, usage: &Value) -> Answer {
        self.private.post(&format!("/internal/v1/reservations/{reservation}/settle"), usage).await
    }

    pub async fn void(&self, reservation: &str) -> Answer {
        self.private.post(&format!("/internal/v1/reservations/{reservation}/void"), &json!({"reason": "test"})).await
    }

    /// A request of `sim-large` in flight, for which 1500 micro-units were taken from the lease, and the event that says ten tokens in
    /// and ten out were used (150).
    pub async fn used(&self, organization: OrganizationId) -> UsageEvent {
        self.used_of(organization, "sim-large").await
    }

    /// The same of another model.
    pub async fn used_of(&self, organization: OrganizationId, model: &str) -> UsageEvent {
        let mut event = self.wanted(organization, model).await;
        event.lease_id = self.admit(&event).await.expect("the wallet reaches");
        event.usage = TokenUsage::text(10, 10);
        event
    }

    /// A request that was not admitted yet, for which 1500 micro-units are to be taken.
    pub async fn wanted(&self, organization: OrganizationId, model: &str) -> UsageEvent {
        let card = sqlx::query_scalar("select id from rate_cards where model = $1").bind(model);
        self.wanted_by(organization, model, card.fetch_one(&self.database.owner).await.unwrap())
    }

    /// The same by a rate card that is known.
    pub fn wanted_by(&self, organization: OrganizationId, model: &str, rate_card_id: i64) -> UsageEvent {
        UsageEvent {
            request_id: self.request(),
            lease_id: LeaseId::from_uuid(uuid::Uuid::nil()),
            reserved_micros: RESERVED,
            rate_card_id,
            organization_id: organization,
            api_key_id: None,
            user_id: None,
            model: model.into(),
            provider: "simulator".into(),
            usage: TokenUsage::default(),
            counted_by: CountedBy::Reported,
            outcome: Outcome::Completed,
            started_at: self.clock.now(),
            ended_at: self.clock.now(),
            tags: [].into(),
        }
    }

    /// Admits a request as chat-service does, until it is in flight (its lease) or the wallet does not reach.
    pub async fn admit(&self, event: &UsageEvent) -> Option<LeaseId> {
        let note = Note { event: event.clone(), counted: Vec::new(), traceparent: None };
        let admission = Admission {
            request_id: event.request_id,
            organization_id: event.organization_id,
            cost_micros: event.reserved_micros,
            now: self.clock.now(),
            deadline: self.clock.now() + chrono::TimeDelta::minutes(5),
            limits: &[],
            note: &note,
        };
        loop {
            let request = match self.admissions.admit(&admission).await.unwrap() {
                Verdict::Admitted { lease, .. } => return Some(lease.lease_id),
                Verdict::Short { all, model } => admission.short(all, model),
                refused => panic!("{refused:?}"),
            };
            match self.ask(&request).await {
                refused if refused.status == 402 => return None,
                answer => answer.expect(200),
            };
        }
    }

    /// Settles a request in Redis, as a gateway does at its end, at a price: what it took of its lease, which is all that was reserved where that
    /// one has ended.
    pub async fn settled(&self, event: &UsageEvent, price_micros: i64) -> i64 {
        let settlement = Settlement { event, price_micros, end: End::Used, counted: &[], traceparent: None };
        self.admissions.settle(&settlement).await.unwrap().taken_micros
    }

    /// Asks for a lease.
    pub async fn lease(&self, organization_id: OrganizationId, needed_micros: i64, seen: Option<SeenLease>) -> Answer {
        self.ask(&LeaseRequest { organization_id, needed_micros, seen, model: None }).await
    }

    async fn ask(&self, request: &LeaseRequest) -> Answer {
        self.gateway.post("/internal/v1/leases", &serde_json::to_value(request).unwrap()).await
    }

    /// Appends an event to the stream of its organization, as the settling script does when the lease took nothing back.
    pub async fn publish(&self, organization: OrganizationId, event: &str) {
        let fields = [(FIELD, event), (TAKEN, "1500")];
        chassis::streams::publish(&self.redis.redis, &Shard::of(organization).usage_stream(), &fields, None).await.unwrap();
    }
}
