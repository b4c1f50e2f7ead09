//! The effects of a decision, each in the transaction of the decision.

use chrono::{DateTime, Utc};
use identity::OrganizationId;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::{Postgres, Transaction};
use uuid::{Builder, Uuid};

use crate::entitlements;
use crate::error::Error;
use crate::intents::{self, Intent};
use crate::state::AppState;
use crate::subscriptions::SubscriptionId;
use crate::subscriptions::state::{Charge, Effect, Grant, Outcome, Subscription};
use crate::subscriptions::status::Status;

/// Whose a decision is.
#[derive(Debug, Clone, Copy)]
struct Owner {
    organization: OrganizationId,
    id: SubscriptionId,
}

/// Writes the history and has the effects.
#[expect(clippy::too_many_arguments, reason = "a row of the history has as many columns")]
pub async fn record(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    id: SubscriptionId,
    actor: &str,
    command: &Value,
    status_before: Option<Status>,
    outcome: &Outcome,
) -> Result<(), Error> {
    let subscription = &outcome.subscription;
    sqlx::query!(
        "insert into subscription_changes (subscription_id, revision, organization_id, actor, command, status_before, status_after, effects, occurred_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        id.uuid(),
        subscription.revision,
        organization.uuid(),
        actor,
        command,
        status_before.map(Status::as_str),
        subscription.status.as_str(),
        json!(outcome.effects),
        state.clock.now()
    )
    .execute(&mut **transaction)
    .await?;
    chassis::step!("subscription.recorded");
    let owner = Owner { organization, id };
    for effect in &outcome.effects {
        match effect {
            Effect::Charge(charge) => insert_charge(state, transaction, owner, charge).await?,
            Effect::Grant(grant) => insert_grant(state, transaction, owner, grant).await?,
            Effect::Gift(grant) => insert_gift(state, transaction, owner, subscription, grant).await?,
            Effect::GiveUp { period_start, reason } => give_up(state, transaction, owner, *period_start, reason).await?,
            // Which payment it was is known to who told of it, and has it returned (`sales`).
            Effect::Refund { .. } => {}
            Effect::EntitlementsChanged => entitlements::changed(state, transaction, organization).await?,
        }
        chassis::step!("subscription.effect_stored");
    }
    Ok(())
}

/// A charge, once [B-77]: a second one for the same period and reason breaks the constraint, and everything is rolled back.
async fn insert_charge(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    owner: Owner,
    charge: &Charge,
) -> Result<(), Error> {
    let id = charge_id(owner, charge.period_start, &charge.reason);
    sqlx::query!(
        "insert into subscription_charges (id, subscription_id, organization_id, period_start, reason, currency, lines, total_micros, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        id,
        owner.id.uuid(),
        owner.organization.uuid(),
        charge.period_start,
        charge.reason,
        charge.currency.code(),
        json!(charge.lines),
        charge.total_micros,
        state.clock.now()
    )
    .execute(&mut **transaction)
    .await?;
    let key = charge_key(charge.period_start, &charge.reason);
    // The first charge is paid by the customer, on a page (`checkouts`); the later ones are collected.
    if charge.reason == "start" {
        return Ok(());
    }
    want(state, transaction, owner, "subscription.charge", &key, json!({"charge_id": id, "charge": charge})).await
}

/// A charge that nobody is to pay any more: what was not sent of it is not sent, and its invoice is taken away at Stripe, or what tries have
/// left there. A try that is under way now ends first.
async fn give_up(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    owner: Owner,
    period_start: DateTime<Utc>,
    reason: &str,
) -> Result<(), Error> {
    let charge = sqlx::query_scalar!(
        "select id from subscription_charges where subscription_id = $1 and period_start = $2 and reason = $3",
        owner.id.uuid(),
        period_start,
        reason
    )
    .fetch_one(&mut **transaction)
    .await?;
    let key = charge_key(period_start, reason);
    let charged = operation(owner, "subscription.charge", &key);
    let under_way_until = intents::forgo(state, &mut **transaction, &charged).await?;
    want(state, transaction, owner, "subscription.void", &key, json!({"charge_id": charge, "charged": charged})).await?;
    if let Some(until) = under_way_until {
        intents::wait(transaction, &operation(owner, "subscription.void", &key), until).await?;
    }
    Ok(())
}

