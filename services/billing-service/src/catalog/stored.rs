//! The catalogue as the database has it: what is sold now, and any version of a plan that was ever sold.

use std::collections::BTreeMap;

use money::Currency;
use serde_json::Value;
use sqlx::PgConnection;

use super::domain::{Catalog, Code, Coupon, Plan};
use super::parse;
use super::reader::Faults;
use crate::error::Error;

const UNREADABLE: Error = Error::Internal("a stored definition cannot be read");

/// A version of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanVersion {
    /// Which plan.
    pub code: Code,
    /// Which of its versions.
    pub version: i32,
    /// What it says.
    pub plan: Plan,
}

/// Reads what is sold now.
///
/// # Errors
/// The database's.
pub async fn current(connection: &mut PgConnection) -> Result<Catalog, Error> {
    let default_plan = sqlx::query_scalar!("select default_plan from catalog_versions order by version desc limit 1")
        .fetch_optional(&mut *connection)
        .await?
        .flatten();
    let plans = sqlx::query!("select code, definition from plan_versions where retired_at is null").fetch_all(&mut *connection).await?;
    let packs = sqlx::query!("select code, definition from credit_packs where retired_at is null").fetch_all(&mut *connection).await?;
    let coupons = sqlx::query!("select code, definition from coupons where retired_at is null").fetch_all(&mut *connection).await?;
    Ok(Catalog {
        default_plan: default_plan.map(|text| code(&text)).transpose()?,
        plans: plans.into_iter().map(|row| Ok((code(&row.code)?, read(row.definition, parse::plan)?))).collect::<Result<_, Error>>()?,
        credit_packs: packs
            .into_iter()
            .map(|row| Ok((code(&row.code)?, read(row.definition, parse::credit_pack)?)))
            .collect::<Result<_, Error>>()?,
        coupons: coupons
            .into_iter()
            .map(|row| Ok((code(&row.code)?, read(row.definition, parse::coupon)?)))
            .collect::<Result<_, Error>>()?,
    })
}

/// A version of a plan that was sold at some time.
///
/// # Errors
/// [`Error::NotFound`]; the database's.
pub async fn plan(connection: &mut PgConnection, plan: &Code, version: i32) -> Result<PlanVersion, Error> {
    let row = sqlx::query!("select definition from plan_versions where code = $1 and version = $2", plan.as_str(), version)
        .fetch_optional(connection)
        .await?
        .ok_or(Error::NotFound)?;
    Ok(PlanVersion { code: plan.clone(), version, plan: read(row.definition, parse::plan)? })
}

/// The version of a plan that is sold now.
///
/// # Errors
/// [`Error::NotFound`] when it is not sold; the database's.
pub async fn sold(connection: &mut PgConnection, plan: &Code) -> Result<PlanVersion, Error> {
    let row = sqlx::query!("select version, definition from plan_versions where code = $1 and retired_at is null", plan.as_str())
        .fetch_optional(connection)
        .await?
        .ok_or(Error::NotFound)?;
    Ok(PlanVersion { code: plan.clone(), version: row.version, plan: read(row.definition, parse::plan)? })
}

/// The plan of organizations without a subscription, if the catalogue names one, and the number of the catalogue.
///
/// # Errors
/// The database's.
pub async fn default_plan(connection: &mut PgConnection) -> Result<(Option<PlanVersion>, i32), Error> {
    let row = sqlx::query!("select version, default_plan from catalog_versions order by version desc limit 1")
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok((None, 0)) };
    let plan = match row.default_plan {
        Some(text) => Some(sold(connection, &code(&text)?).await?),
        None => None,
    };
    Ok((plan, row.version))
}

/// A coupon that is offered now.
///
/// # Errors
/// [`Error::NotFound`]; the database's.
pub async fn coupon(connection: &mut PgConnection, coupon: &Code) -> Result<Coupon, Error> {
    let row = sqlx::query!("select definition from coupons where code = $1 and retired_at is null", coupon.as_str())
        .fetch_optional(connection)
        .await?
        .ok_or(Error::NotFound)?;
    read(row.definition, parse::coupon)
}

/// How many living subscriptions are on each version of each plan.
///
/// # Errors
/// The database's.
pub async fn subscribers(connection: &mut PgConnection) -> Result<BTreeMap<(Code, i32), i64>, Error> {
    let rows = sqlx::query!(
        r#"select plan_code, plan_version, count(*) as "count!" from subscriptions
           where status not in ('canceled', 'incomplete_expired') group by plan_code, plan_version"#
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|row| Ok(((code(&row.plan_code)?, row.plan_version), row.count))).collect()
}

/// A code that the database has.
///
/// # Errors
/// [`Error::Internal`].
pub fn code(text: &str) -> Result<Code, Error> {
    text.parse().map_err(|_| UNREADABLE)
}

/// A currency that the database has.
///
/// # Errors
/// [`Error::Internal`].
pub fn currency(text: &str) -> Result<Currency, Error> {
    text.parse().map_err(|_| UNREADABLE)
}

/// Reads a definition with the parser of the file: one reader for both, so that they cannot differ.
fn read<T>(definition: Value, parse: impl Fn(&str, Value, &Faults) -> T) -> Result<T, Error> {
    let faults = Faults::default();
    let read = parse("", definition, &faults);
    if faults.into_vec().is_empty() { Ok(read) } else { Err(UNREADABLE) }
}
