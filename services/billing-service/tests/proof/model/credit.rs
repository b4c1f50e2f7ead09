//! Credit: what comes, goes, expires and is given back, and which lots pay.

use super::state::{End, Lot, Only, Stage, Wallet, Wanted};

/// Lots, and what each of them paid.
type Parts = Vec<(usize, i64)>;

impl Wallet {
    pub fn house(&mut self, account: &'static str, amount: i64) {
        *self.house.entry(account).or_default() += amount;
    }

    /// What comes back: what is overdrawn first, then debt, then the wallet. The part that repaid debt.
    pub fn returned(&mut self, amount: i64) -> i64 {
        let overdrawn = (-self.credit).clamp(0, amount);
        let repaid = (amount - overdrawn).min(self.debt);
        self.credit += amount - repaid;
        self.debt -= repaid;
        repaid
    }

    /// What is taken although it may not be there. The wallet's part.
    pub fn taken(&mut self, amount: i64) -> i64 {
        let part = amount.min(self.credit.max(0));
        self.credit -= part;
        self.debt += amount - part;
        part
    }

    pub fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.lots.len()).filter(|at| self.lots[*at].remaining > 0).collect();
        order.sort_by_key(|at| {
            let lot = &self.lots[*at];
            (lot.priority, lot.expires.is_none(), lot.expires, lot.created, *at)
        });
        order
    }

    /// Lots pay; what none may pay is owed.
    pub fn pay(&mut self, amount: i64, wanted: Wanted, at: i64, first: Option<usize>) -> Vec<(usize, i64)> {
        let (mut left, mut parts) = (amount.max(0), Vec::new());
        let others = self.order().into_iter().filter(|lot| Some(*lot) != first).filter(|lot| {
            let lot = &self.lots[*lot];
            lot.is_valid(at) && lot.pays(wanted)
        });
        for lot in first.into_iter().chain(others.collect::<Vec<_>>()) {
            let part = self.lots[lot].remaining.min(left);
            if part > 0 {
                self.lots[lot].remaining -= part;
                left -= part;
                parts.push((lot, part));
            }
        }
        self.credit += left;
        self.debt += left;
        parts
    }

    pub fn expiring(&self) -> Vec<(usize, i64)> {
        let (mut kept_before, mut expiring) = (0, Vec::new());
        for at in self.order().into_iter().filter(|at| !self.lots[*at].is_valid(self.now)) {
            let (lot, end) = (&self.lots[at], self.lots[at].expires.unwrap_or(i64::MAX));
            let holds =
                self.requests.iter().filter(|request| request.lease.is_none() && request.stage == Stage::Held && request.started < end);
            let leases = self.leases.iter().filter(|lease| lease.end != End::Closed && lease.opened < end);
            let before = holds.map(|hold| hold.amount).sum::<i64>() + leases.map(|lease| lease.held).sum::<i64>();
            let kept = lot.remaining.min((before - kept_before).max(0));
            kept_before += kept;
            expiring.push((at, lot.remaining - kept));
        }
        expiring
    }

    pub fn expire(&mut self) {
        let mut there = self.credit.max(0);
        for (lot, amount) in self.expiring() {
            let amount = amount.min(there);
            there -= amount;
            self.credit -= amount;
            self.lots[lot].remaining -= amount;
            self.lots[lot].expired += amount;
            self.house("breakage", amount);
        }
    }

    pub fn spendable(&self, wanted: Wanted) -> i64 {
        let expired: i64 = self.expiring().iter().map(|(_, amount)| amount).sum();
        let others = self.lots.iter().filter(|lot| lot.is_valid(self.now) && !lot.pays(wanted)).map(|lot| lot.remaining).sum::<i64>();
        self.credit - self.debt - expired - (others - self.resting_elsewhere(wanted)) + self.overdraft
    }

    /// What of lots that may not pay for this burns first for what leases of `sim-large` hold.
    fn resting_elsewhere(&self, wanted: Wanted) -> i64 {
        let mut held: i64 = self.leases.iter().filter(|lease| lease.large && lease.end != End::Closed).map(|lease| lease.held).sum();
        let expiring = self.expiring();
        let mut elsewhere = 0;
        for at in self.order().into_iter().filter(|at| self.lots[*at].pays(Wanted::Large)) {
            let gone: i64 = expiring.iter().filter(|(lot, _)| *lot == at).map(|(_, amount)| amount).sum();
            let part = held.min(self.lots[at].remaining - gone);
            held -= part;
            if self.lots[at].is_valid(self.now) && !self.lots[at].pays(wanted) {
                elsewhere += part;
            }
        }
        elsewhere
    }

    pub fn give(&mut self, lot: Lot) {
        let amount = lot.remaining;
        let restricted = lot.only != Only::All;
        let repaid = if restricted { 0 } else { self.returned(amount) };
        self.credit += if restricted { amount } else { 0 };
        self.lots.push(lot);
        self.pay(repaid, Wanted::Anything, self.now, None);
    }

    /// Takes back what was sold; the amount that was, and which lots gave it.
    /// What was taken, what of it had expired, and from which lots.
    pub fn take_back(&mut self, lot: usize, amount: i64, house: &'static str) -> Option<(i64, i64, Parts)> {
        self.expire();
        let sold = self.lots[lot].sold.as_mut()?;
        let taken = amount.min(*sold);
        if taken <= 0 {
            return None;
        }
        *sold -= taken;
        let expired = taken.min(self.lots[lot].expired);
        self.lots[lot].expired -= expired;
        self.house("breakage", -expired);
        let part = self.taken(taken - expired);
        self.house(house, taken);
        Some((taken, expired, self.pay(part, Wanted::Anything, self.now, Some(lot))))
    }

    /// Gives lots back what they paid, the last first; what came from none becomes a lot.
    pub fn unwind(&mut self, amount: i64, parts: &mut [(usize, i64)]) {
        let mut left = amount - self.returned(amount);
        for (lot, part) in parts.iter_mut().rev() {
            let back = (*part).min(left);
            *part -= back;
            left -= back;
            self.lots[*lot].remaining += back;
        }
        if left > 0 {
            self.lots.push(Lot {
                remaining: left,
                priority: 100,
                expires: None,
                created: self.now,
                only: Only::All,
                sold: None,
                expired: 0,
            });
        }
    }
}
