//! Our books beside Stripe's [B-75, B-76]: all that was paid, given back, disputed, invoiced and metered there, and what we made of it. Each
//! difference has a name, a severity and what both sides say; it is kept, counted and logged. Nothing is changed here: a repair is
//! somebody's decision (`repair`).

mod balances;
mod books;
mod documents;
mod kinds;
mod listing;
pub mod repair;
mod rows;

use std::time::Duration;

use chassis::in_transaction;
use chassis::postgres::keep_running;
use chrono::{DateTime, Utc};
use identity::OrganizationId;
use sqlx::{Postgres, Transaction};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::transport::Transport;
use super::{meters, turns};
use crate::error::Error;
use crate::state::AppState;
use listing::Listing;

pub use kinds::Severity;

const TURN: &str = "reconciliation";
/// When a comparison begins anew that failed, or whose replica was stopped: not each minute, for it reads all of an account.
const AFTER_FAILURE: Duration = Duration::from_hours(3);
/// Between looks whether it is time.
const POLL: Duration = Duration::from_mins(1);
/// What is younger at Stripe may be on its way to us: worth a note, and no more.
pub const GRACE: Duration = Duration::from_mins(15);
/// The most that somebody may ask for instead, in seconds: a comparison that excuses more than a day proves nothing.
pub const MOST_GRACE: u32 = 86_400;

/// What a comparison found somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its name, such as `payment_missing`.
    pub kind: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Whose it is, if it is a customer's.
    pub organization: Option<OrganizationId>,
    /// What it is about: an id of Stripe's where there is one, or else ours.
    pub object: String,
    /// What we say; amounts are micro-units.
    pub ours: String,
    /// What Stripe says.
    pub theirs: String,
    /// What that means.
    pub sentence: &'static str,
}

/// A row of a comparison, before it is judged.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) kind: String,
    pub(crate) organization: Option<Uuid>,
    pub(crate) object: String,
    pub(crate) ours: String,
    pub(crate) theirs: String,
    /// When it happened at Stripe.
    pub(crate) at: Option<DateTime<Utc>>,
}

/// A comparison.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its id.
    pub id: Uuid,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// Customers, payments, reversals, invoices, credit notes and sessions that Stripe has of ours.
    pub seen: [i64; 6],
    /// How many objects of Stripe's were in memory at once, at most: no more than a page of a list.
    pub most_held: usize,
    /// What was found, the worst first.
    pub differences: Vec<Difference>,
}

impl Report {
    /// How many differences are of a severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> i64 {
        self.differences.iter().map(|difference| i64::from(difference.severity == severity)).sum()
    }
}

/// The names of all kinds of differences.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    kinds::KINDS.iter().map(|kind| kind.name)
}

/// Compares until the token is cancelled; without a key, or with a pause of zero, never.
pub async fn run(state: &AppState, stop: &CancellationToken) {
    let (Some(stripe), pause) = (&state.stripe, state.config.stripe.reconcile.0) else { return stop.cancelled().await };
    if pause.is_zero() {
        return stop.cancelled().await;
    }
    keep_running("stripe-reconciliation", stop, POLL, || async {
        step(state, stripe, pause).await?;
        Ok(())
    })
    .await;
}

/// Compares if its turn has come; the next turn is after `pause`. None when it is not time, or another replica was first.
///
/// # Errors
/// As [`compare`]; the next turn is hours later then, and so is that of a replica which was stopped meanwhile.
pub async fn step(state: &AppState, stripe: &Transport, pause: Duration) -> Result<Option<Report>, Error> {
    if !turns::take(state, TURN, pause.min(AFTER_FAILURE)).await? {
        return Ok(None);
    }
    let report = compare(state, stripe, GRACE).await?;
    turns::put_off(state, TURN, pause).await?;
    Ok(Some(report))
}

/// Compares all, and keeps what was found. Stripe is read first: what we know by then and it does not is an error of ours. What is younger
/// at Stripe than `grace` is a note; where nothing is on its way any more that may be zero, so that nothing is excused.
///
/// # Errors
/// Stripe's; the database's. Nothing is kept then.
pub async fn compare(state: &AppState, stripe: &Transport, grace: Duration) -> Result<Report, Error> {
    let (id, started_at) = (state.random.uuid_v7(&state.clock), state.clock.now());
    let compared = compare_run(state, stripe, id).await;
    // Whatever came of it; what cannot be forgotten now, a later run forgets.
    if let Err(error) = listing::forget(state, id).await {
        tracing::warn!(error.message = error.chain(), "what a comparison listed is still there");
    }
    let (listing, found) = compared?;
    let differences = judge(found.into_iter(), started_at - grace)?;
    let report = Report { id, started_at, seen: listing.seen, most_held: listing.most_held, differences };
    keep(state, &report).await?;
    tell(&report);
    Ok(report)
}

