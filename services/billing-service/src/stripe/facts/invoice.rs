//! An invoice: mirrored as it is, and where it collects something of ours, its payment or its failure has its effect. What an invoice
//! belongs to is read from the metadata that we gave it; period and subscription fields of Stripe's own, which moved between versions
//! of its API [B-73], are not needed.

pub(super) mod mirror;

use chassis::in_transaction;
use identity::OrganizationId;
use money::Currency;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::Family;
use super::turn::{self, Turn};
use crate::error::Error;
use crate::sales::{self, ChargeRef, PaidBy, Payment};
use crate::state::AppState;
use crate::stripe::collect;
use crate::stripe::object::Object;
use crate::stripe::transport::Transport;
use crate::subscriptions::command::Command;
use crate::subscriptions::{SubscriptionId, store};
use crate::top_ups;

/// The sums of an invoice, in micro-units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    lines: i64,
    subtotal: i64,
    discount: i64,
    pub(in crate::stripe) tax: i64,
    pub(in crate::stripe) total: i64,
    /// The total without the tax on top.
    net: i64,
    /// What was to be paid without the tax on top, after credit notes that came before the payment: what is sold for it.
    pub(in crate::stripe) due: i64,
    /// The tax that was to be paid: what credit notes left of it.
    pub(in crate::stripe) tax_due: i64,
    /// What the customer's balance at Stripe paid when the invoice became final; below zero, so much more was asked for, that had waited
    /// there. The rest, `due - balance`, is what was paid another way, without tax.
    pub(in crate::stripe) balance: i64,
}

impl Sums {
    pub(in crate::stripe) fn of(invoice: Object<'_>, currency: Currency) -> Result<Self, Error> {
        let mut sums = Self {
            lines: 0,
            subtotal: invoice.micros("subtotal", currency)?,
            discount: 0,
            tax: 0,
            total: invoice.micros("total", currency)?,
            net: 0,
            due: 0,
            tax_due: 0,
            balance: 0,
        };
        let add = |sum: &mut i64, object: Object<'_>| -> Result<(), Error> {
            *sum = sum.checked_add(object.micros("amount", currency)?).ok_or(Error::Unreadable("amount"))?;
            Ok(())
        };
        invoice.list("lines").try_for_each(|line| add(&mut sums.lines, line))?;
        invoice.list("total_discount_amounts").try_for_each(|discount| add(&mut sums.discount, discount))?;
        // Tax on top; what is within the prices is part of the lines.
        let on_top = invoice.list("total_taxes").filter(|tax| tax.text("tax_behavior") != Some("inclusive"));
        on_top.into_iter().try_for_each(|tax| add(&mut sums.tax, tax))?;
        sums.net = sums.total.checked_sub(sums.tax).ok_or(Error::Unreadable("total_taxes"))?;
        let noted = invoice.micros("pre_payment_credit_notes_amount", currency)?;
        let due = sums.total.checked_sub(noted).ok_or(Error::Unreadable("pre_payment_credit_notes_amount"))?;
        sums.tax_due = tax_of(sums.tax, due, sums.total, money::from_minor_units(currency, 1).unwrap_or(1)).clamp(0, due.max(0));
        sums.due = due - sums.tax_due;
        sums.balance = balance(invoice, currency)?;
        sums.due.checked_sub(sums.balance).ok_or(Error::Unreadable("ending_balance"))?;
        Ok(sums)
    }

    /// What was paid otherwise than by the customer's balance, without tax; below zero where the balance paid some of the tax.
    pub(in crate::stripe) const fn received(&self) -> i64 {
        self.due - self.balance
    }

    /// Whether lines, discount and tax come to the total [B-76].
    #[must_use]
    pub const fn agree(&self) -> bool {
        // What no subtraction reaches is no sum of anything that was invoiced.
        self.lines == self.subtotal && matches!(self.subtotal.checked_sub(self.discount), Some(net) if net == self.net)
    }
}

/// What of the tax is left when so much of the total is: the same part of it, rounded to whole smallest units. A credit note takes tax and
/// what it is on alike.
fn tax_of(tax: i64, due: i64, total: i64, unit: i64) -> i64 {
    if total <= 0 || due >= total {
        return tax;
    }
    let (whole, unit) = (i128::from(total) * i128::from(unit), i128::from(unit));
    let part = (i128::from(tax) * i128::from(due) + whole / 2) / whole * unit;
    i64::try_from(part).unwrap_or(tax)
}

