//! What is not money itself: customers, invoices, charges of subscriptions, and pages.

use sqlx::PgConnection;
use uuid::Uuid;

use super::Found;
use crate::error::Error;

/// One customer for each organization.
pub(super) async fn customers(connection: &mut PgConnection, run: Uuid) -> Result<Vec<Found>, Error> {
    let rows = sqlx::query_as!(
        Found,
        r#"with t as (select * from (select r.* from reconciliation_listed l cross join jsonb_to_record(l.object) as r (id text, organization uuid, at bigint)
               where l.run_id = $1 and l.list = 'customers') t),
           o as (
             select coalesce(w.organization_id, c.organization_id) as organization, c.customer_id, c.idempotency_key, c.created_at
             from wallets w full join stripe_customers c on c.organization_id = w.organization_id)
           select kind as "kind!", organization as "organization?", object as "object!", ours as "ours!", theirs as "theirs!", at as "at?" from (
             select case
                 when o.idempotency_key is null then 'customer_none'
                 when o.customer_id is null then 'customer_missing'
                 when not exists (select from t where t.id = o.customer_id) then 'customer_unknown'
               end as kind,
               o.organization, coalesce(o.customer_id, o.organization::text) as object, coalesce(o.customer_id, 'none') as ours,
               'none' as theirs, o.created_at as at
             from o
             union all
             select 'customer_double', o.organization, t.id, o.customer_id, t.id, to_timestamp(t.at)
             from t join o on o.organization = t.organization and o.customer_id <> t.id) as compared
           where kind is not null order by object"#,
        run
    );
    Ok(rows.fetch_all(connection).await?)
}

/// Stripe's invoices and our mirror of them. Drafts may come and go.
pub(super) async fn invoices(connection: &mut PgConnection, run: Uuid) -> Result<Vec<Found>, Error> {
    let rows = sqlx::query_as!(
        Found,
        r#"select kind as "kind!", organization as "organization?", object as "object!", ours as "ours!", theirs as "theirs!", at as "at?" from (
             select case
                 when t.id is null then case when i.status <> 'draft' then 'invoice_unknown' end
                 when i.invoice_id is null then case when t.status <> 'draft' then 'invoice_missing' end
                 when i.organization_id <> t.organization then 'invoice_owner'
                 when i.status <> t.status then 'invoice_status'
                 when i.total_micros <> t.total or i.currency <> t.currency then 'invoice_amount'
                 when not t.agrees then 'invoice_sums'
               end as kind,
               coalesce(i.organization_id, t.organization) as organization,
               coalesce(t.id, i.invoice_id) as object,
               coalesce(i.status || ' ' || i.total_micros || ' ' || i.currency, 'nothing') as ours,
               coalesce(t.status || ' ' || t.total || ' ' || t.currency, 'nothing') as theirs,
               coalesce(to_timestamp(t.at), i.created_at) as at
             from stripe_invoices i
             full join (select r.* from reconciliation_listed l cross join jsonb_to_record(l.object) as r (id text, organization uuid, status text, currency text, total bigint, agrees boolean, at bigint)
               where l.run_id = $1 and l.list = 'invoices') t
               on t.id = i.invoice_id) as compared
           where kind is not null order by object"#,
        run
    );
    Ok(rows.fetch_all(connection).await?)
}

/// Stripe's credit notes and our mirror of them.
pub(super) async fn credit_notes(connection: &mut PgConnection, run: Uuid) -> Result<Vec<Found>, Error> {
    let rows = sqlx::query_as!(
        Found,
        r#"select kind as "kind!", organization as "organization?", object as "object!", ours as "ours!", theirs as "theirs!", at as "at?" from (
             select case
                 when t.id is null then 'credit_note_unknown'
                 when n.credit_note_id is null then 'credit_note_missing'
                 when n.organization_id <> t.organization then 'credit_note_owner'
                 when n.status <> t.status then 'credit_note_status'
                 when n.amount_micros <> t.amount or n.balance_micros <> t.balance or n.currency <> t.currency then 'credit_note_amount'
               end as kind,
               coalesce(n.organization_id, t.organization) as organization,
               coalesce(t.id, n.credit_note_id) as object,
               coalesce(n.status || ' ' || n.amount_micros || ' ' || n.currency || ', to the balance ' || n.balance_micros, 'nothing') as ours,
               coalesce(t.status || ' ' || t.amount || ' ' || t.currency || ', to the balance ' || t.balance, 'nothing') as theirs,
               coalesce(to_timestamp(t.at), n.created_at) as at
             from stripe_credit_notes n
             full join (select r.* from reconciliation_listed l
               cross join jsonb_to_record(l.object) as r (id text, organization uuid, status text, currency text, amount bigint, balance bigint, at bigint)
               where l.run_id = $1 and l.list = 'credit_notes') t
               on t.id = n.credit_note_id) as compared
           where kind is not null order by object"#,
        run
    );
    Ok(rows.fetch_all(connection).await?)
}

