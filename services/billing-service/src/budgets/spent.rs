//! What was spent in a period, by those whom a budget is for. Days and months are summed from the rollups and what is not in them yet, so
//! that a look costs the same for ten million rows as for ten; a minute is summed from its own rows, which are never many.

use contracts::entitlements::LimitPeriod;
use identity::{ApiKeyId, OrganizationId, UserId};
use sqlx::PgPool;
use uuid::Uuid;

use crate::error::Error;
use crate::subscriptions::period::Period;

/// Whose spending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spender {
    /// The organization that pays.
    pub organization: OrganizationId,
    /// What of it.
    pub part: Part,
    /// ISO 4217 code.
    pub currency: String,
}

/// A part of what an organization spends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// All.
    Whole,
    /// One person's.
    User(UserId),
    /// One key's.
    Key(ApiKeyId),
    /// What goes to a model.
    Model(String),
    /// What has a tag.
    Tag(String),
}

impl Part {
    fn user(&self) -> Option<Uuid> {
        if let Self::User(user) = self { Some(user.uuid()) } else { None }
    }

    fn key(&self) -> Option<Uuid> {
        if let Self::Key(key) = self { Some(key.uuid()) } else { None }
    }

    fn model(&self) -> Option<&str> {
        if let Self::Model(model) = self { Some(model) } else { None }
    }

    fn tag(&self) -> Option<&str> {
        if let Self::Tag(tag) = self { Some(tag) } else { None }
    }
}

/// What was spent within a period, in micro-units.
///
/// # Errors
/// The database's.
pub async fn spent(pool: &PgPool, spender: &Spender, length: LimitPeriod, period: Period) -> Result<i64, Error> {
    let Spender { organization, part, currency } = spender;
    let (organization, user, key, model, tag) = (organization.uuid(), part.user(), part.key(), part.model(), part.tag());
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
            model,
            tag
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
            tag
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
            model
        )
        .fetch_one(pool)
        .await?
    };
    Ok(spent)
}
