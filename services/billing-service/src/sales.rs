//! Money that arrived: one sale in the ledger for each payment, whatever tells of it and however often [B-47]. What it was for gets
//! its effect in the same transaction: credit, or a charge of a subscription with the credit that comes with it.

mod exchange;
mod reversals;

use chrono::{DateTime, Utc};
use identity::OrganizationId;
use money::Currency;
use serde_json::json;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use crate::error::Error;
use crate::grants::{self, NewGrant, Source};
use crate::intents::{self, Intent};
use crate::ledger::postings::{Rate, Sale};
use crate::ledger::{self, postings};
use crate::state::AppState;
use crate::subscriptions::SubscriptionId;
use crate::subscriptions::command::Command;
use crate::subscriptions::store;

pub use reversals::{Reversal, disputed, refunded};

/// Who changed a subscription, when a payment did.
const ACTOR: &str = "stripe";

/// By what something was paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaidBy {
    /// A page on which somebody pressed a button.
    Checkout,
    /// An invoice for a charge of a subscription.
    Charge,
    /// An invoice for credit that was topped up.
    TopUp,
}

impl PaidBy {
    /// Its name in the database and in Stripe's metadata.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Checkout => "checkout",
            Self::Charge => "charge",
            Self::TopUp => "top_up",
        }
    }
}

/// A payment that succeeded.
#[derive(Debug, Clone)]
pub struct Payment {
    /// Stripe's `PaymentIntent`: the key of the sale.
    pub intent: String,
    /// Whose money it was.
    pub organization: OrganizationId,
    /// By what it was paid.
    pub by: PaidBy,
    /// Which one of those.
    pub by_id: Uuid,
    /// In what.
    pub currency: Currency,
    /// In micro-units, without tax: what it was for.
    pub amount: i64,
    /// What of it the customer's balance at Stripe paid; below zero, so much more was paid, for what had waited there.
    pub balance: i64,
}

impl Payment {
    /// Whether nothing was paid through Stripe but by the customer's balance: then the invoice itself is the fact.
    fn is_invoice(&self) -> bool {
        self.intent.starts_with("in_")
    }
}

/// Which charge of a subscription.
#[derive(Debug, Clone)]
pub struct ChargeRef {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Of the period that began then.
    pub period_start: DateTime<Utc>,
    /// For what.
    pub reason: String,
}

/// Credit was paid for: `bought` is how much, and at which rate if the money is in another currency. False when that is known already, and nothing is changed. A second payment of the same thing is no sale, and
/// goes back.
///
/// # Errors
/// The database's.
pub async fn of_credit(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    payment: &Payment,
    bought: (i64, Option<Rate>),
    expires_at: Option<DateTime<Utc>>,
) -> Result<bool, Error> {
    if is_paid_by_another(transaction, payment).await? {
        let new = insert(state, transaction, payment, exchange::sale(payment, 0, None)?, false).await?;
        if new {
            give_back(state, transaction, payment).await?;
        }
        return Ok(new);
    }
    let (credit, rate) = bought;
    let sale = exchange::sale(payment, credit, rate)?;
    if !insert(state, transaction, payment, sale, true).await? {
        return Ok(false);
    }
    // Of an invoice that credit notes brought to zero there is no lot.
    if credit == 0 {
        without_credit(state, transaction, payment, sale).await?;
        return Ok(true);
    }
    let lot = NewGrant::plain(Source::Purchase, &payment.intent, credit);
    let grant = NewGrant { paid: Some(sale.paid), exchange: sale.exchange, balance: sale.balance, expires_at, ..lot };
    grants::issue(state, transaction, payment.organization, &grant).await?;
    Ok(true)
}

