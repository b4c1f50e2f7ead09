//! Requests: holds of their own, flights on leases, and what they cost in the end.

use super::state::{End, Lease, Request, Stage, Wallet, Wanted};

impl Wallet {
    pub fn release(&mut self, amount: i64) {
        self.held -= amount;
        let repaid = self.returned(amount);
        self.pay(repaid, Wanted::Anything, self.now, None);
    }

    /// Ends expired holds, if all of them together are enough.
    fn free(&mut self, missing: i64) {
        let mut expired: Vec<usize> = (0..self.requests.len()).filter(|at| self.is_expired_hold(*at)).collect();
        expired.sort_by_key(|at| (self.requests[*at].deadline, *at));
        if expired.iter().map(|at| self.requests[*at].amount).sum::<i64>() < missing {
            return;
        }
        let mut freed = 0;
        for at in expired {
            if freed >= missing {
                break;
            }
            freed += self.requests[at].amount;
            self.abandon(at);
        }
    }

    fn is_expired_hold(&self, at: usize) -> bool {
        let request = &self.requests[at];
        request.lease.is_none() && request.stage == Stage::Held && request.deadline <= self.now
    }

    fn abandon(&mut self, at: usize) {
        self.release(self.requests[at].amount);
        self.requests[at].stage = Stage::Abandoned;
    }

    pub fn sweep_holds(&mut self) {
        let mut expired: Vec<usize> = (0..self.requests.len()).filter(|at| self.is_expired_hold(*at)).collect();
        expired.sort_by_key(|at| (self.requests[*at].deadline, *at));
        for at in expired {
            self.abandon(at);
        }
    }

    /// Whether it reaches, after whatever may be freed for it; otherwise what is missing, and then nothing has happened.
    fn find(&mut self, needed: i64, wanted: Wanted) -> Result<(), i64> {
        let before = self.clone();
        self.expire();
        if needed > self.spendable(wanted) {
            self.free(needed - self.spendable(wanted));
            self.expire();
        }
        let found = self.spendable(wanted);
        if needed > found {
            *self = before;
            return Err(needed - found);
        }
        Ok(())
    }

    fn request(&mut self, lease: Option<usize>, amount: i64, deadline: i64) {
        let request = Request {
            lease,
            amount,
            started: self.now,
            deadline,
            stage: Stage::Held,
            tokens: (0, 0),
            price: 0,
            burned: Vec::new(),
            given_back: 0,
        };
        self.requests.push(request);
    }

    pub fn reserve(&mut self, amount: i64, deadline: i64) -> bool {
        while let Err(missing) = self.find(amount, Wanted::Large) {
            if !self.make_room(missing) {
                return false;
            }
        }
        self.credit -= amount;
        self.held += amount;
        self.request(None, amount, deadline);
        true
    }

    /// What nobody can be in flight on any more comes back, or else what lies unused in leases, if that is enough; whether to look again.
    fn make_room(&mut self, missing: i64) -> bool {
        if self.drain() {
            return true;
        }
        let idle = |lease: &Lease| if lease.end == End::Open { lease.remaining.clamp(0, lease.held) } else { 0 };
        let open: Vec<usize> = (0..self.leases.len()).filter(|at| idle(&self.leases[*at]) > 0).collect();
        if open.iter().map(|at| idle(&self.leases[*at])).sum::<i64>() < missing {
            return false;
        }
        for at in open {
            self.close(at);
        }
        true
    }

    pub fn void(&mut self, at: usize) {
        self.release(self.requests[at].amount);
        self.requests[at].stage = Stage::Voided;
    }

    /// Posts what a request used, against what is held for it.
    fn charge(&mut self, at: usize, held: i64, price: i64) {
        let started = self.requests[at].started;
        self.held -= held;
        let used = if held >= price {
            let repaid = self.returned(held - price);
            self.pay(repaid, Wanted::Anything, started, None);
            price
        } else {
            held + self.taken(price - held)
        };
        let parts = self.pay(used, Wanted::Large, started, None);
        self.house("revenue", price);
        let request = &mut self.requests[at];
        request.burned.extend(parts);
        request.price += price;
    }

    pub fn settle(&mut self, at: usize, tokens: (u64, u64), price: i64) {
        let held = if self.requests[at].stage == Stage::Abandoned { 0 } else { self.requests[at].amount };
        self.charge(at, held, price);
        (self.requests[at].stage, self.requests[at].tokens) = (Stage::Settled, tokens);
    }

    /// The lease of a kind that can be filled, in time or not.
    pub fn open(&self, large: bool) -> Option<usize> {
        self.leases.iter().position(|lease| lease.end == End::Open && lease.large == large)
    }

    /// The lease that reaches: the one for all requests, or else the one for this model.
    fn reaching(&self, cost: i64) -> Option<usize> {
        let reaches = |at: &usize| self.leases[*at].deadline > self.now && self.leases[*at].remaining >= cost;
        [false, true].into_iter().filter_map(|large| self.open(large)).find(reaches)
    }

    /// Whether a request is admitted; `funded` is all that is in its leases afterwards (for all, for its model), which is billing-service's
    /// choice within limits.
    pub fn admit(&mut self, cost: i64, deadline: i64, funded: [Option<i64>; 2]) -> Result<bool, String> {
        if self.reaching(cost).is_none() && !self.fill_for(cost, funded)? {
            return Ok(false);
        }
        let at = self.reaching(cost).ok_or("no lease reaches")?;
        self.leases[at].remaining -= cost;
        let last = &mut self.last_deadline[usize::from(self.leases[at].large)];
        *last = (*last).max(deadline);
        self.request(Some(at), cost, deadline);
        Ok(true)
    }

