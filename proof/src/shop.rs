//! People who sign up, and customers who buy: credit on a page of Stripe's, credit that is topped up by itself, and some of it given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use gateway_bench::stack::{PASSWORD, Stack};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinHandle;

use crate::hurry;

/// The key of billing-service at Stripe.
pub const SECRET_KEY: &str = "sk_test_drill";
/// Credit for what it costs, so that whoever spends it leaves the revenue that the price lists say.
const CATALOG: &str = r#"
format: 1
credit_packs:
  dollar: {name: Credit for a dollar, prices: {USD: "1.00"}, credit: {USD: "1.00"}, expires: never}
plans:
  free:
    name: Free
    group: main
    grace_days: 7
    prices: {USD: {month: "0.00"}}
    included_credit: {amounts: {USD: "5.00"}, expires: never}
"#;
/// What the plan brings, once, in micro-units.
pub const PLAN_CREDIT: i64 = 5_000_000;
/// The least that a top-up buys, in micro-units.
const TOP_UP: i64 = 1_000_000;
/// How far a balance is below its threshold: further than a purchase, or what a lease gives back, can lift it.
const GAP: i64 = 100 * TOP_UP;
/// What a top-up may cost in a month: it is never the reason that there is none.
const CAP: i64 = 1_000_000_000_000;
/// Between two purchases of one customer.
const PAUSE: Duration = Duration::from_millis(100);

/// Puts the pack on sale.
///
/// # Errors
/// When billing-service refuses.
pub fn sell(stack: &mut Stack, folder: &std::path::Path) -> Result<()> {
    let file = folder.join("catalog.yaml");
    std::fs::write(&file, CATALOG)?;
    let file = file.display().to_string();
    let billing = stack.program("billing-service")?;
    let planned = billing.output(&["catalog", "plan", &file])?;
    let is_digest = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digest = planned.split_whitespace().find(is_digest).context("a digest")?;
    billing.output(&["catalog", "apply", &file, "--planned-on", digest, "--actor", "drill", "--reason", "it is sold in the drill"])?;
    Ok(())
}

/// Customers at it.
#[derive(Debug)]
pub struct Shop {
    stop: Arc<AtomicBool>,
    buyers: Vec<JoinHandle<usize>>,
    newcomers: JoinHandle<Vec<String>>,
    hurry: JoinHandle<Result<()>>,
}

impl Shop {
    /// Has these people buy.
    ///
    /// # Errors
    /// When a program is missing.
    pub fn open(stack: &Stack, http: &Client, people: &[String]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (auth, billing, stripe) = (stack.base("auth-service")?, stack.base("billing-service")?, stack.base("stripe-simulator")?);
        let newcomers = tokio::spawn(come(http.clone(), auth.clone(), billing.clone(), stop.clone()));
        let hurry = tokio::spawn(hurry(stack.postgres.url("postgres", "billing"), stop.clone()));
        let buyers = people.iter().map(|email| {
            let (http, email) = (http.clone(), email.clone());
            let mut buyer =
                Buyer { http, email, session: None, budget: None, auth: auth.clone(), billing: billing.clone(), stripe: stripe.clone() };
            let stop = stop.clone();
            tokio::spawn(async move {
                let mut bought = 0;
                for turn in 0_usize.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // Whether a purchase succeeds is not the question; the next one begins where this one was broken off.
                    match buyer.buy(turn).await {
                        Ok(()) => bought += 1,
                        // A session ends; a new one costs a while, so only then.
                        Err(error) if error.to_string().starts_with("401") => buyer.session = None,
                        Err(_) => {}
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                bought
            })
        });
        let buyers = buyers.collect();
        Ok(Self { stop, buyers, newcomers, hurry })
    }

    /// Lets all purchases end; how many there were, as their customers saw it, and the subscriptions that people who came were told of.
    ///
    /// # Errors
    /// When a customer panicked.
    pub async fn close(self) -> Result<(usize, Vec<String>)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut bought = 0;
        for buyer in join_all(self.buyers).await {
            bought += buyer?;
        }
        self.hurry.await??;
        Ok((bought, self.newcomers.await?))
    }
}

/// Somebody new each second: an organization with its first credit, a customer of Stripe's, a session whose tokens are exchanged, and a
/// plan that costs nothing and brings credit. The subscriptions of those who were told that theirs has begun.
async fn come(http: Client, auth: String, billing: String, stop: Arc<AtomicBool>) -> Vec<String> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let mut came = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let email = format!("newcomer-{}@example.com", NUMBER.fetch_add(1, Ordering::Relaxed));
        // Who gets no answer does not come back.
        came.extend(visit(&http, &auth, &billing, &email).await);
        tokio::time::sleep(10 * PAUSE).await;
    }
    came
}

async fn visit(http: &Client, auth: &str, billing: &str, email: &str) -> Result<String> {
    let post = |path: &str, body: Value| answer(http.post(format!("{auth}{path}")).json(&body));
    post("/v1/accounts", json!({"email": email, "password": PASSWORD, "name": "Newcomer"})).await?;
    let mut tokens = post("/v1/sessions", json!({"email": email, "password": PASSWORD})).await?;
    for _ in 0..3 {
        tokens = post("/v1/tokens/refresh", json!({"refresh_token": tokens["refresh_token"]})).await?;
    }
    let session = tokens["access_token"].as_str().context("a token")?;
    let plan = json!({"item": "plan", "plan": "free", "currency": "USD", "interval": "month", "seats": 1,
        "success_url": "http://localhost/thanks", "cancel_url": "http://localhost/prices"});
    let begun = answer(http.post(format!("{billing}/v1/checkout-sessions")).bearer_auth(session).json(&plan)).await?;
    // Without one it is looked for in vain.
    Ok(begun["subscription_id"].as_str().unwrap_or_default().to_owned())
}

