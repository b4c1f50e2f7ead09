//! What is measured, in which unit, and from where on somebody has to look.

use metrics::Unit;

/// From where on a value needs somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Never: it says how things are.
    None,
    /// Above this.
    Above(i64),
    /// Below this.
    Below(i64),
}

/// What is read by itself: where one part cannot be read, the others are known all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Rows of Postgres.
    Postgres,
    /// What is left of leases: which there are is in Postgres, and how much in Redis.
    Leases,
    /// Streams and flights in Redis.
    Streams,
    /// The memory of Redis.
    Memory,
    /// The clock of this machine beside that of Postgres.
    Clock,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 5] = [Self::Postgres, Self::Leases, Self::Streams, Self::Memory, Self::Clock];

    /// Its name, for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "Postgres",
            Self::Leases => "leases",
            Self::Streams => "streams",
            Self::Memory => "memory of Redis",
            Self::Clock => "clock",
        }
    }
}

/// Something that is measured.
#[derive(Debug, Clone, Copy)]
pub struct Gauge {
    /// Its name on `/metrics` and of its entry in the runbook.
    pub name: &'static str,
    /// Its unit. Money is in micro-units, as everywhere.
    pub unit: Unit,
    /// What its values are kept apart by, if by anything.
    pub label: Option<&'static str>,
    /// What it is read with.
    pub part: Part,
    /// What it is.
    pub help: &'static str,
    /// From where on somebody has to look.
    pub limit: Limit,
}

macro_rules! gauges {
    ($($name:literal [$unit:ident $($label:literal)? $(in $part:ident)?] $limit:expr, $help:literal;)*) => {
        /// Everything that is measured, in the order in which it is shown.
        pub const GAUGES: &[Gauge] = &[$(Gauge {
            name: $name,
            unit: Unit::$unit,
            label: gauges!(@label $($label)?),
            part: gauges!(@part $($part)?),
            help: $help,
            limit: $limit,
        }),*];
    };
    (@label) => { None };
    (@label $label:literal) => { Some($label) };
    // Most are in Postgres.
    (@part) => { Part::Postgres };
    (@part $part:ident) => { Part::$part };
}

gauges! {
    "billing_flights" [Count in Streams] Limit::None, "Requests in flight that have taken from a lease.";
    "billing_leases" [Count "state"] Limit::None, "Leases that are not closed.";
    "billing_lease_held_micros" [Count "currency"] Limit::None, "Micro-units that leases hold in the ledger.";
    "billing_lease_remaining_micros" [Count "currency" in Leases] Limit::None, "Micro-units that open leases have left in Redis: what can be admitted without asking for more.";
    "billing_lease_overdue_seconds" [Seconds] Limit::Above(300), "Since the longest overdue lease should have ended.";
    "billing_reservation_overdue_seconds" [Seconds] Limit::Above(300), "Since the longest overdue single hold should have ended.";
    "billing_settle_lag_seconds" [Seconds in Streams] Limit::Above(30), "Age of the oldest usage event that is not posted.";
    "stream_lag_messages" [Count "stream" in Streams] Limit::Above(3_000), "Entries of a usage stream that are not posted.";
    "stream_set_aside_messages" [Count "stream" in Streams] Limit::Above(0), "Entries that were rejected too often and wait for an operator.";
    "redis_memory_used_percent" [Percent in Memory] Limit::Above(70), "Of the memory that Redis may have (maxmemory), how much it uses; none where it may have any.";
    "billing_clock_difference_seconds" [Seconds in Clock] Limit::Above(5), "By how much at least the clock of this machine is ahead of that of Postgres, or behind it.";
    "billing_rollup_deltas" [Count "of"] Limit::Above(500_000), "Changes that are not in the rollups yet; they are counted all the same.";
    "billing_meter_incomplete_age_seconds" [Seconds] Limit::Above(86_400), "Age of the oldest meter that has not counted all events that came before it.";
    "billing_stripe_events" [Count "state"] Limit::None, "Events of Stripe that have had no effect yet.";
    "billing_stripe_event_age_seconds" [Seconds] Limit::Above(600), "Age of the oldest event of Stripe that is still being tried.";
    "billing_stripe_events_set_aside" [Count] Limit::Above(0), "Events of Stripe that failed too often and wait for an operator.";
    "billing_stripe_customers_unmade" [Count] Limit::None, "Organizations that Stripe does not know as customers yet.";
    "billing_intents_set_aside" [Count] Limit::Above(0), "What Stripe refused to do for us for a day and that waits for an operator.";
    "billing_intents_unsent" [Count] Limit::None, "What is wanted of Stripe and was not sent.";
    "billing_intent_age_seconds" [Seconds] Limit::Above(900), "Age of the oldest intent that was neither sent nor set aside, where Stripe is configured.";
    "billing_stripe_meter_reports_unsent" [Count] Limit::None, "Reports of usage to Stripe's meters that were not sent.";
    "billing_stripe_meter_report_age_seconds" [Seconds] Limit::Above(3600), "Age of the oldest report of usage that was not sent, where Stripe is configured.";
    "billing_stripe_meter_reports_set_aside" [Count] Limit::Above(0), "Reports of usage that Stripe did not want and that wait for an operator.";
    "billing_stripe_meters_unusable" [Count] Limit::Above(0), "Meters at Stripe that add up differently from ours, and to which nothing is reported.";
    "billing_subscription_grants_unposted" [Count] Limit::None, "Credit of plans that is not in the ledger yet.";
    "billing_subscription_grant_age_seconds" [Seconds] Limit::Above(900), "Age of the oldest credit of a plan that is not in the ledger.";
    "billing_outbox_unsent" [Count] Limit::Above(10_000), "Facts that were not published yet.";
    "billing_webhooks_waiting" [Count] Limit::Above(10_000), "Messages to customers' endpoints that wait for an attempt.";
    "billing_ledger_unsealed" [Count] Limit::None, "Transactions that are under no seal yet.";
    "billing_seal_lag_seconds" [Seconds] Limit::Above(300), "Age of the oldest transaction that is under no seal.";
    "billing_seal_age_seconds" [Seconds] Limit::None, "Since the last seal.";
    "billing_ledger_differences" [Count] Limit::Above(0), "What is wrong with the ledger, as its last check says.";
    "billing_ledger_check_overdue_seconds" [Seconds] Limit::Above(21_600), "How long the next check of the ledger is overdue.";
    "billing_revenue_today_micros" [Count "currency"] Limit::None, "What usage of today (UTC) was sold for.";
    "billing_cost_today_micros" [Count "currency"] Limit::None, "What usage of today cost us.";
    "billing_margin_today_micros" [Count "currency"] Limit::Below(0), "The difference of the two.";
    "billing_wallets_in_debt" [Count "currency"] Limit::None, "Organizations that owe.";
    "billing_debt_micros" [Count "currency"] Limit::None, "What they owe.";
    "billing_reconciliation_differences" [Count "severity"] Limit::Above(0), "Where Stripe and we do not agree and nobody has settled it.";
    "billing_reconciliation_overdue_seconds" [Seconds] Limit::Above(21_600), "How long the next comparison with Stripe is overdue.";
    "billing_reconciliation_notes" [Count] Limit::None, "What the last comparison with Stripe names that needs nobody: a payment that was under way, or nothing to do.";
}
