//! Plans, told again in a few lines: what is paid when, and which credit comes with it. Amounts of plans are cents, times whole seconds.

use chrono::{DateTime, Months, TimeDelta, Utc};

use super::state::{Lot, Only, Wallet};

/// Micro-units of a cent.
const CENT: i64 = 10_000;
/// What Stripe charges no card for, in cents: less than this waits on the customer's balance for the next invoice.
const LEAST: i64 = 50;

/// What is sold: one group, and the first plan of it begins with a trial, once.
pub const CATALOG: &str = r#"
format: 1
plans:
  basic:
    name: Basic
    group: main
    trial_days: 14
    grace_days: 14
    prices: {USD: {month: "6.00"}}
    included_credit: {amounts: {USD: "0.10"}, expires: period_end}
  better:
    name: Better
    group: main
    grace_days: 14
    prices: {USD: {month: "15.00"}}
    included_credit: {amounts: {USD: "0.30"}, expires: never}
"#;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    Basic,
    Better,
}

impl Name {
    pub const fn code(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Better => "better",
        }
    }

    const fn price(self) -> i64 {
        match self {
            Self::Basic => 600,
            Self::Better => 1500,
        }
    }

    const fn credit(self) -> i64 {
        match self {
            Self::Basic => 10,
            Self::Better => 30,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Trial,
    Active,
    PastDue,
}

impl Standing {
    pub const fn code(self) -> &'static str {
        match self {
            Self::Trial => "trialing",
            Self::Active => "active",
            Self::PastDue => "past_due",
        }
    }
}

/// A charge: what is paid, which credit comes with it, and until when that is there.
#[derive(Debug, Clone, Copy)]
pub struct Charge {
    price: i64,
    credit: i64,
    expires: Option<DateTime<Utc>>,
}

/// A plan that an organization has.
#[derive(Debug, Clone)]
pub struct Plan {
    pub name: Name,
    pub standing: Standing,
    anchor: DateTime<Utc>,
    number: u32,
    start: DateTime<Utc>,
    pub end: DateTime<Utc>,
    /// What the whole of the period costs as it is now, and the most credit that was given for it.
    value: i64,
    credited: i64,
    pub ends: bool,
    pub next: Option<Name>,
    open: Option<Charge>,
}

/// What is left of an amount of a period, in whole cents: half a cent stays with what is over.
fn left(amount: i64, plan: &Plan, now: DateTime<Utc>) -> i64 {
    let (all, left) = ((plan.end - plan.start).num_seconds(), (plan.end - plan.start).num_seconds() - (now - plan.start).num_seconds());
    (2 * amount * left + all - 1).div_euclid(2 * all)
}

impl Plan {
    fn charge(&self, price: i64, credit: i64) -> Charge {
        Charge { price, credit, expires: (self.name == Name::Basic).then_some(self.end) }
    }

    /// A month that is paid whole.
    fn month(&mut self) -> Charge {
        (self.value, self.credited) = (self.name.price(), self.name.credit());
        self.start = self.anchor + Months::new(self.number);
        self.end = self.anchor + Months::new(self.number + 1);
        self.charge(self.value, self.credited)
    }
}

impl Wallet {
    /// It is paid on a page, all of it by the card.
    fn paid(&mut self, charge: Charge) {
        self.house("stripe_clearing", -charge.price * CENT);
        self.sold(charge);
    }

    /// An invoice is paid, with what waited for it.
    fn collected(&mut self, charge: Charge) {
        let due = charge.price + self.carried;
        let (by_card, carried) = if due < LEAST { (0, due) } else { (due, 0) };
        self.house("stripe_clearing", -by_card * CENT);
        self.house("customer_balances", (self.carried - carried) * CENT);
        self.carried = carried;
        self.sold(charge);
    }