/// By how much an invoice moved the customer's balance towards what is owed, which is what that paid; nothing before it is final.
fn balance(invoice: Object<'_>, currency: Currency) -> Result<i64, Error> {
    if invoice.number("ending_balance").is_none() {
        return Ok(0);
    }
    let (start, end) = (invoice.micros("starting_balance", currency)?, invoice.micros("ending_balance", currency)?);
    end.checked_sub(start).ok_or(Error::Unreadable("ending_balance"))
}

/// What of ours an invoice collects.
enum Collected {
    Charge(ChargeRef, Uuid),
    TopUp(Uuid),
}

impl Collected {
    const fn source(&self) -> (PaidBy, Uuid) {
        match self {
            Self::Charge(_, id) => (PaidBy::Charge, *id),
            Self::TopUp(id) => (PaidBy::TopUp, *id),
        }
    }
}

pub(super) async fn apply(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    invoice: Object<'_>,
    fetched: i64,
    turn: &Turn,
) -> Result<bool, Error> {
    let Some(organization) = turn.owner else { return Ok(false) };
    let (id, status) = (invoice.needs("id")?, invoice.needs("status")?);
    let currency = invoice.currency()?;
    let sums = Sums::of(invoice, currency)?;
    if !sums.agree() {
        metrics::counter!("billing_stripe_invoices_disagree_total").increment(1);
        tracing::error!(stripe.invoice.id = id, "the lines, discount and tax of an invoice do not come to its total");
    }
    let collected = collected(transaction, organization, invoice).await?;
    mirror::write(transaction, organization, invoice, currency, &sums, collected.as_ref().map(Collected::source), fetched).await?;
    let Some(collected) = collected else { return Ok(true) };
    if status == "paid" {
        settle(state, transaction, organization, invoice, currency, &sums, collected).await?;
    } else if status == "uncollectible" || status == "open" && invoice.number("attempt_count").unwrap_or(0) > 0 && !is_on_its_way(invoice) {
        failed(state, transaction, organization, id, collected).await?;
    } else if status == "void" {
        voided(state, transaction, organization, invoice, collected).await?;
    }
    Ok(true)
}

/// A charge has this invoice, which may be older than the charge: a database that was restored is told of what was paid, and may decide only after
/// that for what it was. What was told then had no effect, and nobody tells it again; so the invoice is looked at as if its event came now, if
/// it `was_done` before, or was seen while nobody knew for what it is.
///
/// # Errors
/// Stripe's; the database's; what its effect may fail with. Nothing has changed then.
pub(in crate::stripe) async fn catch_up(state: &AppState, stripe: &Transport, invoice: &str, was_done: bool) -> Result<(), Error> {
    let unknown = sqlx::query_scalar!(
        r#"select exists (select from stripe_invoices where invoice_id = $1 and source is null) as "unknown!""#,
        invoice
    );
    if !was_done && !unknown.fetch_one(&state.pool).await? {
        return Ok(());
    }
    let Some(fetched) = super::fetch(state, stripe, Family::Invoice, invoice).await? else { return Ok(()) };
    in_transaction!(state.pool, |transaction| {
        let turn = turn::take(transaction, &[], Some(&fetched)).await?;
        super::apply(state, transaction, &fetched, &turn).await.map(drop)
    })
}

/// It was voided before it was paid.
async fn voided(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    invoice: Object<'_>,
    collected: Collected,
) -> Result<(), Error> {
    match collected {
        // By somebody at Stripe, or for want of a card: nobody waits for it any more.
        Collected::TopUp(top_up) => top_ups::failed(state, transaction, organization, top_up, None).await,
        // By us, because its customer is gone: it is collected from the next one. Or by Stripe, because another version takes its place.
        Collected::Charge(..) if collect::is_left(invoice) || invoice.related("latest_revision").is_some() => Ok(()),
        // By somebody at Stripe; or by us when it was given up, and then this means nothing any more.
        Collected::Charge(ChargeRef { subscription, period_start, reason }, charge) => {
            if has_another(transaction, organization, charge).await? {
                return Ok(());
            }
            let command = Command::ChargeWaived { period_start, reason };
            store::apply(state, transaction, organization, subscription, &command, "stripe").await.map(|_| ())
        }
    }
}

