//! What every user does, step by step.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::person::{Person, expect_error, request};
use crate::reconcile::agree;
use crate::stack::{JAEGER, Stack};
use crate::traces;

pub async fn completion_and_stream(stack: &Stack) -> Result<()> {
    let person = Person::sign_up(stack).await?;
    let client = person.openai(&person.key);
    let answer = client.chat().create(request("sim-small", false)?).await?;
    let text = answer.choices[0].message.content.clone().context("content")?;
    ensure!(!text.is_empty(), "an empty completion");
    let mut stream = client.chat().create_stream(request("sim-small", true)?).await?;
    let mut streamed = String::new();
    while let Some(chunk) = stream.next().await {
        for choice in chunk?.choices {
            streamed += &choice.delta.content.unwrap_or_default();
        }
    }
    ensure!(!streamed.is_empty(), "an empty stream");
    Ok(())
}

pub async fn money_agrees(stack: &Stack) -> Result<()> {
    let person = Person::sign_up(stack).await?;
    let client = person.openai(&person.key);
    for stream in [false, true, false, true] {
        if stream {
            client.chat().create_stream(request("sim-small", true)?).await?.collect::<Vec<_>>().await;
        } else {
            client.chat().create(request("sim-small", false)?).await?;
        }
    }
    stack.eventually("four usage rows", async || Ok((person.usage().await?.len() == 4).then_some(()))).await?;
    agree(stack, &person, false).await
}

pub async fn errors(stack: &Stack) -> Result<()> {
    let person = Person::sign_up(stack).await?;
    let bad = person.openai("tvk_live_nonsense").chat().create(request("sim-small", false)?).await;
    expect_error(bad, 401, "invalid_api_key")?;
    let client = person.openai(&person.key);
    expect_error(client.chat().create(request("no-such-model", false)?).await, 404, "model_not_found")?;
    let mut dear = request("sim-large", false)?;
    dear.max_completion_tokens = Some(16_000);
    expect_error(client.chat().create(dear).await, 402, "insufficient_quota")?;
    agree(stack, &person, false).await
}

pub async fn one_trace(stack: &Stack) -> Result<()> {
    let person = Person::sign_up(stack).await?;
    person.openai(&person.key).chat().create(request("sim-small", false)?).await?;
    let trace = stack.eventually("a usage row with a trace", async || {
        Ok(person.usage().await?.first().and_then(|row| row["trace_id"].as_str().map(ToOwned::to_owned)))
    });
    let trace = trace.await?;
    stack
        .eventually("spans of three services and of the settlement in one trace", async || {
            let found: Value = stack.http.get(format!("{JAEGER}/api/traces/{trace}")).send().await?.json().await?;
            let processes = found["data"][0]["processes"].as_object().context("processes")?;
            let services: BTreeSet<&str> = processes.values().filter_map(|process| process["serviceName"].as_str()).collect();
            let spans = found["data"][0]["spans"].as_array().context("spans")?;
            let settled = spans.iter().any(|span| span["operationName"] == "settle usage");
            let all = BTreeSet::from(["auth-service", "billing-service", "chat-service"]);
            Ok((services == all && settled).then_some(()))
        })
        .await
}

pub async fn decision_has_its_trace(stack: &Stack) -> Result<()> {
    let (person, trace) = (Person::sign_up(stack).await?, traces::begin());
    let budget = json!({"name": "e2e", "scope": "organization", "period": "day", "limit_micros": 1, "currency": "USD", "hard": false});
    person.post_in(&trace, "/v1/budgets", &budget).await?;
    let recorded = stack.billing_sql(&format!("select string_agg(action, ',') from audit_log where trace_id = '{trace}'"))?;
    ensure!(recorded == "budget.create", "on record with the trace {trace} is {recorded:?}");
    traces::has(stack, &trace, &["POST /v1/budgets"]).await
}

pub async fn revoked_key(stack: &Stack) -> Result<()> {
    let person = Person::sign_up(stack).await?;
    let client = person.openai(&person.key);
    client.chat().create(request("sim-small", false)?).await?;
    person.revoke_key().await?;
    let revoked = Instant::now();
    stack
        .eventually("the refusal", async || Ok(expect_error(client.models().list().await, 401, "invalid_api_key").is_ok().then_some(())))
        .await?;
    ensure!(revoked.elapsed() < Duration::from_secs(2), "refused only after {:?}", revoked.elapsed());
    Ok(())
}

/// The budget is made when nothing of it was counted: what was spent before fills it.
pub async fn hard_budget(stack: &Stack) -> Result<()> {
    let person = Person::sign_up(stack).await?;
    let client = person.openai(&person.key);
    client.chat().create(request("sim-small", false)?).await?;
    stack.eventually("a usage row", async || Ok((person.usage().await?.len() == 1).then_some(()))).await?;
    let budget = person.limit_spending(1).await?;
    stack
        .eventually("the refusal", async || {
            let outcome = client.chat().create(request("sim-small", false)?).await;
            Ok(expect_error(outcome, 402, "spend_limit_exceeded").is_ok().then_some(()))
        })
        .await?;
    person.end_budget(&budget).await?;
    stack.eventually("an answer", async || Ok(client.chat().create(request("sim-small", false)?).await.is_ok().then_some(()))).await?;
    agree(stack, &person, false).await
}
