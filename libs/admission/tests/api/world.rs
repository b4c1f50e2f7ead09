//! One organization with a lease on a Redis of its own.

use admission::{Admission, Admissions, Counted, End, Funded, Funding, Instance, Limit, Note, Settlement, Verdict};
use chassis::{Clock, Random};
use contracts::usage::{CountedBy, FIELD, Outcome, UsageEvent};
use contracts::{LeaseId, RequestId, Shard};
use identity::OrganizationId;
use money::TokenUsage;
use testkit::TestRedis;

pub struct World {
    pub redis: TestRedis,
    pub admissions: Admissions,
    pub organization: OrganizationId,
    pub lease: LeaseId,
    pub instance: Instance,
    pub clock: Clock,
    pub random: Random,
}

impl World {
    /// With so much in its lease.
    pub async fn with(funded: i64) -> Self {
        let (clock, random, redis) = (Clock::system(), Random::system(), TestRedis::start().await);
        let admissions = Admissions::new(redis.redis.clone());
        let organization = OrganizationId::new(&clock, &random);
        let instance = admissions.instance(Shard::of(organization), "first").await.expect("Redis");
        let world = Self { admissions, organization, lease: LeaseId::new(&clock, &random), instance, redis, clock, random };
        assert_eq!(world.fund(world.lease, 1, funded, true).await, Funded::Yes);
        world
    }

    pub async fn fund(&self, lease: LeaseId, epoch: i64, funded: i64, is_new: bool) -> Funded {
        self.fund_of(None, lease, epoch, funded, is_new).await
    }

    /// The lease for one model, or for all.
    pub async fn fund_of(&self, model: Option<&str>, lease: LeaseId, epoch: i64, funded: i64, is_new: bool) -> Funded {
        let funding = Funding {
            organization_id: self.organization,
            model,
            lease_id: lease,
            epoch,
            funded_micros: funded,
            low_micros: funded / 4,
            until: self.clock.now() + chrono::TimeDelta::minutes(1),
            instance: &self.instance,
            is_new,
        };
        self.admissions.fund(&funding).await.expect("Redis")
    }

    pub fn event(&self, reserved: i64) -> UsageEvent {
        UsageEvent {
            request_id: RequestId::new(&self.clock, &self.random),
            lease_id: self.lease,
            reserved_micros: reserved,
            rate_card_id: 1,
            organization_id: self.organization,
            api_key_id: None,
            user_id: None,
            model: "m".into(),
            provider: "p".into(),
            usage: TokenUsage::text(10, 5),
            counted_by: CountedBy::Reported,
            outcome: Outcome::Completed,
            started_at: self.clock.now(),
            ended_at: self.clock.now(),
            tags: [].into(),
        }
    }

    pub async fn admit(&self, event: &UsageEvent, limits: &[Limit]) -> Verdict {
        let counted: Vec<Counted> = limits.iter().filter_map(Limit::counted).collect();
        let note = Note { event: event.clone(), counted, traceparent: None };
        let admission = Admission {
            request_id: event.request_id,
            organization_id: event.organization_id,
            cost_micros: event.reserved_micros,
            now: self.clock.now(),
            deadline: self.clock.now() + chrono::TimeDelta::minutes(5),
            limits,
            note: &note,
        };
        self.admissions.admit(&admission).await.expect("Redis")
    }

    /// A request in flight.
    pub async fn begin(&self, reserved: i64) -> UsageEvent {
        let event = self.event(reserved);
        assert!(matches!(self.admit(&event, &[]).await, Verdict::Admitted { .. }));
        event
    }

    pub async fn settle(&self, event: &UsageEvent, price: i64) -> i64 {
        self.end(event, price, End::Used, &[]).await
    }

    pub async fn end(&self, event: &UsageEvent, price: i64, end: End, counted: &[Counted]) -> i64 {
        let settlement = Settlement { event, price_micros: price, end, counted, traceparent: Some("00-trace") };
        self.admissions.settle(&settlement).await.expect("Redis").taken_micros
    }

    pub async fn remaining(&self) -> i64 {
        self.admissions.remaining(self.organization, None).await.expect("Redis").expect("a lease").1
    }

    pub async fn in_flight(&self) -> u64 {
        self.admissions.in_flight(Shard::of(self.organization)).await.expect("Redis")
    }

    /// What was appended: each request, and what it took.
    pub async fn appended(&self) -> Vec<(RequestId, i64)> {
        let stream = Shard::of(self.organization).usage_stream();
        let mut connection = self.redis.redis.connection();
        let entries: redis::streams::StreamRangeReply =
            redis::cmd("XRANGE").arg(stream).arg("-").arg("+").query_async(&mut connection).await.expect("Redis");
        let entry = |entry: &redis::streams::StreamId| {
            let event: UsageEvent = serde_json::from_str(&entry.get::<String>(FIELD).expect("an event")).expect("JSON");
            (event.request_id, entry.get(contracts::usage::TAKEN).expect("an amount"))
        };
        entries.ids.iter().map(entry).collect()
    }
}
