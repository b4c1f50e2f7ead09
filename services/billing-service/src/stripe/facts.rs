//! What objects of Stripe's mean to us. An event only says which object to look at; the object is fetched, and its present state has
//! its effect [B-17]: so events may come in any order, twice, or late, and end alike [B-16]. Every effect is keyed by Stripe's id of
//! what it is about, and happens once.

pub(super) mod checkout;
pub(super) mod credit_note;
mod customer;
pub(super) mod invoice;
pub(super) mod reversal;
pub mod turn;

use chassis::telemetry::{continue_from, link_to_current};
use serde_json::Value;
use sqlx::{Postgres, Transaction};
use tracing::Span;

use super::call::Call;
use super::object::Object;
use super::transport::{Transport, TransportError};
use crate::error::Error;
use crate::state::AppState;
use turn::Turn;

/// What kind of object an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A page on which something is bought.
    Checkout,
    /// An invoice.
    Invoice,
    /// What an invoice was made less by.
    CreditNote,
    /// Money that goes back.
    Refund,
    /// Money that a bank asks about.
    Dispute,
    /// A customer.
    Customer,
}

impl Family {
    /// The family of an event's type; none for what is nothing to us.
    #[must_use]
    pub fn of(kind: &str) -> Option<Self> {
        match kind {
            // Before they exist, and after they are gone, there is nothing to fetch.
            "invoice.upcoming" | "invoice.deleted" => None,
            _ if kind.starts_with("checkout.session.") => Some(Self::Checkout),
            _ if kind.starts_with("invoice.") => Some(Self::Invoice),
            _ if kind.starts_with("credit_note.") => Some(Self::CreditNote),
            _ if kind.starts_with("refund.") => Some(Self::Refund),
            _ if kind.starts_with("charge.dispute.") => Some(Self::Dispute),
            "customer.created" | "customer.updated" => Some(Self::Customer),
            _ => None,
        }
    }

    const fn effect(self) -> &'static str {
        match self {
            Self::Checkout => "effect of a checkout",
            Self::Invoice => "effect of an invoice",
            Self::CreditNote => "effect of a credit note",
            Self::Refund => "effect of a refund",
            Self::Dispute => "effect of a dispute",
            Self::Customer => "effect of a customer",
        }
    }

    fn call(self, id: &str) -> Call {
        match self {
            Self::Checkout => Call::get(format!("/checkout/sessions/{id}")).with("expand[]", "payment_intent"),
            Self::Invoice => Call::get(format!("/invoices/{id}")).with("expand[]", "payments.data.payment.payment_intent"),
            Self::CreditNote => Call::get(format!("/credit_notes/{id}")).with("expand[]", "customer_balance_transaction"),
            Self::Refund => Call::get(format!("/refunds/{id}")).with("expand[]", "payment_intent"),
            Self::Dispute => Call::get(format!("/disputes/{id}")).with("expand[]", "payment_intent"),
            Self::Customer => Call::get(format!("/customers/{id}")),
        }
    }
}

/// Whether what an event of this type is about, which had this `status` then, may be gone from Stripe when it is looked for, so that a 404 is how
/// things are. Customers are deleted, and so are drafts of invoices, which some types may be about. All else Stripe keeps for ever: sessions,
/// invoices that are final, credit notes, refunds and disputes. Of those a 404 says that another account is asked than the event came from (another
/// key, another address), and that is mended one day. A type of an invoice that is not known here counts as one of what is final: people are told
/// once too often rather than never.
#[must_use]
pub(super) fn may_be_gone(kind: &str, status: Option<&str>) -> bool {
    match Family::of(kind) {
        // What means nothing here is not looked for.
        None | Some(Family::Customer) => true,
        // The first two are told of drafts too, and the last one of nothing else.
        Some(Family::Invoice) => {
            matches!(kind, "invoice.created" | "invoice.updated" | "invoice.finalization_failed")
                && status.is_none_or(|status| status == "draft")
        }
        Some(Family::Checkout | Family::CreditNote | Family::Refund | Family::Dispute) => false,
    }
}

/// An object as Stripe has it now.
#[derive(Debug)]
pub struct Fetched {
    /// What kind.
    pub family: Family,
    /// The number of the look: a later one is at least as new.
    pub number: i64,
    /// The object.
    pub object: Value,
}

