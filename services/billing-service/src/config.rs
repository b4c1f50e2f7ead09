//! What billing-service reads from its environment.

use chassis::SecretString;
use chassis::config::{CommaList, Millis};
use chassis::http::HttpConfig;
use chassis::postgres::PostgresConfig;
use chassis::redis::RedisConfig;
use chassis::telemetry::TelemetryConfig;
use identity::{AuthClientConfig, IdentityConfig};

chassis::settings! {
    /// Everything billing-service needs to serve.
    pub struct BillingConfig {
        /// Listeners and limits.
        pub http: HttpConfig = nested,
        /// Logs, traces, metrics.
        pub telemetry: TelemetryConfig = nested,
        /// The database.
        pub postgres: PostgresConfig = nested,
        /// Redis.
        pub redis: RedisConfig = nested,
        /// Issuer and audience of tokens.
        pub identity: IdentityConfig = nested,
        /// auth-service.
        pub auth: AuthClientConfig = nested,
        /// The root of this service's own secrets (cursors, the keys that sign webhooks), any long random text.
        pub secret: SecretString = required "BILLING_SECRET",
        /// Credit that a new organization gets, in micro-units of USD.
        pub signup_grant: i64 = default "BILLING_SIGNUP_GRANT_MICROS" "5000000",
        /// Milliseconds between looks for holds whose deadline has passed.
        pub sweep: Millis = default "BILLING_SWEEP_MS" "1000",
        /// Leases.
        pub lease: LeaseConfig = nested,
        /// Who pays for what a request costs beyond what was taken for it: `cap` (the house), `overdraft` (the organization as far as its wallet and overdraft limit reach, then the house) or `debt` (the organization; what its wallet does not have is owed).
        pub overage: crate::usage::Overage = default "BILLING_OVERAGE" "debt",
        /// Whether alerts may go to private addresses and over plain HTTP; for tests and closed networks only.
        pub webhooks_to_private: bool = default "BILLING_WEBHOOKS_TO_PRIVATE" "false",
        /// Days that alerts, and webhook messages that came to an end, are kept, at least 63; older ones are removed. 0 keeps all.
        pub alerts_retention_days: u32 = default "BILLING_ALERTS_RETENTION_DAYS" "400",
        /// Milliseconds between checks of the ledger, which read all of it (as `ledger verify` does); 0 checks only when told to.
        pub ledger_check: Millis = default "BILLING_LEDGER_CHECK_MS" "86400000",
        /// Stripe's webhooks and API.
        pub stripe: StripeConfig = nested,
        /// Events of other services.
        pub metering: MeteringConfig = nested,
        /// How usage is kept.
        pub usage: UsageConfig = nested,
    }
}

chassis::settings! {
    /// Events of other services.
    pub struct MeteringConfig {
        /// Milliseconds that an event may be old; what is older is refused.
        pub late_window: Millis = default "BILLING_METERING_LATE_MS" "3024000000",
        /// Milliseconds after its end in which a month (UTC) still takes events; later ones are adjustments in the current month.
        pub close_after: Millis = default "BILLING_METERING_CLOSE_AFTER_MS" "259200000",
        /// Months of events that are kept apart from the current one, at least 3 and what the two above need; older ones are removed, their sums stay. 0 keeps all.
        pub retention_months: u32 = default "BILLING_METERING_RETENTION_MONTHS" "0",
    }
}

impl MeteringConfig {
    /// As rules.
    #[must_use]
    pub fn rules(&self) -> crate::metering::Rules {
        let delta = |millis: Millis| chrono::TimeDelta::from_std(millis.0).unwrap_or(chrono::TimeDelta::MAX);
        crate::metering::Rules { late_window: delta(self.late_window), close_after: delta(self.close_after) }
    }
}

chassis::settings! {
    /// How usage is kept.
    pub struct UsageConfig {
        /// Milliseconds between additions to the rollups; what was not added yet is counted all the same.
        pub roll_up: Millis = default "BILLING_USAGE_ROLL_UP_MS" "1000",
        /// Months of usage that are kept apart from the current one, at least 3; older ones are dropped, their sums stay. 0 keeps all.
        pub retention_months: u32 = default "BILLING_USAGE_RETENTION_MONTHS" "0",
        /// Whether an old month is only detached, for the operator to archive, instead of dropped.
        pub detach: bool = default "BILLING_USAGE_DETACH" "true",
    }
}

chassis::settings! {
    /// Leases, from which requests are paid.
    pub struct LeaseConfig {
        /// Milliseconds after which a lease that nobody fills ends, and what is left of it is back in the wallet.
        pub life: Millis = default "BILLING_LEASE_MS" "60000",
        /// Milliseconds after which no request of a lease that Redis has lost can be in flight; at least chat-service's `CHAT_DEADLINE_MS` with `CHAT_RESERVATION_MARGIN_MS`.
        pub drain: Millis = default "BILLING_LEASE_DRAIN_MS" "420000",
        /// What a lease begins with, in micro-units, unless that is more than a quarter of the wallet.
        pub start: i64 = default "BILLING_LEASE_START_MICROS" "100000",
    }
}

chassis::settings! {
    /// Stripe.
    pub struct StripeConfig {
        /// Secret API key; without it nothing is sent to Stripe.
        pub secret_key: Option<SecretString> = optional "STRIPE_SECRET_KEY",
        /// Signing secrets of the webhook endpoint, separated by commas; all are accepted. Without one the endpoint does not exist.
        pub webhook_secrets: CommaList<SecretString> = default "STRIPE_WEBHOOK_SECRETS" "",
        /// Base URL of Stripe's API.
        pub api_base: String = default "STRIPE_API_BASE" "https://api.stripe.com",
        /// Whether events must be of live mode.
        pub livemode: bool = default "STRIPE_LIVEMODE" "false",
        /// Whether Stripe computes tax on what is bought and charged (Stripe Tax must be set up there).
        pub automatic_tax: bool = default "STRIPE_AUTOMATIC_TAX" "false",
        /// Requests to Stripe in a second at most, of each replica; 0 is no limit. Stripe takes 25 in a sandbox and 100 in live mode, of all of them.
        pub requests_per_second: u32 = default "STRIPE_REQUESTS_PER_SECOND" "20",
        /// Milliseconds between looks for events that Stripe never delivered; 0 looks never.
        pub gaps: Millis = default "STRIPE_GAPS_MS" "300000",
        /// Milliseconds between comparisons of our books with Stripe's; 0 compares only when told to.
        pub reconcile: Millis = default "STRIPE_RECONCILE_MS" "86400000",
    }
}

chassis::settings! {
    /// Everything the migrations need.
    pub struct MigrateConfig {
        /// The database, as the role that owns the schema.
        pub postgres: PostgresConfig = nested,
    }
}
