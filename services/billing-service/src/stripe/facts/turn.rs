//! The turns of what Stripe tells of one customer [B-24].

use identity::OrganizationId;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::{Family, Fetched};
use crate::error::Error;
use crate::stripe::object::Object;

/// Nothing else that Stripe tells of the same customer has its effect until the transaction ends that took it.
#[derive(Debug)]
pub struct Turn {
    /// The events that wait for the effect still.
    pub waiting: Vec<String>,
    /// Whose customer it is, or was before it was deleted at Stripe; none of ours when empty.
    pub(super) owner: Option<OrganizationId>,
    /// Whether it is about a customer of ours, or about a payment that we know, whoever its customer is now.
    pub(super) is_ours: bool,
    /// The trace in which the object was wanted.
    pub(super) wanted_in: Option<String>,
}

/// Waits until nothing else that Stripe tells of this customer is having its effect, and has the next one wait until this transaction ends. It
/// is taken after the rows of the events alone, and before every other lock of an effect: so it can be part of no deadlock. By the
/// organization, for a customer that took another's place is the same one; of the payment, where its customer is not known here. What is
/// nobody's waits for nobody.
///
/// # Errors
/// The database's.
pub async fn take(transaction: &mut Transaction<'static, Postgres>, events: &[String], fetched: Option<&Fetched>) -> Result<Turn, Error> {
    let turn = ask(transaction, events, fetched).await?;
    if turn.is_ours || turn.waiting.is_empty() || fetched.and_then(Fetched::customer).is_none() {
        return Ok(turn);
    }
    // The customer may have become ours while the events were waited for: what began before that has not seen it.
    ask(transaction, events, fetched).await
}

async fn ask(transaction: &mut Transaction<'static, Postgres>, events: &[String], fetched: Option<&Fetched>) -> Result<Turn, Error> {
    let object = fetched.map(|fetched| Object(&fetched.object));
    let checkout = fetched.filter(|fetched| fetched.family == Family::Checkout).and(object);
    let invoice = fetched.filter(|fetched| fetched.family == Family::Invoice).and(object);
    // One way to the database for each event. The events are found by their ids alone: with their state in the condition the database also
    // reads the index of all that wait. All of them are locked before the turn is asked for, because all are counted.
    let turn = sqlx::query!(
        r#"with events as materialized (
             select event_id, state from stripe_events where event_id = any((select $1::text[])::text[]) order by event_id for no key update),
           owner as materialized (
             select organization_id from stripe_customers where customer_id = $2
             union all select organization_id from stripe_former_customers where customer_id = $2 limit 1),
           turn as materialized (
             select pg_advisory_xact_lock(hashtextextended('stripe_customers ' || whose.organization_id, 0)) from (
               select organization_id from owner
               union all select organization_id from stripe_payments where payment_intent_id = $3 limit 1) whose
             where (select count(*) from events) >= 0)
           select array(select event_id from events where state = 'received') as "waiting!", (select organization_id from owner) as owner,
             (select count(*) from turn) > 0 as "is_ours!",
             coalesce((select traceparent from checkouts where id = $4), (select traceparent from intents where idempotency_key = $5))
               as wanted_in"#,
        events,
        fetched.and_then(Fetched::customer),
        object.and_then(|object| object.related("payment_intent")),
        checkout.and_then(|object| object.metadata::<Uuid>("checkout_id")),
        invoice.and_then(|object| object.metadata::<String>("operation")),
    );
    let turn = turn.fetch_one(&mut **transaction).await?;
    Ok(Turn { waiting: turn.waiting, owner: turn.owner.map(OrganizationId::from_uuid), is_ours: turn.is_ours, wanted_in: turn.wanted_in })
}