/// A charge of a subscription was paid: the subscription goes on, and the credit of the period is given. What is paid for a charge that
/// nobody waits for any more is no sale, and goes back. False when the payment is known already.
///
/// # Errors
/// [`Error::NotFound`] when the organization has no such subscription; the database's.
pub async fn of_charge(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    payment: &Payment,
    charge: &ChargeRef,
) -> Result<bool, Error> {
    let ChargeRef { subscription, period_start, reason } = charge;
    let before = store::locked(transaction, payment.organization, *subscription).await?;
    let awaited = before.open.iter().any(|open| open.period_start == *period_start && open.reason == *reason);
    let command = Command::PaymentSucceeded { period_start: *period_start, reason: reason.clone() };
    let sold = awaited && !before.refuses_payment(*period_start, reason);
    let grant = if sold { before.promised(*period_start, reason, state.clock.now()) } else { None };
    let credit = grant.as_ref().map_or(0, |grant| grant.amount_micros);
    let sale = exchange::sale(payment, credit, before.terms.rate())?;
    if !insert(state, transaction, payment, sale, sold).await? {
        return Ok(false);
    }
    store::apply(state, transaction, payment.organization, *subscription, &command, ACTOR).await?;
    if !sold {
        give_back(state, transaction, payment).await?;
        return Ok(true);
    }
    let Some(grant) = grant else {
        without_credit(state, transaction, payment, sale).await?;
        return Ok(true);
    };
    let lot = NewGrant::plain(Source::Plan, &payment.intent, sale.credit);
    let (paid, expires_at) = (Some(sale.paid), grant.expires_at);
    let given = NewGrant { paid, exchange: sale.exchange, balance: sale.balance, expires_at, ..lot };
    // The posting last: from that on others wait for the house's accounts.
    crate::subscriptions::grants::posted(state, transaction, *subscription, *period_start, reason).await?;
    grants::issue(state, transaction, payment.organization, &given).await?;
    Ok(true)
}

/// A sale that brings no credit. What comes to zero in every part (an invoice that was forgiven) has no posting.
async fn without_credit(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    payment: &Payment,
    sale: Sale,
) -> Result<(), Error> {
    let balances = ledger::lock(transaction, payment.organization).await?;
    let posting = postings::sale(&payment.intent, sale, false, balances, state.clock.now());
    if !posting.moves_nothing() {
        ledger::post(state, transaction, Some(payment.organization), payment.currency, &posting).await?;
    }
    Ok(())
}

async fn is_paid_by_another(transaction: &mut Transaction<'static, Postgres>, payment: &Payment) -> Result<bool, Error> {
    let paid = sqlx::query_scalar!(
        r#"select exists (select from stripe_payments where source_id = $1 and source = $2 and organization_id = $3 and payment_intent_id <> $4 and sold)
           as "paid!""#,
        payment.by_id,
        payment.by.as_str(),
        payment.organization.uuid(),
        payment.intent
    );
    Ok(paid.fetch_one(&mut **transaction).await?)
}

/// Has a payment that was for nothing returned: what was paid the way it came, and what the customer's balance at Stripe moved by.
async fn give_back(state: &AppState, transaction: &mut Transaction<'static, Postgres>, payment: &Payment) -> Result<(), Error> {
    if payment.balance != 0 {
        let minor = money::minor_units(payment.currency, payment.balance);
        let intent = Intent {
            kind: "balance.return",
            subject: format!("balance-{}", payment.intent),
            organization_id: Some(payment.organization),
            idempotency_key: format!("balance.return-{}", payment.intent),
            payload: json!({"amount_minor": minor, "currency": payment.currency, "reason": "nothing was waiting for it"}),
        };
        intents::want(state, transaction, &intent).await?;
    }
    if payment.is_invoice() {
        return Ok(());
    }
    let intent = Intent {
        kind: "payment.refund",
        subject: payment.intent.clone(),
        organization_id: Some(payment.organization),
        idempotency_key: format!("payment.refund-{}", payment.intent),
        payload: json!({"payment_intent": payment.intent, "reason": "nothing was waiting for it"}),
    };
    intents::want(state, transaction, &intent).await
}

async fn insert(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    payment: &Payment,
    sale: Sale,
    sold: bool,
) -> Result<bool, Error> {
    let inserted = sqlx::query!(
        "insert into stripe_payments (payment_intent_id, organization_id, source, source_id, currency, amount_micros, credit_micros, exchanged_micros, bought_micros, balance_micros, sold, paid_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) on conflict do nothing",
        payment.intent,
        payment.organization.uuid(),
        payment.by.as_str(),
        payment.by_id,
        payment.currency.code(),
        payment.amount,
        sale.credit,
        sale.exchange.map(|exchange| exchange.money),
        sale.exchange.map(|exchange| exchange.credit),
        sale.balance,
        sold,
        state.clock.now()
    )
    .execute(&mut **transaction)
    .await?;
    let new = inserted.rows_affected() == 1;
    if new && sold {
        store::fix_currency(state, transaction, payment.organization, payment.currency).await?;
    }
    Ok(new)
}
