//! Which coupons an organization has redeemed: each once, with the start of a subscription or later. What never began has redeemed nothing.

use chassis::Problem;
use identity::OrganizationId;
use sqlx::{PgConnection, Postgres, Transaction};

use super::SubscriptionId;
use crate::catalog::Code;
use crate::error::Error;
use crate::state::AppState;

/// Whether the coupon can be redeemed for the group of plans: what waits for its first payment there would make place.
///
/// # Errors
/// 409 `coupon_redeemed` naming the field when it is redeemed; the database's.
pub async fn check(
    connection: &mut PgConnection,
    organization: OrganizationId,
    code: &Code,
    group: &Code,
    field: &'static str,
) -> Result<(), Error> {
    let redeemed = sqlx::query_scalar!(
        r#"select exists (select from coupon_redemptions r join subscriptions s on s.id = r.subscription_id
             where r.organization_id = $1 and r.code = $2 and not (s.status = 'incomplete' and s.plan_group = $3)) as "redeemed!""#,
        organization.uuid(),
        code.as_str(),
        group.as_str()
    );
    if redeemed.fetch_one(connection).await? { Err(refused(field)) } else { Ok(()) }
}

/// Redeems a coupon.
///
/// # Errors
/// 409 `coupon_redeemed` naming the field when it is redeemed; the database's.
pub async fn redeem(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    id: SubscriptionId,
    code: &Code,
    field: &'static str,
) -> Result<(), Error> {
    let redeemed = sqlx::query!(
        "insert into coupon_redemptions (organization_id, code, subscription_id, redeemed_at) values ($1, $2, $3, $4) on conflict do nothing",
        organization.uuid(),
        code.as_str(),
        id.uuid(),
        state.clock.now()
    )
    .execute(&mut **transaction)
    .await?;
    if redeemed.rows_affected() == 1 { Ok(()) } else { Err(refused(field)) }
}

/// The subscription ended before it began: what was redeemed with it can be redeemed.
///
/// # Errors
/// The database's.
pub async fn release(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    id: SubscriptionId,
) -> Result<(), Error> {
    sqlx::query!("delete from coupon_redemptions where organization_id = $1 and subscription_id = $2", organization.uuid(), id.uuid())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

fn refused(field: &'static str) -> Error {
    let problem = Problem::conflict("coupon_redeemed", "The coupon is redeemed already");
    problem.field(field, "must be a coupon that the organization has not redeemed: each is redeemed once").into()
}
