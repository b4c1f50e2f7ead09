//! An answer that comes in one piece.

use std::time::Instant;

use bytes::Bytes;
use contracts::usage::Outcome;

use super::call::{Answer, Call, Head};
use crate::error::ApiError;
use crate::provider::{late_error, whole_body};
use crate::settlement::Guard;

/// Why there is no answer.
enum Failure {
    /// The provider's or ours.
    Error(ApiError),
    /// Time.
    Deadline,
    /// The service stops.
    Shutdown,
    /// The client left, and its answer is not worth more waiting.
    GivenUp,
}

/// Gets the answer, within limits also when the client has left, hands it over, and settles.
pub(super) async fn run(call: &Call, mut guard: Guard, mut answer: Answer) {
    let asked = Instant::now();
    let (error, outcome) = match fetch(call, &mut answer).await {
        Ok(body) if guard.tally.whole(&body) => {
            chassis::step!("provider.whole");
            call.record_overhead(asked.elapsed());
            guard.begun = true;
            let shown = llm::without_cost(&body).map_or(body, Bytes::from);
            let outcome = match answer.send(Ok(Head::Whole(shown))) {
                Ok(()) => Outcome::Completed,
                Err(_) => Outcome::ClientClosed,
            };
            return guard.settle(outcome).await;
        }
        Ok(body) => {
            tracing::warn!("the provider answered with something else than a completion");
            (late_error(&body), Outcome::Failed)
        }
        Err(Failure::Error(error)) => (error, Outcome::Failed),
        Err(Failure::Deadline) => (ApiError::UpstreamTimeout, Outcome::Deadline),
        Err(Failure::Shutdown) => (ApiError::Unavailable("this instance"), Outcome::Shutdown),
        Err(Failure::GivenUp) => return guard.give_up(Outcome::ClientClosed).await,
    };
    guard.release(outcome);
    // The client may have left; there is nobody else to tell.
    let _ = answer.send(Err(error));
}

async fn fetch(call: &Call, answer: &mut Answer) -> Result<Bytes, Failure> {
    let exchange = async {
        let response = call.send().await?;
        whole_body(response, call.state.provider_config.max_response_bytes).await
    };
    tokio::select! {
        body = exchange => body.map_err(Failure::Error),
        () = tokio::time::sleep_until(call.deadline()) => Err(Failure::Deadline),
        () = call.shutdown() => Err(Failure::Shutdown),
        () = call.given_up(answer) => Err(Failure::GivenUp),
    }
}
