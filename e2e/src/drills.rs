//! What goes wrong in production, on purpose and under load; afterwards the books must agree.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::StreamExt;
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::person::{Person, request};
use crate::reconcile::agree;
use crate::stack::Stack;

const CLIENTS: usize = 8;
const REQUESTS: usize = 6;

/// Requests of several clients, half of them streamed; whether each succeeds is not the question.
pub fn load(person: &Person) -> JoinHandle<usize> {
    let person = person.clone();
    tokio::spawn(async move {
        let clients = (0..CLIENTS).map(|client| {
            let openai = person.openai(&person.key);
            async move {
                let mut succeeded = 0;
                for number in 0..REQUESTS {
                    let stream = (client + number) % 2 == 0;
                    let Ok(request) = request("sim-small", stream) else { continue };
                    if stream {
                        let Ok(stream) = openai.chat().create_stream(request).await else { continue };
                        succeeded += usize::from(stream.collect::<Vec<_>>().await.iter().all(Result::is_ok));
                    } else {
                        succeeded += usize::from(openai.chat().create(request).await.is_ok());
                    }
                }
                succeeded
            }
        });
        join_all(clients).await.into_iter().sum()
    })
}

/// Slow enough that a fault meets requests in every state.
pub fn slow() -> Value {
    json!({"ttfb_ms": 20, "pace_ms": 15})
}

/// Waits until requests are under way.
pub async fn under_way(stack: &Stack, person: &Person) -> Result<()> {
    stack.eventually("the first usage row", async || Ok((!person.usage().await?.is_empty()).then_some(()))).await
}

/// After a fault: recovery by itself, books that agree, and a request that works.
pub async fn aftermath(stack: &Stack, person: &Person, load: JoinHandle<usize>, chat_was_killed: bool) -> Result<()> {
    load.await?;
    stack.recovered().await?;
    stack.knobs(&json!({})).await?;
    stack
        .eventually("a request that works again", async || {
            Ok(person.openai(&person.key).chat().create(request("sim-small", false)?).await.is_ok().then_some(()))
        })
        .await?;
    agree(stack, person, chat_was_killed).await
}

pub async fn killed(stack: &Stack, service: &str) -> Result<()> {
    let person = Person::sign_up(stack).await?;
    stack.knobs(&slow()).await?;
    let load = load(&person);
    under_way(stack, &person).await?;
    stack.kill(service)?;
    aftermath(stack, &person, load, service == "chat-service").await
}

pub async fn paused(stack: &Stack, service: &str) -> Result<()> {
    let person = Person::sign_up(stack).await?;
    stack.knobs(&slow()).await?;
    let load = load(&person);
    under_way(stack, &person).await?;
    stack.compose(&["pause", service])?;
    // How long the outage lasts is the drill, not synchronization.
    tokio::time::sleep(Duration::from_secs(3)).await;
    stack.compose(&["unpause", service])?;
    aftermath(stack, &person, load, false).await
}

pub async fn client_leaves(stack: &Stack) -> Result<()> {
    let person = Person::sign_up(stack).await?;
    stack.knobs(&json!({"pace_ms": 10, "output_tokens": 30})).await?;
    for _ in 0..4 {
        let mut stream = person.openai(&person.key).chat().create_stream(request("sim-small", true)?).await?;
        for _ in 0..3 {
            let _ = stream.next().await;
        }
    }
    stack.eventually("four usage rows", async || Ok((person.usage().await?.len() == 4).then_some(()))).await?;
    stack.knobs(&json!({})).await?;
    agree(stack, &person, false).await
}

pub async fn provider_cuts(stack: &Stack) -> Result<()> {
    let person = Person::sign_up(stack).await?;
    stack.knobs(&json!({"pace_ms": 5, "cut_after": 7})).await?;
    for _ in 0..3 {
        let stream = person.openai(&person.key).chat().create_stream(request("sim-small", true)?).await?;
        let items = stream.collect::<Vec<_>>().await;
        ensure!(items.iter().any(Result::is_err), "a cut stream looked like a clean end");
    }
    stack.eventually("three usage rows", async || Ok((person.usage().await?.len() == 3).then_some(()))).await?;
    stack.knobs(&json!({})).await?;
    agree(stack, &person, false).await
}

pub async fn provider_hangs(stack: &Stack) -> Result<()> {
    let person = Person::sign_up(stack).await?;
    stack.knobs(&json!({"hang": true})).await?;
    let refused = person.openai(&person.key).chat().create(request("sim-small", false)?).await;
    ensure!(refused.is_err(), "a provider that hangs answered");
    stack.knobs(&json!({})).await?;
    agree(stack, &person, false).await
}

/// H-41
pub async fn stops_cleanly(stack: &Stack) -> Result<()> {
    let services = ["auth-service", "billing-service", "chat-service"];
    stack.compose(&[&["stop"][..], &services].concat())?;
    for service in services {
        let listed: Value = serde_json::from_str(stack.compose(&["ps", "--all", "--format", "json", service])?.trim())?;
        ensure!(listed["ExitCode"] == 0, "{service} ended with {}", listed["ExitCode"]);
    }
    stack.compose(&["up", "--detach", "--wait"])?;
    stack.recovered().await
}
