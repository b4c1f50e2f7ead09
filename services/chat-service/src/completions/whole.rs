//! An answer that comes in one piece.

use std::time::Instant;

use bytes::Bytes;
use contracts::usage::Outcome;

use super::call::{Answer, Call, Head};
use crate::error::ApiError;
use crate::provider::whole_body;
use crate::settlement::Guard;

/// Why there is no answer.
enum Failure {
    /// The provider's or ours.
    Error(ApiError),
    /// Time.
    Deadline,
    /// The service stops.
    Shutdown,
}

/// Gets the answer, whether the client waits for it or not, hands it over, and settles.
pub(super) async fn run(call: &Call, mut guard: Guard, answer: Answer) {
    let asked = Instant::now();
    match fetch(call).await {
        Ok(body) if !guard.tally.whole(&body) => {
            tracing::warn!("the provider answered with something else than a completion");
            guard.release(Outcome::Failed);
            // The client may have left; there is nobody else to tell.
            let _ = answer.send(Err(ApiError::UpstreamFailed));
        }
        Ok(body) => {
            call.record_overhead(asked.elapsed());
            guard.begun = true;
            let outcome = match answer.send(Ok(Head::Whole(body))) {
                Ok(()) => Outcome::Completed,
                Err(_) => Outcome::ClientClosed,
            };
            guard.settle(outcome).await;
        }
        Err(failure) => {
            let (error, outcome) = match failure {
                Failure::Error(error) => (error, Outcome::Failed),
                Failure::Deadline => (ApiError::UpstreamTimeout, Outcome::Deadline),
                Failure::Shutdown => (ApiError::Unavailable("this instance"), Outcome::Shutdown),
            };
            guard.release(outcome);
            // The client may have left; there is nobody else to tell.
            let _ = answer.send(Err(error));
        }
    }
}

async fn fetch(call: &Call) -> Result<Bytes, Failure> {
    let exchange = async {
        let response = call.send().await?;
        whole_body(response, call.state.provider_config.max_response_bytes).await
    };
    tokio::select! {
        body = exchange => body.map_err(Failure::Error),
        () = tokio::time::sleep_until(call.deadline()) => Err(Failure::Deadline),
        () = call.shutdown() => Err(Failure::Shutdown),
    }
}