    /// Credit goes to the wallet, and the rest of the price is the house's.
    fn sold(&mut self, charge: Charge) {
        let (price, credit) = (charge.price * CENT, charge.credit * CENT);
        self.house("plan_fees", price - credit);
        if credit > 0 {
            let expires = charge.expires.map(|at| at.timestamp_millis());
            self.give(Lot {
                remaining: credit,
                priority: 100,
                expires,
                created: self.now,
                only: Only::All,
                sold: Some(credit),
                expired: 0,
            });
        }
    }

    pub fn is_past_due(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.standing == Standing::PastDue)
    }

    /// False when there is a plan.
    pub fn subscribe(&mut self, name: Name, now: DateTime<Utc>) -> bool {
        if self.plan.is_some() {
            return false;
        }
        let trial = name == Name::Basic && !self.had_plan;
        let (standing, end) = if trial { (Standing::Trial, now + TimeDelta::days(14)) } else { (Standing::Active, now) };
        let (next, open) = (None, None);
        let mut plan = Plan { name, standing, anchor: now, number: 0, start: now, end, value: 0, credited: 0, ends: false, next, open };
        if !trial {
            let charge = plan.month();
            self.paid(charge);
        }
        (self.plan, self.had_plan) = (Some(plan), true);
        true
    }

    /// To another plan: a better one at once for the rest of the period, a lesser one when it ends. False when that is refused.
    pub fn change(&mut self, to: Name, now: DateTime<Utc>) -> bool {
        let Some(plan) = &mut self.plan else { return false };
        if plan.name == to {
            return false;
        }
        if to == Name::Basic {
            plan.next = (!plan.ends).then_some(to);
            return !plan.ends;
        }
        if plan.standing == Standing::PastDue || now >= plan.end {
            return false;
        }
        plan.next = None;
        if plan.standing == Standing::Trial {
            plan.name = to;
            return true;
        }
        let value = plan.value + to.price() - plan.name.price();
        let price = left(value, plan, now) - left(plan.value, plan, now);
        let credit = (left(to.credit(), plan, now) - left(plan.credited, plan, now)).max(0);
        (plan.name, plan.value, plan.credited) = (to, value, plan.credited.max(to.credit()));
        let charge = plan.charge(price, credit);
        if price > 0 {
            self.collected(charge);
        }
        true
    }

    /// It is to end with its period. False when that is wanted already.
    pub fn cancel(&mut self) -> bool {
        let Some(plan) = self.plan.as_mut().filter(|plan| !plan.ends) else { return false };
        (plan.ends, plan.next) = (true, None);
        true
    }

    /// It goes on after all.
    pub fn uncancel(&mut self) -> bool {
        let Some(plan) = self.plan.as_mut().filter(|plan| plan.ends) else { return false };
        plan.ends = false;
        true
    }

    /// The calendar looks: what is over ends, or its next month is paid by the card, if that pays.
    pub fn calendar(&mut self, now: DateTime<Utc>, card_pays: bool) -> Option<&'static str> {
        let plan = self.plan.as_mut().filter(|plan| plan.standing != Standing::PastDue && now >= plan.end)?;
        if plan.ends {
            self.plan = None;
            return Some("ended");
        }
        plan.name = plan.next.take().unwrap_or(plan.name);
        if plan.standing == Standing::Trial {
            (plan.standing, plan.anchor, plan.number) = (Standing::Active, plan.end, 0);
        } else {
            plan.number += 1;
        }
        let charge = plan.month();
        if !card_pays {
            (plan.standing, plan.open) = (Standing::PastDue, Some(charge));
            return Some("failed");
        }
        self.collected(charge);
        Some("renewed")
    }

    /// What failed is paid after all. False when nothing is open.
    pub fn mend(&mut self) -> bool {
        let Some((plan, charge)) = self.plan.as_mut().and_then(|plan| plan.open.take().map(|charge| (plan, charge))) else { return false };
        plan.standing = Standing::Active;
        self.collected(charge);
        true
    }
}
