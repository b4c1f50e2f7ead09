//! billing-service: the double-entry ledger, the holds on it, what was used, and Stripe.

pub mod admin;
pub mod aside;
pub mod audit;
pub mod balance;
pub mod budgets;
pub mod catalog;
pub mod checkouts;
pub mod config;
pub mod entitlements;
pub mod error;
#[cfg(test)]
mod fuzzing;
pub mod grants;
pub mod intents;
pub mod invoices;
pub mod lanes;
pub mod leases;
pub mod ledger;
pub mod margin;
pub mod metering;
pub mod operations;
pub mod organizations;
pub mod places;
pub mod portal;
pub mod rates;
pub mod reservations;
pub mod rollups;
pub mod router;
pub mod sales;
pub mod spreadsheet;
pub mod state;
pub mod statements;
pub mod stripe;
pub mod subscriptions;
pub mod top_ups;
pub mod usage;

use std::net::SocketAddr;

use chassis::cli::{ServiceProgram, Task};
use chassis::host::Host;
use chassis::http::HttpConfig;
use chassis::postgres::{self, Migrations};
use chassis::redis::Redis;
use chassis::telemetry::TelemetryConfig;
use chassis::{Clock, Random};
use tokio_util::sync::CancellationToken;

use crate::config::{BillingConfig, MigrateConfig};
use crate::state::AppState;

/// This service's schema.
pub const MIGRATIONS: Migrations = Migrations {
    app_role: "billing_app",
    files: chassis::migrations![
        "0001_ledger",
        "0002_rates",
        "0003_usage",
        "0004_stripe",
        "0005_ledger_order",
        "0006_accounts",
        "0007_usage_guard",
        "0008_stripe_retries",
        "0010_chart",
        "0011_seals",
        "0012_grants",
        "0013_audit",
        "0020_leases",
        "0030_catalog",
        "0031_subscriptions",
        "0032_budgets",
        "0040_rate_dimensions",
        "0041_metering",
        "0042_usage_partitions",
        "0043_margin",
        "0045_model_budgets",
        "0050_payments",
        "0051_top_ups",
        "0056_stripe_gaps",
        "0057_reconciliation",
        "0060_operations",
        "0061_spend",
        "0062_retention",
        "0063_stripe_meters",
        "0067_exchange",
        "0071_batch_triggers",
        "0075_traces",
        "0076_former_customers",
        "0080_group_lengths",
        "0081_lanes",
        "0085_reconciliation_listed",
        "0089_stripe_meter_counts",
        "0090_stripe_meter_queue",
        "0091_stripe_meter_retention",
        "0094_bounded_looks",
        "0095_webhooks_in_turn",
        "0098_house_at_commit",
        "0099_house_moves_kept",
        "0100_webhooks_busy",
        "0101_subscription_gifts",
        "0102_coupon_redemptions",
        "0103_grants_set_aside",
        "0104_model_leases",
        "0105_written_off",
        "0106_customer_wanted_since",
        "0107_model_leases_active",
        "0111_customer_balances",
        "0112_credit_notes",
        "0113_queues",
        "0114_leases_set_aside",
        "0115_credit_notes_counted",
        "0116_intents_set_aside",
        "0117_customer_keys",
        "0118_budgets_since",
        "0119_written_off_read",
        "0120_tags",
        "0121_top_ups_given_up",
        "0122_parts_of_sales",
        "0123_alerts_of_a_limit",
        "0124_webhooks_by_endpoint",
        "0125_plans_kept",
        "0126_alerts_retention",
        "0127_webhook_secrets",
        "0128_meters_over_earlier_events",
        "0129_batches_that_shrink",
        "0130_expired_and_taken_back",
        "0131_leases_vacuumed",
        "0132_leases_retention",
        "0133_deltas_of_an_organization",
        "0134_months_retired_by_their_rollups",
        "0135_look_first",
        "0136_lease_epochs",
        "0137_endpoints_rest",
        "0138_definers_search_path",
        "0139_reservation_cards",
        "0140_ledger_checks",
        "0141_ledger_check_later",
        "0142_audit_trace",
    ],
};

/// The service, built and bound, not yet serving.
#[derive(Debug)]
pub struct Application {
    host: Host,
    state: AppState,
}

impl Application {
    /// Builds the service; dependencies that are away do not stop it.
    ///
    /// # Errors
    /// When an address is taken or a setting is malformed.
    pub async fn build(config: BillingConfig, clock: Clock, random: Random) -> anyhow::Result<Self> {
        let host = Host::bind(&config.http).await?;
        let pool = postgres::connect(&config.postgres, Program::NAME)?;
        let redis = Redis::connect(&config.redis)?;
        postgres::watch(&host.readiness(), &pool, MIGRATIONS);
        redis.watch(&host.readiness());
        let state = AppState::new(config, pool, redis, clock, random)?;
        state.spawn_tasks(&host);
        Ok(Self { host, state })
    }

    /// Where the public listener is.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn public_addr(&self) -> std::io::Result<SocketAddr> {
        self.host.public_addr()
    }

    /// Where the private listener is.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn private_addr(&self) -> std::io::Result<SocketAddr> {
        self.host.private_addr()
    }

    /// Serves until the token is cancelled.
    pub async fn run(self, shutdown: CancellationToken) {
        let (public, private) = router::routers(self.state);
        self.host.run(public, private, shutdown).await;
    }
}

/// The command line of the service.
#[derive(Debug)]
pub struct Program;

impl ServiceProgram for Program {
    const NAME: &'static str = "billing-service";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Config = BillingConfig;
    type MigrateConfig = MigrateConfig;
    type Commands = admin::Command;

    fn http(config: &BillingConfig) -> &HttpConfig {
        &config.http
    }

    fn telemetry(config: &BillingConfig) -> &TelemetryConfig {
        &config.telemetry
    }

    fn openapi() -> String {
        router::openapi()
    }

    fn serve(config: BillingConfig, shutdown: CancellationToken) -> Task {
        Box::pin(async move {
            Application::build(config, Clock::system(), Random::system()).await?.run(shutdown).await;
            Ok(())
        })
    }

    fn migrate(config: MigrateConfig) -> Task {
        Box::pin(async move {
            let mut connection = postgres::connect_patiently(&config.postgres, "billing-service migrate").await?;
            Ok(MIGRATIONS.apply(&mut connection).await?)
        })
    }

    fn operate(command: admin::Command, config: BillingConfig) -> Task {
        Box::pin(admin::run(command, config))
    }
}
