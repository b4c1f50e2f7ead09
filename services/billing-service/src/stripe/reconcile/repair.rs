//! A difference that is mended by looking again: the object is fetched and has its effect as if its event had just come. Somebody
//! decides that, and it is logged with the effect [B-78]. Done twice it is done once. A sum of a meter is mended by a report, a customer's
//! balance by a correction in the ledger. What a look does not mend is refused: somebody must decide what is right, and do it.

use chassis::in_transaction;
use serde_json::json;

use super::{Difference, balances};
use crate::audit::{self, Change, Decision};
use crate::error::Error;
use crate::state::AppState;
use crate::stripe::facts::{self, Family, turn};
use crate::stripe::meters::compare as meters;
use crate::stripe::transport::Transport;

pub(super) const ACTION: &str = "stripe.repair";

/// Kinds of which a look at the object brings what Stripe says.
const MENDED_BY_A_LOOK: [&str; 12] = [
    "payment_missing",
    "refund_missing",
    "dispute_missing",
    "dispute_state",
    "invoice_missing",
    "invoice_status",
    "invoice_amount",
    "credit_note_missing",
    "credit_note_status",
    "credit_note_amount",
    "checkout_unpaid",
    // Where its invoice is void, which waives it.
    "charge_lost",
];

/// In the order in which one needs the other: whose it is, what was paid, what went back.
const FAMILIES: [(&str, Family); 8] = [
    ("cus_", Family::Customer),
    ("cs_", Family::Checkout),
    ("in_", Family::Invoice),
    ("cn_", Family::CreditNote),
    ("re_", Family::Refund),
    ("pyr_", Family::Refund),
    ("dp_", Family::Dispute),
    ("du_", Family::Dispute),
];

fn family(object: &str) -> Option<(usize, Family)> {
    let found = FAMILIES.iter().enumerate().find(|(_, (prefix, _))| object.starts_with(prefix));
    found.map(|(rank, (_, family))| (rank, *family))
}

/// The differences that a look may mend, in the order in which they are mended.
#[must_use]
pub fn repairable(differences: &[Difference]) -> Vec<&Difference> {
    let mut list: Vec<_> = differences.iter().filter(|one| refusal(one, differences).is_none()).collect();
    list.sort_by_cached_key(|one| (family(&one.object).map(|(rank, _)| rank), one.object.clone()));
    list.dedup_by_key(|one| (one.organization, &one.object));
    list
}

/// Why a difference is not repaired, among all that were found with it; none when it can be.
#[must_use]
pub fn refusal(difference: &Difference, among: &[Difference]) -> Option<String> {
    let Difference { kind, sentence, .. } = difference;
    if difference.organization.is_some() && *kind == meters::KIND {
        return None;
    }
    if difference.organization.is_some() && *kind == balances::KIND {
        return balances::refusal(difference, among);
    }
    if !MENDED_BY_A_LOOK.contains(kind) {
        return Some(format!("a look at Stripe does not mend {kind}, and somebody must decide: {sentence}"));
    }
    let is_readable = difference.organization.is_some() && family(&difference.object).is_some();
    (!is_readable).then(|| format!("{} can not be asked for, so {kind} is for somebody to decide: {sentence}", difference.object))
}

/// Looks again at what a difference is about, that is not refused for another one. False when Stripe has it no longer, or it is none of ours.
///
/// # Errors
/// 422 when the decision is not one, or its key was used for another command; Stripe's; the database's. Nothing has changed then.
pub async fn repair(state: &AppState, stripe: &Transport, decision: &Decision, difference: &Difference) -> Result<bool, Error> {
    decision.check()?;
    if refusal(difference, &[]).is_some() {
        return Ok(false);
    }
    if difference.kind == meters::KIND {
        return meters::repair(state, decision, difference).await;
    }
    if difference.kind == balances::KIND {
        return balances::repair(state, stripe, decision, difference).await;
    }
    let (Some(organization), Some((_, family))) = (difference.organization, family(&difference.object)) else { return Ok(false) };
    let decision = Decision { key: format!("{}-{}", decision.key, difference.object), ..decision.clone() };
    let request = json!({"object": difference.object, "difference": difference.kind});
    let Some(fetched) = facts::fetch(state, stripe, family, &difference.object).await? else { return Ok(false) };
    in_transaction!(state.pool, |transaction| {
        if audit::earlier(transaction, &decision, ACTION, Some(organization), &request).await?.is_some() {
            return Ok(true);
        }
        let turn = turn::take(transaction, &[], Some(&fetched)).await?;
        let ours = facts::apply(state, transaction, &fetched, &turn).await?;
        let (before, after) = (json!({"ours": difference.ours, "theirs": difference.theirs}), json!({"applied": ours}));
        let change = Change { action: ACTION, organization: Some(organization), request: &request, before: &before, after: &after };
        audit::record(state, transaction, &decision, &change).await?;
        Ok(ours)
    })
}
