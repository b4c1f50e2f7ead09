//! Customers' balances at Stripe, and what the ledger says that they are. What an open invoice has taken from one is sold when it is paid, and
//! counts as not taken until then.

use chassis::in_transaction;
use chrono::{DateTime, Utc};
use money::Currency;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Difference, Found, Severity};
use crate::audit::{self, Change, Decision};
use crate::error::Error;
use crate::ledger::{self, CREDIT, postings};
use crate::state::AppState;
use crate::stripe::call::Call;
use crate::stripe::facts::invoice::Sums;
use crate::stripe::object::Object;
use crate::stripe::transport::Transport;

/// Its name.
pub(super) const KIND: &str = "customer_balance";

/// The balance of each customer, in its currency at Stripe. A difference is as young as what last moved a balance of the organization, there
/// or in the ledger: customers are listed long before the ledger is read. One that waits to be returned is as young as can be.
pub(super) async fn compare(connection: &mut PgConnection, run: Uuid, now: DateTime<Utc>) -> Result<Vec<Found>, Error> {
    let rows = sqlx::query_as!(
        Found,
        r#"with taken as (
             select r.customer, r.currency, sum(r.applied)::bigint as amount
             from reconciliation_listed l cross join jsonb_to_record(l.object) as r (customer text, status text, currency text, applied bigint)
             where l.run_id = $1 and l.list = 'invoices' and r.status in ('open', 'uncollectible') group by r.customer, r.currency),
           theirs as (
             select r.id as customer, c.organization_id as organization, coalesce(r.currency, $2) as currency,
               -(r.balance - coalesce(t.amount, 0)) as amount
             from reconciliation_listed l cross join jsonb_to_record(l.object) as r (id text, currency text, balance bigint)
             join stripe_customers c on c.customer_id = r.id
             left join taken t on t.customer = r.id and t.currency = coalesce(r.currency, $2)
             where l.run_id = $1 and l.list = 'customers' and r.balance is not null),
           seen as (
             select r.organization, to_timestamp(max(r.at)) as at
             from reconciliation_listed l cross join jsonb_to_record(l.object) as r (organization uuid, at bigint)
             where l.run_id = $1 and l.list in ('invoices', 'credit_notes') group by r.organization),
           returned as (
             select organization_id as organization, max(coalesce(sent_at, parked_at, $3)) as at from intents where kind = 'balance.return' group by organization_id),
           ours as (
             select l.organization_id as organization, a.currency, sum(e.amount_micros)::bigint as amount, max(l.occurred_at) as at
             from accounts a join ledger_entries e on e.account_id = a.id join ledger_transactions l on l.id = e.transaction_id
             where a.kind = 'customer_balances' group by l.organization_id, a.currency)
           select 'customer_balance' as "kind!", t.organization as "organization?", t.customer as "object!",
             coalesce(o.amount, 0) || ' ' || t.currency as "ours!", t.amount || ' ' || t.currency as "theirs!",
             greatest(o.at, s.at, r.at) as "at?"
           from theirs t left join ours o on o.organization = t.organization and o.currency = t.currency
           left join seen s on s.organization = t.organization left join returned r on r.organization = t.organization
           where t.amount <> coalesce(o.amount, 0) order by t.customer"#,
        run,
        CREDIT.code(),
        now
    );
    Ok(rows.fetch_all(connection).await?)
}

/// What a difference says: an amount in micro-units, and of what currency.
fn amount(said: &str) -> Option<(i64, Currency)> {
    let (amount, currency) = said.split_once(' ')?;
    Some((amount.parse().ok()?, currency.parse().ok()?))
}

/// Why a balance is not corrected; none when nothing else that was found may be what it differs by. What that brings would be booked twice.
pub(super) fn refusal(balance: &Difference, among: &[Difference]) -> Option<String> {
    let Difference { kind, sentence, .. } = balance;
    if balance.severity != Severity::Error {
        return Some(format!("what {kind} differs by may be on its way, so compare again later: {sentence}"));
    }
    let other = among.iter().find(|other| may_explain(other, balance))?;
    Some(format!("what {kind} differs by may be {} of {}, so put that right and compare again: {sentence}", other.kind, other.object))
}

