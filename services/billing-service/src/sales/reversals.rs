//! Money that went back, or that a bank asks about: each refund and each dispute takes its part of the sale once [B-48]. With all the
//! money all the credit goes, in however many parts.

use identity::OrganizationId;
use money::Currency;
use sqlx::types::Json;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use crate::catalog::stored;
use crate::error::Error;
use crate::grants::{self, Dispute};
use crate::ledger::postings::{Exchange, Fee, Posting, Sale};
use crate::ledger::{self, CREDIT, postings};
use crate::state::AppState;
use crate::subscriptions::command::Command;
use crate::subscriptions::state::{Line, LineKind};
use crate::subscriptions::{SubscriptionId, store};
use crate::top_ups;

use super::{ACTOR, PaidBy};

/// A refund or a dispute as Stripe has it now.
#[derive(Debug, Clone)]
pub struct Reversal {
    /// Stripe's id.
    pub id: String,
    /// Of what payment.
    pub payment_intent: String,
    /// In smallest units of the payment's currency.
    pub amount_minor: i64,
    /// What was paid in all, tax included, in smallest units; none where Stripe did not say.
    pub received_minor: Option<i64>,
    /// Stripe's status.
    pub status: String,
    /// The number of the look.
    pub fetched: i64,
}

/// The payment that is reversed, and what is known of the reversal, both locked.
struct Known {
    organization: OrganizationId,
    currency: Currency,
    sale: Sale,
    sold: bool,
    /// By what it was paid, and which one of those.
    paid_by: (String, Uuid),
    reversed: i64,
    amount: i64,
    /// What the latest look said of it, which may have been another than this one.
    status: String,
    posted: bool,
    /// What was taken back of the sale when it was posted.
    part: Sale,
    closed: bool,
}

impl Known {
    /// The currency of a part's posting: with a side of its own for the money, the other one is in credit.
    const fn part_in(&self, part: Sale) -> Currency {
        if part.exchange.is_some() { CREDIT } else { self.currency }
    }
}

/// Which of the two takes something back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taking {
    Refund,
    Dispute,
}

impl Taking {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Refund => "refund",
            Self::Dispute => "dispute",
        }
    }
}

/// A refund: once its money is on its way, its part of the sale goes with it.
///
/// # Errors
/// [`Error::NotFound`] while the payment is not known; the database's.
pub async fn refunded(state: &AppState, transaction: &mut Transaction<'static, Postgres>, refund: &Reversal) -> Result<(), Error> {
    let known = note(state, transaction, refund, Taking::Refund).await?;
    match known.status.as_str() {
        "succeeded" | "pending" if !known.posted => {
            take_back(state, transaction, &known, refund, Taking::Refund).await?;
        }
        // The money came back to Stripe after all: whether the credit returns is for people to decide.
        "failed" | "canceled" if known.posted => {
            metrics::counter!("billing_stripe_refunds_failed_total").increment(1);
            tracing::error!(stripe.refund.id = refund.id, "a refund failed after its credit was taken back: decide whether it returns");
        }
        _ => {}
    }
    Ok(())
}

/// A dispute: its part of the sale is taken back while it lasts; won, it returns; lost, it is gone, and the fee with it.
///
/// # Errors
/// [`Error::NotFound`] while the payment is not known; the database's.
pub async fn disputed(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    dispute: &Reversal,
    fee: Option<Fee>,
) -> Result<(), Error> {
    // A question of the bank's that has taken no money.
    if dispute.status.starts_with("warning") || dispute.status == "prevented" {
        return Ok(());
    }
    let mut known = note(state, transaction, dispute, Taking::Dispute).await?;
    if !known.posted {
        known.part = take_back(state, transaction, &known, dispute, Taking::Dispute).await?;
    }
    let outcome = match dispute.status.as_str() {
        "won" => Dispute::Won,
        "lost" => Dispute::Lost { fee },
        _ => return Ok(()),
    };
    if known.closed {
        return Ok(());
    }
    sqlx::query!("update stripe_reversals set closed = true where object_id = $1", dispute.id).execute(&mut **transaction).await?;
    if outcome == Dispute::Won {
        move_reversed(transaction, &dispute.payment_intent, -known.part.money()).await?;
        count_less(state, transaction, &known, -known.part.money()).await?;
    }
    close(state, transaction, &known, dispute, outcome).await
}

