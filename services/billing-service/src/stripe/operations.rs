//! What each kind of wish does at Stripe, and how its effect is found again.

use chassis::in_transaction;
use identity::OrganizationId;
use serde::Deserialize;
use serde_json::Value;

use super::call::Call;
use super::collect::{self, Asked, Collection};
use super::object::Object;
use super::sender::Due;
use super::transport::Transport;
use super::{catalog, customers};
use crate::error::Error;
use crate::intents;
use crate::state::AppState;
use crate::subscriptions::SubscriptionId;
use crate::subscriptions::command::Command;
use crate::subscriptions::state::{Charge, Line, LineKind};
use crate::top_ups::{self, TopUp};

const MALFORMED: Error = Error::Internal("a stored intent cannot be read");

/// `subscription.charge`
#[derive(Debug, Deserialize)]
struct ChargePayload {
    charge_id: uuid::Uuid,
    charge: Charge,
}

/// `subscription.void`
#[derive(Debug, Deserialize)]
struct VoidPayload {
    /// The operation that made the invoice.
    charged: String,
}

/// Has the effect; what Stripe calls what it made.
///
/// # Errors
/// Stripe's; the database's; [`Error::Internal`] for a kind that nobody knows.
pub(super) async fn perform(state: &AppState, stripe: &Transport, due: &Due) -> Result<Option<String>, Error> {
    match due.kind.as_str() {
        "subscription.charge" => {
            let ChargePayload { charge_id, charge } = read(&due.payload)?;
            let lines = charge.lines.iter().map(|line| (describe(line), line.amount_micros)).collect();
            let metadata = [("charge_id", charge_id.to_string()), ("reason", charge.reason)];
            invoice(state, stripe, due, charge.currency, lines, metadata).await
        }
        "top_up.charge" => {
            let TopUp { id, amount_micros, currency } = read(&due.payload)?;
            let lines = vec![("Credit, topped up automatically".to_owned(), amount_micros)];
            invoice(state, stripe, due, currency, lines, [("top_up_id", id.to_string()), ("reason", "top_up".to_owned())]).await
        }
        "top_up.void" => {
            let invoice = due.payload["invoice"].as_str().ok_or(MALFORMED)?;
            void(stripe, invoice, format!("{}-{}", due.key(), due.attempts)).await?;
            Ok(Some(invoice.to_owned()))
        }
        "subscription.void" => {
            let VoidPayload { charged } = read(&due.payload)?;
            // Older versions gave up a charge without this: it is not sent any more, whatever it waits for.
            if intents::forgo(state, &state.pool, &charged).await?.is_some() {
                return Err(Error::Internal("a try of a charge that was given up may be under way"));
            }
            take_away(state, stripe, due, &charged).await
        }
        "payment.refund" => refund(stripe, due).await,
        "balance.return" => return_balance(state, stripe, due).await,
        "customer.card" => {
            let from = due.payload["from"].as_str().ok_or(MALFORMED)?;
            let customer = customer(state, stripe, due).await?;
            match customers::set_card(stripe, &customer, from, &due.key()).await {
                // The card was taken away meanwhile, or the customer: no later try can succeed, and those of later cards wait for this one.
                Err(error) if is_lost(&error) => {
                    tracing::warn!(stripe.from = from, error.message = error.chain(), "a card could not be kept for later payments");
                    metrics::counter!("billing_stripe_cards_lost_total").increment(1);
                    Ok(None)
                }
                set => set.map(Some),
            }
        }
        "catalog.plan" | "catalog.credit_pack" => catalog::product(stripe, due).await,
        "catalog.coupon" => catalog::coupon(stripe, due).await,
        _ => Err(Error::Internal("a stored intent is of no known kind")),
    }
}

/// Whether a refusal of such a wish ends by itself, so that it is never set aside: an invoice cannot be voided while its payment is on its way,
/// which takes days, and until it is void somebody may pay what nobody waits for; and a top-up is wanted for an hour only.
pub(super) fn is_taken_in_time(kind: &str) -> bool {
    matches!(kind, "subscription.void" | "top_up.void" | "top_up.charge")
}

