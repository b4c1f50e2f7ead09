//! The number of an organization's entitlements, raised in the transaction of every change, and the news of it.

use chassis::outbox::{self, NewEvent};
use contracts::entitlements::EntitlementsChanged;
use identity::OrganizationId;
use sqlx::{PgConnection, Postgres, Transaction};

use crate::error::Error;
use crate::state::AppState;

/// Says, in the transaction of the change, that what the organization may do is another.
///
/// # Errors
/// The database's.
pub async fn changed(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into entitlement_versions as known (organization_id, version) values ($1, 1)
         on conflict on constraint entitlement_versions_organization_id_key do update set version = known.version + 1",
        organization.uuid()
    )
    .execute(&mut **transaction)
    .await?;
    announce(state, transaction, Some(organization)).await
}

/// The same for everybody: the catalogue changed.
///
/// # Errors
/// The database's.
pub async fn changed_for_all(state: &AppState, transaction: &mut Transaction<'static, Postgres>) -> Result<(), Error> {
    sqlx::query!("update entitlement_versions set version = version + 1 where organization_id is null").execute(&mut **transaction).await?;
    announce(state, transaction, None).await
}

/// The number as it is now: it grows when the organization's own grows and when everybody's does.
///
/// # Errors
/// The database's.
pub async fn current(connection: &mut PgConnection, organization: OrganizationId) -> Result<i64, Error> {
    let version = sqlx::query_scalar!(
        r#"select coalesce(sum(version), 0)::bigint as "version!" from entitlement_versions where organization_id = $1 or organization_id is null"#,
        organization.uuid()
    );
    Ok(version.fetch_one(connection).await?)
}

async fn announce(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: Option<OrganizationId>,
) -> Result<(), Error> {
    let payload = serde_json::to_value(EntitlementsChanged { organization_id: organization });
    let event = NewEvent {
        id: state.random.uuid_v7(&state.clock),
        kind: EntitlementsChanged::KIND,
        organization_id: organization.map(OrganizationId::uuid),
        payload: payload.map_err(|_| Error::Internal("an event cannot be written"))?,
        occurred_at: state.clock.now(),
    };
    outbox::enqueue(transaction, &event).await?;
    Ok(())
}
