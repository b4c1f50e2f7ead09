//! Money: what was paid and what went back, at Stripe, here, and in the ledger.

use sqlx::PgConnection;
use uuid::Uuid;

use super::Found;
use crate::error::Error;

/// By how many micro-units a payment with tax on top may differ: what went with each of its parts was rounded.
const ROUNDED: i64 = 10;

/// What was paid at Stripe, and what we know of it.
pub(super) async fn payments(connection: &mut PgConnection, run: Uuid) -> Result<Vec<Found>, Error> {
    let rows = sqlx::query_as!(
        Found,
        r#"select kind as "kind!", organization as "organization?", object as "object!", ours as "ours!", theirs as "theirs!", at as "at?" from (
             select case
                 when p.payment_intent_id is null then case when t.asked then 'payment_missing' else 'payment_foreign' end
                 when t.id is null then 'payment_unknown'
                 when p.organization_id <> t.organization then 'payment_owner'
                 when p.currency <> t.currency or p.amount_micros - p.balance_micros <> t.amount then 'payment_amount'
                 when not p.sold and p.reversed_micros < p.amount_micros - p.balance_micros then 'payment_kept'
               end as kind,
               coalesce(p.organization_id, t.organization) as organization,
               coalesce(t.object, p.payment_intent_id) as object,
               coalesce(p.amount_micros - p.balance_micros || ' ' || p.currency, 'nothing') as ours,
               coalesce(t.amount || ' ' || t.currency, 'nothing') as theirs,
               greatest(to_timestamp(t.at), case when t.id is null or not p.sold then p.paid_at end) as at
             from stripe_payments p
             full join (select r.* from reconciliation_listed l cross join jsonb_to_record(l.object) as r (id text, organization uuid, object text, asked boolean, currency text, amount bigint, at bigint)
               where l.run_id = $1 and l.list = 'payments') t
               on t.id = p.payment_intent_id) as compared
           where kind is not null order by object"#,
        run
    );
    Ok(rows.fetch_all(connection).await?)
}

/// Each payment that was for something, and its sale in the ledger.
pub(super) async fn sales(connection: &mut PgConnection) -> Result<Vec<Found>, Error> {
    let rows = sqlx::query_as!(
        Found,
        r#"select kind as "kind!", organization as "organization?", object as "object!", ours as "ours!", theirs as "theirs!", null::timestamptz as "at?" from (
             select case
                 when p.payment_intent_id is null or s.fact is not null and not p.sold then 'sale_unknown'
                 when s.fact is null and p.sold and (p.amount_micros > 0 or p.credit_micros > 0) then 'sale_missing'
                 when s.organization <> p.organization_id or s.currency <> p.currency or s.amount <> p.amount_micros - p.balance_micros
                   or s.balance <> p.balance_micros then 'sale_amount'
               end as kind,
               coalesce(p.organization_id, s.organization) as organization,
               coalesce(p.payment_intent_id, s.fact) as object,
               coalesce(s.amount || coalesce(' ' || s.currency, ''), 'no sale') as ours,
               coalesce(p.amount_micros - p.balance_micros || ' ' || p.currency, 'nothing') as theirs
             from stripe_payments p
             full join (
               select l.external_key as fact, l.organization_id as organization, max(a.currency) filter (where a.kind = 'stripe_clearing') as currency,
                 coalesce(sum(-e.amount_micros) filter (where a.kind = 'stripe_clearing'), 0)::bigint as amount,
                 coalesce(sum(-e.amount_micros) filter (where a.kind = 'customer_balances'), 0)::bigint as balance
               from ledger_transactions l join ledger_entries e on e.transaction_id = l.id join accounts a on a.id = e.account_id
               where l.kind = 'sale' group by l.id) s on s.fact = p.payment_intent_id) as compared
           where kind is not null order by object"#
    );
    Ok(rows.fetch_all(connection).await?)
}

