//! `GET /v1/me`: who the caller is.

use axum::Json;
use axum::extract::State;
use chassis::problem::ProblemBody;
use identity::{Authenticated, OrganizationId, Scope, Scopes, UserId};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::Error;
use crate::state::AppState;

/// The caller.
#[derive(Debug, Serialize, ToSchema)]
pub struct Me {
    /// The person; null for an API key.
    user: Option<User>,
    /// The organizations the person belongs to, or the one the key acts for.
    organizations: Vec<Membership>,
    /// What this credential may be used for.
    scopes: Scopes,
}

/// A person.
#[derive(Debug, Serialize, ToSchema)]
pub struct User {
    /// The person's id.
    id: UserId,
    /// Email address.
    email: String,
    /// Name.
    name: String,
    /// Whether they run the installation.
    administrator: bool,
}

/// An organization and the person's part in it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Membership {
    /// The organization.
    id: OrganizationId,
    /// Its name.
    name: String,
    /// `owner`, `admin` or `member`; null for an API key.
    role: Option<String>,
}

/// Who am I?
#[utoipa::path(get, path = "/v1/me", tag = "accounts", security(("bearer" = [])),
    responses((status = 200, body = Me), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody)))]
pub async fn get(State(state): State<AppState>, Authenticated(principal): Authenticated) -> Result<Json<Me>, Error> {
    if principal.user_id().is_some() {
        principal.require(Scope::ProfileRead).map_err(chassis::Problem::from)?;
    }
    let user = match principal.user_id() {
        Some(id) => Some(user(&state, id).await?),
        None => None,
    };
    let organizations = memberships(&state, principal.user_id(), principal.organization_id).await?;
    Ok(Json(Me { user, organizations, scopes: principal.scopes }))
}

async fn user(state: &AppState, id: UserId) -> Result<User, Error> {
    let row = sqlx::query!("select email, name, administrator from users where id = $1 and disabled_at is null", id.uuid())
        .fetch_optional(&state.pool)
        .await?
        .ok_or_else(|| Error::Refused(chassis::Problem::unauthorized()))?;
    Ok(User { id, email: row.email, name: row.name, administrator: row.administrator })
}

async fn memberships(state: &AppState, user: Option<UserId>, organization: OrganizationId) -> Result<Vec<Membership>, Error> {
    let rows = sqlx::query!(
        r#"select o.id, o.name, m.role as "role?" from organizations o left join memberships m on m.organization_id = o.id and m.user_id = $1
           where m.user_id = $1 or ($1::uuid is null and o.id = $2) order by o.created_at, o.id"#,
        user.map(UserId::uuid),
        organization.uuid()
    )
    .fetch_all(&state.pool)
    .await?;
    Ok(rows.into_iter().map(|row| Membership { id: OrganizationId::from_uuid(row.id), name: row.name, role: row.role }).collect())
}