/// Credit to be posted to the ledger by whoever owns grants there; once [B-77].
async fn insert_grant(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    owner: Owner,
    grant: &Grant,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into subscription_grants (id, subscription_id, organization_id, period_start, reason, currency, amount_micros, expires_at, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        state.random.uuid_v7(&state.clock),
        owner.id.uuid(),
        owner.organization.uuid(),
        grant.period_start,
        grant.reason,
        grant.currency.code(),
        grant.amount_micros,
        grant.expires_at,
        state.clock.now()
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Credit that nobody paid for: of a group of plans one subscription gives it in a calendar month (UTC), a year's credit in its twelve. Who
/// ends a plan that costs nothing and begins it again is given nothing more, and keeps the plan.
async fn insert_gift(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    owner: Owner,
    subscription: &Subscription,
    grant: &Grant,
) -> Result<(), Error> {
    let given = sqlx::query!(
        "insert into subscription_gifts as g (organization_id, plan_group, subscription_id, until, updated_at)
         values ($1, $2, $3, date_trunc('month', $5::timestamptz, 'UTC'), $6)
         on conflict (organization_id, plan_group) do update
         set subscription_id = excluded.subscription_id, until = greatest(g.until, excluded.until), updated_at = excluded.updated_at
         where g.subscription_id = excluded.subscription_id or g.until <= date_trunc('month', $4::timestamptz, 'UTC')",
        owner.organization.uuid(),
        subscription.terms.group.as_str(),
        owner.id.uuid(),
        subscription.period.start,
        subscription.period.end,
        state.clock.now()
    )
    .execute(&mut **transaction)
    .await?;
    if given.rows_affected() == 0 {
        tracing::info!(subscription.id = %owner.id, organization.id = %owner.organization, amount_micros = grant.amount_micros, "credit that nobody paid for was given by another subscription of the group for this month: none is given");
        return Ok(());
    }
    insert_grant(state, transaction, owner, grant).await
}

/// Which charge of a subscription.
fn charge_key(period_start: DateTime<Utc>, reason: &str) -> String {
    format!("{}-{reason}", period_start.timestamp_millis())
}

/// The id of a charge, for good: it stands in the metadata of the invoice, and a database that was restored decides the charge anew. Had it another
/// id then, Stripe would refuse the stored key, because it comes with other metadata, and nobody would know for what its customer has paid.
fn charge_id(owner: Owner, period_start: DateTime<Utc>, reason: &str) -> Uuid {
    let digest = Sha256::digest(operation(owner, "subscription.charge", &charge_key(period_start, reason)));
    // Version 8 of RFC 9562: what such an id is made of is its maker's business.
    Builder::from_custom_bytes(std::array::from_fn(|at| digest[at])).into_uuid()
}

/// An operation at Stripe, for good: what is stored is known by it.
fn operation(owner: Owner, kind: &str, key: &str) -> String {
    format!("{kind}-{}-{key}", owner.id)
}

/// A wish towards Stripe about the subscription; `key` names the operation among those of its kind.
async fn want(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    owner: Owner,
    kind: &'static str,
    key: &str,
    payload: Value,
) -> Result<(), Error> {
    let intent = Intent {
        kind,
        subject: owner.id.to_string(),
        organization_id: Some(owner.organization),
        idempotency_key: operation(owner, kind, key),
        payload,
    };
    intents::want(state, transaction, &intent).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [B-77] It must never be made in another way: what was charged before would be charged again after a restore.
    #[test]
    fn the_id_of_a_charge_is_made_of_its_subscription_its_period_and_its_reason_and_of_nothing_else() {
        let owner = |organization: u128, id: u128| Owner {
            organization: OrganizationId::from_uuid(Uuid::from_u128(organization)),
            id: SubscriptionId::from_uuid(Uuid::from_u128(id)),
        };
        let (first, later) = (DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH + chrono::TimeDelta::milliseconds(1));
        let id = charge_id(owner(1, 1), first, "renewal");
        assert_eq!(id.to_string(), "27c39fa1-a530-8cbd-a12c-e9ab95442c2f");
        assert_eq!(charge_id(owner(2, 1), first, "renewal"), id);
        let of_another = charge_id(owner(1, 2), first, "renewal");
        let others = [of_another, charge_id(owner(1, 1), later, "renewal"), charge_id(owner(1, 1), first, "seats-2")];
        assert!(!others.contains(&id), "{others:?}");
    }
}