/// Locks the payment, and writes what was seen, unless something later was seen before.
async fn note(state: &AppState, transaction: &mut Transaction<'static, Postgres>, seen: &Reversal, kind: Taking) -> Result<Known, Error> {
    let payment = sqlx::query!(
        "select organization_id, currency, amount_micros, credit_micros, exchanged_micros, bought_micros, balance_micros, sold, reversed_micros,
           source, source_id from stripe_payments
         where payment_intent_id = $1 for no key update",
        seen.payment_intent
    )
    .fetch_optional(&mut **transaction)
    .await?
    .ok_or(Error::NotFound)?;
    let currency = stored::currency(&payment.currency)?;
    let amount = money::from_minor_units(currency, seen.amount_minor).ok_or(Error::Internal("an amount of Stripe's does not fit"))?;
    let row = sqlx::query!(
        "insert into stripe_reversals as r (object_id, payment_intent_id, kind, amount_micros, status, fetched, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7)
         on conflict (object_id) do update set status = case when r.fetched < excluded.fetched then excluded.status else r.status end,
            fetched = greatest(r.fetched, excluded.fetched), updated_at = excluded.updated_at
         returning status, posted, paid_micros, credit_micros, exchanged_micros, bought_micros, balance_micros, closed",
        seen.id,
        seen.payment_intent,
        kind.as_str(),
        amount,
        seen.status,
        seen.fetched,
        state.clock.now()
    )
    .fetch_one(&mut **transaction)
    .await?;
    let exchange = |money: Option<i64>, credit: Option<i64>| Some(Exchange { currency, money: money?, credit: credit? });
    Ok(Known {
        organization: OrganizationId::from_uuid(payment.organization_id),
        currency,
        sale: Sale {
            paid: payment.amount_micros,
            credit: payment.credit_micros,
            exchange: exchange(payment.exchanged_micros, payment.bought_micros),
            balance: payment.balance_micros,
        },
        sold: payment.sold,
        paid_by: (payment.source, payment.source_id),
        reversed: payment.reversed_micros,
        amount,
        status: row.status,
        posted: row.posted,
        part: Sale {
            paid: row.paid_micros,
            credit: row.credit_micros,
            exchange: exchange(row.exchanged_micros, row.bought_micros),
            balance: row.balance_micros,
        },
        closed: row.closed,
    })
}

/// Takes a part of the sale back.
async fn take_back(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    known: &Known,
    seen: &Reversal,
    taking: Taking,
) -> Result<Sale, Error> {
    let money = without_tax(transaction, known, seen).await?;
    let part = known.sale.part(known.reversed, known.reversed + money);
    let (organization, key) = (known.organization, seen.id.as_str());
    // Before the posting: from that on others wait for the house's accounts.
    sqlx::query!(
        "update stripe_reversals set posted = true, paid_micros = $2, credit_micros = $3, exchanged_micros = $4, bought_micros = $5, balance_micros = $6 where object_id = $1",
        seen.id,
        part.paid,
        part.credit,
        part.exchange.map(|exchange| exchange.money),
        part.exchange.map(|exchange| exchange.credit),
        part.balance
    )
    .execute(&mut **transaction)
    .await?;
    move_reversed(transaction, &seen.payment_intent, money).await?;
    if known.sold {
        top_ups::money_back(state, transaction, organization, key).await?;
    }
    count_less(state, transaction, known, money).await?;
    if known.sold && part.credit > 0 {
        let sale = seen.payment_intent.as_str();
        let taken = match taking {
            Taking::Refund => grants::refund(state, transaction, organization, sale, part, key).await?,
            Taking::Dispute => grants::open_dispute(state, transaction, organization, sale, part, key).await?,
        };
        // Money that went back without its credit is for people to look at, and never passed over.
        taken.ok_or(Error::Internal("nothing is left of a sale whose money goes back"))?;
    } else if known.sold && money > 0 {
        let (balances, now) = (ledger::lock(transaction, organization).await?, state.clock.now());
        let posting = match taking {
            Taking::Refund => postings::refund(key, part, 0, balances, now),
            Taking::Dispute => postings::dispute_opened(key, part, 0, balances, now),
        };
        post(state, transaction, known, known.part_in(part), &posting).await?;
    }
    Ok(part)
}

/// What of a reversal is money of the sale, and not the tax that was paid beside it and goes back beside the books: the same part of both,
/// however many parts it goes back in. What a balance paid does not go back.
async fn without_tax(transaction: &mut Transaction<'static, Postgres>, known: &Known, seen: &Reversal) -> Result<i64, Error> {
    let before = sqlx::query_scalar!(
        r#"select coalesce(sum(amount_micros), 0)::bigint as "before!" from stripe_reversals
           where payment_intent_id = $1 and object_id <> $2 and posted and status <> 'won'"#,
        seen.payment_intent,
        seen.id
    );
    let before = before.fetch_one(&mut **transaction).await?;
    let received = seen.received_minor.and_then(|minor| money::from_minor_units(known.currency, minor)).unwrap_or_default();
    let net = known.sale.money().max(0);
    Ok((part_of(net, before.saturating_add(known.amount), received) - known.reversed).clamp(0, (net - known.reversed).max(0)))
}

