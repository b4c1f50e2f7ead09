//! A customer that we made and whose answer got lost is recognized by the organization in its metadata [B-68], and one that has changed may be
//! charged what it could not be before.

use identity::OrganizationId;
use sqlx::{Postgres, Transaction};

use crate::error::Error;
use crate::intents;
use crate::stripe::object::Object;

pub(super) async fn apply(transaction: &mut Transaction<'static, Postgres>, customer: Object<'_>) -> Result<bool, Error> {
    let Some(organization) = customer.metadata::<OrganizationId>("organization_id") else { return Ok(false) };
    sqlx::query!(
        "update stripe_customers set customer_id = $2 where organization_id = $1 and customer_id is null",
        organization.uuid(),
        customer.needs("id")?
    )
    .execute(&mut **transaction)
    .await?;
    intents::try_charges_again(transaction, organization).await?;
    Ok(true)
}
