//! `catalog plan` and `catalog apply`.

use serde_json::{Value, json};
use sqlx::{Postgres, Transaction};

use super::diff::{Action, Change, Diff, Kind};
use super::domain::{Catalog, Code};
use super::{print, stored};
use crate::audit::{self, Decision};
use crate::entitlements;
use crate::error::Error;
use crate::intents::{self, Intent};
use crate::state::AppState;

/// Key of the lock that lets one `apply` run at a time.
const LOCK: i64 = 0x0063_6174_616c_6f67;

/// The verb in the log of operators.
const ACTION: &str = "catalog.apply";

/// What an apply would do.
#[derive(Debug, Clone)]
pub struct Planned {
    /// What the stored catalogue is recognized by; to be handed to [`apply`].
    pub stored: String,
    /// What would change.
    pub diff: Diff,
    /// The changes as an operator reads them.
    pub text: String,
}

/// What an apply did.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The number of the catalogue now.
    pub version: i32,
    /// What changed.
    pub diff: Diff,
    /// The changes as an operator reads them.
    pub text: String,
}

/// Why a catalogue is not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Somebody applied another one since the plan was made.
    #[error("the stored catalogue changed since the plan: it is {stored} now; plan again")]
    Changed {
        /// What is stored.
        stored: String,
    },
    /// A plan would move to another group.
    #[error("plan {0} cannot move to another group: give it another code")]
    Regrouped(Code),
    /// The database's.
    #[error(transparent)]
    Failed(#[from] Error),
    /// The database's.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

impl chassis::postgres::DatabaseError for ApplyError {
    fn database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Failed(error) => error.database(),
            Self::Database(error) => Some(error),
            Self::Changed { .. } | Self::Regrouped(_) => None,
        }
    }
}

/// What applying this catalogue would change.
///
/// # Errors
/// The database's.
pub async fn plan(state: &AppState, wanted: &Catalog) -> Result<Planned, Error> {
    let mut connection = state.pool.acquire().await?;
    let current = stored::current(&mut connection).await?;
    let diff = Diff::between(&current, wanted);
    let text = diff.describe(&stored::subscribers(&mut connection).await?);
    Ok(Planned { stored: print::digest(&current), diff, text })
}

/// Applies a catalogue on top of the one that was planned against, once under the decision's key. With nothing to change, nothing is
/// written.
///
/// # Errors
/// [`ApplyError`]; then nothing has changed.
pub async fn apply(state: &AppState, wanted: &Catalog, planned_on: &str, decision: &Decision) -> Result<Applied, ApplyError> {
    decision.check().map_err(Error::from)?;
    chassis::in_transaction!(state.pool, |transaction| {
        sqlx::query!("select pg_advisory_xact_lock($1)", LOCK).execute(&mut **transaction).await?;
        let request = json!({"planned_on": planned_on, "wanted": print::digest(wanted)});
        if let Some(after) = audit::earlier(transaction, decision, ACTION, None, &request).await? {
            let version = after["version"].as_i64().and_then(|version| i32::try_from(version).ok()).unwrap_or_default();
            let text = after["changes"].as_str().unwrap_or_default().to_owned();
            return Ok(Applied { version, diff: Diff::between(wanted, wanted), text });
        }
        let current = stored::current(transaction).await?;
        let digest = print::digest(&current);
        if digest != planned_on {
            return Err(ApplyError::Changed { stored: digest });
        }
        let diff = Diff::between(&current, wanted);
        if let Some(code) = diff.regrouped().first() {
            return Err(ApplyError::Regrouped((*code).clone()));
        }
        let text = diff.describe(&stored::subscribers(transaction).await?);
        let version = write(state, transaction, &diff, wanted, &decision.actor).await?;
        if !diff.is_empty() {
            let before = json!({"digest": digest});
            let after = json!({"digest": print::digest(wanted), "version": version, "changes": text});
            let change = audit::Change { action: ACTION, organization: None, request: &request, before: &before, after: &after };
            audit::record(state, transaction, decision, &change).await?;
        }
        Ok(Applied { version, diff, text })
    })
}

