//! The part of a price that is free: so many micro-units for each organization, model and calendar month (UTC).

use chrono::{DateTime, Datelike, NaiveDate, Utc};
use identity::OrganizationId;
use sqlx::{Postgres, Transaction};

use super::StoredCard;
use crate::error::Error;

/// Takes up to `full` from what is left of the allowance and notes it; returns what was taken. The caller holds the lock of the
/// organization's accounts, so nobody else takes of the same allowance meanwhile.
///
/// # Errors
/// The database's.
pub async fn take(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    card: &StoredCard,
    full: i64,
    at: DateTime<Utc>,
) -> Result<i64, Error> {
    if card.free_micros == 0 || full == 0 {
        return Ok(0);
    }
    let month = month_of(at);
    let used = sqlx::query_scalar!(
        "select used_micros from rate_allowances where organization_id = $1 and model = $2 and month = $3 for update",
        organization.uuid(),
        card.model,
        month
    )
    .fetch_optional(&mut **transaction)
    .await?;
    let free = free_part(full, card.free_micros, used.unwrap_or(0));
    if free > 0 {
        sqlx::query!(
            "insert into rate_allowances (organization_id, model, month, used_micros) values ($1, $2, $3, $4)
             on conflict (organization_id, model, month) do update set used_micros = rate_allowances.used_micros + excluded.used_micros",
            organization.uuid(),
            card.model,
            month,
            free
        )
        .execute(&mut **transaction)
        .await?;
    }
    Ok(free)
}

/// Gives back what was taken for a request that used less than was assumed. The caller holds the same lock.
///
/// # Errors
/// The database's.
pub async fn give_back(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    model: &str,
    amount: i64,
    at: DateTime<Utc>,
) -> Result<(), Error> {
    if amount <= 0 {
        return Ok(());
    }
    sqlx::query!(
        "update rate_allowances set used_micros = greatest(used_micros - $4, 0) where organization_id = $1 and model = $2 and month = $3",
        organization.uuid(),
        model,
        month_of(at),
        amount
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// What of a price is free when so much of the allowance was used before.
fn free_part(full: i64, allowance: i64, used: i64) -> i64 {
    full.min(allowance.saturating_sub(used)).max(0)
}

/// The first day of an instant's month in UTC.
fn month_of(at: DateTime<Utc>) -> NaiveDate {
    let day = at.date_naive();
    day.with_day(1).unwrap_or(day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn all_that_is_free_in_a_month_is_never_more_than_the_allowance(prices in proptest::collection::vec(0..1_000_i64, 0..50), allowance in 0..5_000_i64) {
            let mut used = 0;
            for price in &prices {
                let free = free_part(*price, allowance, used);
                prop_assert!(free >= 0 && free <= *price);
                used += free;
            }
            prop_assert_eq!(used, allowance.min(prices.iter().sum()));
        }
    }

    /// A smaller allowance than was used already (a new card in the middle of a month) takes nothing back.
    #[test]
    fn an_allowance_that_shrinks_below_what_was_used_gives_nothing_more() {
        assert_eq!(free_part(100, 50, 80), 0);
    }

    /// [B-60]
    #[test]
    fn a_month_begins_at_midnight_utc_also_on_a_leap_day() {
        let month = |text: &str| month_of(text.parse().unwrap()).to_string();
        assert_eq!(month("2028-02-29T23:59:59.999999Z"), "2028-02-01");
        assert_eq!(month("2028-03-01T00:00:00Z"), "2028-03-01");
        assert_eq!(month("2028-03-01T00:30:00+01:00"), "2028-02-01");
    }
}
