//! Two wallets in the service and in the model: each command is done to both, and whatever can be seen of them is compared.

use std::collections::HashMap;
use std::time::Duration;

use admission::{End as Ended, Settlement};
use anyhow::{Context, Result, ensure};
use billing_service::audit::Decision;
use billing_service::error::Error;
use billing_service::grants::{self, Dispute as Outcome, NewGrant, Source, WalletChange};
use billing_service::ledger::CREDIT;
use billing_service::ledger::postings::{Fee, Sale};
use billing_service::state::AppState;
use billing_service::{leases, reservations};
use chassis::in_transaction;
use chrono::TimeDelta;
use contracts::RequestId;
use contracts::usage::UsageEvent;
use identity::OrganizationId;
use money::TokenUsage;
use testkit::http::TestClient;

use super::commands::{Command, Step};
use super::state::{Dispute, Lot, Only, Stage, Wallet, Wanted};
use super::subscribe::Tally;
use crate::app::App;
use crate::shop::Shop;

/// What each wallet begins with.
pub const SIGNUP: i64 = 2000;

/// What the service knows a request by.
#[derive(Debug)]
pub enum Real {
    Hold(String, RequestId),
    Flight(Box<UsageEvent>),
}

impl Real {
    fn request(&self) -> RequestId {
        match self {
            Self::Hold(_, request) => *request,
            Self::Flight(event) => event.request_id,
        }
    }
}

#[derive(Debug)]
pub struct Side {
    pub organization: OrganizationId,
    pub client: TestClient,
    pub model: Wallet,
    real: Vec<Real>,
    /// Purchases: key and lot.
    sales: Vec<(String, usize)>,
    disputes: Vec<String>,
    checkpoints: HashMap<usize, (u64, u64)>,
    taken: HashMap<usize, i64>,
}

pub struct World<'a> {
    pub app: &'a App,
    pub shop: &'a Shop,
    pub tally: &'a Tally,
    state: AppState,
    card: i64,
    pub sides: [Side; 2],
}

/// What tokens of `sim-large` cost.
fn price((input, output): (u64, u64)) -> i64 {
    i64::try_from(3 * input + 12 * output).unwrap()
}

fn pick<T>(of: impl IntoIterator<Item = T>, which: usize) -> Option<T> {
    let mut of: Vec<T> = of.into_iter().collect();
    (!of.is_empty()).then(|| of.swap_remove(which % of.len()))
}

fn lot(amount: i64, priority: i32, expires: Option<i64>, now: i64) -> Lot {
    Lot { remaining: amount, priority, expires, created: now, only: Only::All, sold: None, expired: 0 }
}

impl Side {
    fn requests(&self, fits: impl Fn(bool, Stage) -> bool) -> Vec<usize> {
        let is_fit = |at: &usize| fits(self.model.requests[*at].lease.is_some(), self.model.requests[*at].stage);
        (0..self.model.requests.len()).filter(is_fit).collect()
    }

    fn event(&self, at: usize, tokens: (u64, u64)) -> Option<UsageEvent> {
        let Real::Flight(event) = &self.real[at] else { return None };
        Some(UsageEvent { usage: TokenUsage::text(tokens.0, tokens.1), ..(**event).clone() })
    }
}

impl<'a> World<'a> {
    pub async fn new(shop: &'a Shop, tally: &'a Tally) -> Self {
        let app = &shop.app;
        let card = app.count("select id from rate_cards where model = 'sim-large'").await;
        let now = app.clock.now().timestamp_millis();
        let side = async || {
            let (organization, client) = shop.customer();
            assert_eq!(app.balance(&client).await, (SIGNUP, 0));
            let mut model = Wallet { now, credit: SIGNUP, lots: vec![lot(SIGNUP, 100, None, now)], ..Wallet::default() };
            model.house("promotion", -SIGNUP);
            let (real, sales, disputes) = (Vec::new(), Vec::new(), Vec::new());
            Side { organization, client, model, real, sales, disputes, checkpoints: HashMap::new(), taken: HashMap::new() }
        };
        Self { app, shop, tally, state: app.state(), card, sides: [side().await, side().await] }
    }

