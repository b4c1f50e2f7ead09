//! A customer that we made and whose answer got lost is recognized by the organization in its metadata [B-68], and one that has changed may be
//! charged what it could not be before; and the turns of what Stripe tells of one customer [B-24].

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

/// Waits until nothing else that Stripe tells of this customer is having its effect, and has the next one wait until this transaction ends
/// [B-24]. It is taken after the rows of the events alone, and before every other lock of an effect: so it can be part of no deadlock. By the
/// organization, for a customer that took another's place is the same one; of the payment, where its customer is not known here. What is
/// nobody's waits for nobody.
pub(super) async fn take_turn(
    transaction: &mut Transaction<'static, Postgres>,
    customer: Option<&str>,
    payment_intent: Option<&str>,
) -> Result<(), Error> {
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended('stripe_customers ' || whose.organization_id, 0)) from (
           select organization_id from stripe_customers where customer_id = $1
           union all select organization_id from stripe_former_customers where customer_id = $1
           union all select organization_id from stripe_payments where payment_intent_id = $2 limit 1) whose",
        customer,
        payment_intent
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Whose customer it is, or was before it was deleted at Stripe; none of ours when empty.
pub(super) async fn owner(
    transaction: &mut Transaction<'static, Postgres>,
    customer: Option<&str>,
) -> Result<Option<OrganizationId>, Error> {
    let Some(customer) = customer else { return Ok(None) };
    let owner = sqlx::query_scalar!(
        r#"select organization_id as "organization_id!" from stripe_customers where customer_id = $1
           union all select organization_id from stripe_former_customers where customer_id = $1 limit 1"#,
        customer
    )
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(owner.map(OrganizationId::from_uuid))
}