/// Whether a charge has an invoice that asks for it, or was paid: another one was taken away, and it is not waived by that.
async fn has_another(transaction: &mut Transaction<'static, Postgres>, organization: OrganizationId, charge: Uuid) -> Result<bool, Error> {
    let another = sqlx::query_scalar!(
        r#"select exists (select from stripe_invoices where organization_id = $1 and source = 'charge' and source_id = $2 and status not in ('void', 'draft'))
           as "another!""#,
        organization.uuid(),
        charge
    );
    Ok(another.fetch_one(&mut **transaction).await?)
}

/// Whether a payment by a slow means (a debit of a bank account) was begun and has not ended: neither paid nor failed yet.
fn is_on_its_way(invoice: Object<'_>) -> bool {
    invoice.list("payments").any(|payment| payment.at("payment").at("payment_intent").text("status") == Some("processing"))
}

/// The `PaymentIntent` that paid an invoice: beside it there may be others, that were begun and given up.
pub(in crate::stripe) fn paid_with(invoice: Object<'_>) -> Option<&str> {
    let paid = invoice.list("payments").filter(|payment| payment.text("status") == Some("paid"));
    paid.filter_map(|payment| payment.at("payment").related("payment_intent")).last()
}

async fn collected(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    invoice: Object<'_>,
) -> Result<Option<Collected>, Error> {
    if let Some(top_up) = invoice.metadata::<Uuid>("top_up_id") {
        return Ok(Some(Collected::TopUp(top_up)));
    }
    let Some(charge) = invoice.metadata::<Uuid>("charge_id") else { return Ok(None) };
    // By its operation, where nobody knows its charge: older versions named charges at random, and one that was decided anew since has another name.
    let row = sqlx::query!(
        "select id, subscription_id, period_start, reason from subscription_charges
         where organization_id = $2 and id = any (array[$1, (select (payload ->> 'charge_id')::uuid from intents
           where idempotency_key = $3 and kind = 'subscription.charge')]) order by id <> $1 limit 1",
        charge,
        organization.uuid(),
        invoice.metadata::<String>("operation")
    )
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(row.map(|row| {
        let subscription = SubscriptionId::from_uuid(row.subscription_id);
        Collected::Charge(ChargeRef { subscription, period_start: row.period_start, reason: row.reason }, row.id)
    }))
}

async fn settle(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    invoice: Object<'_>,
    currency: Currency,
    sums: &Sums,
    collected: Collected,
) -> Result<(), Error> {
    if is_known(transaction, organization, invoice, &collected).await? {
        return Ok(());
    }
    // Without a payment of money (the customer's balance at Stripe paid) the invoice itself is the fact.
    let intent = paid_with(invoice).map_or_else(|| invoice.needs("id"), Ok)?.to_owned();
    let (amount, balance) = (sums.due, sums.balance);
    // Nothing of ours is invoiced below zero.
    if amount < 0 {
        return Err(Error::Unreadable("total"));
    }
    let payment = |by, by_id| Payment { intent: intent.clone(), organization, by, by_id, currency, amount, balance };
    match collected {
        Collected::Charge(charge, id) => sales::of_charge(state, transaction, &payment(PaidBy::Charge, id), &charge).await?,
        Collected::TopUp(id) => top_ups::paid(state, transaction, &payment(PaidBy::TopUp, id)).await?,
    };
    Ok(())
}

/// Whether the invoice had its effect, by whichever of its payments that was known: what is read as the payment may change, and one
/// invoice is one payment.
async fn is_known(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    invoice: Object<'_>,
    collected: &Collected,
) -> Result<bool, Error> {
    let (source, source_id) = collected.source();
    let intents = invoice.list("payments").filter_map(|payment| payment.at("payment").related("payment_intent"));
    let keys: Vec<String> = intents.chain([invoice.needs("id")?]).map(ToOwned::to_owned).collect();
    let known = sqlx::query_scalar!(
        r#"select exists (select from stripe_payments where source_id = $1 and organization_id = $2 and source = $3 and payment_intent_id = any($4))
           as "known!""#,
        source_id,
        organization.uuid(),
        source.as_str(),
        &keys
    );
    Ok(known.fetch_one(&mut **transaction).await?)
}

