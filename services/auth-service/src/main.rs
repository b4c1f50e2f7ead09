//! auth-service: accounts, sessions and API keys.

use std::process::ExitCode;

fn main() -> ExitCode {
    chassis::cli::run::<auth_service::Program>()
}