async fn write(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    diff: &Diff,
    wanted: &Catalog,
    actor: &str,
) -> Result<i32, Error> {
    let latest = sqlx::query_scalar!(r#"select coalesce(max(version), 0) as "version!" from catalog_versions"#)
        .fetch_one(&mut **transaction)
        .await?;
    if diff.is_empty() {
        return Ok(latest);
    }
    let version = latest + 1;
    sqlx::query!(
        "insert into catalog_versions (version, digest, default_plan, applied_by, applied_at) values ($1, $2, $3, $4, $5)",
        version,
        print::digest(wanted),
        wanted.default_plan.as_ref().map(Code::as_str),
        actor,
        state.clock.now()
    )
    .execute(&mut **transaction)
    .await?;
    for change in &diff.changes {
        write_change(state, transaction, change, wanted, version).await?;
    }
    entitlements::changed_for_all(state, transaction).await?;
    Ok(version)
}

/// One thing: its version on sale ends, the next one begins, and Stripe is to know.
async fn write_change(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    change: &Change,
    wanted: &Catalog,
    catalog_version: i32,
) -> Result<(), Error> {
    if change.action != Action::Create {
        retire(state, transaction, change).await?;
    }
    let (code, definition) = (&change.code, definition(change, wanted));
    let version = match (&definition, change.kind) {
        (None, _) => 0,
        (Some(definition), Kind::Plan) => insert_plan(state, transaction, code, definition, wanted, catalog_version).await?,
        (Some(definition), Kind::CreditPack) => insert_pack(state, transaction, code, definition, catalog_version).await?,
        (Some(definition), Kind::Coupon) => insert_coupon(state, transaction, code, definition, catalog_version).await?,
    };
    let kind = match change.kind {
        Kind::Plan => "catalog.plan",
        Kind::CreditPack => "catalog.credit_pack",
        Kind::Coupon => "catalog.coupon",
    };
    let intent = Intent {
        kind,
        subject: format!("{kind}/{code}"),
        organization_id: None,
        idempotency_key: format!("{kind}-{code}-catalog-{catalog_version}"),
        payload: json!({"code": code, "version": (version > 0).then_some(version), "definition": definition}),
    };
    intents::want(state, transaction, &intent).await
}

/// What the thing says from now on; none when it is no longer sold.
fn definition(change: &Change, wanted: &Catalog) -> Option<Value> {
    match change.kind {
        Kind::Plan => wanted.plans.get(&change.code).map(print::plan),
        Kind::CreditPack => wanted.credit_packs.get(&change.code).map(print::credit_pack),
        Kind::Coupon => wanted.coupons.get(&change.code).map(print::coupon),
    }
}

async fn retire(state: &AppState, transaction: &mut Transaction<'static, Postgres>, change: &Change) -> Result<(), Error> {
    let (code, now) = (change.code.as_str(), state.clock.now());
    let query = match change.kind {
        Kind::Plan => sqlx::query!("update plan_versions set retired_at = $2 where code = $1 and retired_at is null", code, now),
        Kind::CreditPack => sqlx::query!("update credit_packs set retired_at = $2 where code = $1 and retired_at is null", code, now),
        Kind::Coupon => sqlx::query!("update coupons set retired_at = $2 where code = $1 and retired_at is null", code, now),
    };
    query.execute(&mut **transaction).await?;
    Ok(())
}

async fn insert_plan(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    code: &Code,
    definition: &Value,
    wanted: &Catalog,
    catalog_version: i32,
) -> Result<i32, Error> {
    let plan = wanted.plans.get(code).ok_or(Error::Internal("a plan of the diff is not in the catalogue"))?;
    let now = state.clock.now();
    let group = sqlx::query_scalar!(
        "insert into plans (code, plan_group, created_at) values ($1, $2, $3) on conflict (code) do nothing returning plan_group",
        code.as_str(),
        plan.group.as_str(),
        now
    );
    group.fetch_optional(&mut **transaction).await?;
    let group = sqlx::query_scalar!("select plan_group from plans where code = $1", code.as_str()).fetch_one(&mut **transaction).await?;
    if group != plan.group.as_str() {
        return Err(Error::Refused(chassis::Problem::invalid_field(
            format!("plans.{code}.group"),
            format!("must be {group}, as it was before"),
        )));
    }
    let version = sqlx::query_scalar!(
        "insert into plan_versions (code, version, definition, catalog_version, created_at)
         select $1, coalesce(max(version), 0) + 1, $2, $3, $4 from plan_versions where code = $1 returning version",
        code.as_str(),
        definition,
        catalog_version,
        now
    )
    .fetch_one(&mut **transaction)
    .await?;
    for (kind, prices) in [("base", &plan.prices), ("seat", &plan.seats.prices)] {
        for ((currency, interval), micros) in &prices.0 {
            sqlx::query!(
                "insert into prices (id, plan_code, plan_version, kind, currency, billing_interval, amount_micros) values ($1, $2, $3, $4, $5, $6, $7)",
                state.random.uuid_v7(&state.clock),
                code.as_str(),
                version,
                kind,
                currency.code(),
                interval.as_str(),
                micros
            )
            .execute(&mut **transaction)
            .await?;
        }
    }
    Ok(version)
}

async fn insert_pack(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    code: &Code,
    definition: &Value,
    catalog_version: i32,
) -> Result<i32, Error> {
    let version = sqlx::query_scalar!(
        "insert into credit_packs (code, version, definition, catalog_version, created_at)
         select $1, coalesce(max(version), 0) + 1, $2, $3, $4 from credit_packs where code = $1 returning version",
        code.as_str(),
        definition,
        catalog_version,
        state.clock.now()
    );
    Ok(version.fetch_one(&mut **transaction).await?)
}

async fn insert_coupon(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    code: &Code,
    definition: &Value,
    catalog_version: i32,
) -> Result<i32, Error> {
    let version = sqlx::query_scalar!(
        "insert into coupons (code, version, definition, catalog_version, created_at)
         select $1, coalesce(max(version), 0) + 1, $2, $3, $4 from coupons where code = $1 returning version",
        code.as_str(),
        definition,
        catalog_version,
        state.clock.now()
    );
    Ok(version.fetch_one(&mut **transaction).await?)
}
