//! The pages for a browser: checkout, the bank's question, the portal.

use axum::Form;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::Value;

use super::{Outcome, complete};
use crate::html::{button, escaped, page};
use crate::money::written;
use crate::payments;
use crate::simulator::Simulator;
use crate::world::{World, number, text};

/// The button that was pressed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    /// Pay with a card that works.
    Pay,
    /// Pay with a card that is refused.
    Fail,
    /// Pay with a card whose bank asks.
    Authenticate,
    /// The bank's question was answered well.
    Confirm,
    /// The bank's question was not answered.
    Refuse,
}

/// What a page's form sends.
#[derive(Debug, Deserialize)]
pub(crate) struct Pressed {
    action: Action,
}

const CARD: &str = "pm_card_visa";
const REFUSED_CARD: &str = "pm_card_chargeDeclined";
const ASKING_CARD: &str = "pm_card_threeDSecure2Required";

pub(crate) async fn show(State(simulator): State<Simulator>, Path(id): Path<String>) -> Response {
    simulator.act(|world| match world.get("checkout.session", &id, "id") {
        Ok(session) if session["status"] == "open" => Html(checkout(world, &session, None)).into_response(),
        Ok(session) => gone(&session),
        Err(_) => (StatusCode::NOT_FOUND, Html(page("No such session", ""))).into_response(),
    })
}

pub(crate) async fn press(State(simulator): State<Simulator>, Path(id): Path<String>, Form(pressed): Form<Pressed>) -> Response {
    simulator.act(|world| {
        let (card, authenticated) = match pressed.action {
            Action::Pay => (CARD, false),
            Action::Fail => (REFUSED_CARD, false),
            Action::Authenticate => (ASKING_CARD, false),
            Action::Confirm => (ASKING_CARD, true),
            Action::Refuse => return again(world, &id, "The payment was not confirmed."),
        };
        match complete(world, &id, card, authenticated) {
            Ok(Outcome::Complete(session)) => {
                Redirect::to(&text(&session, "success_url").replace("{CHECKOUT_SESSION_ID}", &id)).into_response()
            }
            Ok(Outcome::Challenge) => Html(challenge(&format!("/c/pay/{id}"))).into_response(),
            Ok(Outcome::Declined(message)) => again(world, &id, &message),
            Err(failure) => again(world, &id, failure.error.get("message").and_then(Value::as_str).unwrap_or_default()),
        }
    })
}

/// The bank's page of a payment that was made without checkout.
pub(crate) async fn show_challenge(Path(id): Path<String>) -> Html<String> {
    Html(challenge(&format!("/_simulator/3ds/{id}")))
}

pub(crate) async fn answer_challenge(State(simulator): State<Simulator>, Path(id): Path<String>, Form(pressed): Form<Pressed>) -> Response {
    simulator.act(|world| match payments::authenticate(world, &id, matches!(pressed.action, Action::Confirm)) {
        Ok(intent) => match intent["__return_url"].as_str() {
            Some(url) => Redirect::to(url).into_response(),
            None => Html(page("Done", &format!("<p>The payment is {}.</p>", escaped(&text(&intent, "status"))))).into_response(),
        },
        Err(failure) => (failure.status, Html(page("That did not work", ""))).into_response(),
    })
}

