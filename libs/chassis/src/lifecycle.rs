//! How a process is told to stop: the first signal drains, the second ends it at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that the first SIGTERM or SIGINT cancels. A second signal ends the process with status 130.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn signals() -> std::io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = CancellationToken::new();
    let first = token.clone();
    tokio::spawn(async move {
        either(&mut terminate, &mut interrupt).await;
        tracing::info!("stopping: draining what is in flight; a second signal ends at once");
        first.cancel();
        either(&mut terminate, &mut interrupt).await;
        #[expect(clippy::disallowed_methods, reason = "the second signal asks for exactly this")]
        std::process::exit(130);
    });
    Ok(token)
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
