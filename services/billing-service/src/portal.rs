//! Stripe's portal, where a customer changes its card and sees its invoices; and the cards that it has.

use axum::extract::State;
use chassis::Problem;
use chassis::http::Json;
use chassis::problem::ProblemBody;
use http::StatusCode;
use identity::{Authenticated, OrganizationId, Scope};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::checkouts::checked_url;
use crate::error::Error;
use crate::state::AppState;
use crate::stripe::call::Call;
use crate::stripe::customers;
use crate::stripe::object::Object;
use crate::stripe::transport::{Transport, TransportError};

/// A visit to the portal.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PortalRequest {
    /// Where a browser goes from it.
    #[schema(example = "https://example.com/account")]
    return_url: String,
}

/// The portal.
#[derive(Debug, Serialize, ToSchema)]
pub struct PortalView {
    /// The page, for a few minutes.
    #[schema(example = "https://billing.stripe.com/p/session/test_1")]
    url: String,
}

/// A card.
#[derive(Debug, Serialize, ToSchema)]
pub struct PaymentMethodView {
    /// Stripe's id.
    id: String,
    /// `card`, or another of Stripe's types.
    #[serde(rename = "type")]
    kind: String,
    /// `visa`, …
    brand: Option<String>,
    /// The last four digits.
    last_four: Option<String>,
    /// The month in which it ends.
    exp_month: Option<i64>,
    /// The year in which it ends.
    exp_year: Option<i64>,
    /// Whether later charges are paid with it.
    default: bool,
}

/// Cards.
#[derive(Debug, Serialize, ToSchema)]
pub struct PaymentMethodList {
    /// Newest first, at most a hundred.
    data: Vec<PaymentMethodView>,
    /// Always absent.
    next_cursor: Option<String>,
}

/// Open Stripe's portal for the organization.
#[utoipa::path(post, path = "/v1/portal-sessions", tag = "payments", request_body = PortalRequest, security(("bearer" = [])),
    responses((status = 201, body = PortalView), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 422, body = ProblemBody), (status = 501, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn create(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    Json(request): Json<PortalRequest>,
) -> Result<(StatusCode, axum::Json<PortalView>), Error> {
    principal.require(Scope::BillingWrite)?;
    let stripe = state.stripe.as_ref().ok_or(Error::NoStripe)?;
    checked_url("return_url", &request.return_url)?;
    let _place = stripe.place(principal.organization_id)?;
    // Each visit is one of its own; one too many harms nobody.
    let visit = state.random.uuid_v7(&state.clock);
    let call = |customer: &str| {
        let call = Call::post("/billing_portal/sessions", format!("portal-{visit}-{customer}"));
        call.with("customer", customer).with("return_url", &request.return_url)
    };
    let session = customers::ask(&state, stripe, principal.organization_id, call).await.map_err(refused)?;
    Ok((StatusCode::CREATED, axum::Json(PortalView { url: Object(&session).needs("url")?.to_owned() })))
}

/// What Stripe refuses of a request that is well-formed is the one thing that was asked for, and it says so; or else the portal itself, of
/// which it names no field, and which an operator has to set up.
fn refused(error: Error) -> Error {
    let Error::Stripe(TransportError::Refused { status: 400, code, param, .. }) = &error else { return error };
    match param.as_deref() {
        Some("return_url") => Problem::invalid_field("return_url", "must be a URL that Stripe takes").into(),
        None if code == "invalid_request_error" => {
            tracing::error!(
                error.message = error.chain(),
                "Stripe opens no portal: its configuration has to be saved on the dashboard once"
            );
            Problem::new(StatusCode::NOT_IMPLEMENTED, "portal_not_configured", "The portal is not set up at Stripe").into()
        }
        _ => error,
    }
}

/// The cards of the organization, as Stripe has them now.
#[utoipa::path(get, path = "/v1/payment-methods", tag = "payments", security(("bearer" = [])),
    responses((status = 200, body = PaymentMethodList), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 501, body = ProblemBody), (status = 503, body = ProblemBody)))]
pub async fn payment_methods(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
) -> Result<axum::Json<PaymentMethodList>, Error> {
    principal.require(Scope::BillingRead)?;
    let stripe = state.stripe.as_ref().ok_or(Error::NoStripe)?;
    let Some(customer) = customers::find(&state, principal.organization_id).await? else {
        return Ok(axum::Json(PaymentMethodList { data: Vec::new(), next_cursor: None }));
    };
    let _place = stripe.place(principal.organization_id)?;
    Ok(axum::Json(PaymentMethodList { data: cards(stripe, &customer).await?, next_cursor: None }))
}

/// Whether the organization has anything to pay with when nobody is there: a default card, or one with which something was just paid.
///
/// # Errors
/// Stripe's; the database's.
pub async fn has_payment_method(state: &AppState, organization: OrganizationId) -> Result<bool, Error> {
    let stripe = state.stripe.as_ref().ok_or(Error::NoStripe)?;
    let Some(customer) = customers::find(state, organization).await? else { return Ok(false) };
    if customers::card_is_wanted(state, organization).await? {
        return Ok(true);
    }
    let _place = stripe.place(organization)?;
    let found = there(stripe, Call::get(format!("/customers/{customer}"))).await?;
    Ok(found.is_some_and(|found| {
        let found = Object(&found);
        found.at("invoice_settings").related("default_payment_method").or(found.related("default_source")).is_some()
    }))
}

/// The cards of a customer; none of one that was deleted at Stripe, before or between the two looks.
async fn cards(stripe: &Transport, customer: &str) -> Result<Vec<PaymentMethodView>, Error> {
    let found = there(stripe, Call::get(format!("/customers/{customer}"))).await?;
    let page = there(stripe, Call::get(format!("/customers/{customer}/payment_methods")).with("limit", 100)).await?;
    let (Some(found), Some(page)) = (found, page) else { return Ok(Vec::new()) };
    let default = Object(&found).at("invoice_settings").related("default_payment_method");
    Object(&page).list("data").map(|method| view(method, default)).collect()
}

/// What Stripe has of that name, if it has it.
async fn there(stripe: &Transport, call: Call) -> Result<Option<Value>, Error> {
    match stripe.ask_patiently(&call).await {
        Err(error) if error.is_missing() => Ok(None),
        asked => Ok(Some(asked?)),
    }
}

fn view(method: Object<'_>, default: Option<&str>) -> Result<PaymentMethodView, Error> {
    let (id, card) = (method.needs("id")?, method.at("card"));
    let text = |name| card.text(name).map(ToOwned::to_owned);
    Ok(PaymentMethodView {
        id: id.to_owned(),
        kind: method.needs("type")?.to_owned(),
        brand: text("brand"),
        last_four: text("last4"),
        exp_month: card.number("exp_month"),
        exp_year: card.number("exp_year"),
        default: default == Some(id),
    })
}
