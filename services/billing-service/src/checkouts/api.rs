//! `POST /v1/checkout-sessions`.

use axum::extract::State;
use chassis::http::Json;
use chassis::problem::ProblemBody;
use chassis::{Problem, in_transaction};
use chrono::{DateTime, Utc};
use http::StatusCode;
use identity::{Authenticated, OrganizationId, Principal, Scope};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::store::{self, Checkout};
use super::{page, wish};
use crate::catalog::{Interval, stored};
use crate::error::Error;
use crate::organizations::ensure_wallet;
use crate::state::AppState;
use crate::stripe::transport::Transport;
use crate::subscriptions::store::{Stored, Wanted};
use crate::subscriptions::{SubscriptionId, api::field};

/// Where a browser goes from the page.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct Urls {
    /// When it was paid; `{CHECKOUT_SESSION_ID}` is replaced by Stripe.
    #[serde(rename = "success_url")]
    #[schema(example = "https://example.com/thanks")]
    pub success: String,
    /// When nothing was bought.
    #[serde(rename = "cancel_url")]
    #[schema(example = "https://example.com/prices")]
    pub cancel: String,
}

/// What to buy.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "item", rename_all = "snake_case")]
pub enum CheckoutRequest {
    /// Credit.
    CreditPack {
        /// The pack's code.
        credit_pack: String,
        /// ISO 4217 code.
        #[schema(example = "USD")]
        currency: String,
        /// Where a browser goes from the page.
        #[serde(flatten)]
        urls: Urls,
    },
    /// A plan.
    Plan {
        /// The plan's code.
        plan: String,
        /// ISO 4217 code.
        #[schema(example = "USD")]
        currency: String,
        /// How often to pay.
        interval: Interval,
        /// How many seats.
        #[schema(minimum = 1)]
        seats: u32,
        /// The code of a coupon.
        coupon: Option<String>,
        /// Where a browser goes from the page.
        #[serde(flatten)]
        urls: Urls,
    },
}

/// A page on which it can be paid.
#[derive(Debug, Serialize, ToSchema)]
pub struct CheckoutView {
    /// Its id; absent when nothing is to be paid.
    id: Option<uuid::Uuid>,
    /// The page; absent when nothing is to be paid: a plan is in force then.
    #[schema(example = "https://checkout.stripe.com/c/pay/cs_test_1")]
    url: Option<String>,
    /// Until when it can be used.
    expires_at: Option<DateTime<Utc>>,
    /// What is to be paid, in micro-units; zero where only a card is left.
    amount_micros: i64,
    /// ISO 4217 code.
    #[schema(example = "USD")]
    currency: String,
    /// The subscription that begins with the payment, or has begun.
    subscription_id: Option<SubscriptionId>,
}

impl From<Checkout> for CheckoutView {
    fn from(checkout: Checkout) -> Self {
        Self {
            id: Some(checkout.id),
            url: checkout.url,
            expires_at: Some(checkout.expires_at),
            amount_micros: checkout.amount,
            currency: checkout.currency.code().to_owned(),
            subscription_id: checkout.subscription,
        }
    }
}

impl CheckoutView {
    /// Nothing is to be paid.
    fn in_force(begun: &Stored) -> Self {
        Self {
            id: None,
            url: None,
            expires_at: None,
            amount_micros: 0,
            currency: begun.subscription.terms.currency.code().to_owned(),
            subscription_id: Some(begun.id),
        }
    }
}

/// Begin to buy credit or a plan. While a page for the same thing is open, that page is the answer: two tabs pay once.
#[utoipa::path(post, path = "/v1/checkout-sessions", tag = "payments", request_body = CheckoutRequest, security(("bearer" = [])),
    responses((status = 201, body = CheckoutView), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody),
        (status = 501, body = ProblemBody, description = "Payments are not configured"), (status = 503, body = ProblemBody)))]
pub async fn create(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    Json(request): Json<CheckoutRequest>,
) -> Result<(StatusCode, axum::Json<CheckoutView>), Error> {
    principal.require(Scope::BillingWrite)?;
    let stripe = state.stripe.as_ref().ok_or(Error::NoStripe)?;
    let _place = stripe.wait_for_place(principal.organization_id).await?;
    let view = match request {
        CheckoutRequest::CreditPack { credit_pack, currency, urls } => {
            Box::pin(pack(&state, stripe, principal.organization_id, &credit_pack, &currency, checked(urls)?)).await?
        }
        CheckoutRequest::Plan { plan, currency, interval, seats, coupon, urls } => {
            let coupon = coupon.map(|text| field("coupon", &text)).transpose()?;
            let wanted = Wanted { plan: field("plan", &plan)?, currency: field("currency", &currency)?, interval, seats, coupon };
            Box::pin(subscribe(&state, stripe, &principal, &wanted, checked(urls)?)).await?
        }
    };
    Ok((StatusCode::CREATED, axum::Json(view)))
}

/// The longest URL that Stripe takes.
const LONGEST_URL: usize = 2048;

