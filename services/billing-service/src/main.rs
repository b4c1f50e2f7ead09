//! billing-service: ledger, metering and Stripe.

use std::process::ExitCode;

fn main() -> ExitCode {
    chassis::cli::run::<billing_service::Program>()
}
