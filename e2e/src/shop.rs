//! Money: a plan and credit bought in a browser on the simulator's pages, spent to the end, topped up, and given back.

use std::fs::File;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::person::{Person, request};
use crate::reconcile::{GRANT, books_agree, stripe_agrees};
use crate::stack::{STRIPE, Stack};
use crate::traces;

/// Little credit, so that it can be spent; no less money, because no less can be charged.
const CATALOG: &str = r#"
format: 1
plans:
  basic:
    name: Basic
    group: main
    prices: {USD: {month: "1.00"}}
    included_credit: {amounts: {USD: "0.10"}, expires: period_end}
credit_packs:
  half: {name: A little credit for half a dollar, prices: {USD: "0.50"}, credit: {USD: "0.05"}, expires: never}
"#;
const PLAN_CREDIT: i64 = 100_000;
const PACK: i64 = 50_000;
const TOP_UP: i64 = 1_000_000;

pub async fn bought_spent_topped_up_and_given_back(stack: &Stack) -> Result<()> {
    sell(stack)?;
    let person = Person::sign_up(stack).await?;
    let plan = json!({"item": "plan", "plan": "basic", "interval": "month", "currency": "USD", "seats": 1});
    let pack = json!({"item": "credit_pack", "credit_pack": "half", "currency": "USD"});
    buy(stack, &person, plan, GRANT + PLAN_CREDIT).await?;
    let session = buy(stack, &person, pack, GRANT + PLAN_CREDIT + PACK).await?;
    spend_all(&person).await?;
    books_agree(stack, &person, GRANT + PLAN_CREDIT + PACK).await?;

    let settings = json!({"enabled": true, "threshold_micros": 50_000, "amount_micros": TOP_UP, "monthly_cap_micros": TOP_UP});
    person.put("/v1/auto-top-up", &settings).await?;
    let before = person.balance().await?.0;
    stack.eventually("the top-up", async || Ok((person.balance().await?.0 == before + TOP_UP).then_some(()))).await?;
    traces::one_has(stack, &["top_up.charge", "effect of an invoice", "top up"]).await?;
    person.openai(&person.key).chat().create(request("sim-small", false)?).await?;

    let intent =
        stripe(stack, &format!("/v1/checkout/sessions/{session}")).await?["payment_intent"].as_str().context("a payment")?.to_owned();
    let refund = stack.http.post(format!("{STRIPE}/v1/refunds")).basic_auth("sk_test_e2e", None::<&str>);
    form(refund, format!("payment_intent={intent}")).send().await?.error_for_status()?;
    stack.eventually("the refund", async || Ok((person.balance().await?.0 < before + TOP_UP - PACK).then_some(()))).await?;
    traces::one_has(stack, &["POST /stripe/webhooks", "effect of a refund"]).await?;
    books_agree(stack, &person, GRANT + PLAN_CREDIT + PACK + TOP_UP - PACK).await?;
    stack.compose(&["exec", "-T", "billing-service", "/app/billing-service", "ledger", "verify"])?;
    stripe_agrees(stack).await?;
    let ledger: Value = stack.http.get(format!("{STRIPE}/_simulator/ledger")).send().await?.json().await?;
    let net: i64 = ledger.as_array().context("rows")?.iter().filter_map(|row| row["net"].as_i64()).sum();
    ensure!(net == 200, "a plan and a top-up are two dollars, and Stripe has {net} cents");
    Ok(())
}

