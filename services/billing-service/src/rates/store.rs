//! The SQL of rate cards. A card is written once; only its end is set, when another begins.

use chrono::{DateTime, Utc};
use identity::OrganizationId;
use money::{Currency, RateCard, Rates, Schedule, Tier};
use sqlx::types::Json;
use sqlx::{PgExecutor, Postgres, Transaction};
use uuid::Uuid;

use super::StoredCard;
use crate::error::Error;

/// A card that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCard {
    /// The model that it prices.
    pub model: String,
    /// The organization it is for; none for everybody.
    pub organization_id: Option<OrganizationId>,
    /// The rates.
    pub card: RateCard,
    /// What an organization does not pay in a calendar month, in micro-units.
    pub free_micros: i64,
}

struct Row {
    id: i64,
    model: String,
    organization_id: Option<Uuid>,
    currency: String,
    valid_from: DateTime<Utc>,
    valid_to: Option<DateTime<Utc>>,
    free_micros: i64,
    price_input: i64,
    price_cached: i64,
    price_cache_write: i64,
    price_cache_write_1h: Option<i64>,
    price_output: i64,
    price_reasoning: i64,
    price_audio_in: Option<i64>,
    price_audio_out: Option<i64>,
    price_image: Option<i64>,
    price_request: i64,
    price_tiers: Json<Vec<Tier>>,
    cost_input: i64,
    cost_cached: i64,
    cost_cache_write: i64,
    cost_cache_write_1h: Option<i64>,
    cost_output: i64,
    cost_reasoning: i64,
    cost_audio_in: Option<i64>,
    cost_audio_out: Option<i64>,
    cost_image: Option<i64>,
    cost_request: i64,
    cost_tiers: Json<Vec<Tier>>,
}

impl TryFrom<Row> for StoredCard {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let currency: Currency = row.currency.parse().map_err(|_| Error::Internal("a rate card has an unknown currency"))?;
        let price = Rates {
            input: row.price_input,
            cached_input: row.price_cached,
            cache_write: row.price_cache_write,
            cache_write_1h: row.price_cache_write_1h,
            output: row.price_output,
            reasoning: row.price_reasoning,
            audio_input: row.price_audio_in,
            audio_output: row.price_audio_out,
            image: row.price_image,
            request: row.price_request,
        };
        let cost = Rates {
            input: row.cost_input,
            cached_input: row.cost_cached,
            cache_write: row.cost_cache_write,
            cache_write_1h: row.cost_cache_write_1h,
            output: row.cost_output,
            reasoning: row.cost_reasoning,
            audio_input: row.cost_audio_in,
            audio_output: row.cost_audio_out,
            image: row.cost_image,
            request: row.cost_request,
        };
        Ok(Self {
            id: row.id,
            model: row.model,
            organization_id: row.organization_id.map(OrganizationId::from_uuid),
            valid_from: row.valid_from,
            valid_to: row.valid_to,
            card: RateCard {
                currency,
                price: Schedule { base: price, tiers: row.price_tiers.0 },
                cost: Schedule { base: cost, tiers: row.cost_tiers.0 },
            },
            free_micros: row.free_micros,
        })
    }
}

/// Reads cards: `cards!(what follows "from rate_cards", arguments)`.
macro_rules! cards {
    ($rest:literal, $($argument:expr),*) => {
        sqlx::query_as!(
            Row,
            r#"select id, model, organization_id, currency, valid_from, valid_to, free_micros,
                 price_input, price_cached, price_cache_write, price_cache_write_1h, price_output, price_reasoning, price_audio_in, price_audio_out,
                 price_image, price_request, price_tiers as "price_tiers!: Json<Vec<Tier>>",
                 cost_input, cost_cached, cost_cache_write, cost_cache_write_1h, cost_output, cost_reasoning, cost_audio_in, cost_audio_out,
                 cost_image, cost_request, cost_tiers as "cost_tiers!: Json<Vec<Tier>>"
               from rate_cards "# + $rest,
            $($argument),*
        )
    };
}

/// The card at an instant: the organization's own before everybody's.
///
/// # Errors
/// The database's.
pub async fn find(
    transaction: &mut Transaction<'static, Postgres>,
    organization: Option<OrganizationId>,
    model: &str,
    instant: DateTime<Utc>,
) -> Result<Option<StoredCard>, Error> {
    let row = cards!(
        "where model = $1 and valid_from <= $2 and (valid_to is null or $2 < valid_to) and (organization_id is null or organization_id = $3)
         order by organization_id nulls last limit 1",
        model,
        instant,
        organization.map(OrganizationId::uuid)
    );
    row.fetch_optional(&mut **transaction).await?.map(StoredCard::try_from).transpose()
}

