//! `/v1/webhook-endpoints/{id}/rotate-secret`: another secret takes the place of an endpoint's, and both sign for a while.

use axum::extract::State;
use chassis::http::{Json, Path};
use chassis::problem::ProblemBody;
use chassis::{ExposeSecret, Problem};
use chrono::{DateTime, TimeDelta, Utc};
use identity::{Authenticated, Scope};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{EndpointId, signature};
use crate::error::Error;
use crate::state::AppState;

/// How long a former secret may sign beside the one that took its place, in seconds.
const LONGEST: u32 = 7 * 24 * 60 * 60;

/// How a secret is replaced.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// Seconds for which messages are signed with the former secret as well; 0 ends it at once.
    #[serde(default = "a_day")]
    #[schema(minimum = 0, maximum = 604_800, default = 86_400)]
    former_for_seconds: u32,
}

const fn a_day() -> u32 {
    24 * 60 * 60
}

/// What the messages of an endpoint are signed with.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rotated {
    /// The new secret (Standard Webhooks); no list shows it.
    secret: String,
    /// Until when messages are signed with the former one as well; null when they are not.
    former_secret_until: Option<DateTime<Utc>>,
}

/// Replace an endpoint's secret. While the former one still signs, a repetition answers with the same new one, and may only end the former
/// earlier.
#[utoipa::path(post, path = "/v1/webhook-endpoints/{id}/rotate-secret", tag = "webhooks", request_body = Rotation, security(("bearer" = [])),
    params(("id" = EndpointId, Path, description = "The endpoint")),
    responses((status = 200, body = Rotated), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn rotate(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    Path(id): Path<EndpointId>,
    Json(rotation): Json<Rotation>,
) -> Result<axum::Json<Rotated>, Error> {
    principal.require(Scope::BillingWrite)?;
    if rotation.former_for_seconds > LONGEST {
        return Err(Problem::invalid_field("former_for_seconds", format!("must be at most {LONGEST}")).into());
    }
    let now = state.clock.now();
    let length = TimeDelta::seconds(i64::from(rotation.former_for_seconds));
    let until = (rotation.former_for_seconds > 0).then(|| now + length);
    let rotated = sqlx::query!(
        "update webhook_endpoints set
           secret_version = case when former_until > $3 then secret_version else secret_version + 1 end,
           former_until = case when former_until > $3 and $4::timestamptz is not null then least(former_until, $4) else $4 end
         where organization_id = $1 and id = $2 and deleted_at is null returning secret_version, former_until",
        principal.organization_id.uuid(),
        id.uuid(),
        now,
        until
    );
    let rotated = rotated.fetch_optional(&state.pool).await?.ok_or(Error::NotFound)?;
    let secret = signature::secret(&state.config.secret, id, rotated.secret_version)?.expose_secret().to_owned();
    Ok(axum::Json(Rotated { secret, former_secret_until: rotated.former_until.filter(|until| *until > now) }))
}

/// The versions of an endpoint's secret that sign now, the newest first.
pub fn valid(newest: i32, former_until: Option<DateTime<Utc>>, now: DateTime<Utc>) -> impl Iterator<Item = i32> {
    let former = former_until.filter(|until| *until > now).map(|_| newest - 1);
    std::iter::once(newest).chain(former)
}
