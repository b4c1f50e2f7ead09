//! The page of the portal: what a customer has, pays with and owes, with a way back to the shop.

use axum::Form;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::Value;

use crate::cards::{CARDS, Card};
use crate::error::Failure;
use crate::html::{alert, button, escaped, page};
use crate::money::written;
use crate::payment_methods;
use crate::simulator::Simulator;
use crate::world::{World, number, text};

/// Invoices that are shown.
const NEWEST: usize = 12;

pub(crate) async fn show(State(simulator): State<Simulator>, Path(id): Path<String>) -> Response {
    simulator.act(|world| portal(world, &id, None))
}

/// What the button beside a subscription sends.
#[derive(Debug, Deserialize)]
pub(crate) struct Canceled {
    cancel: String,
}

/// Cancels a subscription at the end of its period.
pub(crate) async fn cancel(State(simulator): State<Simulator>, Path(id): Path<String>, Form(canceled): Form<Canceled>) -> Response {
    simulator.act(|world| changed(&id, super::cancel(world, &id, &canceled.cancel), world))
}

/// What the form for a card sends: a test card's name.
#[derive(Debug, Deserialize)]
pub(crate) struct Chosen {
    card: String,
}

/// Has the customer pay with a card from now on.
pub(crate) async fn set_card(State(simulator): State<Simulator>, Path(id): Path<String>, Form(chosen): Form<Chosen>) -> Response {
    simulator.act(|world| changed(&id, super::set_card(world, &id, &chosen.card), world))
}

fn changed(id: &str, outcome: Result<(), Failure>, world: &World) -> Response {
    match outcome {
        Ok(()) => Redirect::to(&format!("/p/session/{id}")).into_response(),
        Err(failure) => {
            let message = failure.error.get("message").and_then(Value::as_str).unwrap_or("That did not work.");
            (failure.status, portal(world, id, Some(message))).into_response()
        }
    }
}

fn portal(world: &World, id: &str, message: Option<&str>) -> Response {
    let Ok(session) = world.get("billing_portal.session", id, "id") else {
        return (StatusCode::NOT_FOUND, Html(page("No such session", ""))).into_response();
    };
    let back = session["return_url"].as_str().map(|url| format!("<p><a href=\"{}\">Back to the shop</a></p>", escaped(url)));
    let body = format!(
        "{}<h2>Subscriptions</h2><ul>{}</ul><h2>Payment method</h2>{}<h2>Invoices</h2><table>{}</table>{}",
        message.map(alert).unwrap_or_default(),
        subscriptions(world, &session),
        card_form(world, &session),
        invoices(world, &session),
        back.unwrap_or_default()
    );
    Html(page("Your billing", &body)).into_response()
}

fn subscriptions(world: &World, session: &Value) -> String {
    let running = world.all("subscription").filter(|subscription| subscription["customer"] == session["customer"]);
    let row = |subscription: &Value| {
        let what = format!("{} ({})", escaped(&text(subscription, "id")), escaped(&text(subscription, "status")));
        let ends = subscription["cancel_at_period_end"] == true || !subscription["ended_at"].is_null();
        let form = if ends {
            String::new()
        } else {
            button(&format!("/p/session/{}", text(session, "id")), "cancel", &text(subscription, "id"), "Cancel at period end")
        };
        format!("<li>{what}{form}</li>")
    };
    running.map(row).collect()
}

/// The card that pays, and Stripe's test cards to choose another one from.
fn card_form(world: &World, session: &Value) -> String {
    let customer = world.related(session, "customer");
    let paying = payment_methods::default_of(&customer).and_then(|id| world.find(&id));
    let paying = paying.map_or_else(
        || "None.".to_owned(),
        |method| format!("{} ending in {}", text(&method["card"], "brand"), text(&method["card"], "last4")),
    );
    let option = |card: &Card| {
        let label = format!("{} ({})", card.number, card.name.trim_start_matches("pm_card_"));
        format!("<option value=\"{}\">{}</option>", escaped(card.name), escaped(&label))
    };
    format!(
        "<p>{}</p><form method=\"post\" action=\"/p/session/{}/card\"><label>Card <select name=\"card\">{}</select></label>\
         <button>Pay with this card</button></form>",
        escaped(&paying),
        escaped(&text(session, "id")),
        CARDS.iter().map(option).collect::<String>()
    )
}

fn invoices(world: &World, session: &Value) -> String {
    let newest = world.all("invoice").rev().filter(|invoice| invoice["customer"] == session["customer"]).take(NEWEST);
    let row = |invoice: &Value| {
        let amount = written(number(invoice, "total"), &text(invoice, "currency"));
        let (number, status) = (escaped(&text(invoice, "number")), escaped(&text(invoice, "status")));
        let named = match invoice["hosted_invoice_url"].as_str() {
            Some(url) => format!("<a href=\"{}\">{number}</a>", escaped(url)),
            None => number,
        };
        format!("<tr><td>{named}</td><td>{status}</td><td>{amount}</td></tr>")
    };
    newest.map(row).collect()
}