/// What a charge that cannot be collected means to its subscription; none of other wishes.
///
/// # Errors
/// The database's.
pub(super) async fn failed_charge(state: &AppState, due: &Due) -> Result<Option<(OrganizationId, SubscriptionId, Command)>, Error> {
    let Some(organization) = due.organization.filter(|_| due.kind == "subscription.charge") else { return Ok(None) };
    // What cannot be read is set aside like everything else.
    let Ok(ChargePayload { charge_id, charge: Charge { period_start, reason, .. } }) = read(&due.payload) else { return Ok(None) };
    let subscription = sqlx::query_scalar!(
        "select subscription_id from subscription_charges where id = $1 and organization_id = $2",
        charge_id,
        organization.uuid()
    );
    let subscription = subscription.fetch_optional(&state.pool).await?.map(SubscriptionId::from_uuid);
    Ok(subscription.map(|subscription| (organization, subscription, Command::PaymentFailed { period_start, reason })))
}

/// Whether something of Stripe's is not what it must be, and never will: not that it could not be asked, or not by us.
fn is_lost(error: &Error) -> bool {
    match error {
        Error::Unreadable(_) => true,
        Error::Stripe(error) => error.is_final() && matches!(error.status(), Some(400 | 402 | 404)),
        _ => false,
    }
}

/// Whose customer it is that is collected from.
fn collected_from(due: &Due) -> Option<OrganizationId> {
    due.organization.filter(|_| matches!(due.kind.as_str(), "subscription.charge" | "top_up.charge"))
}

/// The customer that is collected from by the next try, if it is made already.
///
/// # Errors
/// The database's.
pub(super) async fn customer_of_try(state: &AppState, due: &Due) -> Result<Option<String>, Error> {
    let Some(organization) = collected_from(due) else { return Ok(None) };
    customers::find(state, organization).await
}

/// Whether what is to be collected was refused because the customer of that try is gone at Stripe; another is made in its place then, if
/// somebody else has not made it meanwhile.
///
/// # Errors
/// Stripe's; the database's.
pub(super) async fn replaces_customer(state: &AppState, stripe: &Transport, due: &Due, customer: Option<&str>) -> Result<bool, Error> {
    let (Some(organization), Some(customer)) = (collected_from(due), customer) else { return Ok(false) };
    customers::replace_if_gone(state, stripe, organization, customer).await
}

/// What looking for an operation at Stripe came to.
pub(super) enum Look {
    /// It was done: what Stripe calls what it made.
    Made(String),
    /// It was begun; that was taken away.
    PutAway,
    /// Nothing of it is there.
    Nothing,
}

impl From<Option<String>> for Look {
    fn from(made: Option<String>) -> Self {
        made.map_or(Self::Nothing, Self::Made)
    }
}

/// Whether it can be seen at Stripe that such a wish was had. Others do no harm when they are had twice: they set, and do not add.
pub(super) fn can_be_found(kind: &str) -> bool {
    matches!(kind, "subscription.charge" | "top_up.charge" | "payment.refund" | "balance.return")
}

/// What an earlier try made, if it did [B-64, B-65]: nothing of what cannot be found.
///
/// # Errors
/// Stripe's; the database's.
pub(super) async fn look_up(state: &AppState, stripe: &Transport, due: &mut Due) -> Result<Look, Error> {
    match due.kind.as_str() {
        "subscription.charge" | "top_up.charge" => {
            let key = format!("{}-{}", due.key(), due.attempts);
            // Before the former ones: who is replaced after this was looked at here.
            let customer = customer(state, stripe, due).await?;
            let is_owed = due.kind == "subscription.charge";
            due.looks = true;
            // An earlier try may have been made with a customer that another has taken the place of since.
            for gone in customers::former(state, due.organization.ok_or(MALFORMED)?).await? {
                if let Some(made) = collect::left(stripe, &gone, &due.operation, &key, is_owed).await? {
                    return Ok(Look::Made(made));
                }
            }
            let found = collect::find(stripe, &customer, &due.operation).await?;
            // Half of an invoice is put away.
            due.looks = found.as_ref().is_some_and(|found| Object(found).text("status") == Some("draft"));
            let Some(found) = found else { return Ok(Look::Nothing) };
            let resumed = collect::resume(stripe, Object(&found), &key).await?;
            due.looks = false;
            match resumed {
                Some(asked) => Ok(Look::Made(unless_unpayable(stripe, due, asked).await?)),
                None => Ok(Look::PutAway),
            }
        }
        "payment.refund" => {
            let intent = due.payload["payment_intent"].as_str().ok_or(MALFORMED)?;
            let list = Call::get("/refunds").with("payment_intent", intent);
            Ok(made_by(stripe, &list, due).await?.into())
        }
        "balance.return" => {
            let customer = customer(state, stripe, due).await?;
            Ok(made_by(stripe, &Call::get(format!("/customers/{customer}/balance_transactions")), due).await?.into())
        }
        _ => Ok(Look::Nothing),
    }
}

