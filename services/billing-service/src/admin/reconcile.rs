//! `billing-service stripe reconcile`

use std::io::{Write, stdout};
use std::time::Duration;

use clap::Args;

use crate::audit::Decision;
use crate::error::Error;
use crate::state::AppState;
use crate::stripe::reconcile::{self, Difference, Report, Severity, repair};
use crate::stripe::transport::Transport;

/// Compare our books with Stripe's.
#[derive(Debug, Clone, Default, Args)]
pub struct Reconcile {
    /// What is younger at Stripe than so many seconds is only a note, because it may be on its way; 900 if not given. Where nothing happens
    /// any more, 0 excuses nothing.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(..=i64::from(reconcile::MOST_GRACE)))]
    pub grace: Option<u32>,
    /// Look again at this object of Stripe's and have its effect, if a difference is about it; may be repeated, `all` is all of them.
    #[arg(long, value_name = "OBJECT", requires_all = ["actor", "reason"])]
    pub repair: Vec<String>,
    /// Who decides to repair.
    #[arg(long)]
    pub actor: Option<String>,
    /// Why.
    #[arg(long)]
    pub reason: Option<String>,
    /// Makes a repetition the same command: done once.
    #[arg(long)]
    pub idempotency_key: Option<String>,
}

/// Runs it: what is left after repairs decides how it ends.
///
/// # Errors
/// When there are differences that are errors; Stripe's; the database's.
pub async fn run(command: Reconcile, state: &AppState) -> anyhow::Result<()> {
    let stripe = state.stripe.as_ref().ok_or(Error::NoStripe)?;
    let grace = command.grace.map_or(reconcile::GRACE, |seconds| Duration::from_secs(seconds.into()));
    let mut report = compare(state, stripe, grace).await?;
    if let (Some(actor), Some(reason), false) = (command.actor, command.reason, command.repair.is_empty()) {
        let decision = Decision::new(state, actor, reason, command.idempotency_key);
        for Repaired { object, outcome } in repair_named(state, stripe, &decision, &command.repair, &report.differences).await {
            writeln!(stdout(), "repair {object}: {outcome}")?;
        }
        report = compare(state, stripe, grace).await?;
    }
    let errors = report.count(Severity::Error);
    anyhow::ensure!(errors == 0, "our books and Stripe's have {errors} differences that are errors");
    Ok(())
}

/// What became of a repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// The object of Stripe's.
    pub object: String,
    /// In words.
    pub outcome: String,
}

/// Repairs the differences about the objects that are named, or all that a look can mend; what is named and cannot be says why.
pub async fn repair_named(
    state: &AppState,
    stripe: &Transport,
    decision: &Decision,
    named: &[String],
    differences: &[Difference],
) -> Vec<Repaired> {
    let refusal = |one: &Difference| {
        let reason = repair::refusal(one, differences).filter(|_| named.contains(&one.object))?;
        Some(Repaired { object: one.object.clone(), outcome: format!("refused: {reason}") })
    };
    let mut repaired: Vec<Repaired> = differences.iter().filter_map(refusal).collect();
    let wanted = |one: &Difference| named.iter().any(|named| named == "all" || *named == one.object);
    for difference in repair::repairable(differences).into_iter().filter(|one| wanted(one)) {
        let outcome = match repair::repair(state, stripe, decision, difference).await {
            Ok(true) => "looked at again".to_owned(),
            Ok(false) => "there is nothing of ours to look at".to_owned(),
            Err(error) => error.chain(),
        };
        repaired.push(Repaired { object: difference.object.clone(), outcome });
    }
    repaired
}

async fn compare(state: &AppState, stripe: &Transport, grace: Duration) -> anyhow::Result<Report> {
    let report = reconcile::compare(state, stripe, grace).await.map_err(|error| anyhow::anyhow!(error.chain()))?;
    write(&mut stdout(), &report)?;
    Ok(report)
}

fn write(out: &mut impl Write, report: &Report) -> std::io::Result<()> {
    for one in &report.differences {
        let organization = one.organization.map_or_else(|| "-".to_owned(), |organization| organization.to_string());
        writeln!(out, "{:<7} {:<18} {organization} {}", one.severity.as_str(), one.kind, one.object)?;
        writeln!(out, "        ours: {}; theirs: {}. {}.", one.ours, one.theirs, one.sentence)?;
    }
    let [customers, payments, reversals, invoices, credit_notes, sessions] = report.seen;
    let counts = [Severity::Error, Severity::Warning, Severity::Info].map(|severity| report.count(severity));
    writeln!(
        out,
        "run {}: {customers} customers, {payments} payments, {reversals} refunds and disputes, {invoices} invoices, {credit_notes} credit notes, {sessions} pages",
        report.id
    )?;
    writeln!(out, "{} errors, {} warnings, {} notes", counts[0], counts[1], counts[2])
}