    /// Does a command to the service and to the model; refusals must be the same.
    #[expect(clippy::too_many_lines, reason = "a table: one arm for each command")]
    pub async fn apply(&mut self, (who, command): Step) -> Result<()> {
        let (app, now) = (self.app, self.app.clock.now());
        for side in &mut self.sides {
            side.model.now = now.timestamp_millis();
        }
        if let Command::Plan(command) = command {
            return self.of_plan(who, command).await;
        }
        let state = self.state.clone();
        let side = &mut self.sides[who];
        let (organization, millis) = (side.organization, now.timestamp_millis());
        match command {
            Command::Grant { amount, priority, expires_in, only } => {
                let models = [(Only::Large, "sim-large"), (Only::Other, "other")].into_iter().find(|(kind, _)| *kind == only);
                let grant = NewGrant {
                    priority: Some(priority),
                    expires_at: expires_in.map(|after| now + TimeDelta::milliseconds(after)),
                    models: models.map(|(_, model)| vec![model.to_owned()]),
                    ..NewGrant::plain(Source::Promotion, app.request().to_string(), amount)
                };
                ensure!(app.give(organization, &grant).await.is_some());
                side.model.house("promotion", -amount);
                side.model.give(Lot { only, ..lot(amount, priority, expires_in.map(|after| millis + after), millis) });
            }
            Command::Sell { paid, credit, expires_in } => {
                let key = app.request().to_string();
                let expires_at = expires_in.map(|after| now + TimeDelta::milliseconds(after));
                let grant = NewGrant { paid: Some(paid), expires_at, ..NewGrant::plain(Source::Purchase, &key, credit) };
                ensure!(app.give(organization, &grant).await.is_some());
                for (account, amount) in
                    [("stripe_clearing", -paid), ("promotion", -(credit - paid).max(0)), ("plan_fees", (paid - credit).max(0))]
                {
                    side.model.house(account, amount);
                }
                side.sales.push((key, side.model.lots.len()));
                side.model.give(Lot { sold: Some(credit), ..lot(credit, 100, expires_in.map(|after| millis + after), millis) });
            }
            Command::SellAgain => {
                let Some((key, _)) = side.sales.last() else { return Ok(()) };
                let grant = NewGrant { paid: Some(77), ..NewGrant::plain(Source::Purchase, key, 77) };
                ensure!(app.give(organization, &grant).await.is_none(), "one payment was sold twice");
            }
            Command::Reserve { tokens: (input, output), life } => {
                let (request, output) = (app.request(), output + 1);
                // Of holds that end at one instant the service takes the lower id first, which the model does not know.
                let life = life + i64::try_from(side.real.len())?;
                let mut body = app.reservation(organization, request, input, output);
                body["expires_at"] = serde_json::to_value(now + TimeDelta::milliseconds(life))?;
                let answer = app.reserve(&body).await;
                let expected = if side.model.reserve(price((input, output)), millis + life) { 201 } else { 402 };
                ensure!(answer.status == expected, "{} instead of {expected}: {}", answer.status, answer.text);
                if expected == 201 {
                    side.real.push(Real::Hold(answer.string("id"), request));
                }
            }
            Command::Settle { which, tokens } => {
                let Some(at) = pick(side.requests(|flies, _| !flies), which) else { return Ok(()) };
                let Real::Hold(id, _) = &side.real[at] else { return Ok(()) };
                let answer = app.settle(id, &app.usage(tokens.0, tokens.1)).await;
                let known = &side.model.requests[at];
                let expected = match known.stage {
                    Stage::Held | Stage::Abandoned => 200,
                    Stage::Settled if known.tokens == tokens => 200,
                    _ => 409,
                };
                ensure!(answer.status == expected, "{} instead of {expected}: {}", answer.status, answer.text);
                if matches!(known.stage, Stage::Held | Stage::Abandoned) {
                    side.model.settle(at, tokens, price(tokens));
                }
            }
            Command::Void { which } => {
                let Some(at) = pick(side.requests(|flies, _| !flies), which) else { return Ok(()) };
                let Real::Hold(id, _) = &side.real[at] else { return Ok(()) };
                let status = app.void(id).await.status;
                let before = side.model.requests[at].stage;
                ensure!((status == 409) == matches!(before, Stage::Settled | Stage::Abandoned), "{status} for what is {before:?}");
                if before == Stage::Held {
                    side.model.void(at);
                }
            }
            Command::Admit { cost } => self.admit(who, cost).await?,
            Command::Checkpoint { which, tokens } => {
                let Some(at) = pick(side.requests(|flies, stage| flies && stage == Stage::Held), which) else { return Ok(()) };
                let usage = TokenUsage::text(tokens.0, tokens.1);
                ensure!(app.admissions.checkpoint(organization, side.real[at].request(), &usage).await?);
                side.checkpoints.insert(at, tokens);
            }
            Command::Land { which, tokens } => {
                let Some(at) = pick(side.requests(|flies, stage| flies && stage == Stage::Held), which) else { return Ok(()) };
                let event = side.event(at, tokens).context("a flight")?;
                let taken = app.admissions.settle(&settlement(&event, price(tokens))).await?.taken_micros;
                side.taken.insert(at, taken);
                side.model.land(at, tokens, price(tokens), Stage::Settled);
            }
            Command::LandAgain { which } => {
                let Some((at, taken)) = pick(side.taken.clone(), which) else { return Ok(()) };
                let event = side.event(at, (1, 1)).context("a flight")?;
                ensure!(
                    app.admissions.settle(&settlement(&event, 15)).await?.taken_micros == taken,
                    "a second settlement took something else"
                );
            }
            Command::Report { which, tokens } => {
                let Some(at) = pick(side.requests(|flies, stage| flies && stage == Stage::Abandoned), which) else { return Ok(()) };
                let event = serde_json::to_value(side.event(at, tokens).context("a flight")?)?;
                let answer = app.gateway.post("/internal/v1/settlements", &event).await;
                side.model.report(at, tokens, price(tokens));
                ensure!(answer.json["price_micros"] == side.model.requests[at].price, "{}", answer.text);
            }
            Command::Refund { which, amount } => {
                let Some((key, lot)) = pick(side.sales.clone(), which) else { return Ok(()) };
                let name = app.request().to_string();
                let taken: Result<_, Error> = in_transaction!(state.pool, |transaction| {
                    grants::refund(&state, transaction, organization, &key, Sale::of(amount, amount), &name).await
                });
                let expected = side.model.take_back(lot, amount, "stripe_clearing").map(|(taken, ..)| taken);
                ensure!(taken? == expected, "another amount than {expected:?} was taken back");
            }
            Command::Dispute { which, amount } => {
                let Some((key, lot)) = pick(side.sales.clone(), which) else { return Ok(()) };
                let name = app.request().to_string();
                let taken: Result<_, Error> = in_transaction!(state.pool, |transaction| {
                    grants::open_dispute(&state, transaction, organization, &key, Sale::of(amount, amount), &name).await
                });
                let expected = side.model.take_back(lot, amount, "disputes");
                ensure!(taken? == expected.as_ref().map(|(taken, ..)| *taken), "another amount than that of {expected:?} is disputed");
                if let Some((amount, expired, parts)) = expected {
                    side.disputes.push(name);
                    side.model.disputes.push(Dispute { lot, amount, expired, parts, is_closed: false });
                }
            }
            Command::Close { which, fee } => {
                let Some(at) = pick(0..side.disputes.len(), which) else { return Ok(()) };
                let (name, outcome) = (
                    side.disputes[at].clone(),
                    fee.map_or(Outcome::Won, |amount| Outcome::Lost { fee: Some(Fee { currency: CREDIT, amount }) }),
                );
                let closed: Result<bool, Error> = in_transaction!(state.pool, |transaction| {
                    grants::close_dispute(&state, transaction, organization, &name, outcome).await
                });
                let mut dispute = side.model.disputes[at].clone();
                ensure!(closed? != dispute.is_closed, "a dispute was closed twice or never");
                if !dispute.is_closed {
                    side.model.house("disputes", -dispute.amount - fee.unwrap_or(0));
                    if let Some(fee) = fee {
                        side.model.house("stripe_clearing", dispute.amount + fee);
                    } else {
                        side.model.unwind(dispute.amount - dispute.expired, &mut dispute.parts);
                        side.model.house("breakage", dispute.expired);
                        side.model.lots[dispute.lot].expired += dispute.expired;
                        // It took nothing of the sale after all.
                        side.model.lots[dispute.lot].sold = side.model.lots[dispute.lot].sold.map(|sold| sold + dispute.amount);
                    }
                    side.model.disputes[at].is_closed = true;
                }
            }
            Command::GiveBack { which, amount } => {
                let Some(at) = pick((0..side.real.len()).filter(|at| side.model.requests[*at].price > 0), which) else { return Ok(()) };
                let (request, amount) = (side.real[at].request(), 1 + (amount - 1) % side.model.requests[at].price);
                let given: Result<bool, Error> = in_transaction!(state.pool, |transaction| {
                    grants::refund_usage(&state, transaction, organization, request, amount).await
                });
                let before = side.model.requests[at].given_back > 0;
                ensure!(given? != before, "usage was given back twice or never");
                if !before {
                    side.model.house("refunds", -amount);
                    let mut parts = std::mem::take(&mut side.model.requests[at].burned);
                    side.model.unwind(amount, &mut parts);
                    (side.model.requests[at].burned, side.model.requests[at].given_back) = (parts, amount);
                }
            }
            Command::Take { amount } => {
                self.decide(who, &WalletChange::Adjust { amount: -amount }).await?;
                let model = &mut self.sides[who].model;
                model.expire();
                let part = model.taken(amount);
                model.pay(part, Wanted::Anything, millis, None);
                model.house("adjustments", amount);
            }
            Command::Transfer { amount } => self.transfer(who, amount).await?,
            Command::Overdraft { limit } => {
                self.decide(who, &WalletChange::Overdraft { limit }).await?;
                self.sides[who].model.overdraft = limit;
            }
            Command::Turn { millis } => {
                app.turn.advance(Duration::from_millis(millis));
                self.sides.iter_mut().for_each(|side| side.model.now = app.clock.now().timestamp_millis());
            }
            Command::SweepHolds => {
                reservations::sweep(&state).await?;
                self.sides.iter_mut().for_each(|side| side.model.sweep_holds());
            }
            Command::SweepLeases => {
                leases::sweep_leases(&state).await?;
                self.sides.iter_mut().for_each(|side| side.model.sweep_leases());
            }
            Command::SweepFlights => {
                leases::sweep_flights(&state).await?;
                self.sides.iter_mut().for_each(flights_end);
            }
            Command::Plan(_) => unreachable!("done above"),
            Command::SweepGrants => {
                grants::sweep(&state).await?;
                self.sides.iter_mut().for_each(|side| side.model.expire());
            }
        }
        Ok(())
    }