async fn compare_run(state: &AppState, stripe: &Transport, run: Uuid) -> Result<(Listing, Vec<Found>), Error> {
    let listing = listing::read(state, stripe, run).await?;
    let metered = meters::compare::compare(state, stripe).await?;
    let mut found: Vec<Found> = in_transaction!(state.pool, |transaction| {
        sqlx::query!("set transaction isolation level repeatable read, read only").execute(&mut **transaction).await?;
        // All of it takes longer than a request may.
        sqlx::query!("set local statement_timeout = 0").execute(&mut **transaction).await?;
        let mut found = documents::customers(transaction, run).await?;
        found.extend(books::payments(transaction, run).await?);
        found.extend(books::sales(transaction).await?);
        found.extend(books::reversals(transaction, run).await?);
        found.extend(documents::invoices(transaction, run).await?);
        found.extend(documents::charges(transaction, run).await?);
        found.extend(documents::checkouts(transaction, run).await?);
        found.extend(books::clearing(transaction, run).await?);
        // What a balance differs by may be of a credit note that could not be read.
        if listing.no_credit_notes.is_none() {
            found.extend(documents::credit_notes(transaction, run).await?);
            found.extend(balances::compare(transaction, run, state.clock.now()).await?);
        }
        Ok::<_, Error>(found)
    })?;
    found.extend(metered);
    let objects = listing.unreadable.iter().map(|(id, field)| (id.clone(), format!("no readable {field}")));
    let lists = listing.no_credit_notes.iter().map(|refused| ("credit_notes".to_owned(), refused.clone()));
    found.extend(objects.chain(lists).map(|(object, theirs)| Found {
        kind: "unreadable".to_owned(),
        organization: None,
        object,
        ours: String::new(),
        theirs,
        at: None,
    }));
    Ok((listing, found))
}

/// Gives each its severity: what happened after an instant is only on its way, and so is what it leaves open in the sums.
fn judge(found: impl Iterator<Item = Found>, settled: DateTime<Utc>) -> Result<Vec<Difference>, Error> {
    let mut differences: Vec<Difference> = Vec::new();
    let mut on_their_way = Vec::new();
    let is_young = |at: Option<DateTime<Utc>>| at.is_some_and(|at| at > settled);
    for found in found {
        let kind = kinds::find(&found.kind).ok_or(Error::Internal("a difference is of no known kind"))?;
        let organization = found.organization.map(OrganizationId::from_uuid);
        let young = match kind.name {
            "clearing" => on_their_way.contains(&organization),
            "clearing_total" => !on_their_way.is_empty(),
            // Both sides of it are read at different times, and what came between them is in one only.
            balances::KIND => on_their_way.contains(&organization) || is_young(found.at),
            _ => is_young(found.at),
        };
        if young {
            on_their_way.push(organization);
        }
        // A page that was paid and a payment that is missing are one thing.
        if kind.name == "checkout_unpaid" && differences.iter().any(|known| known.object == found.object) {
            continue;
        }
        let Found { object, ours, theirs, .. } = found;
        let severity = if young { Severity::Info } else { kind.severity };
        differences.push(Difference { kind: kind.name, severity, organization, object, ours, theirs, sentence: kind.sentence });
    }
    differences.sort_by_key(|difference| difference.severity);
    Ok(differences)
}

async fn keep(state: &AppState, report: &Report) -> Result<(), Error> {
    in_transaction!(state.pool, |transaction| { insert(state, transaction, report).await })
}

async fn insert(state: &AppState, transaction: &mut Transaction<'static, Postgres>, report: &Report) -> Result<(), Error> {
    let [customers, payments, reversals, invoices, credit_notes, sessions] = report.seen;
    sqlx::query!(
        "insert into reconciliation_runs (id, started_at, ended_at, customers, payments, reversals, invoices, credit_notes, sessions, infos,
           warnings, errors)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        report.id,
        report.started_at,
        state.clock.now(),
        customers,
        payments,
        reversals,
        invoices,
        credit_notes,
        sessions,
        report.count(Severity::Info),
        report.count(Severity::Warning),
        report.count(Severity::Error)
    )
    .execute(&mut **transaction)
    .await?;
    for (number, difference) in (1_i32..).zip(&report.differences) {
        sqlx::query!(
            "insert into reconciliation_differences (run_id, number, kind, severity, organization_id, object, ours, theirs, sentence)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            report.id,
            number,
            difference.kind,
            difference.severity.as_str(),
            difference.organization.map(OrganizationId::uuid),
            difference.object,
            difference.ours,
            difference.theirs,
            difference.sentence
        )
        .execute(&mut **transaction)
        .await?;
    }
    Ok(())
}

fn tell(report: &Report) {
    for severity in [Severity::Error, Severity::Warning, Severity::Info] {
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        let count = report.count(severity) as f64;
        match severity {
            Severity::Info => metrics::gauge!("billing_reconciliation_notes").set(count),
            Severity::Error | Severity::Warning => {
                metrics::gauge!("billing_reconciliation_differences", "severity" => severity.as_str()).set(count);
            }
        }
    }
    for difference in report.differences.iter().filter(|difference| difference.severity == Severity::Error) {
        tracing::error!(
            difference.kind = difference.kind,
            difference.object = difference.object,
            difference.ours = difference.ours,
            difference.theirs = difference.theirs,
            "our books and Stripe's differ"
        );
    }
}