/// Two people press Pay in two tabs of one person: the page is the same one, and is paid once.
async fn buy(stack: &Stack, person: &Person, mut what: Value, balance: i64) -> Result<String> {
    what["success_url"] = json!("http://localhost:13001/health");
    what["cancel_url"] = json!("http://localhost:13001/health");
    let before = person.balance().await?.0;
    let trace = traces::begin();
    let pages = join_all((0..2).map(|_| person.post_in(&trace, "/v1/checkout-sessions", &what))).await;
    let urls = pages.into_iter().map(|page| Ok(page?["url"].as_str().context("a page")?.to_owned())).collect::<Result<Vec<_>>>()?;
    ensure!(urls[0] == urls[1], "two tabs have two pages: {urls:?}");
    let text = stack.http.get(&urls[0]).send().await?.error_for_status()?.text().await?;
    ensure!(text.contains("Pay"), "nothing to press on the page: {text}");
    ensure!(person.balance().await?.0 == before, "there was credit before anything was paid");
    let press = || form(stack.http.post(&urls[0]), "action=pay".to_owned()).send();
    let pressed = join_all([press(), press()]).await;
    ensure!(
        pressed.into_iter().filter(|done| done.as_ref().is_ok_and(|answer| answer.status().is_success())).count() >= 1,
        "nobody could pay"
    );
    stack.eventually("the credit", async || Ok((person.balance().await?.0 > before).then_some(()))).await?;
    let session = urls[0].rsplit('/').next().context("a session")?.to_owned();
    let told = format!(
        "select count(*) filter (where payload -> 'data' -> 'object' ->> 'id' = '{session}' and state = 'handled') > 0
            and count(*) filter (where state = 'received') = 0 from stripe_events"
    );
    stack.eventually("the end of all events", async || Ok((stack.billing_sql(&told)? == "t").then_some(()))).await?;
    let after = person.balance().await?.0;
    ensure!(after == balance, "{after} instead of {balance}");
    traces::has(stack, &trace, &["POST /v1/checkout-sessions", "POST /checkout/sessions", "effect of a checkout"]).await?;
    Ok(session)
}

/// Fifty streams at once, again and again, until none fits any more. What money does not reach for counts for the limit of requests in a minute
/// as well, so that no more than fitted last are tried when fewer fit.
async fn spend_all(person: &Person) -> Result<()> {
    let client = person.openai(&person.key);
    let mut at_once = 50;
    for _ in 0..40 {
        let streams = (0..at_once).map(|_| {
            let client = client.clone();
            async move {
                let mut wanted = request("sim-large", true)?;
                wanted.max_completion_tokens = Some(200);
                let mut stream = client.chat().create_stream(wanted).await?;
                while let Some(chunk) = stream.next().await {
                    chunk?;
                }
                anyhow::Ok(())
            }
        });
        let served = join_all(streams).await.into_iter().flatten().count();
        let (available, _) = person.balance().await?;
        ensure!(available >= 0, "the wallet is below zero: {available}");
        if served == 0 {
            let mut wanted = request("sim-large", false)?;
            wanted.max_completion_tokens = Some(200);
            return crate::person::expect_error(client.chat().create(wanted).await, 402, "insufficient_quota");
        }
        at_once = served;
    }
    anyhow::bail!("it could not be spent in two thousand streams")
}

fn sell(stack: &Stack) -> Result<()> {
    let file = stack.scratch("catalog.yaml");
    std::fs::write(&file, CATALOG)?;
    let run = |arguments: &[&str]| {
        let mut all = vec!["exec", "-T", "billing-service", "/app/billing-service", "catalog"];
        all.extend(arguments);
        stack.compose_with(&all, Stdio::from(File::open(&file)?))
    };
    let planned = run(&["plan", "/dev/stdin"])?;
    let digest = planned.split_whitespace().find(|word| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()));
    run(&["apply", "/dev/stdin", "--planned-on", digest.context("a digest")?, "--actor", "e2e", "--reason", "it is sold in the drills"])?;
    Ok(())
}

/// As a browser sends it.
fn form(request: reqwest::RequestBuilder, body: String) -> reqwest::RequestBuilder {
    request.header("content-type", "application/x-www-form-urlencoded").body(body)
}

async fn stripe(stack: &Stack, path: &str) -> Result<Value> {
    let answer = stack.http.get(format!("{STRIPE}{path}")).basic_auth("sk_test_e2e", None::<&str>).send().await?;
    Ok(answer.error_for_status()?.json().await?)
}
