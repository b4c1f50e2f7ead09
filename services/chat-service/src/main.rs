//! chat-service: the gateway to language models.

use std::process::ExitCode;

fn main() -> ExitCode {
    chassis::cli::run::<chat_service::Program>()
}