/// Refunds and disputes. What belongs to a payment that we do not know is part of that difference.
pub(super) async fn reversals(connection: &mut PgConnection, run: Uuid) -> Result<Vec<Found>, Error> {
    let rows = sqlx::query_as!(
        Found,
        r#"with t as (
             select * from (select r.* from reconciliation_listed l cross join jsonb_to_record(l.object) as r (id text, kind text, payment_intent text, amount bigint, phase text, at bigint)
               where l.run_id = $1 and l.list = 'reversals') t),
           received as (
             select r.id, r.received from reconciliation_listed l cross join jsonb_to_record(l.object) as r (id text, received bigint)
             where l.run_id = $1 and l.list = 'payments')
           select kind as "kind!", organization as "organization?", object as "object!", ours as "ours!", theirs as "theirs!", at as "at?" from (
             select case
                 when p.payment_intent_id is null then null
                 when t.id is null then r.kind || '_unknown'
                 when r.amount_micros <> t.amount then t.kind || '_amount'
                 when t.phase in ('taken', 'open', 'won', 'lost') and r.posted is distinct from true then t.kind || '_missing'
                 when t.phase = 'failed' and r.posted then 'refund_failed'
                 when t.kind = 'dispute' and r.closed <> (t.phase in ('won', 'lost')) then 'dispute_state'
                 when r.posted and p.sold and r.paid_micros > r.balance_micros and not exists (
                   select from ledger_transactions l where l.kind in ('refund', 'dispute_opened') and l.external_key = r.object_id)
                   then 'reversal_unposted'
               end as kind,
               p.organization_id as organization,
               coalesce(t.id, r.object_id) as object,
               coalesce(r.amount_micros || ' ' || r.status, 'nothing') as ours,
               coalesce(t.amount || ' ' || t.phase, 'nothing') as theirs,
               to_timestamp(t.at) as at
             from stripe_reversals r full join t on t.id = r.object_id
             left join stripe_payments p on p.payment_intent_id = coalesce(r.payment_intent_id, t.payment_intent)
             union all
             select 'reversed_sum', organization_id, payment_intent_id, reversed_micros::text, gone::text, to_timestamp(at) from (
               -- Of tax on top the same part goes back, beside the books.
               select s.*, part_of_sale(net, gross, received) as gone
               from (select p.organization_id, p.payment_intent_id, p.reversed_micros, greatest(p.amount_micros - p.balance_micros, 0)::numeric as net,
                       coalesce(sum(t.amount), 0) as gross, coalesce(max(l.received), 0) as received, max(t.at) as at
                     from stripe_payments p left join t on t.payment_intent = p.payment_intent_id and t.phase in ('taken', 'open', 'lost')
                     left join received l on l.id = p.payment_intent_id group by p.payment_intent_id) s) summed
             -- What a dispute took and gave back was rounded on the way: of each a micro may differ.
             where abs(reversed_micros - gone) > case when received > net then $2::bigint else 0 end) as compared
           where kind is not null order by object"#,
        run,
        ROUNDED
    );
    Ok(rows.fetch_all(connection).await?)
}

/// What the ledger says that Stripe holds for us, and what Stripe says: for each organization and in all, by currency. Fees of payments,
/// payouts and tax are in neither.
pub(super) async fn clearing(connection: &mut PgConnection, run: Uuid) -> Result<Vec<Found>, Error> {
    let rows = sqlx::query_as!(
        Found,
        r#"with listed as (
             select r.id as payment, r.organization, r.asked, r.currency, r.amount, r.received, 0::bigint as gone, null::text as fee_currency,
               null::bigint as fee
             from reconciliation_listed l
             cross join jsonb_to_record(l.object) as r (id text, organization uuid, asked boolean, currency text, amount bigint, received bigint)
             where l.run_id = $1 and l.list = 'payments'
             union all
             select r.payment_intent, null, null, null, null, null, r.amount, case when r.phase = 'lost' then r.fee_currency end, r.fee
             from reconciliation_listed l
             cross join jsonb_to_record(l.object) as r (payment_intent text, phase text, amount bigint, fee_currency text, fee bigint)
             where l.run_id = $1 and l.list = 'reversals' and r.phase in ('taken', 'lost')),
           -- Grouped and not joined: what was just listed is taken for a few rows, each to be looked for among all of the others.
           t as (
             select payment, (array_agg(organization) filter (where currency is not null))[1] as organization, bool_or(asked) as asked,
               max(currency) as currency, max(amount) as amount, max(received)::numeric as received, sum(gone) as gone,
               array_agg(fee_currency) filter (where fee_currency is not null) as fee_currencies,
               array_agg(fee) filter (where fee_currency is not null) as fees
             from listed group by payment having max(currency) is not null),
           counted as (
             select t.* from t left join stripe_payments p on p.payment_intent_id = t.payment
             where p.sold is distinct from false and (p.sold or t.asked)),
           -- Fees in the currency in which Stripe settles, which may be another than the payment's.
           theirs as (
             select organization, currency, sum(amount)::bigint as amount, sum(slack)::bigint as slack from (
               select organization, currency, case when gone > 0 and received > greatest(amount, 0) then $2::bigint else 0 end as slack, -(amount - part_of_sale(greatest(amount, 0), gone, received)) as amount
               from counted
               union all
               select c.organization, f.currency, 0, f.fee from counted c cross join unnest(c.fee_currencies, c.fees) as f (currency, fee)) as moved
             group by organization, currency),
           ours as (
             select l.organization_id as organization, a.currency, sum(e.amount_micros)::bigint as amount
             from accounts a join ledger_entries e on e.account_id = a.id join ledger_transactions l on l.id = e.transaction_id
             where a.kind = 'stripe_clearing' group by l.organization_id, a.currency),
           compared as (
             select coalesce(o.organization, t.organization) as organization, coalesce(o.currency, t.currency) as currency,
               coalesce(o.amount, 0) as ours, coalesce(t.amount, 0) as theirs, coalesce(t.slack, 0) as slack
             from ours o full join theirs t on t.organization = o.organization and t.currency = o.currency)
           select kind as "kind!", organization as "organization?", 'stripe_clearing' as "object!", ours || ' ' || currency as "ours!",
             theirs || ' ' || currency as "theirs!", null::timestamptz as "at?"
           from (
             select 'clearing' as kind, organization, currency, ours, theirs, slack from compared
             union all
             select 'clearing_total', null, a.currency, a.balance_micros, coalesce(c.theirs, 0), coalesce(c.slack, 0)
             from accounts a left join (select currency, sum(theirs) as theirs, sum(slack) as slack from compared group by currency) c using (currency)
             where a.kind = 'stripe_clearing') as all_of_it
           where abs(ours - theirs) > slack order by kind, organization"#,
        run,
        ROUNDED
    );
    Ok(rows.fetch_all(connection).await?)
}
