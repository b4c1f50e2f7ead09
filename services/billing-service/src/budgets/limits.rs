//! Hard budgets, as the limits that admission enforces.

use contracts::entitlements::{LimitPeriod, LimitScope, SpendLimit};
use identity::OrganizationId;
use sqlx::PgConnection;

use crate::error::Error;

/// The hard budgets of an organization.
///
/// # Errors
/// The database's.
pub async fn hard(connection: &mut PgConnection, organization: OrganizationId) -> Result<Vec<SpendLimit>, Error> {
    let rows = sqlx::query!(
        "select scope, scope_id, period, limit_micros, currency from budgets
         where organization_id = $1 and hard and deleted_at is null order by scope, scope_id, period, limit_micros",
        organization.uuid()
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let (scope, period) = (scope(&row.scope)?, period(&row.period)?);
            Ok(SpendLimit { scope, id: row.scope_id, period, limit_micros: row.limit_micros, currency: row.currency, spent: None })
        })
        .collect()
}

/// The scope of a row.
///
/// # Errors
/// [`Error::Internal`].
pub fn scope(text: &str) -> Result<LimitScope, Error> {
    LimitScope::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(Error::Internal("a budget has an unknown scope"))
}

/// The period of a row.
///
/// # Errors
/// [`Error::Internal`].
pub fn period(text: &str) -> Result<LimitPeriod, Error> {
    LimitPeriod::ALL.into_iter().find(|period| period.as_str() == text).ok_or(Error::Internal("a budget has an unknown period"))
}