/// A card by its id.
///
/// # Errors
/// The database's.
pub async fn by_id(executor: impl PgExecutor<'_>, id: i64) -> Result<Option<StoredCard>, Error> {
    cards!("where id = $1", id).fetch_optional(executor).await?.map(StoredCard::try_from).transpose()
}

/// All cards that are valid at an instant or will be.
///
/// # Errors
/// The database's.
pub async fn from(executor: impl PgExecutor<'_>, instant: DateTime<Utc>) -> Result<Vec<StoredCard>, Error> {
    let rows = cards!("where valid_to is null or valid_to > $1 order by model, organization_id nulls first, valid_from", instant);
    rows.fetch_all(executor).await?.into_iter().map(StoredCard::try_from).collect()
}

/// All cards of a model, the general ones first, each line of cards by time.
///
/// # Errors
/// The database's.
pub async fn of_model(transaction: &mut Transaction<'static, Postgres>, model: &str) -> Result<Vec<StoredCard>, Error> {
    let rows = cards!("where model = $1 order by organization_id nulls first, valid_from", model);
    rows.fetch_all(&mut **transaction).await?.into_iter().map(StoredCard::try_from).collect()
}

/// All cards that are valid at an instant.
///
/// # Errors
/// The database's.
pub async fn all_at(transaction: &mut Transaction<'static, Postgres>, instant: DateTime<Utc>) -> Result<Vec<StoredCard>, Error> {
    let rows =
        cards!("where valid_from <= $1 and (valid_to is null or $1 < valid_to) order by model, organization_id nulls first", instant);
    rows.fetch_all(&mut **transaction).await?.into_iter().map(StoredCard::try_from).collect()
}

/// When the first card of the same model and organization begins that does not begin before an instant.
///
/// # Errors
/// The database's.
pub async fn begins_later(
    transaction: &mut Transaction<'static, Postgres>,
    organization: Option<OrganizationId>,
    model: &str,
    instant: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, Error> {
    let begins = sqlx::query_scalar!(
        "select min(valid_from) from rate_cards where model = $1 and organization_id is not distinct from $2 and valid_from >= $3",
        model,
        organization.map(OrganizationId::uuid),
        instant
    );
    Ok(begins.fetch_one(&mut **transaction).await?)
}

/// Ends the card that is valid at an instant, there.
///
/// # Errors
/// The database's.
pub async fn end(
    transaction: &mut Transaction<'static, Postgres>,
    organization: Option<OrganizationId>,
    model: &str,
    at: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        "update rate_cards set valid_to = $3 where model = $1 and organization_id is not distinct from $2 and valid_from < $3
           and (valid_to is null or valid_to > $3)",
        model,
        organization.map(OrganizationId::uuid),
        at
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Writes a card that is valid from an instant on, until the next one of its line begins if there is one.
///
/// # Errors
/// The database's; `rate_cards_no_overlap` when there is one already.
pub async fn insert(
    transaction: &mut Transaction<'static, Postgres>,
    new: &NewCard,
    from: DateTime<Utc>,
    until: Option<DateTime<Utc>>,
) -> Result<(), Error> {
    let (price, cost) = (&new.card.price.base, &new.card.cost.base);
    sqlx::query!(
        "insert into rate_cards (model, organization_id, currency, valid_from, free_micros,
           price_input, price_cached, price_cache_write, price_cache_write_1h, price_output, price_reasoning, price_audio_in, price_audio_out,
           price_image, price_request, price_tiers,
           cost_input, cost_cached, cost_cache_write, cost_cache_write_1h, cost_output, cost_reasoning, cost_audio_in, cost_audio_out,
           cost_image, cost_request, cost_tiers, valid_to)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28)",
        new.model,
        new.organization_id.map(OrganizationId::uuid),
        new.card.currency.code(),
        from,
        new.free_micros,
        price.input,
        price.cached_input,
        price.cache_write,
        price.cache_write_1h,
        price.output,
        price.reasoning,
        price.audio_input,
        price.audio_output,
        price.image,
        price.request,
        Json(&new.card.price.tiers) as _,
        cost.input,
        cost.cached_input,
        cost.cache_write,
        cost.cache_write_1h,
        cost.output,
        cost.reasoning,
        cost.audio_input,
        cost.audio_output,
        cost.image,
        cost.request,
        Json(&new.card.cost.tiers) as _,
        until
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
