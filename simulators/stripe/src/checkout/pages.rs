//! Pages for a browser: checkout, and the bank's question.

use axum::Form;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde_json::Value;

use super::{Outcome, complete};
use crate::html::{alert, button, escaped, page};
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

impl Action {
    /// The card that is paid with, and whether its bank was answered; none where the payment ends here.
    pub(crate) const fn card(&self) -> Option<(&'static str, bool)> {
        match self {
            Self::Pay => Some((CARD, false)),
            Self::Fail => Some((REFUSED_CARD, false)),
            Self::Authenticate => Some((ASKING_CARD, false)),
            Self::Confirm => Some((ASKING_CARD, true)),
            Self::Refuse => None,
        }
    }
}

/// What a page's form sends.
#[derive(Debug, Deserialize)]
pub(crate) struct Pressed {
    pub(crate) action: Action,
}

/// What is said to somebody whose bank was not answered.
pub(crate) const NOT_CONFIRMED: &str = "The payment was not confirmed.";

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
        let Some((card, authenticated)) = pressed.action.card() else { return again(world, &id, NOT_CONFIRMED) };
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
    let error = message.map(alert).unwrap_or_default();
    let buttons = buttons(&format!("/c/pay/{}", text(session, "id")));
    let back = session["cancel_url"].as_str().map(|url| format!("<p><a href=\"{}\">Back</a></p>", escaped(url))).unwrap_or_default();
    page("Checkout", &format!("<table>{}{total}</table>{error}{buttons}{back}", rows.concat()))
}

/// The three ways to try to pay.
pub(crate) fn buttons(action: &str) -> String {
    [("pay", "Pay"), ("fail", "Fail"), ("authenticate", "3-D Secure")].map(|(value, label)| button(action, "action", value, label)).concat()
}

/// The bank's question, whose answer goes where the payment was begun.
pub(crate) fn challenge(action: &str) -> String {
    let buttons = [("confirm", "Complete authentication"), ("refuse", "Fail authentication")]
        .map(|(value, label)| button(action, "action", value, label))
        .concat();
    page("3-D Secure", &format!("<p>Your bank wants to know that it is you.</p>{buttons}"))
}
