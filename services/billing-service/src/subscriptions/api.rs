//! `GET /v1/subscription` and `POST /v1/subscription/preview`.

use axum::extract::State;
use chassis::Problem;
use chassis::http::Json;
use chassis::problem::ProblemBody;
use identity::{Authenticated, OrganizationId, Scope};
use money::Currency;
use serde::Deserialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::command::Command;
use super::preview::cost;
use super::state::{Outcome, Subscription};
use super::store::{self, Wanted};
use super::terms::Terms;
use super::view::{Effective, PreviewView, SubscriptionList};
use super::{SubscriptionId, machine};
use crate::catalog::{Code, Interval, stored};
use crate::error::Error;
use crate::state::AppState;

/// The change to look at.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "change", rename_all = "snake_case", deny_unknown_fields)]
pub enum PreviewRequest {
    /// A new subscription.
    Start {
        /// The plan's code.
        plan: String,
        /// ISO 4217 code.
        currency: String,
        /// How often to pay.
        interval: Interval,
        /// How many seats.
        #[schema(minimum = 1)]
        seats: u32,
        /// The code of a coupon.
        coupon: Option<String>,
    },
    /// Another plan: at once when it costs at least as much, else when the period ends.
    ChangePlan {
        /// The subscription.
        subscription_id: SubscriptionId,
        /// The plan's code.
        plan: String,
        /// How often to pay.
        interval: Interval,
        /// How many seats.
        #[schema(minimum = 1)]
        seats: u32,
    },
    /// Another number of seats: at once when it is more, else when the period ends.
    ChangeSeats {
        /// The subscription.
        subscription_id: SubscriptionId,
        /// How many seats.
        #[schema(minimum = 1)]
        seats: u32,
    },
}

/// What the organization is subscribed to.
#[utoipa::path(get, path = "/v1/subscription", tag = "subscriptions", security(("bearer" = [])),
    responses((status = 200, body = SubscriptionList), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody)))]
pub async fn get(State(state): State<AppState>, Authenticated(principal): Authenticated) -> Result<axum::Json<SubscriptionList>, Error> {
    principal.require(Scope::BillingRead)?;
    let mut connection = state.pool.acquire().await?;
    let living = store::living(&mut connection, principal.organization_id).await?;
    Ok(axum::Json(SubscriptionList { data: living.into_iter().map(Into::into).collect() }))
}

/// What a change would cost, now and when the period ends. Nothing changes.
#[utoipa::path(post, path = "/v1/subscription/preview", tag = "subscriptions", request_body = PreviewRequest, security(("bearer" = [])),
    responses((status = 200, body = PreviewView), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn preview(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    Json(request): Json<PreviewRequest>,
) -> Result<axum::Json<PreviewView>, Error> {
    principal.require(Scope::BillingRead)?;
    let mut connection = state.pool.acquire().await?;
    let (outcome, effective) = decide(&state, &mut connection, principal.organization_id, request).await?;
    let cost = cost(&outcome)?;
    let currency = outcome.subscription.terms.currency.code().to_owned();
    Ok(axum::Json(PreviewView {
        effective,
        currency,
        now: cost.now.map(Into::into),
        next: cost.next.map(Into::into),
        next_at: cost.next_at,
    }))
}

async fn decide(
    state: &AppState,
    connection: &mut PgConnection,
    organization: OrganizationId,
    request: PreviewRequest,
) -> Result<(Outcome, Effective), Error> {
    let now = state.clock.now();
    match request {
        PreviewRequest::Start { plan, currency, interval, seats, coupon } => {
            let coupon = coupon.map(|text| field("coupon", &text)).transpose()?;
            let wanted = Wanted { plan: field("plan", &plan)?, currency: field("currency", &currency)?, interval, seats, coupon };
            Ok((store::propose(connection, organization, &wanted, now).await?, Effective::Now))
        }
        PreviewRequest::ChangePlan { subscription_id, plan, interval, seats } => {
            let subscription = store::find(connection, organization, subscription_id).await?;
            let plan: Code = field("plan", &plan)?;
            let terms = Box::new(terms(connection, &subscription, &plan, interval).await?);
            let command = machine::change_of_plan(&subscription, terms, seats, now);
            let effective = if matches!(command, Command::Downgrade { .. }) { Effective::PeriodEnd } else { Effective::Now };
            Ok((machine::decide(&subscription, &command, now)?, effective))
        }
        PreviewRequest::ChangeSeats { subscription_id, seats } => {
            let subscription = store::find(connection, organization, subscription_id).await?;
            let effective = if seats < subscription.seats { Effective::PeriodEnd } else { Effective::Now };
            Ok((machine::decide(&subscription, &Command::ChangeSeats { seats }, now)?, effective))
        }
    }
}

/// The terms of a plan for somebody who is subscribed: of their own plan and interval, those they have.
pub(super) async fn terms(
    connection: &mut PgConnection,
    subscription: &Subscription,
    plan: &Code,
    interval: Interval,
) -> Result<Terms, Error> {
    if *plan == subscription.terms.plan && interval == subscription.terms.interval {
        return Ok(subscription.terms.clone());
    }
    let currency: Currency = subscription.terms.currency;
    Ok(Terms::of(&stored::sold(connection, plan).await?, currency, interval)?)
}

/// A field of a request, read.
pub(crate) fn field<T: std::str::FromStr<Err: ToString>>(name: &str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error: T::Err| Problem::invalid_field(name, error.to_string()))
}
