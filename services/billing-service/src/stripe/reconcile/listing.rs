//! What Stripe has of ours: lists, read from end to end, page by page. A page's rows go to the database before the next page is asked
//! for, and the comparisons are made there: a process holds a page of objects at once, however long the lists are.

use chrono::TimeDelta;
use serde_json::json;
use uuid::Uuid;

use super::rows::{self, Known, List, Read, Rows};
use crate::error::Error;
use crate::state::AppState;
use crate::stripe::call::Call;
use crate::stripe::object::Object;
use crate::stripe::transport::Transport;

/// The longest page that Stripe gives.
const PAGE: usize = 100;
/// Longer than a comparison takes: rows that are older were left by a process that was killed.
const LEFT: TimeDelta = TimeDelta::days(2);
/// Rows that are deleted by one statement.
const FORGOTTEN_AT_ONCE: i64 = 10_000;

/// What was read of Stripe's lists; their rows are in `reconciliation_listed`.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Rows of [`List::COUNTED`].
    pub(super) seen: [i64; 6],
    /// Objects without a field that is needed.
    pub(super) unreadable: Vec<(String, &'static str)>,
    /// Why Stripe does not let us read credit notes, if it does not.
    pub(super) no_credit_notes: Option<String>,
    /// Objects that were in memory at once, at most.
    pub(super) most_held: usize,
}

/// Reads all lists for a run.
pub(super) async fn read(state: &AppState, stripe: &Transport, run: Uuid) -> Result<Listing, Error> {
    // What is left of others keeps nobody from a comparison.
    if let Err(error) = forget_left(state).await {
        tracing::warn!(error.message = error.chain(), "what earlier comparisons listed is still there");
    }
    let mut listing = Listing::default();
    // Payments are read after what they are for, and before what went back of them.
    let lists: [(Call, Read); 6] = [
        (Call::get("/customers"), rows::customer),
        (Call::get("/checkout/sessions").with("status", "complete"), rows::session),
        (Call::get("/invoices").with("expand[]", "data.payments"), rows::invoice),
        (Call::get("/payment_intents"), rows::payment),
        (Call::get("/refunds"), rows::refund),
        (Call::get("/disputes"), rows::dispute),
    ];
    for (list, read) in lists {
        listing.each(state, stripe, run, &list, read).await?;
    }
    let notes = Call::get("/credit_notes").with("expand[]", "data.customer_balance_transaction");
    match listing.each(state, stripe, run, &notes, rows::credit_note).await {
        // A restricted key from before credit notes were read: all else is compared nevertheless.
        Err(Error::Stripe(refused)) if refused.is_final() && matches!(refused.status(), Some(401 | 403)) => {
            listing.no_credit_notes = Some(refused.to_string());
        }
        read => read?,
    }
    Ok(listing)
}

/// Forgets the rows of runs that cannot be at work any more.
async fn forget_left(state: &AppState) -> Result<(), Error> {
    let left = state.clock.now() - LEFT;
    while let Some(left) = sqlx::query_scalar!("select run_id from reconciliation_listed where listed_at < $1 limit 1", left)
        .fetch_optional(&state.pool)
        .await?
    {
        forget(state, left).await?;
    }
    Ok(())
}

/// Forgets the rows of a run, so many at a time that no statement takes longer than it may.
pub(super) async fn forget(state: &AppState, run: Uuid) -> Result<(), Error> {
    loop {
        let forgotten = sqlx::query!(
            "delete from reconciliation_listed where run_id = $1
               and (list, id) in (select list, id from reconciliation_listed where run_id = $1 limit $2)",
            run,
            FORGOTTEN_AT_ONCE
        )
        .execute(&state.pool)
        .await?;
        if forgotten.rows_affected() == 0 {
            return Ok(());
        }
    }
}

impl Listing {
    async fn each(&mut self, state: &AppState, stripe: &Transport, run: Uuid, list: &Call, read: Read) -> Result<(), Error> {
        let mut after: Option<String> = None;
        loop {
            let call = list.clone().with("limit", PAGE).with_some("starting_after", after.as_deref());
            let page = stripe.ask_at_leisure(&call).await?;
            let objects: Vec<Object<'_>> = Object(&page).list("data").collect();
            let known = known(state, run, &objects).await?;
            let mut rows = Rows::new();
            for object in &objects {
                match read(&known, *object, &mut rows) {
                    Err(Error::Unreadable(field)) => self.unreadable.push((object.needs("id")?.to_owned(), field)),
                    read => read?,
                }
            }
            self.most_held = self.most_held.max(objects.len());
            self.keep(state, run, &rows).await?;
            let newest = objects.last().map(|object| object.needs("id")).transpose()?;
            after = newest.filter(|_| page["has_more"] == true).map(ToOwned::to_owned);
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn keep(&mut self, state: &AppState, run: Uuid, rows: &Rows) -> Result<(), Error> {
        for (count, list) in self.seen.iter_mut().zip(List::COUNTED) {
            *count += rows.keys().map(|(of, _)| i64::from(*of == list)).sum::<i64>();
        }
        let listed: Vec<_> = rows.iter().map(|((list, id), object)| json!({"list": list.as_str(), "id": id, "object": object})).collect();
        sqlx::query!(
            "insert into reconciliation_listed (run_id, list, id, object, listed_at)
             select $1, r.list, r.id, r.object, $3 from jsonb_to_recordset($2) as r (list text, id text, object jsonb)
             on conflict (run_id, list, id) do update set object = excluded.object",
            run,
            json!(listed),
            state.clock.now()
        )
        .execute(&state.pool)
        .await?;
        Ok(())
    }
}

/// What is known of the customers and payments that objects name.
async fn known(state: &AppState, run: Uuid, objects: &[Object<'_>]) -> Result<Known, Error> {
    let mut known = Known::default();
    let owned = |id: &str| id.to_owned();
    let customers: Vec<String> = objects.iter().filter_map(|object| object.related("customer")).map(owned).collect();
    let owners = sqlx::query!(
        r#"select customer_id as "id!", organization_id as "organization_id!" from stripe_customers where customer_id = any($1)
           union all select customer_id, organization_id from stripe_former_customers where customer_id = any($1)"#,
        &customers
    );
    known.owners = owners.fetch_all(&state.pool).await?.into_iter().map(|row| (row.id, row.organization_id)).collect();
    let payments: Vec<String> =
        objects.iter().flat_map(|object| [object.text("id"), object.related("payment_intent")]).flatten().map(owned).collect();
    let listed = sqlx::query!(
        "select list, id, object from reconciliation_listed where run_id = $1 and list in ('paid', 'payments') and id = any($2)",
        run,
        &payments
    );
    for row in listed.fetch_all(&state.pool).await? {
        if row.list == List::Paid.as_str() {
            known.paid.insert(row.id, row.object);
        } else {
            known.payments.insert(row.id, Object(&row.object).currency()?);
        }
    }
    Ok(known)
}
