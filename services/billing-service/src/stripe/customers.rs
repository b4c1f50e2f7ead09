//! One Stripe customer for each organization: wanted in the transaction of the wallet, made afterwards with an idempotency key that
//! was stored before the first try [B-63, B-67, B-68]; and the card that it pays with when nobody is there.

use std::time::Duration;

use chassis::postgres::keep_running;
use chrono::{DateTime, TimeDelta, Utc};
use contracts::events::OrganizationCreated;
use identity::OrganizationId;
use serde_json::{Value, json};
use sqlx::{Postgres, Transaction};
use stripe::{IdempotencyKey, RequestStrategy, StripeRequest};
use stripe_core::customer::CreateCustomer;
use tokio_util::sync::CancellationToken;

use super::backoff;
use super::call::Call;
use super::object::Object;
use super::patience::{PATIENCE, retry, within};
use super::transport::{Transport, TransportError};
use crate::error::Error;
use crate::intents::{self, Intent};
use crate::state::AppState;

const POLL: Duration = Duration::from_secs(1);
/// Stripe forgets a key after a day; from then on what was done under it is looked for first.
const REMEMBERED: TimeDelta = TimeDelta::hours(23);
/// So many errors of its servers under one key are the recording of the first.
const SAME_FAILURES: i32 = 3;
/// What stands between a key and the number of those after it.
const AGAIN: &str = "-again";
/// By how much Stripe's clock and ours may differ.
const CLOCKS: TimeDelta = TimeDelta::hours(1);

/// What we need of the answer.
#[derive(Debug, miniserde::Deserialize)]
struct MadeCustomer {
    id: String,
}

/// A customer that is wanted.
struct Wanted {
    organization: OrganizationId,
    email: String,
    name: String,
    idempotency_key: String,
    /// Since when it is wanted.
    since: DateTime<Utc>,
}

/// Notes that the organization needs a customer; once.
///
/// # Errors
/// The database's.
pub async fn want(state: &AppState, transaction: &mut Transaction<'static, Postgres>, created: &OrganizationCreated) -> Result<(), Error> {
    note(state, &mut **transaction, created.organization_id, &created.billing_email, &created.name).await
}

async fn note(
    state: &AppState,
    executor: impl sqlx::PgExecutor<'_>,
    organization: OrganizationId,
    email: &str,
    name: &str,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into stripe_customers (organization_id, email, name, idempotency_key, next_attempt_at, created_at) values ($1, $2, $3, $4, $5, $5)
         on conflict do nothing",
        organization.uuid(),
        email,
        name,
        format!("customer-{organization}"),
        state.clock.now()
    )
    .execute(executor)
    .await?;
    Ok(())
}

/// The customer of an organization, if it is made.
///
/// # Errors
/// The database's.
pub async fn find(state: &AppState, organization: OrganizationId) -> Result<Option<String>, Error> {
    let found = sqlx::query_scalar!("select customer_id from stripe_customers where organization_id = $1", organization.uuid());
    Ok(found.fetch_optional(&state.pool).await?.flatten())
}

/// The customers of an organization that are gone at Stripe, and whose place another took: what was done with them still counts.
///
/// # Errors
/// The database's.
pub(super) async fn former(state: &AppState, organization: OrganizationId) -> Result<Vec<String>, Error> {
    let former = sqlx::query_scalar!(
        "select customer_id from stripe_former_customers where organization_id = $1 order by created_at desc, customer_id",
        organization.uuid()
    );
    Ok(former.fetch_all(&state.pool).await?)
}

/// The customer of an organization, made now if it is not yet, within a few seconds. Any number of callers get the same one: their requests
/// have one key.
///
/// # Errors
/// Stripe's; the database's.
pub async fn ensure(state: &AppState, stripe: &Transport, organization: OrganizationId) -> Result<String, Error> {
    if let Some(customer) = find(state, organization).await? {
        return Ok(customer);
    }
    // One that was founded before there was a key of Stripe's is wanted by nobody; we know neither its name nor its address.
    note(state, &state.pool, organization, "", &organization.to_string()).await?;
    let wanted = sqlx::query!(
        "select email, name, idempotency_key, created_at from stripe_customers where organization_id = $1",
        organization.uuid()
    )
    .fetch_one(&state.pool)
    .await?;
    let (email, name, idempotency_key) = (wanted.email, wanted.name, wanted.idempotency_key);
    let wanted = Wanted { organization, email, name, idempotency_key, since: wanted.created_at };
    // Somebody else may be making it at this moment.
    let tried = || async {
        match find(state, organization).await? {
            Some(customer) => Ok(customer),
            None => make(state, stripe, &wanted).await,
        }
    };
    retry(&state.random, PATIENCE, tried).await
}