/// Charges of subscriptions: paid once, about to be collected, given up, or waived. The first of a subscription is paid on a page. A void
/// invoice collects nothing: what is open yet in its subscription, and has no other, is lost.
pub(super) async fn charges(connection: &mut PgConnection, run: Uuid) -> Result<Vec<Found>, Error> {
    let rows = sqlx::query_as!(
        Found,
        r#"with t as (
             select charge, count(*) as invoices, count(*) filter (where status = 'paid') as paid,
               count(*) filter (where status in ('draft', 'open', 'uncollectible')) as payable,
               count(*) filter (where status = 'void') as void, (array_agg(id order by at desc) filter (where status = 'void'))[1] as voided
             from (
               -- By its operation, where nobody knows its charge, as when it was collected.
               select r.id, r.status, r.at, coalesce(known.id, (i.payload ->> 'charge_id')::uuid, r.charge) as charge
               from reconciliation_listed l
               cross join jsonb_to_record(l.object) as r (id text, charge uuid, operation text, status text, at bigint)
               left join subscription_charges known on known.id = r.charge
               left join intents i on known.id is null and i.idempotency_key = r.operation and i.kind = 'subscription.charge'
               where l.run_id = $1 and l.list = 'invoices') t where charge is not null group by charge),
           p as (
             select coalesce(c.id, p.source_id) as charge, count(*) as payments
             from stripe_payments p left join checkouts k on p.source = 'checkout' and k.id = p.source_id
             left join subscription_charges c on c.subscription_id = k.subscription_id and c.reason = 'start'
             where p.sold and p.source in ('checkout', 'charge') group by 1),
           unsent as (select distinct payload ->> 'charge_id' as charge from intents where kind = 'subscription.charge' and sent_at is null
             and parked_at is null),
           given_up as (select distinct payload ->> 'charge_id' as charge from intents where kind = 'subscription.void' and sent_at is not null)
           select kind as "kind!", organization as "organization?", object as "object!", ours as "ours!", theirs as "theirs!", at as "at?" from (
             select case
                 when p.payments > 1 or t.paid > 1 then 'charge_double'
                 when p.payments is null and coalesce(t.invoices = t.void, true) and u.charge is null
                   and not (c.reason = 'start' and exists (select from checkouts k where k.subscription_id = c.subscription_id))
                   and g.charge is null and (t.invoices is null or exists (
                     select from subscriptions s cross join jsonb_to_recordset(s.state -> 'open') as o (period_start timestamptz, reason text)
                     where s.id = c.subscription_id and o.period_start = c.period_start and o.reason = c.reason)) then 'charge_lost'
                 when t.payable > 0 and g.charge is not null then 'charge_payable'
               end as kind,
               c.organization_id as organization,
               -- By a void invoice that we were not told of a look finds what it means.
               case when p.payments is null and t.invoices = t.void and g.charge is null then t.voided else c.id::text end as object,
               coalesce(p.payments, 0) || ' payments' as ours,
               coalesce(t.paid, 0) || ' paid of ' || coalesce(t.invoices, 0) || ' invoices' as theirs, c.created_at as at
             from subscription_charges c left join p on p.charge = c.id left join t on t.charge = c.id
             left join unsent u on u.charge = c.id::text left join given_up g on g.charge = c.id::text) as compared
           where kind is not null order by object"#,
        run
    );
    Ok(rows.fetch_all(connection).await?)
}

/// Pages that were completed at Stripe, and ours that are paid.
pub(super) async fn checkouts(connection: &mut PgConnection, run: Uuid) -> Result<Vec<Found>, Error> {
    let rows = sqlx::query_as!(
        Found,
        r#"select kind as "kind!", organization as "organization?", object as "object!", ours as "ours!", theirs as "theirs!", at as "at?" from (
             select case
                 when t.id is null then case when k.state = 'paid' then 'checkout_unproved' end
                 when k.id is null then 'checkout_unknown'
                 when k.organization_id <> t.organization then 'checkout_owner'
                 when k.state <> 'paid' then 'checkout_unpaid'
               end as kind,
               coalesce(k.organization_id, t.organization) as organization,
               coalesce(t.id, k.session_id, k.id::text) as object,
               coalesce(k.state, 'nothing') as ours,
               case when t.id is null then 'not complete' else 'complete' end as theirs,
               coalesce(to_timestamp(greatest(t.at, m.at)), k.ended_at) as at
             from checkouts k
             full join (select r.* from reconciliation_listed l cross join jsonb_to_record(l.object) as r (id text, organization uuid, checkout uuid, payment text, at bigint)
               where l.run_id = $1 and l.list = 'sessions') t on t.checkout = k.id
             left join (select r.* from reconciliation_listed l cross join jsonb_to_record(l.object) as r (id text, at bigint)
               where l.run_id = $1 and l.list = 'payments') m on m.id = t.payment) as compared
           where kind is not null order by object"#,
        run
    );
    Ok(rows.fetch_all(connection).await?)
}