    async fn admit(&mut self, who: usize, cost: i64) -> Result<()> {
        let (app, now, side) = (self.app, self.app.clock.now(), &mut self.sides[who]);
        let mut event = UsageEvent { reserved_micros: cost, ..app.wanted_by(side.organization, "sim-large", self.card) };
        let lease = app.admit(&event).await;
        let funded = "select (select funded_micros from leases where organization_id = $1 and state = 'open' and model is null),
            (select funded_micros from leases where organization_id = $1 and state = 'open' and model = 'sim-large')";
        let funded: (Option<i64>, Option<i64>) =
            sqlx::query_as(funded).bind(side.organization.uuid()).fetch_one(&app.database.owner).await?;
        let funded = <[Option<i64>; 2]>::from(funded);
        let expected = side.model.admit(cost, now.timestamp_millis() + 300_000, funded).map_err(anyhow::Error::msg)?;
        ensure!(lease.is_some() == expected, "admitted: {}, and {expected} was expected", lease.is_some());
        if let Some(lease) = lease {
            event.lease_id = lease;
            side.real.push(Real::Flight(Box::new(event)));
        }
        Ok(())
    }

    async fn decide(&self, who: usize, change: &WalletChange) -> Result<(), Error> {
        let decision = Decision::new(&self.state, "ada", "proof", None);
        grants::decide(&self.state, &decision, self.sides[who].organization, change).await.map(drop)
    }

