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

use super::changes::{self, Change};
use super::command::Command;
use super::preview::cost;
use super::state::{Outcome, Subscription};
use super::store::{self, Wanted};
use super::terms::Terms;
use super::view::{Effective, PreviewView, SubscriptionList};
use super::{SubscriptionId, machine, redemptions};
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
    /// A coupon for the charges to come.
    ApplyCoupon {
        /// The subscription.
        subscription_id: SubscriptionId,
        /// Its code.
        coupon: String,
    },
    /// End when the period does; at once where there is no access.
    Cancel {
        /// The subscription.
        subscription_id: SubscriptionId,
    },
    /// Do not end after all.
    Uncancel {
        /// The subscription.
        subscription_id: SubscriptionId,
    },
    /// Rest: no access, and nothing new to pay.
    Pause {
        /// The subscription.
        subscription_id: SubscriptionId,
    },
    /// Go on: in the paid period, or in a new one from now.
    Resume {
        /// The subscription.
        subscription_id: SubscriptionId,
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
    let (id, change) = match request {
        PreviewRequest::Start { plan, currency, interval, seats, coupon } => {
            let coupon = coupon.map(|text| field("coupon", &text)).transpose()?;
            let wanted = Wanted { plan: field("plan", &plan)?, currency: field("currency", &currency)?, interval, seats, coupon };
            return Ok((store::propose(connection, organization, &wanted, now).await?, Effective::Now));
        }
        PreviewRequest::ChangePlan { subscription_id, plan, interval, seats } => (subscription_id, Change::Plan { plan, interval, seats }),
        PreviewRequest::ChangeSeats { subscription_id, seats } => (subscription_id, Change::Seats { seats }),
        PreviewRequest::ApplyCoupon { subscription_id, coupon } => (subscription_id, Change::Coupon { coupon }),
        PreviewRequest::Cancel { subscription_id } => (subscription_id, Change::Cancel),
        PreviewRequest::Uncancel { subscription_id } => (subscription_id, Change::Uncancel),
        PreviewRequest::Pause { subscription_id } => (subscription_id, Change::Pause),
        PreviewRequest::Resume { subscription_id } => (subscription_id, Change::Resume),
    };
    let subscription = store::find(connection, organization, id).await?;
    let command = changes::command(connection, &subscription, change, "", now).await?;
    if let Command::ApplyCoupon { coupon } = &command {
        redemptions::check(connection, organization, &coupon.code, &subscription.terms.group, "coupon").await?;
    }
    Ok((machine::decide(&subscription, &command, now)?, effective(&subscription, &command)))
}

/// From when on a change holds.
fn effective(subscription: &Subscription, command: &Command) -> Effective {
    match command {
        Command::Downgrade { .. } | Command::CancelAtPeriodEnd => Effective::PeriodEnd,
        Command::ChangeSeats { seats } if *seats < subscription.seats => Effective::PeriodEnd,
        _ => Effective::Now,
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