/// What a customer has, with a way back to the shop.
pub(crate) async fn portal(State(simulator): State<Simulator>, Path(id): Path<String>) -> Response {
    simulator.act(|world| {
        let Ok(session) = world.get("billing_portal.session", &id, "id") else {
            return (StatusCode::NOT_FOUND, Html(page("No such session", ""))).into_response();
        };
        let of_customer = |object: &&Value| object["customer"] == session["customer"];
        let running = world.all("subscription").filter(of_customer);
        let running: Vec<String> = running
            .map(|subscription| {
                let what = format!("{} ({})", escaped(&text(subscription, "id")), escaped(&text(subscription, "status")));
                let ends = subscription["cancel_at_period_end"] == true || !subscription["ended_at"].is_null();
                let form = if ends {
                    String::new()
                } else {
                    button(&format!("/p/session/{id}"), "cancel", &text(subscription, "id"), "Cancel at period end")
                };
                format!("<li>{what}{form}</li>")
            })
            .collect();
        let invoices = world.all("invoice").rev().filter(of_customer).take(12);
        let invoices: Vec<String> = invoices
            .map(|invoice| {
                let amount = written(number(invoice, "total"), &text(invoice, "currency"));
                format!(
                    "<tr><td>{}</td><td>{}</td><td>{amount}</td></tr>",
                    escaped(&text(invoice, "number")),
                    escaped(&text(invoice, "status"))
                )
            })
            .collect();
        let back = session["return_url"].as_str().map(|url| format!("<p><a href=\"{}\">Back to the shop</a></p>", escaped(url)));
        let body = format!(
            "<h2>Subscriptions</h2><ul>{}</ul><h2>Invoices</h2><table>{}</table>{}",
            running.concat(),
            invoices.concat(),
            back.unwrap_or_default()
        );
        Html(page("Your billing", &body)).into_response()
    })
}

/// What the portal's form sends.
#[derive(Debug, Deserialize)]
pub(crate) struct Canceled {
    cancel: String,
}

/// Cancels a subscription at the end of its period.
pub(crate) async fn cancel(State(simulator): State<Simulator>, Path(id): Path<String>, Form(canceled): Form<Canceled>) -> Response {
    simulator.act(|world| match crate::portal::cancel(world, &id, &canceled.cancel) {
        Ok(()) => Redirect::to(&format!("/p/session/{id}")).into_response(),
        Err(failure) => (failure.status, Html(page("That did not work", ""))).into_response(),
    })
}

fn again(world: &World, id: &str, message: &str) -> Response {
    match world.get("checkout.session", id, "id") {
        Ok(session) if session["status"] == "open" => Html(checkout(world, &session, Some(message))).into_response(),
        Ok(session) => gone(&session),
        Err(_) => (StatusCode::NOT_FOUND, Html(page("No such session", ""))).into_response(),
    }
}

fn gone(session: &Value) -> Response {
    let body = format!("<p>This session is {}.</p>", escaped(&text(session, "status")));
    (StatusCode::GONE, Html(page("Nothing to pay", &body))).into_response()
}

fn checkout(world: &World, session: &Value, message: Option<&str>) -> String {
    let currency = text(session, "currency");
    let items = session["__line_items"]["data"].as_array().into_iter().flatten();
    let rows: Vec<String> = items
        .map(|item| {
            let every = item["price"]["recurring"]["interval"].as_str().map(|interval| format!(" per {interval}")).unwrap_or_default();
            let name = escaped(&text(&world.related(&item["price"], "product"), "name"));
            let amount = written(number(item, "amount_total"), &currency);
            format!("<tr><td>{} × {name}</td><td>{amount}{}</td></tr>", item["quantity"].as_i64().unwrap_or(1), escaped(&every))
        })
        .collect();
    let total = if session["mode"] == "setup" {
        String::new()
    } else {
        format!("<tr><td>Total due today</td><td>{}</td></tr>", written(number(session, "amount_total"), &currency))
    };
    let error = message.map(|message| format!("<p class=\"error\" role=\"alert\">{}</p>", escaped(message))).unwrap_or_default();
    let action = format!("/c/pay/{}", text(session, "id"));
    let buttons = [("pay", "Pay"), ("fail", "Fail"), ("authenticate", "3-D Secure")]
        .map(|(value, label)| button(&action, "action", value, label))
        .concat();
    let back = session["cancel_url"].as_str().map(|url| format!("<p><a href=\"{}\">Back</a></p>", escaped(url))).unwrap_or_default();
    page("Checkout", &format!("<table>{}{total}</table>{error}{buttons}{back}", rows.concat()))
}

fn challenge(action: &str) -> String {
    let buttons = [("confirm", "Complete authentication"), ("refuse", "Fail authentication")]
        .map(|(value, label)| button(action, "action", value, label))
        .concat();
    page("3-D Secure", &format!("<p>Your bank wants to know that it is you.</p>{buttons}"))
}
