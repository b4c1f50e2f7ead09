//! Customers' balances at Stripe, and what the ledger says that they are. What an open invoice has taken from one is sold when it is paid, and
//! counts as not taken until then.

use chassis::in_transaction;
use money::Currency;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Difference, Found};
use crate::audit::{self, Change, Decision};
use crate::error::Error;
use crate::ledger::{self, CREDIT, postings};
use crate::state::AppState;

/// Its name.
pub(super) const KIND: &str = "customer_balance";

/// The balance of each customer, in its currency at Stripe.
pub(super) async fn compare(connection: &mut PgConnection, run: Uuid) -> Result<Vec<Found>, Error> {
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
             where l.run_id = $1 and l.list = 'customers'),
           ours as (
             select l.organization_id as organization, a.currency, sum(e.amount_micros)::bigint as amount
             from accounts a join ledger_entries e on e.account_id = a.id join ledger_transactions l on l.id = e.transaction_id
             where a.kind = 'customer_balances' group by l.organization_id, a.currency)
           select 'customer_balance' as "kind!", t.organization as "organization?", t.customer as "object!",
             coalesce(o.amount, 0) || ' ' || t.currency as "ours!", t.amount || ' ' || t.currency as "theirs!", null::timestamptz as "at?"
           from theirs t left join ours o on o.organization = t.organization and o.currency = t.currency
           where t.amount <> coalesce(o.amount, 0) order by t.customer"#,
        run,
        CREDIT.code()
    );
    Ok(rows.fetch_all(connection).await?)
}

/// What a difference says: an amount in micro-units, and of what currency.
fn amount(said: &str) -> Option<(i64, Currency)> {
    let (amount, currency) = said.split_once(' ')?;
    Some((amount.parse().ok()?, currency.parse().ok()?))
}

/// Books as a correction what somebody changed at Stripe. False when the ledger has moved since the comparison: then there must be another.
///
/// # Errors
/// 422 when the decision's key was used for another command; the database's. Nothing has changed then.
pub(super) async fn repair(state: &AppState, decision: &Decision, difference: &Difference) -> Result<bool, Error> {
    let (Some(organization), Some((ours, currency)), Some((theirs, _))) =
        (difference.organization, amount(&difference.ours), amount(&difference.theirs))
    else {
        return Ok(false);
    };
    let moved = theirs.checked_sub(ours).ok_or(Error::Internal("a balance at Stripe does not fit"))?;
    let decision = Decision { key: format!("{}-{}", decision.key, difference.object), ..decision.clone() };
    let request = json!({"object": difference.object, "difference": KIND});
    in_transaction!(state.pool, |transaction| {
        if audit::earlier(transaction, &decision, super::repair::ACTION, Some(organization), &request).await?.is_some() {
            return Ok(true);
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
