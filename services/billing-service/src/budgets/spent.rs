//! What was spent in a period, by those whom a budget is for. Days and months are summed from the rollups and what is not in them yet, so
//! that a look costs the same for ten million rows as for ten; a minute is summed from its own rows, which are never many.

use contracts::entitlements::LimitPeriod;
use identity::{ApiKeyId, OrganizationId, UserId};
use sqlx::PgPool;

use crate::error::Error;
use crate::subscriptions::period::Period;

/// Whose spending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spender {
    /// The organization that pays.
    pub organization: OrganizationId,
    /// Of this person only.
    pub user: Option<UserId>,
    /// Of this key only.
    pub key: Option<ApiKeyId>,
    /// On this model only.
    pub model: Option<String>,
    /// With this tag only.
    pub tag: Option<String>,
    /// ISO 4217 code.
    pub currency: String,
}

/// What was spent within a period, in micro-units.
///
/// # Errors
/// The database's.
pub async fn spent(pool: &PgPool, spender: &Spender, length: LimitPeriod, period: Period) -> Result<i64, Error> {
    let Spender { organization, user, key, model, tag, currency } = spender;
    let (organization, user, key) = (organization.uuid(), user.map(UserId::uuid), key.map(ApiKeyId::uuid));
    let spent = if length == LimitPeriod::Minute {
        sqlx::query_scalar!(
            r#"select coalesce(sum(price_micros), 0)::bigint as "spent!" from usage_events
               where organization_id = $1 and currency = $2 and ended_at >= $3 and ended_at < $4
                 and ($5::uuid is null or user_id = $5) and ($6::uuid is null or api_key_id = $6)
                 and ($7::text is null or model = $7) and ($8::text is null or tags ? $8)"#,
            organization,
            currency,
            period.start,
            period.end,
            user,
            key,
            model.as_deref(),
            tag.as_deref()
        )
        .fetch_one(pool)
        .await?
    } else if user.is_some() {
        sqlx::query_scalar!(
            r#"select coalesce(sum(price_micros), 0)::bigint as "spent!" from spend_by_day
               where organization_id = $1 and currency = $2 and day >= $3 and day < $4 and user_id = $5"#,
            organization,
            currency,
            period.start,
            period.end,
            user
        )
        .fetch_one(pool)
        .await?
    } else if tag.is_some() {
        sqlx::query_scalar!(
            r#"select coalesce(sum(price_micros), 0)::bigint as "spent!" from tag_spend_by_day
               where organization_id = $1 and currency = $2 and day >= $3 and day < $4 and tag = $5"#,
            organization,
            currency,
            period.start,
            period.end,
            tag.as_deref()
        )
        .fetch_one(pool)
        .await?
    } else {
        sqlx::query_scalar!(
            r#"select coalesce(sum(price_micros), 0)::bigint as "spent!" from usage_by_day
               where organization_id = $1 and currency = $2 and day >= $3 and day < $4 and ($5::uuid is null or api_key_id = $5)
                 and ($6::text is null or model = $6)"#,
            organization,
            currency,
            period.start,
            period.end,
            key,
            model.as_deref()
        )
        .fetch_one(pool)
        .await?
    };
    Ok(spent)
}
