//! Reads what an organization may do now.

use contracts::entitlements::Entitlements;
use identity::OrganizationId;
use sqlx::PgConnection;

use super::compute::{Entitled, combine};
use super::version;
use crate::budgets::limits;
use crate::catalog::stored;
use crate::error::Error;
use crate::subscriptions::status::Access;
use crate::subscriptions::store;

/// What the organization may do now. The number is read first: what is read after it may be newer than it says, never older.
///
/// # Errors
/// The database's.
pub async fn read(connection: &mut PgConnection, organization: OrganizationId) -> Result<Entitlements, Error> {
    let version = version::current(connection, organization).await?;
    let mut plans = Vec::new();
    for living in store::living(connection, organization).await? {
        let subscription = living.subscription;
        let access = subscription.status.access();
        if access != Access::None {
            let plan = stored::plan(connection, &subscription.terms.plan, subscription.terms.version).await?;
            plans.push(Entitled { plan, status: subscription.status.as_str(), access, seats: subscription.seats });
        }
    }
    if plans.is_empty() {
        let (default, _) = stored::default_plan(connection).await?;
        plans.extend(default.map(|plan| Entitled { seats: plan.plan.seats.included, plan, status: "default", access: Access::Full }));
    }
    let hard = limits::hard(connection, organization).await?;
    Ok(combine(organization, version, &plans, crate::ledger::CREDIT, hard))
}