/// Whether what is done about another difference may move the balance: it is the organization's, or could be. Sums follow from others, and
/// what nobody can mend, or is none of ours, moves no balance any more.
fn may_explain(other: &Difference, balance: &Difference) -> bool {
    const MOVE_NOTHING: [&str; 6] = [KIND, "clearing", "clearing_total", "payment_amount", "payment_foreign", "checkout_unknown"];
    let of_anybody = || other.kind == "unreadable" && ["in_", "cn_"].iter().any(|prefix| other.object.starts_with(prefix));
    other.severity != Severity::Info
        && !MOVE_NOTHING.contains(&other.kind)
        && !other.kind.starts_with("meter_")
        && other.organization.map_or_else(of_anybody, |organization| balance.organization == Some(organization))
}

/// What a customer's balance at Stripe is now, as it is compared; none when there is none in the currency.
async fn theirs(stripe: &Transport, customer: &str, currency: Currency) -> Result<Option<i64>, Error> {
    const RANGE: Error = Error::Internal("a balance at Stripe does not fit");
    let held = match stripe.ask(&Call::get(format!("/customers/{customer}"))).await {
        Err(error) if error.is_missing() => return Ok(None),
        held => held?,
    };
    let held = Object(&held);
    if held.0["deleted"] == true || held.text("currency").is_some() && held.currency()? != currency {
        return Ok(None);
    }
    let (mut balance, mut after) = (held.micros("balance", currency)?, None::<String>);
    loop {
        let call = Call::get("/invoices").with("customer", customer).with("limit", 100).with_some("starting_after", after.as_deref());
        let page = stripe.ask(&call).await?;
        let mut last = None;
        for invoice in Object(&page).list("data") {
            last = Some(invoice.needs("id")?.to_owned());
            if matches!(invoice.text("status"), Some("open" | "uncollectible")) && invoice.currency()? == currency {
                balance = balance.checked_sub(Sums::of(invoice, currency)?.balance).ok_or(RANGE)?;
            }
        }
        if page["has_more"] != true || last.is_none() {
            return balance.checked_neg().map(Some).ok_or(RANGE);
        }
        after = last;
    }
}

/// Books as a correction what somebody changed at Stripe. False when the ledger or the balance has moved since the comparison: then there
/// must be another.
///
/// # Errors
/// 422 when the decision's key was used for another command; Stripe's; the database's. Nothing has changed then.
pub(super) async fn repair(state: &AppState, stripe: &Transport, decision: &Decision, difference: &Difference) -> Result<bool, Error> {
    let (Some(organization), Some((ours, currency)), Some((told, _))) =
        (difference.organization, amount(&difference.ours), amount(&difference.theirs))
    else {
        return Ok(false);
    };
    let moved = told.checked_sub(ours).ok_or(Error::Internal("a balance at Stripe does not fit"))?;
    let decision = Decision { key: format!("{}-{}", decision.key, difference.object), ..decision.clone() };
    let request = json!({"object": difference.object, "difference": KIND});
    let is_as_told = theirs(stripe, &difference.object, currency).await? == Some(told);
    in_transaction!(state.pool, |transaction| {
        if audit::earlier(transaction, &decision, super::repair::ACTION, Some(organization), &request).await?.is_some() {
            return Ok(true);
        }
        if !is_as_told {
            return Ok(false);
        }
        // Two who decide at once wait for each other.
        ledger::lock(transaction, organization).await?;
        let now = sqlx::query_scalar!(
            r#"select coalesce(sum(e.amount_micros), 0)::bigint as "now!"
               from accounts a join ledger_entries e on e.account_id = a.id join ledger_transactions l on l.id = e.transaction_id
               where a.kind = 'customer_balances' and a.organization_id is null and a.currency = $2 and l.organization_id = $1"#,
            organization.uuid(),
            currency.code()
        );
        if now.fetch_one(&mut **transaction).await? != ours {
            return Ok(false);
        }
        let posting = postings::balance_correction(&decision.key, moved, state.clock.now());
        ledger::post(state, transaction, Some(organization), currency, &posting).await?;
        let (before, after) = (json!({"ours": difference.ours, "theirs": difference.theirs}), json!({"ours": difference.theirs}));
        let change =
            Change { action: super::repair::ACTION, organization: Some(organization), request: &request, before: &before, after: &after };
        audit::record(state, transaction, &decision, &change).await?;
        Ok(true)
    })
}
