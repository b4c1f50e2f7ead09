//! The page on which a customer sees an invoice, and pays it.

use axum::Form;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde_json::Value;

use crate::cards::{self, Behavior};
use crate::checkout::Outcome;
use crate::checkout::pages::{NOT_CONFIRMED, Pressed, buttons, challenge};
use crate::error::Failure;
use crate::html::{alert, escaped, page};
use crate::payments::{self, Mode};
use crate::simulator::Simulator;
use crate::world::{World, number, text};
use crate::{documents, payment_methods};

pub(crate) async fn show(State(simulator): State<Simulator>, Path(id): Path<String>) -> Response {
    simulator.act(|world| match finalized(world, &id) {
        Some(invoice) => Html(invoice_page(&invoice, None)).into_response(),
        None => (StatusCode::NOT_FOUND, Html(page("No such invoice", ""))).into_response(),
    })
}

pub(crate) async fn press(State(simulator): State<Simulator>, Path(id): Path<String>, Form(pressed): Form<Pressed>) -> Response {
    simulator.act(|world| {
        let Some((card, authenticated)) = pressed.action.card() else { return again(world, &id, StatusCode::OK, NOT_CONFIRMED) };
        match pay(world, &id, card, authenticated) {
            Ok(Outcome::Complete(invoice)) => Redirect::to(&text(&invoice, "hosted_invoice_url")).into_response(),
            Ok(Outcome::Challenge) => Html(challenge(&format!("/invoices/{id}"))).into_response(),
            Ok(Outcome::Declined(message)) => again(world, &id, StatusCode::OK, &message),
            Err(failure) => again(world, &id, failure.status, &message_of(&failure)),
        }
    })
}

/// An invoice that has a page: a draft has none.
fn finalized(world: &World, id: &str) -> Option<Value> {
    world.get("invoice", id, "id").ok().filter(|invoice| invoice["hosted_invoice_url"].is_string())
}

fn again(world: &World, id: &str, status: StatusCode, message: &str) -> Response {
    match finalized(world, id) {
        Some(invoice) => (status, Html(invoice_page(&invoice, Some(message)))).into_response(),
        None => (StatusCode::NOT_FOUND, Html(page("No such invoice", ""))).into_response(),
    }
}

fn message_of(failure: &Failure) -> String {
    failure.error.get("message").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Pays with a test card. The customer is there: that is no retry of Stripe's, whose plan stays as it is.
fn pay(world: &mut World, id: &str, card: &str, authenticated: bool) -> Result<Outcome, Failure> {
    let mut invoice = world.get("invoice", id, "id")?;
    super::must_be(&invoice, &["open", "uncollectible"])?;
    let card = cards::named(card).ok_or_else(|| Failure::no_such("test card", card, "payment_method"))?;
    if matches!(card.behavior, Behavior::Authenticates | Behavior::AuthenticatesOnce) && !authenticated {
        return Ok(Outcome::Challenge);
    }
    let intent = world.related(&invoice, "__intent");
    if intent["status"] == "processing" {
        return Err(Failure::invalid("A payment of this invoice is on its way.").code("payment_intent_unexpected_state"));
    }
    invoice["attempted"] = true.into();
    invoice["attempt_count"] = number(&invoice, "attempt_count").max(1).into();
    world.put(&invoice);
    let method = payment_methods::of_card(world, card);
    match payments::charge(world, &intent, &method, Mode { authenticated, off_session: false }) {
        Ok(_) => Ok(Outcome::Complete(world.get("invoice", id, "id")?)),
        Err(failure) => {
            world.emit("invoice.payment_failed", &invoice);
            Ok(Outcome::Declined(message_of(&failure)))
        }
    }
}

fn invoice_page(invoice: &Value, message: Option<&str>) -> String {
    let status = text(invoice, "status");
    let buttons = match status.as_str() {
        "open" | "uncollectible" => buttons(&format!("/invoices/{}", text(invoice, "id"))),
        _ => String::new(),
    };
    let body = format!(
        "<p>This invoice is {}.</p>{}{}{buttons}<p><a href=\"{}\">To print</a></p>",
        escaped(&status),
        documents::invoice_table(invoice),
        message.map(alert).unwrap_or_default(),
        escaped(&text(invoice, "invoice_pdf"))
    );
    page(&format!("Invoice {}", text(invoice, "number")), &body)
}