impl Fetched {
    /// Stripe's id of the customer that it is about.
    fn customer(&self) -> Option<&str> {
        let object = Object(&self.object);
        match self.family {
            Family::Customer => object.text("id"),
            Family::Refund | Family::Dispute => object.at("payment_intent").related("customer"),
            Family::Checkout | Family::Invoice | Family::CreditNote => object.related("customer"),
        }
    }
}

/// Fetches an object; none when Stripe answers that it does not have it: it is gone, or was never there for this key.
///
/// # Errors
/// Stripe's; the database's.
pub async fn fetch(state: &AppState, stripe: &Transport, family: Family, id: &str) -> Result<Option<Fetched>, Error> {
    // Drawn before the look, so that the order of numbers is the order in which looks began.
    let number = sqlx::query_scalar!(r#"select nextval('stripe_fetches') as "number!""#).fetch_one(&state.pool).await?;
    look(stripe, family, id, number).await
}

/// The same with a number that was drawn before.
///
/// # Errors
/// Stripe's.
pub(super) async fn look(stripe: &Transport, family: Family, id: &str, number: i64) -> Result<Option<Fetched>, Error> {
    match whole(stripe, family, id).await {
        Ok(object) => Ok(Some(Fetched { family, number, object })),
        Err(error) if TransportError::is_missing(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn whole(stripe: &Transport, family: Family, id: &str) -> Result<Value, TransportError> {
    let mut object = stripe.ask(&family.call(id)).await?;
    if family == Family::Invoice {
        invoice::mirror::add_lines(stripe, id, &mut object).await?;
    }
    Ok(object)
}

/// The span of an object's effect: a part of the trace in which it was wanted, so that a purchase is one trace from the wish to the
/// credit, and linked to the event that told of it.
#[must_use]
pub fn effect_span(fetched: &Fetched, turn: &Turn) -> Span {
    let Some(wanted_in) = &turn.wanted_in else { return tracing::info_span!("effect", otel.name = fetched.family.effect()) };
    let span = tracing::info_span!(parent: None, "effect", otel.name = fetched.family.effect());
    continue_from(&span, wanted_in);
    link_to_current(&span);
    span
}

/// The effect of an object, in the turn of its customer [B-24]; false when it is none of ours.
///
/// # Errors
/// [`Error::Unreadable`]; what else the effect may fail with. Nothing has changed then.
pub async fn apply(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    fetched: &Fetched,
    turn: &Turn,
) -> Result<bool, Error> {
    let object = Object(&fetched.object);
    match fetched.family {
        Family::Checkout => checkout::apply(state, transaction, object).await,
        Family::Invoice => invoice::apply(state, transaction, object, fetched.number, turn).await,
        Family::CreditNote => credit_note::apply(state, transaction, object, fetched.number, turn).await,
        Family::Refund => reversal::refund(state, transaction, object, fetched.number, turn).await,
        Family::Dispute => reversal::dispute(state, transaction, object, fetched.number, turn).await,
        Family::Customer => customer::apply(transaction, object).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [B-20]
    #[test]
    fn what_may_be_gone_is_a_customer_or_a_draft_and_nothing_that_tells_of_money() {
        let gone = ["customer.created", "customer.updated", "invoice.created", "invoice.updated", "invoice.finalization_failed"];
        for kind in gone.into_iter().chain(["invoice.deleted", "moon.landed"]) {
            assert!(may_be_gone(kind, None) && may_be_gone(kind, Some("draft")), "{kind}");
            let final_invoice = kind.starts_with("invoice.") && kind != "invoice.deleted";
            assert_eq!(may_be_gone(kind, Some("open")), !final_invoice, "{kind}");
        }
        for kind in [
            "checkout.session.completed",
            "checkout.session.async_payment_succeeded",
            "checkout.session.expired",
            "invoice.finalized",
            "invoice.paid",
            "invoice.payment_failed",
            "invoice.voided",
            "invoice.marked_uncollectible",
            "invoice.of_a_later_version",
            "credit_note.created",
            "credit_note.voided",
            "refund.created",
            "refund.failed",
            "charge.dispute.created",
            "charge.dispute.closed",
        ] {
            assert!(!may_be_gone(kind, None) && !may_be_gone(kind, Some("draft")), "{kind}");
        }
    }
}
