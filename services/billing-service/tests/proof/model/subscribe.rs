//! Commands about plans, done at the service and a Stripe beside it, and to the model; what is shown of the plan afterwards.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use billing_service::subscriptions::due;
use billing_service::usage::partitions;
use serde_json::json;
use testkit::http::Answer;

use super::plans::{Name, Standing};
use super::world::{Side, World};
use crate::shop::Shop;

/// Something that happens to the plan of a wallet.
#[derive(Debug, Clone, Copy)]
pub enum OfPlan {
    Subscribe {
        to: Name,
    },
    Change {
        to: Name,
    },
    Cancel,
    Uncancel,
    /// So many days pass for everybody; the card of this one may be refused meanwhile.
    Days {
        days: u64,
        card_pays: bool,
    },
    Mend,
}

/// How often each command was given, and what came of those about plans.
#[derive(Debug, Default)]
pub struct Tally(Mutex<BTreeMap<String, u64>>);

impl Tally {
    pub fn note(&self, what: &str) {
        *self.0.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    }

    pub fn counts(self) -> BTreeMap<String, u64> {
        self.0.into_inner().unwrap()
    }
}

impl World<'_> {
    pub async fn of_plan(&mut self, who: usize, command: OfPlan) -> Result<()> {
        // The clock was turned here alone until now.
        self.shop.stripe.advance((self.app.clock.now().timestamp() - self.shop.stripe.now()).max(0));
        let done = match self.instead(who, command) {
            OfPlan::Subscribe { to } => self.subscribe(who, to).await?,
            OfPlan::Change { to } => {
                let better = to == Name::Better;
                let change = json!({"kind": "plan", "plan": to.code(), "interval": "month", "seats": 1});
                let now = self.app.clock.now();
                let taken = self.changed(who, change, |side| side.model.change(to, now)).await?;
                taken.map(|taken| {
                    if !taken {
                        "change refused"
                    } else if better {
                        "upgraded"
                    } else {
                        "downgrade wanted"
                    }
                })
            }
            OfPlan::Cancel => {
                let taken = self.changed(who, json!({"kind": "cancel"}), |side| side.model.cancel()).await?;
                taken.map(|taken| if taken { "end wanted" } else { "end refused" })
            }
            OfPlan::Uncancel => {
                let taken = self.changed(who, json!({"kind": "uncancel"}), |side| side.model.uncancel()).await?;
                taken.map(|taken| if taken { "end unwanted" } else { "uncancel refused" })
            }
            OfPlan::Days { days, card_pays } => self.days(who, days, card_pays).await?,
            OfPlan::Mend => self.mend(who).await?,
        };
        if let Some(done) = done {
            self.tally.note(done);
        }
        Ok(())
    }

    /// Of what would change nothing mostly something else is done, so that few commands meet much.
    fn instead(&self, who: usize, command: OfPlan) -> OfPlan {
        let to_begin = |to| OfPlan::Subscribe { to };
        match (&self.sides[who].model.plan, command) {
            (None, OfPlan::Change { to }) => to_begin(to),
            (None, OfPlan::Cancel) => to_begin(Name::Basic),
            (None, OfPlan::Uncancel | OfPlan::Mend) => to_begin(Name::Better),
            (Some(plan), OfPlan::Uncancel) if !plan.ends => OfPlan::Cancel,
            (Some(plan), OfPlan::Days { .. }) if plan.standing == Standing::PastDue => OfPlan::Mend,
            _ => command,
        }
    }

    async fn subscribe(&mut self, who: usize, to: Name) -> Result<Option<&'static str>> {
        let (shop, now) = (self.shop, self.app.clock.now());
        let side = &mut self.sides[who];
        let page = shop.plan(&side.client, to.code()).await;
        let first = !side.model.had_plan;
        let taken = side.model.subscribe(to, now);
        expect(&page, if taken { 201 } else { 409 })?;
        if !taken {
            return Ok(Some("second plan refused"));
        }
        shop.pay(&page);
        shop.settle().await;
        Ok(Some(if first && to == Name::Basic { "trial begun" } else { "plan bought" }))
    }

    /// A change of the plan that there is; none where there is none.
    async fn changed(&mut self, who: usize, change: serde_json::Value, model: impl FnOnce(&mut Side) -> bool) -> Result<Option<bool>> {
        let side = &mut self.sides[who];
        if side.model.plan.is_none() {
            return Ok(None);
        }
        let living = side.client.get("/v1/subscription").await.expect(200).json["data"][0]["id"].clone();
        let answer = side.client.post("/v1/subscription/changes", &json!({"subscription_id": living, "change": change})).await;
        let taken = model(side);
        expect(&answer, if taken { 200 } else { 409 })?;
        self.shop.settle().await;
        Ok(Some(taken))
    }

    /// Only while nothing is open: what comes of money that is not paid for weeks has tests of its own.
    async fn days(&mut self, who: usize, days: u64, card_pays: bool) -> Result<Option<&'static str>> {
        let (shop, state) = (self.shop, &self.shop.state);
        if self.sides.iter().any(|side| side.model.is_past_due()) {
            return Ok(None);
        }
        let fails = !card_pays && self.sides[who].model.plan.is_some();
        if fails {
            shop.card_fails(self.sides[who].organization).await;
        }
        shop.pass(Duration::from_hours(24 * days));
        let now = self.app.clock.now();
        partitions::keep(&state.pool, &state.config.usage, now).await?;
        while due::step(state).await? {}
        shop.settle().await;
        if fails {
            shop.pays_with(self.sides[who].organization, "pm_card_visa").await;
        }
        for (number, side) in self.sides.iter_mut().enumerate() {
            side.model.now = now.timestamp_millis();
            if let Some(done) = side.model.calendar(now, !(fails && number == who)) {
                self.tally.note(done);
            }
        }
        Ok(Some("days passed"))
    }

    async fn mend(&mut self, who: usize) -> Result<Option<&'static str>> {
        let side = &mut self.sides[who];
        if !side.model.mend() {
            return Ok(None);
        }
        let invoices = side.client.get("/v1/invoices").await.expect(200).json;
        let open = invoices["data"].as_array().and_then(|all| all.iter().find(|one| one["status"] == "open")).context("an open invoice")?;
        self.shop.dashboard(&format!("/v1/invoices/{}/pay", open["id"].as_str().context("its id")?), &[]).await;
        self.shop.settle().await;
        Ok(Some("mended"))
    }

    /// What the database says of the plan, and what it entitles to.
    pub async fn compare_plan(&self, side: &Side) -> Result<()> {
        let query = "select plan_code, status, (state ->> 'cancel_at_period_end')::boolean, state #>> '{pending,terms,plan}',
               (state #>> '{period,end}')::timestamptz from subscriptions
             where organization_id = $1 and status not in ('canceled', 'incomplete_expired')";
        let living: Vec<Row> = sqlx::query_as(query).bind(side.organization.uuid()).fetch_all(&self.app.database.owner).await?;
        let expected = side.model.plan.iter().map(|plan| {
            let next = plan.next.map(|next| next.code().to_owned());
            (plan.name.code().to_owned(), plan.standing.code().to_owned(), plan.ends, next, plan.end)
        });
        ensure!(living == expected.collect::<Vec<_>>(), "plan: {living:?}");
        Ok(())
    }
}

/// A living plan as the database has it: code, status, whether it ends, what comes next, when its period is over.
type Row = (String, String, bool, Option<String>, chrono::DateTime<chrono::Utc>);

/// Nobody renews what no sequence looks at any more.
pub async fn leave_plans(shop: &Shop) {
    let left = "update subscriptions set next_action_at = null where next_action_at is not null";
    sqlx::query(left).execute(&shop.app.database.owner).await.unwrap();
}

fn expect(answer: &Answer, status: u16) -> Result<()> {
    ensure!(answer.status == status, "{} instead of {status}: {}", answer.status, answer.text);
    Ok(())
}
