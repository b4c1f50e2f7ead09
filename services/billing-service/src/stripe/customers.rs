//! One Stripe customer for each organization: wanted in the transaction of the wallet, made afterwards with an idempotency key that
//! was stored before the first try [B-63, B-67, B-68].

use std::time::Duration;

use chassis::postgres::keep_running;
use contracts::events::OrganizationCreated;
use sqlx::{Postgres, Transaction};
use stripe::{IdempotencyKey, RequestStrategy, StripeRequest};
use stripe_core::customer::CreateCustomer;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::backoff;
use super::transport::{Transport, TransportError};
use crate::error::Error;
use crate::state::AppState;

const POLL: Duration = Duration::from_secs(1);

/// What we need of the answer.
#[derive(Debug, miniserde::Deserialize)]
struct MadeCustomer {
    id: String,
}

/// Notes that the organization needs a customer; once.
///
/// # Errors
/// The database's.
pub async fn want(state: &AppState, transaction: &mut Transaction<'static, Postgres>, created: &OrganizationCreated) -> Result<(), Error> {
    let now = state.clock.now();
    sqlx::query!(
        "insert into stripe_customers (organization_id, email, name, idempotency_key, next_attempt_at, created_at) values ($1, $2, $3, $4, $5, $5)
         on conflict do nothing",
        created.organization_id.uuid(),
        created.billing_email,
        created.name,
        format!("customer-{}", created.organization_id),
        now
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Makes wanted customers until the token is cancelled; without a key nothing is ever sent.
pub async fn run(state: &AppState, stop: &CancellationToken) {
    let Some(client) = client(state) else { return stop.cancelled().await };
    keep_running("stripe-customers", stop, POLL, || async {
        while make_one(state, &client).await? {}
        Ok(())
    })
    .await;
}

fn client(state: &AppState) -> Option<Transport> {
    let config = &state.config.stripe;
    let client = Transport::new(&config.api_base, config.secret_key.clone()?);
    client.inspect_err(|error| tracing::error!(error.message = %error, "the Stripe client could not be made")).ok()
}

/// Makes the next customer that is due; false when none is. No lock is held while Stripe is asked [B-82]: the attempt is noted
/// first, so that another replica leaves it alone, and the key makes a second try the same customer.
async fn make_one(state: &AppState, client: &Transport) -> Result<bool, Error> {
    let now = state.clock.now();
    let due = sqlx::query!(
        "update stripe_customers set attempts = attempts + 1, next_attempt_at = $1 + interval '1 minute'
         where organization_id = (select organization_id from stripe_customers where customer_id is null and next_attempt_at <= $1
                                  order by next_attempt_at limit 1 for update skip locked)
         returning organization_id, email, name, idempotency_key, attempts",
        now
    )
    .fetch_optional(&state.pool)
    .await?;
    let Some(due) = due else { return Ok(false) };
    let organization = identity::OrganizationId::from_uuid(due.organization_id);
    let request =
        CreateCustomer::new().email(due.email).name(due.name).metadata([("organization_id".to_owned(), organization.to_string())]);
    // Not the generated `Customer`: it holds nearly every type of Stripe's, and an answer that lacks one of their fields could not be
    // read [B28].
    let request = request.build().customize::<MadeCustomer>();
    let key = IdempotencyKey::new(&due.idempotency_key).map_err(|_| Error::Internal("an idempotency key is malformed"))?;
    match request.request_strategy(RequestStrategy::Idempotent(key)).send(client).await {
        Ok(customer) => {
            sqlx::query!("update stripe_customers set customer_id = $2 where organization_id = $1", due.organization_id, customer.id)
                .execute(&state.pool)
                .await?;
        }
        Err(error) => {
            tracing::warn!(error.message = %error, organization.id = %organization, attempts = due.attempts, "Stripe did not make a customer; it will be tried again");
            postpone(state, due.organization_id, due.attempts, &error).await?;
        }
    }
    Ok(true)
}

/// A longer pause with each try; as long as Stripe asks for, and the longest where the same call cannot succeed before somebody
/// changes something.
async fn postpone(state: &AppState, organization: Uuid, attempts: i32, error: &TransportError) -> Result<(), Error> {
    let grown = if error.is_final() { backoff::LONGEST_SECONDS } else { backoff::seconds(attempts) };
    let asked = error.retry_after().map_or(0, |after| i64::try_from(after.as_secs()).unwrap_or(backoff::LONGEST_SECONDS));
    let next = backoff::next(state, grown.max(asked));
    sqlx::query!("update stripe_customers set next_attempt_at = $2 where organization_id = $1", organization, next)
        .execute(&state.pool)
        .await?;
    Ok(())
}