async fn failed(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    invoice: &str,
    collected: Collected,
) -> Result<(), Error> {
    match collected {
        Collected::Charge(ChargeRef { subscription, period_start, reason }, _) => {
            let command = Command::PaymentFailed { period_start, reason };
            store::apply(state, transaction, organization, subscription, &command, "stripe").await?;
            Ok(())
        }
        Collected::TopUp(id) => top_ups::failed(state, transaction, organization, id, Some(invoice)).await,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// [B-47]
    #[test]
    fn what_paid_an_invoice_is_the_payment_that_is_paid_wherever_it_stands() {
        let payment = |id: &str, status: &str| json!({"status": status, "payment": {"payment_intent": id}});
        let invoice = |payments: [serde_json::Value; 3]| json!({"payments": {"data": payments}});
        let [first, paid, last] = [payment("pi_1", "canceled"), payment("pi_2", "paid"), payment("pi_3", "open")];
        assert_eq!(paid_with(Object(&invoice([first.clone(), paid.clone(), last.clone()]))), Some("pi_2"));
        assert_eq!(paid_with(Object(&invoice([paid, last.clone(), first.clone()]))), Some("pi_2"));
        assert_eq!(paid_with(Object(&invoice([first.clone(), last, first]))), None);
    }

    /// [B-47] What is sold, what the balance paid of it, and what is left for a card come to the total, whatever was noted before.
    #[test]
    fn what_a_balance_pays_and_what_a_card_pays_come_to_what_is_sold_and_its_tax() {
        let sums = |total: i64, noted: i64, start: i64, end: Option<i64>| {
            let invoice = json!({"currency": "usd", "subtotal": total - 80, "total": total, "pre_payment_credit_notes_amount": noted,
                "starting_balance": start, "ending_balance": end, "total_taxes": [{"amount": 80, "tax_behavior": "exclusive"}]});
            let sums = Sums::of(Object(&invoice), Currency::USD).unwrap();
            [sums.due, sums.tax_due, sums.balance, sums.received()].map(|micros| micros / 10_000)
        };
        assert_eq!(sums(1080, 0, 0, Some(0)), [1000, 80, 0, 1000]);
        assert_eq!(sums(1080, 0, -300, Some(0)), [1000, 80, 300, 700]);
        assert_eq!(sums(1080, 0, -300, None), [1000, 80, 0, 1000], "a draft has taken nothing yet");
        assert_eq!(sums(1080, 0, -2000, Some(-920)), [1000, 80, 1080, -80], "the tax too");
        assert_eq!(sums(1080, 0, 30, Some(0)), [1000, 80, -30, 1030]);
        assert_eq!(sums(1080, 540, 0, Some(0)), [500, 40, 0, 500], "half of the tax goes with half of the total");
        assert_eq!(sums(1080, 200, 0, Some(0)), [815, 65, 0, 815]);
        assert_eq!(sums(1080, 540, -300, Some(0)), [500, 40, 300, 200]);
        assert_eq!(sums(1080, 1080, 0, Some(0)), [0, 0, 0, 0]);
    }

    /// [B-76]
    #[test]
    fn lines_less_discount_plus_tax_on_top_are_the_total_or_it_is_said() {
        let mut invoice = json!({
            "currency": "usd", "subtotal": 3000, "total": 2889, "total_discount_amounts": [{"amount": 300}],
            "total_taxes": [{"amount": 189, "tax_behavior": "exclusive"}, {"amount": 50, "tax_behavior": "inclusive"}],
            "lines": {"data": [{"amount": 2000}, {"amount": 1000}]},
        });
        assert!(Sums::of(Object(&invoice), Currency::USD).unwrap().agree());
        invoice["lines"]["data"][0]["amount"] = 2001.into();
        assert!(!Sums::of(Object(&invoice), Currency::USD).unwrap().agree());
        invoice["lines"]["data"][0]["amount"] = 2000.into();
        invoice["total"] = 2890.into();
        assert!(!Sums::of(Object(&invoice), Currency::USD).unwrap().agree());
    }
}
