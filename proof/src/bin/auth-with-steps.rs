//! auth-service, which the drill can end at a named step. In no image.

use std::process::ExitCode;

fn main() -> ExitCode {
    chassis::cli::run_watched::<auth_service::Program>(kill_drill::steps::take)
}