/// What of `net` went back when so much of all that was `received` did; as `part_of_sale` in the comparison with Stripe.
fn part_of(net: i64, gone: i64, received: i64) -> i64 {
    if received <= net {
        return gone.min(net);
    }
    let part = (i128::from(net) * i128::from(gone.min(received)) + i128::from(received / 2)) / i128::from(received);
    i64::try_from(part).unwrap_or(net)
}

async fn close(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    known: &Known,
    dispute: &Reversal,
    outcome: Dispute,
) -> Result<(), Error> {
    if !known.sold {
        return Ok(());
    }
    if known.part.credit > 0 {
        grants::close_dispute(state, transaction, known.organization, &dispute.id, outcome).await?;
        return Ok(());
    }
    let (balances, now) = (ledger::lock(transaction, known.organization).await?, state.clock.now());
    let (currency, posting) = match outcome {
        Dispute::Won => (known.part_in(known.part), postings::dispute_won(&dispute.id, known.part, 0, balances, now)),
        Dispute::Lost { fee } => (known.currency, postings::dispute_lost(&dispute.id, (known.currency, known.part.money()), fee, now)),
    };
    post(state, transaction, known, currency, &posting).await
}

async fn post(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    known: &Known,
    currency: Currency,
    posting: &Posting,
) -> Result<(), Error> {
    // A dispute over what was given back already takes nothing, and has nothing to return.
    if posting.moves_nothing() {
        return Ok(());
    }
    ledger::post(state, transaction, Some(known.organization), currency, posting).await?;
    Ok(())
}

/// What went back of a plan's charge is not there for a change of the plan to count once more.
async fn count_less(state: &AppState, transaction: &mut Transaction<'static, Postgres>, known: &Known, micros: i64) -> Result<(), Error> {
    let (source, source_id) = &known.paid_by;
    if !known.sold || micros == 0 || source == PaidBy::TopUp.as_str() {
        return Ok(());
    }
    let charge = sqlx::query!(
        r#"select subscription_id, period_start, lines as "lines: Json<Vec<Line>>" from subscription_charges c where organization_id = $1
           and (id = $2 or reason = 'start' and subscription_id = (select subscription_id from checkouts where id = $2)) limit 1"#,
        known.organization.uuid(),
        source_id
    );
    let Some(charge) = charge.fetch_optional(&mut **transaction).await? else { return Ok(()) };
    // A change within a period is paid for from then on.
    let rests = charge.lines.0.iter().filter(|line| line.kind == LineKind::Remaining).map(|line| line.period.start);
    let (period_start, since) = (charge.period_start, rests.max().unwrap_or(charge.period_start));
    let command = Command::ChargeReversed { period_start, since, micros };
    let subscription = SubscriptionId::from_uuid(charge.subscription_id);
    store::apply(state, transaction, known.organization, subscription, &command, ACTOR).await.map(drop)
}

async fn move_reversed(transaction: &mut Transaction<'static, Postgres>, payment_intent: &str, by: i64) -> Result<(), Error> {
    sqlx::query!("update stripe_payments set reversed_micros = reversed_micros + $2 where payment_intent_id = $1", payment_intent, by)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::part_of;

    proptest! {
        /// [B-48] However it is divided, all of it is all of it, and no part is below nothing.
        #[test]
        fn parts_of_a_taxed_payment_come_to_the_whole_sale(net in 0..1_000_000_i64, tax in 0..300_000_i64, parts in proptest::collection::vec(1..400_000_i64, 1..9)) {
            let (received, mut gone, mut reversed) = (net + tax, 0, 0);
            for part in parts {
                gone += part;
                let until = part_of(net, gone, received);
                prop_assert!(until >= reversed && until <= net);
                reversed = until;
            }
            prop_assert_eq!(part_of(net, received, received), net);
            prop_assert!(gone < received || reversed == net);
        }
    }

    /// [B-48]
    #[test]
    fn half_of_what_was_paid_with_its_tax_is_half_of_the_sale() {
        assert_eq!((part_of(100, 60, 120), part_of(100, 60, 100), part_of(100, 60, 0)), (50, 60, 60));
    }
}