async fn made_by(stripe: &Transport, list: &Call, due: &mut Due) -> Result<Option<String>, Error> {
    due.looks = true;
    let made = collect::made_by(stripe, list, &due.operation).await?;
    due.looks = false;
    Ok(made.and_then(|made| Object(&made).text("id").map(ToOwned::to_owned)))
}

async fn invoice(
    state: &AppState,
    stripe: &Transport,
    due: &Due,
    currency: money::Currency,
    lines: Vec<(String, i64)>,
    metadata: [(&'static str, String); 2],
) -> Result<Option<String>, Error> {
    let (customer, key) = (customer(state, stripe, due).await?, due.key());
    let automatic_tax = state.config.stripe.automatic_tax;
    let operation = &due.operation;
    let wanted = Collection { customer: &customer, key: &key, operation, currency, lines, metadata, automatic_tax };
    let asked = collect::collect(stripe, &wanted).await?;
    Ok(Some(unless_unpayable(stripe, due, asked).await?))
}

/// The invoice that was made. What a customer owes waits for a card there; a top-up that finds none is voided, and has failed with that: it is
/// not to be taken from a card that comes when the wallet may be full again.
async fn unless_unpayable(stripe: &Transport, due: &Due, asked: Asked) -> Result<String, Error> {
    let Asked { invoice, lacks_card } = asked;
    if !lacks_card || due.kind != "top_up.charge" {
        return Ok(invoice);
    }
    match void(stripe, &invoice, format!("{}-{}-unpayable", due.key(), due.attempts)).await {
        // Somebody is paying it meanwhile: its event tells what becomes of that.
        Err(Error::Stripe(error)) if error.status() == Some(400) => Ok(invoice),
        voided => voided.map(|_| invoice),
    }
}

/// Takes away what a charge that was given up has made, and what its tries have left at Stripe.
async fn take_away(state: &AppState, stripe: &Transport, due: &Due, charged: &str) -> Result<Option<String>, Error> {
    let organization = due.organization.ok_or(MALFORMED)?;
    let key = |invoice: &str| format!("{}-{}-{invoice}", due.key(), due.attempts);
    let made = sqlx::query_scalar!("select external_id from intents where idempotency_key = $1", charged);
    if let Some(invoice) = made.fetch_optional(&state.pool).await?.flatten() {
        void(stripe, &invoice, key(&invoice)).await?;
        return Ok(Some(invoice));
    }
    clear(state, stripe, organization, charged, key).await?;
    Ok(None)
}

/// Takes away all that an operation has made and that is not paid; the invoice that is, if there is one.
async fn clear(
    state: &AppState,
    stripe: &Transport,
    organization: OrganizationId,
    operation: &str,
    key: impl Fn(&str) -> String,
) -> Result<Option<String>, Error> {
    // Before the former ones: who is replaced after this was looked at here.
    let present = customers::find(state, organization).await?;
    let mut paid = None;
    for customer in customers::former(state, organization).await?.into_iter().chain(present) {
        for invoice in collect::all(stripe, &customer, operation).await? {
            let id = Object(&invoice).needs("id")?;
            let is_paid = match Object(&invoice).text("status") {
                Some("draft") => stripe.ask(&Call::delete(format!("/invoices/{id}"))).await.map(|_| false)?,
                Some("paid") => true,
                Some("void") => false,
                _ => void(stripe, id, key(id)).await?,
            };
            chassis::step!("given_up_charge.taken_away");
            paid = paid.or(is_paid.then(|| id.to_owned()));
        }
    }
    Ok(paid)
}

/// What was made of a top-up that nobody wants any more is taken away, unless it is paid; none while it is wanted. One that Stripe refused has
/// failed; of another the wallet is looked at again.
///
/// # Errors
/// Stripe's, also while its payment is on its way; the database's.
pub(super) async fn drop_top_up(state: &AppState, stripe: &Transport, due: &mut Due) -> Result<Option<Dropped>, Error> {
    if due.kind != "top_up.charge" {
        return Ok(None);
    }
    let (TopUp { id, .. }, organization) = (read(&due.payload)?, due.organization.ok_or(MALFORMED)?);
    if !top_ups::is_obsolete(state, id).await? {
        return Ok(None);
    }
    let was_refused = due.was_refused();
    // Before its invoice is void: the event of that would be a failure.
    in_transaction!(state.pool, |transaction| {
        if was_refused {
            top_ups::failed(state, transaction, organization, id, None).await
        } else {
            top_ups::give_up(state, transaction, organization, id).await
        }
    })?;
    chassis::step!("top_up.given_up");
    due.looks = true;
    let key = |invoice: &str| format!("{}-{}-{invoice}", due.key(), due.attempts);
    let paid = clear(state, stripe, organization, &due.operation, key).await?;
    due.looks = false;
    if paid.is_none() && !was_refused {
        top_ups::look_again(state, organization, id).await?;
    }
    Ok(Some(Dropped { paid }))
}

/// What became of a top-up that nobody wants any more.
pub(super) struct Dropped {
    /// Its invoice, if that was paid before: its event gives the credit.
    pub(super) paid: Option<String>,
}

/// Voids an invoice, unless it is paid; whether it is. Each try has a key of its own: what is void cannot be voided again, and a refusal must not be played back.
async fn void(stripe: &Transport, invoice: &str, key: String) -> Result<bool, Error> {
    let Err(error) = stripe.ask(&Call::post(format!("/invoices/{invoice}/void"), key)).await else {
        chassis::step!("invoice.voided");
        return Ok(false);
    };
    chassis::step!("invoice.void_refused");
    if !matches!(error.status(), Some(400 | 404)) {
        return Err(error.into());
    }
    match stripe.ask(&Call::get(format!("/invoices/{invoice}")).with("expand[]", "payments.data.payment.payment_intent")).await {
        // Paid after all, or void already: its event tells.
        Ok(invoice) if Object(&invoice).text("status") == Some("paid") => Ok(true),
        Ok(invoice) if Object(&invoice).text("status") == Some("void") => Ok(false),
        Err(gone) if gone.is_missing() => Ok(false),
        Err(asked) => Err(asked.into()),
        // Its payment is on its way: until that has ended it can neither be voided nor forgotten.
        Ok(_) => Err(error.into()),
    }
}

async fn refund(stripe: &Transport, due: &Due) -> Result<Option<String>, Error> {
    let intent = due.payload["payment_intent"].as_str().ok_or(MALFORMED)?;
    let call = Call::post("/refunds", due.key())
        .with("payment_intent", intent)
        .with_some("amount", due.payload["amount_minor"].as_i64())
        .metadata("operation", &due.operation);
    match stripe.ask(&call).await {
        Ok(refund) => Ok(Object(&refund).text("id").map(ToOwned::to_owned)),
        // Somebody was faster: it is what was wanted.
        Err(error) if error.code() == Some("charge_already_refunded") => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Moves a customer's balance back by what a payment for nothing had moved it. Stripe's sign is that of what is owed by the customer.
async fn return_balance(state: &AppState, stripe: &Transport, due: &Due) -> Result<Option<String>, Error> {
    let amount = due.payload["amount_minor"].as_i64().and_then(i64::checked_neg).ok_or(MALFORMED)?;
    let currency = due.payload["currency"].as_str().ok_or(MALFORMED)?.to_lowercase();
    let customer = customer(state, stripe, due).await?;
    let call = Call::post(format!("/customers/{customer}/balance_transactions"), due.key())
        .with("amount", amount)
        .with("currency", currency)
        .with("description", "Returned: nothing was waiting for it")
        .metadata("operation", &due.operation);
    Ok(Object(&stripe.ask(&call).await?).text("id").map(ToOwned::to_owned))
}

async fn customer(state: &AppState, stripe: &Transport, due: &Due) -> Result<String, Error> {
    customers::ensure(state, stripe, due.organization.ok_or(MALFORMED)?).await
}

fn read<T: serde::de::DeserializeOwned>(payload: &Value) -> Result<T, Error> {
    T::deserialize(payload).map_err(|_| MALFORMED)
}

fn describe(line: &Line) -> String {
    let (code, days) = (&line.code, format!("{} to {}", line.period.start.date_naive(), line.period.end.date_naive()));
    match line.kind {
        LineKind::Plan => format!("{code}, {days}"),
        LineKind::Seats => format!("{code}, more seats, {days}"),
        LineKind::Unused => format!("{code}, not used, {days}"),
        LineKind::Remaining => format!("{code}, the rest, {days}"),
        LineKind::Discount => format!("Coupon {code}"),
    }
}