/// The customer is gone at Stripe: it is made anew when it is next needed, under another key. What others have done about it stays, and
/// so does the knowledge whose it was: what it paid is refunded and disputed as ever.
///
/// # Errors
/// The database's.
pub async fn forget(state: &AppState, organization: OrganizationId, gone: &str) -> Result<(), Error> {
    tracing::warn!(organization.id = %organization, stripe.customer.id = gone, "Stripe has a customer no longer: it is made anew");
    sqlx::query!(
        "with forgotten as (
           update stripe_customers set customer_id = null, idempotency_key = idempotency_key || '-again', same_failures = 0, created_at = $3
           where organization_id = $1 and customer_id = $2 returning organization_id)
         insert into stripe_former_customers (customer_id, organization_id, created_at) select $2, organization_id, $3 from forgotten
         on conflict do nothing",
        organization.uuid(),
        gone,
        state.clock.now()
    )
    .execute(&state.pool)
    .await?;
    Ok(())
}

/// Asks Stripe something about the organization's customer (`call`, of its id), for somebody who waits: a few seconds, for all that it takes.
///
/// # Errors
/// Stripe's; the database's.
pub async fn ask(state: &AppState, stripe: &Transport, organization: OrganizationId, call: impl Fn(&str) -> Call) -> Result<Value, Error> {
    within(PATIENCE, ask_of_customer(state, stripe, organization, call)).await
}

/// A customer that turns out to be gone is made anew, and asked about once more.
async fn ask_of_customer(
    state: &AppState,
    stripe: &Transport,
    organization: OrganizationId,
    call: impl Fn(&str) -> Call,
) -> Result<Value, Error> {
    let customer = ensure(state, stripe, organization).await?;
    match stripe.ask_patiently(&call(&customer)).await {
        Err(error) if error.code() == Some("resource_missing") => {
            forget(state, organization, &customer).await?;
            let customer = ensure(state, stripe, organization).await?;
            Ok(stripe.ask_patiently(&call(&customer)).await?)
        }
        asked => Ok(asked?),
    }
}

/// Whether a customer of the organization's is gone at Stripe, or was forgotten before; then another takes its place, made now if it is not
/// yet.
///
/// # Errors
/// Stripe's; the database's.
pub async fn replace_if_gone(state: &AppState, stripe: &Transport, organization: OrganizationId, customer: &str) -> Result<bool, Error> {
    if find(state, organization).await?.as_deref() == Some(customer) {
        match stripe.ask(&Call::get(format!("/customers/{customer}"))).await {
            Ok(found) if found["deleted"] != true => return Ok(false),
            Err(error) if !error.is_missing() => return Err(error.into()),
            _ => forget(state, organization, customer).await?,
        }
    }
    ensure(state, stripe, organization).await?;
    Ok(true)
}

/// Makes wanted customers until the token is cancelled; without a key nothing is ever sent.
pub async fn run(state: &AppState, stop: &CancellationToken) {
    let Some(stripe) = &state.stripe else { return stop.cancelled().await };
    keep_running("stripe-customers", stop, POLL, || async {
        while make_one(state, stripe).await? {}
        Ok(())
    })
    .await;
}

/// Makes the next customer that is due; false when none is. No lock is held while Stripe is asked [B-82]: the attempt is noted
/// first, so that another replica leaves it alone, and the key makes a second try the same customer.
async fn make_one(state: &AppState, stripe: &Transport) -> Result<bool, Error> {
    let now = state.clock.now();
    let due = sqlx::query!(
        "update stripe_customers set attempts = attempts + 1, next_attempt_at = $1 + interval '1 minute'
         where organization_id = (select organization_id from stripe_customers where customer_id is null and next_attempt_at <= $1
                                  order by next_attempt_at limit 1 for update skip locked)
         returning organization_id, email, name, idempotency_key, attempts, created_at",
        now
    )
    .fetch_optional(&state.pool)
    .await?;
    let Some(due) = due else { return Ok(false) };
    chassis::step!("customer.claimed");
    let organization = OrganizationId::from_uuid(due.organization_id);
    let (email, name, idempotency_key) = (due.email, due.name, due.idempotency_key);
    let wanted = Wanted { organization, email, name, idempotency_key, since: due.created_at };
    match make(state, stripe, &wanted).await {
        Err(Error::Stripe(error)) => {
            tracing::warn!(error.message = %error, organization.id = %organization, attempts = due.attempts, "Stripe did not make a customer; it will be tried again");
            postpone(state, organization, due.attempts, &error).await?;
        }
        made => {
            made?;
        }
    }
    Ok(true)
}

async fn make(state: &AppState, stripe: &Transport, wanted: &Wanted) -> Result<String, Error> {
    let made = if state.clock.now() - wanted.since > REMEMBERED { look_up(stripe, wanted).await? } else { None };
    let customer = match made {
        Some(made) => made,
        None => create_once(state, stripe, wanted).await?,
    };
    chassis::step!("customer.made");
    sqlx::query!(
        "update stripe_customers set customer_id = $2 where organization_id = $1 and customer_id is null",
        wanted.organization.uuid(),
        customer
    )
    .execute(&state.pool)
    .await?;
    chassis::step!("customer.stored");
    find(state, wanted.organization).await?.ok_or(Error::Internal("a customer that was made is not there"))
}

