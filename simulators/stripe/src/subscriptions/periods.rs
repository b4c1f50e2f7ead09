//! What time does to a subscription: renewal, the end of a trial, of a pause, of patience.

use serde_json::Value;

use super::{activate_clockwork, cancel_now, items};
use crate::invoices::{self, New};
use crate::world::{World, number, text};
use crate::{calendar, discounts, invoice_items, page, payment_methods};

const DAY: i64 = 86_400;
/// How long the first payment is waited for.
pub(super) const PATIENCE: i64 = 23 * 3600;
/// How long before the end of a trial it is announced.
pub(super) const TRIAL_NOTICE: i64 = 3 * DAY;

/// The next boundary after an instant, counted from the anchor.
pub(super) fn next_boundary(subscription: &Value, items: &[Value], at: i64) -> i64 {
    let recurring = items.first().map(|item| item["price"]["recurring"].clone()).unwrap_or_default();
    let (interval, count) = (text(&recurring, "interval"), number(&recurring, "interval_count").max(1));
    let anchor = number(subscription, "billing_cycle_anchor");
    if anchor > at {
        return anchor;
    }
    // An estimate from below, then the exact steps.
    let longest = match interval.as_str() {
        "day" => DAY,
        "week" => 7 * DAY,
        "year" => 366 * DAY,
        _ => 31 * DAY,
    };
    let mut steps = (at - anchor) / (longest * count);
    loop {
        let boundary = calendar::after(anchor, &interval, steps * count);
        if boundary > at {
            return boundary;
        }
        steps += 1;
    }
}

/// Does what is due.
pub(crate) fn due(world: &mut World, subscription: &Value) {
    let now = world.now_of(subscription);
    let reached = |field: &str| subscription[field].as_i64().is_some_and(|at| at <= now);
    let (status, period) = (text(subscription, "status"), items::period(subscription));
    match status.as_str() {
        "canceled" | "incomplete_expired" | "paused" => {}
        "incomplete" => lose_patience(world, subscription, now),
        _ if reached("cancel_at") => cancel_now(world, subscription),
        _ if subscription["pause_collection"]["resumes_at"].as_i64().is_some_and(|at| at <= now) => {
            let mut resumed = subscription.clone();
            resumed["pause_collection"] = Value::Null;
            world.update("customer.subscription.updated", &resumed);
            due(world, &resumed);
        }
        "trialing" if !reached("trial_end") => give_notice(world, subscription, now),
        "trialing" => end_trial(world, subscription),
        _ if period.1 <= now => renew(world, subscription),
        _ => {}
    }
}

/// Announces the end of a trial, once.
fn give_notice(world: &mut World, subscription: &Value, now: i64) {
    if number(subscription, "trial_end") - TRIAL_NOTICE <= now && subscription["__noticed"] != subscription["trial_end"] {
        let mut noticed = subscription.clone();
        noticed["__noticed"] = subscription["trial_end"].clone();
        world.put(&noticed);
        world.emit("customer.subscription.trial_will_end", &noticed);
    }
}

/// Ends what was not paid in time.
fn lose_patience(world: &mut World, subscription: &Value, now: i64) {
    if number(subscription, "created") + PATIENCE > now {
        return;
    }
    let mut ended = subscription.clone();
    ended["status"] = "incomplete_expired".into();
    ended["ended_at"] = world.now_of(subscription).into();
    let invoice = world.related(&ended, "latest_invoice");
    if invoice["status"] == "open" {
        invoices::void_invoice(world, &invoice);
    }
    world.update("customer.subscription.updated", &ended);
}

/// Without a card the trial ends as its settings say.
fn end_trial(world: &mut World, subscription: &Value) {
    let customer = world.related(subscription, "customer");
    let has_card = subscription["default_payment_method"].is_string() || payment_methods::default_of(&customer).is_some();
    match text(&subscription["trial_settings"]["end_behavior"], "missing_payment_method").as_str() {
        "cancel" if !has_card => cancel_now(world, subscription),
        "pause" if !has_card => {
            let mut paused = subscription.clone();
            paused["status"] = "paused".into();
            world.put(&paused);
            world.emit("customer.subscription.paused", &paused);
        }
        _ => renew(world, subscription),
    }
}

/// Begins the next period: a draft for it, which is collected in an hour.
pub(super) fn renew(world: &mut World, subscription: &Value) {
    let mut renewed = subscription.clone();
    let now = world.now_of(subscription);
    let ended = items::period(subscription);
    let period = (ended.1, next_boundary(subscription, &items::of(subscription), ended.1));
    items::set(&mut renewed, items::of(subscription), period);
    if renewed["status"] == "trialing" {
        renewed["status"] = "active".into();
    }
    renewed["discounts"] = discounts_now(world, subscription, now);
    let mut invoice = renewal(world, &renewed, period, Some(ended), true);
    if renewed["status"] == "unpaid" || renewed["pause_collection"]["behavior"] == "keep_as_draft" {
        invoice["auto_advance"] = false.into();
        invoice["automatically_finalizes_at"] = Value::Null;
    }
    invoices::keep(world, &invoice);
    renewed["latest_invoice"] = invoice["id"].clone();
    renewed["discounts"] = discounts::that_go_on(world, &renewed["discounts"], now);
    world.update("customer.subscription.updated", &renewed);
    activate_clockwork(world, &renewed);
}

fn discounts_now(world: &World, subscription: &Value, now: i64) -> Value {
    let kept = subscription["discounts"].as_array().into_iter().flatten().filter(|id| {
        let discount = id.as_str().and_then(|id| world.find(id));
        discount.is_some_and(|discount| discount["end"].as_i64().is_none_or(|end| end > now))
    });
    kept.cloned().collect()
}

/// The invoice of a period, with all that waits for it. Items stay waiting where nothing is kept.
pub(super) fn renewal(world: &mut World, subscription: &Value, period: (i64, i64), ended: Option<(i64, i64)>, keep: bool) -> Value {
    let customer = world.related(subscription, "customer");
    let currency = text(subscription, "currency");
    let reason = if keep { "subscription_cycle" } else { "upcoming" };
    let (start, end) = ended.unwrap_or(period);
    let new = New { customer: &customer, subscription, currency: &currency, reason, lines: Vec::new(), period: (start, end) };
    let mut invoice = invoices::draft(world, new);
    let id = text(&invoice, "id");
    let mut lines = invoice_items::take_pending(world, &customer, &currency, keep.then_some(id.as_str()));
    lines.extend(items::lines_of(world, subscription, period, ended));
    invoice["lines"] = page::embedded(&lines, "");
    invoices::lines::sum_up(world, &mut invoice);
    invoice
}