    async fn transfer(&mut self, who: usize, amount: i64) -> Result<()> {
        let done = self.decide(who, &WalletChange::Transfer { to: self.sides[1 - who].organization, amount }).await;
        let before = self.sides[who].model.clone();
        let [from, to] = self.sides.get_disjoint_mut([who, 1 - who])?;
        from.model.expire();
        if amount > from.model.spendable(Wanted::Anything) - from.model.overdraft {
            from.model = before;
            ensure!(matches!(done, Err(Error::InsufficientFunds)), "{done:?}");
            return Ok(());
        }
        done?;
        from.model.credit -= amount;
        for (at, part) in from.model.pay(amount, Wanted::Anything, from.model.now, None) {
            let moved = &from.model.lots[at];
            to.model.give(lot(part, moved.priority, moved.expires, to.model.now));
        }
        Ok(())
    }
}

fn settlement(event: &UsageEvent, price_micros: i64) -> Settlement<'_> {
    Settlement { event, price_micros, end: Ended::Used, counted: &[], traceparent: None }
}

/// Flights whose deadline has passed, in the order in which Redis lists them, end with their last checkpoint.
fn flights_end(side: &mut Side) {
    let is_due = |at: &usize| side.model.requests[*at].deadline <= side.model.now;
    let mut due: Vec<usize> = side.requests(|flies, stage| flies && stage == Stage::Held).into_iter().filter(is_due).collect();
    due.sort_by_key(|at| (side.model.requests[*at].deadline, side.real[*at].request().to_string()));
    for at in due {
        let tokens = side.checkpoints.get(&at).copied().unwrap_or_default();
        side.model.land(at, tokens, price(tokens), Stage::Abandoned);
    }
}