    /// Fills the lease for all requests or else the one for the model; what lies in the first is taken out where that is what is missing.
    fn fill_for(&mut self, cost: i64, funded: [Option<i64>; 2]) -> Result<bool, String> {
        let seen = [false, true].map(|large| self.open(large).filter(|at| self.leases[*at].deadline > self.now));
        let missing = seen.map(|at| cost - at.map_or(0, |at| self.leases[at].remaining));
        loop {
            let before = self.clone();
            let mut freed = false;
            let ended = loop {
                self.expire();
                let most = [Wanted::Chat, Wanted::Large].map(|wanted| self.spendable(wanted));
                let over = |at: &usize| self.leases[*at].deadline <= self.now;
                let needed = [false, true].map(|large| self.open(large).map_or(cost, |_| missing[usize::from(large)]));
                let mut over_or_filled = None;
                for large in [false, true] {
                    let (kind, open) = (usize::from(large), self.open(large));
                    if let Some(at) = open.filter(over) {
                        over_or_filled = Some(Some(at));
                        break;
                    }
                    if needed[kind] <= most[kind] {
                        let more = funded[kind].ok_or("no lease was filled")? - open.map_or(0, |at| self.leases[at].funded);
                        if !(needed[kind]..=most[kind]).contains(&more) {
                            return Err(format!("{more} were put into a lease where {needed:?} were needed and {most:?} are there"));
                        }
                        self.fill(large, more);
                        over_or_filled = Some(None);
                        break;
                    }
                }
                match over_or_filled {
                    Some(None) => return Ok(true),
                    Some(Some(at)) => break Some(at),
                    // What nobody can be in flight on any more is free for who needs it, whether it reaches or not.
                    None if freed && self.drain() => break None,
                    None if freed => {
                        let left = seen[0].map_or(0, |_| cost - missing[0]);
                        let is_restricted = most[1] > most[0].max(0) || seen[1].is_some();
                        let reaches = left > 0 && is_restricted && most[1] + left >= missing[1];
                        let Some(at) = self.open(false).filter(|_| reaches) else {
                            *self = before;
                            return Ok(false);
                        };
                        break Some(at);
                    }
                    None => {
                        freed = true;
                        self.free(needed[0] - most[0]);
                    }
                }
            };
            if let Some(at) = ended {
                self.close(at);
            }
        }
    }

    fn fill(&mut self, large: bool, more: i64) {
        let wanted = if large { Wanted::Large } else { Wanted::Chat };
        let usable = self.lots.iter().filter(|lot| lot.remaining > 0 && lot.is_valid(self.now) && lot.pays(wanted));
        let deadline = usable.filter_map(|lot| lot.expires).min().unwrap_or(i64::MAX).min(self.now + 60_000);
        self.credit -= more;
        self.held += more;
        let at = self.open(large).unwrap_or_else(|| {
            self.leases.push(Lease { large, opened: self.now, deadline, funded: 0, held: 0, remaining: 0, end: End::Open });
            self.leases.len() - 1
        });
        let lease = &mut self.leases[at];
        lease.deadline = deadline;
        lease.funded += more;
        lease.held += more;
        lease.remaining += more;
    }

    fn close(&mut self, at: usize) {
        let until = self.last_deadline[usize::from(self.leases[at].large)] + 60_000;
        let held = self.leases[at].held;
        // All of it, when nothing can be in flight on it any more.
        let amount = if until <= self.now { held } else { self.leases[at].remaining.clamp(0, held) };
        self.release(amount);
        self.leases[at].held -= amount;
        self.leases[at].end = if held == amount { End::Closed } else { End::Draining(until) };
    }

    pub fn sweep_leases(&mut self) {
        for at in 0..self.leases.len() {
            if self.leases[at].end == End::Open && self.leases[at].deadline <= self.now {
                self.close(at);
            }
        }
        self.drain();
        for lease in self.leases.iter_mut().filter(|lease| matches!(lease.end, End::Draining(_)) && lease.held == 0) {
            lease.end = End::Closed;
        }
    }

    /// Takes back what leases hold for requests that must be over; whether there was any.
    fn drain(&mut self) -> bool {
        let is_over = |lease: &Lease| lease.held > 0 && matches!(lease.end, End::Draining(until) if until <= self.now);
        let over: Vec<usize> = (0..self.leases.len()).filter(|at| is_over(&self.leases[*at])).collect();
        for at in &over {
            self.release(self.leases[*at].held);
            (self.leases[*at].held, self.leases[*at].end) = (0, End::Closed);
        }
        !over.is_empty()
    }

    /// The end of a request in flight.
    pub fn land(&mut self, at: usize, tokens: (u64, u64), price: i64, stage: Stage) {
        let (Some(lease), cost) = (self.requests[at].lease, self.requests[at].amount) else { return };
        let lease = &mut self.leases[lease];
        let taken = if lease.end == End::Open { price } else { cost };
        if lease.end == End::Open {
            lease.remaining += cost - price;
        }
        let held = taken.clamp(0, lease.held);
        lease.held -= held;
        self.charge(at, held, price);
        (self.requests[at].stage, self.requests[at].tokens) = (stage, tokens);
    }

    /// A request that was given up for dead reports after all.
    pub fn report(&mut self, at: usize, tokens: (u64, u64), price: i64) {
        let less = self.requests[at].price - price;
        if less > 0 {
            let back = less.min(self.requests[at].price - self.requests[at].given_back);
            let mut burned = std::mem::take(&mut self.requests[at].burned);
            self.unwind(back, &mut burned);
            self.house("revenue", -back);
            let request = &mut self.requests[at];
            (request.burned, request.price) = (burned, request.price - back);
        } else {
            self.charge(at, 0, -less);
        }
        (self.requests[at].stage, self.requests[at].tokens) = (Stage::Settled, tokens);
    }
}
