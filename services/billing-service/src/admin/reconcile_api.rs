//! `/v1/admin/stripe/reconcile`: our books beside Stripe's, as `billing-service stripe reconcile` compares them.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use chassis::Problem;
use chassis::http::Json;
use http::HeaderMap;
use identity::CallingService;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Reason, SCOPE_WRITE, decision, later};
use super::reconcile::{Repaired, repair_named};
use crate::error::Error;
use crate::state::AppState;
use crate::stripe::reconcile::{self, Difference, Report, Severity};

/// What is to be done beside the comparison.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Who and why; nothing is repaired without.
    by: Option<Reason>,
    /// Objects of Stripe's to look at again, if a difference is about them; `all` is all of them.
    #[serde(default)]
    repair: Vec<String>,
    /// What is younger at Stripe than so many seconds is only a note; a quarter of an hour if not given.
    grace_seconds: Option<u32>,
}

/// Compares, and repairs what is named. It asks Stripe for all of a period, so the answer begins at once and its body comes when it is
/// known: what is left after repairs.
pub async fn reconcile(
    State(state): State<AppState>,
    caller: CallingService,
    headers: HeaderMap,
    Json(Wanted { by, repair, grace_seconds }): Json<Wanted>,
) -> Result<Response, Error> {
    caller.require(SCOPE_WRITE)?;
    let decision = by.map(|by| decision(&state, &caller, &headers, by)).transpose()?;
    if !repair.is_empty() && decision.is_none() {
        return Err(Problem::invalid_field("by", "must say who decides a repair, and why").into());
    }
    let grace = grace(grace_seconds)?;
    let stripe = state.stripe.clone().ok_or(Error::NoStripe)?;
    Ok(later(async move {
        let report = reconcile::compare(&state, &stripe, grace).await?;
        let Some(decision) = decision.filter(|_| !repair.is_empty()) else { return Ok(told(&report, &[])) };
        let repaired = repair_named(&state, &stripe, &decision, &repair, &report.differences).await;
        Ok(told(&reconcile::compare(&state, &stripe, grace).await?, &repaired))
    }))
}

fn grace(seconds: Option<u32>) -> Result<Duration, Error> {
    match seconds {
        None => Ok(reconcile::GRACE),
        Some(seconds) if seconds <= reconcile::MOST_GRACE => Ok(Duration::from_secs(seconds.into())),
        Some(_) => Err(Problem::invalid_field("grace_seconds", "must be at most 86400, a day").into()),
    }
}

fn told(report: &Report, repaired: &[Repaired]) -> Value {
    let [customers, payments, reversals, invoices, credit_notes, sessions] = report.seen;
    json!({
        "run_id": report.id,
        "started_at": report.started_at,
        "seen": {"customers": customers, "payments": payments, "reversals": reversals, "invoices": invoices,
            "credit_notes": credit_notes, "checkout_sessions": sessions},
        "clean": report.count(Severity::Error) == 0,
        "differences": report.differences.iter().map(difference).collect::<Vec<_>>(),
        "repairs": repaired.iter().map(|one| json!({"object": one.object, "outcome": one.outcome})).collect::<Vec<_>>(),
    })
}

fn difference(one: &Difference) -> Value {
    json!({"kind": one.kind, "severity": one.severity.as_str(), "organization_id": one.organization, "object": one.object, "ours": one.ours,
        "theirs": one.theirs, "sentence": one.sentence})
}