/// A place that a browser is sent to.
///
/// # Errors
/// 422 naming the field.
pub fn checked_url(field: &'static str, text: &str) -> Result<(), Problem> {
    if text.len() > LONGEST_URL {
        return Err(Problem::invalid_field(field, format!("must be at most {LONGEST_URL} characters")));
    }
    let url = url::Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.map(|_| ()).ok_or_else(|| Problem::invalid_field(field, "must be an absolute http or https URL"))
}

fn checked(urls: Urls) -> Result<Urls, Problem> {
    for (name, text) in [("success_url", &urls.success), ("cancel_url", &urls.cancel)] {
        checked_url(name, text)?;
    }
    Ok(urls)
}

async fn pack(
    state: &AppState,
    stripe: &Transport,
    organization: OrganizationId,
    code: &str,
    currency: &str,
    urls: Urls,
) -> Result<CheckoutView, Error> {
    let (code, currency) = (field("credit_pack", code)?, field("currency", currency)?);
    let checkout = loop {
        let (urls, code) = (urls.clone(), &code);
        // Written, or there already; one that is for another price or is over makes place.
        let found: Result<(Checkout, bool), Error> = in_transaction!(state.pool, |transaction| {
            ensure_wallet(state, transaction, organization).await?;
            let wish = wish::credit_pack(transaction, organization, code, currency, urls.clone()).await?;
            store::insert(state, transaction, organization, &wish, wish::expires_at(state.clock.now())).await?;
            let open = store::open(transaction, organization, &[wish.kind.as_str()], code.as_str()).await?;
            let open = open.ok_or(Error::Internal("a checkout that was written is not there"))?;
            let same = open.wanted == wish.wanted;
            Ok((open, same))
        });
        let (open, same) = found?;
        let alive = page::is_usable(state, &open) && page::is_open(stripe, &open).await?;
        if same && alive {
            break open;
        }
        replace(state, stripe, &open, alive).await?;
    };
    Ok(page::make(state, stripe, checkout).await?.into())
}

async fn subscribe(
    state: &AppState,
    stripe: &Transport,
    principal: &Principal,
    wanted: &Wanted,
    urls: Urls,
) -> Result<CheckoutView, Error> {
    let organization = principal.organization_id;
    let group = {
        let mut connection = state.pool.acquire().await?;
        stored::sold(&mut connection, &wanted.plan).await?.plan.group
    };
    let kinds = [wish::Kind::Plan.as_str(), wish::Kind::Card.as_str()];
    let actor = principal.actor.to_string();
    // Twice: another tab may have begun the same in between, and then its page is ours too.
    for last in [false, true] {
        let open = store::open(&mut *state.pool.acquire().await?, organization, &kinds, group.as_str()).await?;
        if let Some(open) = open {
            let alive = page::is_usable(state, &open) && page::is_open(stripe, &open).await?;
            if open.wanted == wish::plan_key(wanted) && alive {
                return Ok(page::make(state, stripe, open).await?.into());
            }
            match check(state, &open, wanted, &actor, urls.clone()).await {
                // Another tab was faster: its page is ours too.
                Err(Error::Refused(problem)) if problem.code() == "subscription_exists" && !last => continue,
                checked => checked?,
            }
            replace(state, stripe, &open, alive).await?;
        }
        let begun: Result<_, Error> = in_transaction!(state.pool, |transaction| {
            ensure_wallet(state, transaction, organization).await?;
            let (begun, wish) = wish::plan(state, transaction, organization, wanted, &actor, urls.clone()).await?;
            let Some(wish) = wish else { return Ok((begun, None)) };
            store::insert(state, transaction, organization, &wish, wish::expires_at(state.clock.now())).await?;
            let open = store::open(transaction, organization, &[wish.kind.as_str()], wish.item.as_str()).await?;
            Ok((begun, open))
        });
        match begun {
            Err(Error::Refused(problem)) if problem.code() == "subscription_exists" && !last => {}
            Err(error) => return Err(error),
            Ok((_, Some(checkout))) => return Ok(page::make(state, stripe, checkout).await?.into()),
            Ok((begun, None)) => return Ok(CheckoutView::in_force(&begun)),
        }
    }
    Err(Error::Internal("a second try neither began nor was refused"))
}

/// Whether what is wanted could begin in the place of an open page. That page is kept for who wants what cannot be had.
async fn check(state: &AppState, open: &Checkout, wanted: &Wanted, actor: &str, urls: Urls) -> Result<(), Error> {
    let mut tried = state.pool.begin().await?;
    ensure_wallet(state, &mut tried, open.organization).await?;
    page::give_up(state, &mut tried, open).await?;
    wish::plan(state, &mut tried, open.organization, wanted, actor, urls).await?;
    Ok(tried.rollback().await?)
}

/// Takes an open page away, at Stripe first [B-69].
async fn replace(state: &AppState, stripe: &Transport, open: &Checkout, alive: bool) -> Result<(), Error> {
    if alive {
        page::take_away(stripe, open).await?;
    }
    in_transaction!(state.pool, |transaction| { page::give_up(state, transaction, open).await })
}
