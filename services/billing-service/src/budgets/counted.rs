//! What was spent of limits before: whoever enforces them begins with it when it has counted nothing yet.

use chrono::{DateTime, Days, Utc};
use contracts::entitlements::{LimitPeriod, LimitScope, SpendLimit, Spent};
use identity::{ApiKeyId, OrganizationId, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::Error;

/// What some of an organization's requests cost.
struct Sum {
    /// Whether they ended today, or before in this month.
    today: bool,
    of: Of,
    currency: String,
    micros: i64,
}

/// Usage is summed by key and model, and besides by user and by tag.
enum Of {
    KeyAndModel(ApiKeyId, String),
    User(UserId),
    Tag(String),
}

/// Says of each limit of a day or a month what was posted of it. Of a minute it would be old when it is read. Three questions,
/// however many limits there are.
///
/// # Errors
/// The database's.
pub async fn fill(
    connection: &mut PgConnection,
    organization: OrganizationId,
    limits: &mut [SpendLimit],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let mut known: Vec<&mut SpendLimit> = limits.iter_mut().filter(|limit| limit.period != LimitPeriod::Minute).collect();
    if known.is_empty() {
        return Ok(());
    }
    let users: Vec<Uuid> = known.iter().filter_map(|limit| user_of(limit)).map(UserId::uuid).collect();
    let mut sums = by_key_and_model(connection, organization, now).await?;
    if !users.is_empty() {
        sums.extend(by_user(connection, organization, &users, now).await?);
    }
    let tags: Vec<String> = known.iter().filter(|limit| limit.scope == LimitScope::Tag).map(|limit| limit.id.clone()).collect();
    if !tags.is_empty() {
        sums.extend(by_tag(connection, organization, &tags, now).await?);
    }
    for limit in &mut known {
        let micros = sums.iter().filter(|sum| sum.is_of(limit)).fold(0_i64, |all, sum| all.saturating_add(sum.micros));
        limit.spent = Some(Spent { since: limit.period.bounds(now).0, micros });
    }
    Ok(())
}

fn user_of(limit: &SpendLimit) -> Option<UserId> {
    limit.id.parse().ok().filter(|_| limit.scope == LimitScope::User)
}

impl Sum {
    fn is_of(&self, limit: &SpendLimit) -> bool {
        let within = self.today || limit.period == LimitPeriod::Month;
        let by = match (limit.scope, &self.of) {
            (LimitScope::Organization, Of::KeyAndModel(..)) => true,
            (LimitScope::ApiKey, Of::KeyAndModel(key, _)) => key.to_string() == limit.id,
            (LimitScope::Model, Of::KeyAndModel(_, model)) => *model == limit.id,
            (LimitScope::User, Of::User(user)) => Some(*user) == user_of(limit),
            (LimitScope::Tag, Of::Tag(tag)) => *tag == limit.id,
            _ => false,
        };
        within && by && self.currency == limit.currency
    }
}

/// From the rollups: as fast for ten million rows as for ten. The days are named one by one, because the index of the rollups begins
/// with the day and an organization's are few of it.
async fn by_key_and_model(connection: &mut PgConnection, organization: OrganizationId, now: DateTime<Utc>) -> Result<Vec<Sum>, Error> {
    let (month, today) = (LimitPeriod::Month.bounds(now).0, LimitPeriod::Day.bounds(now).0);
    let days = std::iter::successors(Some(month), |day| day.checked_add_days(Days::new(1)));
    let days: Vec<DateTime<Utc>> = days.take_while(|day| *day <= today).collect();
    let rows = sqlx::query!(
        r#"select day >= $3 as "today!", api_key_id as "key!", model as "model!", currency as "currency!", sum(price_micros)::bigint as "micros!"
           from usage_by_day where organization_id = $1 and day = any($2) group by 1, 2, 3, 4"#,
        organization.uuid(),
        &days,
        today
    )
    .fetch_all(connection)
    .await?;
    let sum = rows.into_iter().map(|row| Sum {
        today: row.today,
        of: Of::KeyAndModel(ApiKeyId::from_uuid(row.key), row.model),
        currency: row.currency,
        micros: row.micros,
    });
    Ok(sum.collect())
}

async fn by_user(
    connection: &mut PgConnection,
    organization: OrganizationId,
    users: &[Uuid],
    now: DateTime<Utc>,
) -> Result<Vec<Sum>, Error> {
    let (month, today) = (LimitPeriod::Month.bounds(now).0, LimitPeriod::Day.bounds(now).0);
    let rows = sqlx::query!(
        r#"select day >= $4 as "today!", user_id as "user!", currency as "currency!", sum(price_micros)::bigint as "micros!"
           from spend_by_day where organization_id = $1 and user_id = any($2) and day >= $3 group by 1, 2, 3"#,
        organization.uuid(),
        users,
        month,
        today
    )
    .fetch_all(connection)
    .await?;
    let sum = rows.into_iter().map(|row| Sum {
        today: row.today,
        of: Of::User(UserId::from_uuid(row.user)),
        currency: row.currency,
        micros: row.micros,
    });
    Ok(sum.collect())
}

async fn by_tag(
    connection: &mut PgConnection,
    organization: OrganizationId,
    tags: &[String],
    now: DateTime<Utc>,
) -> Result<Vec<Sum>, Error> {
    let (month, today) = (LimitPeriod::Month.bounds(now).0, LimitPeriod::Day.bounds(now).0);
    let rows = sqlx::query!(
        r#"select day >= $4 as "today!", tag as "tag!", currency as "currency!", sum(price_micros)::bigint as "micros!"
           from tag_spend_by_day where organization_id = $1 and tag = any($2) and day >= $3 group by 1, 2, 3"#,
        organization.uuid(),
        tags,
        month,
        today
    )
    .fetch_all(connection)
    .await?;
    let sum = rows.into_iter().map(|row| Sum { today: row.today, of: Of::Tag(row.tag), currency: row.currency, micros: row.micros });
    Ok(sum.collect())
}