/// A customer's next top-up is due now, and [what waits](hurry::up).
async fn hurry(url: String, stop: Arc<AtomicBool>) -> Result<()> {
    // One connection, and a new one where Postgres was killed.
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy(&url)?;
    while !stop.load(Ordering::Relaxed) {
        // The next turn is the next try.
        let _ = sqlx::query("update auto_top_ups set next_at = now() where next_at > now() + interval '5 seconds'").execute(&pool).await;
        let _ = hurry::up(&pool).await;
        tokio::time::sleep(PAUSE).await;
    }
    pool.close().await;
    Ok(())
}

struct Buyer {
    http: Client,
    email: String,
    session: Option<String>,
    budget: Option<String>,
    auth: String,
    billing: String,
    stripe: String,
}

impl Buyer {
    /// One purchase on a page, and a top-up before it; every other one is given back. A budget, which nobody exceeds, changes.
    async fn buy(&mut self, turn: usize) -> Result<()> {
        let session = self.session().await?;
        self.budget(&session, turn).await?;
        self.top_up(&session).await?;
        let post = |path: &str, body: &Value| self.http.post(format!("{}{path}", self.billing)).bearer_auth(&session).json(body);
        let wanted = json!({"item": "credit_pack", "credit_pack": "dollar", "currency": "USD",
            "success_url": "http://localhost/thanks", "cancel_url": "http://localhost/prices"});
        let page = answer(post("/v1/checkout-sessions", &wanted)).await?;
        let url = page["url"].as_str().context("a page")?;
        let press = self.http.post(url).header("content-type", "application/x-www-form-urlencoded").body("action=pay");
        press.send().await?.error_for_status()?;
        if turn.is_multiple_of(2) {
            self.give_back(url.rsplit('/').next().context("a session")?).await?;
        }
        Ok(())
    }

    /// A top-up is due, once, also when something is bought before anybody looks. Who has no card yet is told so, and buys all the same.
    async fn top_up(&self, session: &str) -> Result<()> {
        let balance = answer(self.http.get(format!("{}/v1/balance", self.billing)).bearer_auth(session)).await?;
        let threshold = balance["available_micros"].as_i64().context("an amount")? + GAP;
        let set = json!({"enabled": true, "threshold_micros": threshold, "amount_micros": TOP_UP, "monthly_cap_micros": CAP});
        match answer(self.http.put(format!("{}/v1/auto-top-up", self.billing)).bearer_auth(session).json(&set)).await {
            Err(error) if error.to_string().contains("no_payment_method") => Ok(()),
            set => set.map(drop),
        }
    }

    /// Each change of it is told to others.
    async fn budget(&mut self, session: &str, turn: usize) -> Result<()> {
        let limit = CAP + i64::try_from(turn)?;
        let budgets = format!("{}/v1/budgets", self.billing);
        let Some(id) = &self.budget else {
            let new =
                json!({"name": "all", "scope": "organization", "period": "month", "limit_micros": limit, "currency": "USD", "hard": true});
            let budget = answer(self.http.post(budgets).bearer_auth(session).json(&new)).await?;
            self.budget = budget["id"].as_str().map(ToOwned::to_owned);
            return Ok(());
        };
        let change = json!({"limit_micros": limit});
        answer(self.http.patch(format!("{budgets}/{id}")).bearer_auth(session).json(&change)).await.map(drop)
    }

    /// As the shop's people do it at Stripe.
    async fn give_back(&self, session: &str) -> Result<()> {
        let page = format!("{}/v1/checkout/sessions/{session}", self.stripe);
        let page = answer(self.http.get(page).basic_auth(SECRET_KEY, None::<&str>)).await?;
        let intent = page["payment_intent"].as_str().context("a payment")?;
        let refund = self.http.post(format!("{}/v1/refunds", self.stripe)).basic_auth(SECRET_KEY, None::<&str>);
        let refund = refund.header("content-type", "application/x-www-form-urlencoded").body(format!("payment_intent={intent}"));
        answer(refund).await.map(drop)
    }

    async fn session(&mut self) -> Result<String> {
        if let Some(session) = &self.session {
            return Ok(session.clone());
        }
        let session = sign_in(&self.http, &self.auth, &self.email).await?;
        Ok(self.session.insert(session).clone())
    }
}

/// A session's token.
pub(crate) async fn sign_in(http: &Client, auth: &str, email: &str) -> Result<String> {
    let session = answer(http.post(format!("{auth}/v1/sessions")).json(&json!({"email": email, "password": PASSWORD}))).await?;
    Ok(session["access_token"].as_str().context("a token")?.to_owned())
}

pub(crate) async fn answer(request: RequestBuilder) -> Result<Value> {
    let answer = request.send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status.is_success(), "{status} {text}");
    Ok(serde_json::from_str(&text)?)
}