/// Makes it under its key. An error that Stripe's servers answer with again and again is the recording of the first, for a day, and the first is
/// over then: what it made, if anything, is looked for, and the next try has another key [B-65].
async fn create_once(state: &AppState, stripe: &Transport, wanted: &Wanted) -> Result<String, Error> {
    let made = create(stripe, wanted).await;
    match &made {
        Err(Error::Stripe(error)) if error.status().is_some_and(|status| status >= 500) => {}
        _ => return made,
    }
    let (organization, key) = (wanted.organization.uuid(), &wanted.idempotency_key);
    let failures = sqlx::query_scalar!(
        "update stripe_customers set same_failures = same_failures + 1
         where organization_id = $1 and idempotency_key = $2 and customer_id is null returning same_failures",
        organization,
        key
    );
    if failures.fetch_optional(&state.pool).await?.is_none_or(|failures| failures < SAME_FAILURES) {
        return made;
    }
    if let Some(found) = look_up(stripe, wanted).await? {
        return Ok(found);
    }
    sqlx::query!(
        "update stripe_customers set idempotency_key = $3::text || (key_number + 1), key_number = key_number + 1, same_failures = 0
         where organization_id = $1 and idempotency_key = $2 and customer_id is null",
        organization,
        key,
        format!("{}{AGAIN}", key.split(AGAIN).next().unwrap_or_default())
    )
    .execute(&state.pool)
    .await?;
    made
}

/// What a try made whose answer was lost, and whose key Stripe may have forgotten since [B-64].
async fn look_up(stripe: &Transport, wanted: &Wanted) -> Result<Option<String>, Error> {
    let from = wanted.since - CLOCKS;
    let mut after = None;
    loop {
        let call = Call::get("/customers").with("limit", 100).with("created[gte]", from.timestamp()).with_some("starting_after", after);
        let page = stripe.ask(&call).await?;
        let ours = |customer: &Object<'_>| customer.metadata::<OrganizationId>("organization_id") == Some(wanted.organization);
        if let Some(made) = Object(&page).list("data").find(ours) {
            return Ok(made.text("id").map(ToOwned::to_owned));
        }
        after = Object(&page).list("data").last().and_then(|last| last.text("id")).map(ToOwned::to_owned);
        if page["has_more"] != true || after.is_none() {
            return Ok(None);
        }
    }
}

async fn create(stripe: &Transport, wanted: &Wanted) -> Result<String, Error> {
    let Wanted { organization, email, name, idempotency_key, .. } = wanted;
    let mut request = CreateCustomer::new().name(name).metadata([("organization_id".to_owned(), organization.to_string())]);
    if !email.is_empty() {
        request = request.email(email);
    }
    // Not the generated `Customer`: it holds nearly every type of Stripe's, and an answer that lacks one of their fields could not be
    // read [B28].
    let request = request.build().customize::<MadeCustomer>();
    let key = IdempotencyKey::new(idempotency_key).map_err(|_| Error::Internal("an idempotency key is malformed"))?;
    Ok(request.request_strategy(RequestStrategy::Idempotent(key)).send(stripe).await?.id)
}

/// A longer pause with each try; as long as Stripe asks for, and the longest where the same call cannot succeed before somebody
/// changes something.
async fn postpone(state: &AppState, organization: OrganizationId, attempts: i32, error: &TransportError) -> Result<(), Error> {
    let next = backoff::after(state, attempts, error);
    sqlx::query!("update stripe_customers set next_attempt_at = $2 where organization_id = $1", organization.uuid(), next)
        .execute(&state.pool)
        .await?;
    Ok(())
}

/// Has the card with which something was paid or set up (`from`, the path of that) pay what comes later.
///
/// # Errors
/// The database's.
pub async fn want_card(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    from: &str,
) -> Result<(), Error> {
    let intent = Intent {
        kind: "customer.card",
        subject: organization.to_string(),
        organization_id: Some(organization),
        idempotency_key: format!("customer.card-{}", from.rsplit('/').next().unwrap_or(from)),
        payload: json!({"from": from}),
    };
    intents::want(state, transaction, &intent).await
}

/// Whether that is to be done still.
///
/// # Errors
/// The database's.
pub async fn card_is_wanted(state: &AppState, organization: OrganizationId) -> Result<bool, Error> {
    let wanted = sqlx::query_scalar!(
        r#"select exists (select from intents where subject = $1 and kind = 'customer.card' and sent_at is null and parked_at is null) as "wanted!""#,
        organization.to_string()
    );
    Ok(wanted.fetch_one(&state.pool).await?)
}

/// Does that. The customer's default is Stripe's to keep: the portal changes it too.
pub(super) async fn set_card(stripe: &Transport, customer: &str, from: &str, key: &str) -> Result<String, Error> {
    let paid = stripe.ask(&Call::get(from)).await?;
    chassis::step!("customer.card_found");
    let method = Object(&paid).related("payment_method").ok_or(Error::Unreadable("payment_method"))?;
    let call = Call::post(format!("/customers/{customer}"), key).with("invoice_settings[default_payment_method]", method);
    stripe.ask(&call).await?;
    chassis::step!("customer.card_kept");
    Ok(method.to_owned())
}
