//! `POST /stripe/webhooks`: an event is verified, stored, and only then acknowledged [B-1 to B-15].

use std::net::IpAddr;
use std::time::Duration;

use axum::Extension;
use axum::body::{Bytes, HttpBody, to_bytes};
use axum::extract::{Request, State};
use chassis::Problem;
use chassis::http::body::{is_too_large, timed_out};
use chassis::http::edge::{RequestContext, payload_too_large};
use chassis::http::strangers::StrangersBodies;
use chassis::problem::ProblemBody;
use chassis::telemetry::current_traceparent;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::facts::Family;
use super::signature::{Claim, InvalidSignature};
use super::storable::{instant, without_nul};
use crate::error::Error;
use crate::state::AppState;

/// Larger than any event Stripe sends [B-8].
const MAX_BYTES: usize = 512 * 1024;

/// Stripe sends an event in one piece. Whoever sends one slowly has its place for so long, and is most likely not Stripe.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Longer than any id of Stripe's, and short enough for an index.
pub(super) const MAX_ID: usize = 255;

/// What every event has, whatever it is about.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    pub(super) id: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    livemode: bool,
    api_version: Option<String>,
    /// The connected account that it is of; none of our own.
    account: Option<String>,
    pub(super) created: i64,
}

/// Take an event from Stripe.
#[utoipa::path(post, path = "/stripe/webhooks", tag = "stripe", request_body(content = Value, content_type = "*/*"),
    responses((status = 200), (status = 400, description = "The signature is not valid, or it is no event", body = ProblemBody),
        (status = 404, description = "No secret of Stripe's is set", body = ProblemBody)))]
pub async fn receive(
    State(state): State<AppState>,
    Extension(places): Extension<StrangersBodies>,
    Extension(context): Extension<RequestContext>,
    request: Request,
) -> Result<StatusCode, Error> {
    let secrets = &state.config.stripe.webhook_secrets.0;
    // Never "verify with an empty key": without a secret there is no such place [B-7].
    if secrets.is_empty() {
        return Err(Error::NotFound);
    }
    let header = signature_of(request.headers())?;
    let invalid = |invalid: InvalidSignature| refused(&invalid.to_string());
    let claim = Claim::read(&header, state.clock.now()).map_err(invalid)?;
    let body = body_of(request, &places, context.client_ip).await?;
    claim.verify(&body, secrets).map_err(invalid)?;
    chassis::step!("webhook.verified");
    store(&state, &body).await?;
    chassis::step!("webhook.stored");
    Ok(StatusCode::OK)
}

/// What a request says of its signature, before anything of its body is waited for.
fn signature_of(headers: &HeaderMap) -> Result<String, Error> {
    let header = headers.get("stripe-signature").and_then(|value| value.to_str().ok());
    header.map(ToOwned::to_owned).ok_or_else(|| refused("must be present"))
}

/// The body, by which it is known whether it is Stripe's: whoever else sends it, slowly, takes one of few places until it has come. Stripe comes
/// again when there is none.
async fn body_of(request: Request, places: &StrangersBodies, client: IpAddr) -> Result<Bytes, Problem> {
    let body = request.into_body();
    if body.size_hint().lower() > MAX_BYTES as u64 {
        return Err(payload_too_large());
    }
    let _place = places.place(client)?;
    let whole = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BYTES)).await.map_err(|_| late())?;
    whole.map_err(|error| unreadable(&error))
}

fn unreadable(error: &axum::Error) -> Problem {
    if is_too_large(error) {
        payload_too_large()
    } else if timed_out(error) {
        late()
    } else {
        Problem::bad_request("unreadable_body", "The body could not be read")
    }
}

fn late() -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "The body did not come in time")
}

fn refused(rule: &str) -> Error {
    Problem::bad_request("invalid_signature", "The signature is not valid").field("stripe-signature", rule).into()
}

/// Reads an event of a mode, and all of it as it can be stored.
///
/// # Errors
/// The field and the rule that it breaks.
pub(super) fn read(body: &[u8], livemode: bool) -> Result<(Event, Value), Problem> {
    let malformed = || Problem::bad_request("invalid_event", "The body is not an event").field("body", "must be a Stripe event");
    let payload = without_nul(serde_json::from_slice(body).map_err(|_| malformed())?);
    let event = Event::deserialize(&payload).map_err(|_| malformed())?;
    if event.id.is_empty() || event.id.len() > MAX_ID {
        return Err(malformed());
    }
    if event.livemode != livemode {
        return Err(Problem::bad_request("wrong_mode", "The event is of another mode").field("livemode", "must be the endpoint's"));
    }
    Ok((event, payload))
}

/// The first durable act. A repetition finds the row and is acknowledged; a database that is away is 503, and Stripe comes again.
async fn store(state: &AppState, body: &[u8]) -> Result<(), Error> {
    let (event, payload) = read(body, state.config.stripe.livemode)?;
    // Its object is fetched in our version anyway; but somebody should know that the endpoint was made with another [B-21].
    if event.api_version.as_deref() != Some(stripe_client_core::VERSION.as_str()) {
        metrics::counter!("billing_stripe_events_of_other_version_total").increment(1);
    }
    // Nothing here is done for accounts of others, and their objects are no objects of ours, whatever they are called.
    if let Some(account) = &event.account {
        metrics::counter!("billing_stripe_events_of_connected_accounts_total").increment(1);
        tracing::warn!(
            stripe.event.id = event.id,
            stripe.account.id = account,
            "an event of a connected account is kept and has no effect"
        );
    }
    // What is nothing to us is kept as told, and nobody has to look at it again.
    let waits = event.account.is_none() && Family::of(&event.kind).is_some();
    sqlx::query!(
        "insert into stripe_events (event_id, kind, livemode, api_version, payload, state, created_at, received_at, next_attempt_at, traceparent, handled_at)
         values ($1, $2, $3, $4, $5, case when $9 then 'received' else 'ignored' end, $6, $7, $7, $8, case when not $9 then $7::timestamptz end)
         on conflict do nothing",
        event.id,
        event.kind,
        event.livemode,
        event.api_version,
        payload,
        instant(event.created),
        state.clock.now(),
        current_traceparent(),
        waits
    )
    .execute(&state.pool)
    .await?;
    if waits {
        state.stripe_events.notify_one();
    }
    Ok(())
}
