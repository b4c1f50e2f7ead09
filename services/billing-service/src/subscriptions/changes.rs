//! `POST /v1/subscription/changes`: what the preview shows, done; and what costs nothing to show.

use axum::extract::State;
use chassis::http::Json;
use chassis::idempotency::{Answer, Begun, Call, begin};
use chassis::problem::ProblemBody;
use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode};
use identity::{Authenticated, Scope};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::api::{field, terms};
use super::command::{AppliedCoupon, Command};
use super::state::Subscription;
use super::status::Status;
use super::store::{self, Stored};
use super::view::SubscriptionView;
use super::{SubscriptionId, machine};
use crate::catalog::{Code, Interval, stored};
use crate::error::Error;
use crate::state::AppState;

/// A change of a subscription.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeRequest {
    /// The subscription.
    subscription_id: SubscriptionId,
    /// What is to become of it.
    change: Change,
}

/// What is to become of a subscription.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// Another plan: at once when it costs at least as much, else when the period ends.
    Plan {
        /// The plan's code.
        plan: String,
        /// How often to pay.
        interval: Interval,
        /// How many seats.
        #[schema(minimum = 1)]
        seats: u32,
    },
    /// Another number of seats: at once when it is more, else when the period ends.
    Seats {
        /// How many seats.
        #[schema(minimum = 1)]
        seats: u32,
    },
    /// A coupon for the charges to come.
    Coupon {
        /// Its code.
        coupon: String,
    },
    /// End when the period does.
    Cancel,
    /// Do not end after all.
    Uncancel,
    /// Rest: no access, and nothing new to pay.
    Pause,
    /// Go on.
    Resume,
}

/// Change a subscription.
#[utoipa::path(post, path = "/v1/subscription/changes", tag = "subscriptions", request_body = ChangeRequest, security(("bearer" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "A repetition with the same key has no second effect")),
    responses((status = 200, body = SubscriptionView), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn change(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    headers: HeaderMap,
    Json(request): Json<ChangeRequest>,
) -> Result<Answer, Error> {
    principal.require(Scope::BillingWrite)?;
    let organization = principal.organization_id;
    let call = Call::new(&headers, &organization.to_string(), "POST /v1/subscription/changes", &request)?;
    let mut open = match begin::<Error>(&state.pool, &state.clock, call).await? {
        Begun::Recorded(answer) => return Ok(answer),
        Begun::Open(open) => open,
    };
    let id = request.subscription_id;
    let before = store::locked(&mut open.transaction, organization, id).await?;
    let command = command(&mut open.transaction, &before, request.change, "change.", state.clock.now()).await?;
    let actor = principal.actor.to_string();
    let stored: Stored = store::apply(&state, &mut open.transaction, organization, id, &command, &actor).await?;
    Ok(open.finish(Answer::json(StatusCode::OK, &SubscriptionView::from(stored))).await?)
}

/// The command that a change comes to; `within` is what stands before its fields in the request.
pub(super) async fn command(
    connection: &mut PgConnection,
    before: &Subscription,
    change: Change,
    within: &str,
    now: DateTime<Utc>,
) -> Result<Command, Error> {
    Ok(match change {
        Change::Plan { plan, interval, seats } => {
            let plan: Code = field(&format!("{within}plan"), &plan)?;
            let terms = Box::new(terms(connection, before, &plan, interval).await?);
            machine::change_of_plan(before, terms, seats, now)
        }
        Change::Seats { seats } => Command::ChangeSeats { seats },
        Change::Coupon { coupon } => {
            let code: Code = field(&format!("{within}coupon"), &coupon)?;
            let offered = stored::coupon(connection, &code).await?;
            let terms = &before.terms;
            Command::ApplyCoupon { coupon: AppliedCoupon::of(code, &offered, &terms.plan, terms.currency, now)? }
        }
        // Without access there is nothing to wait for.
        Change::Cancel if matches!(before.status, Status::Unpaid | Status::Paused) => Command::CancelNow,
        Change::Cancel => Command::CancelAtPeriodEnd,
        Change::Uncancel => Command::Uncancel,
        Change::Pause => Command::Pause,
        Change::Resume => Command::Resume,
    })
}
