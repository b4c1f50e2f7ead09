//! Somebody who uses the product: an account, a key, and the clients that they would use.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::types::chat::{ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequest, CreateChatCompletionRequestArgs};
use reqwest::Method;
use serde_json::{Value, json};

use crate::stack::{AUTH, BILLING, CHAT, Stack};

const PASSWORD: &str = "correct horse battery staple";

/// A signed-up person with an API key.
#[derive(Debug, Clone)]
pub struct Person {
    http: reqwest::Client,
    session: String,
    pub key: String,
    key_id: String,
    /// Requests that the simulator had served before: those of others.
    pub served_before: usize,
}

impl Person {
    /// Signs up, logs in, makes a key.
    pub async fn sign_up(stack: &Stack) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let email = format!("person-{}@example.com", COUNTER.fetch_add(1, Ordering::SeqCst));
        let post = |path: &str, body: Value| stack.http.post(format!("{AUTH}{path}")).json(&body);
        post("/v1/accounts", json!({"email": email, "password": PASSWORD, "name": "Ada"})).send().await?.error_for_status()?;
        let session: Value =
            post("/v1/sessions", json!({"email": email, "password": PASSWORD})).send().await?.error_for_status()?.json().await?;
        let session = session["access_token"].as_str().context("a token")?.to_owned();
        let made = post("/v1/api-keys", json!({"name": "e2e"})).bearer_auth(&session).send().await?.error_for_status()?;
        let made: Value = made.json().await?;
        let text = |field: &str| made[field].as_str().map(ToOwned::to_owned).context("a field of the key");
        let served_before = stack.served().await?.len();
        Ok(Self { http: stack.http.clone(), session, key: text("key")?, key_id: text("id")?, served_before })
    }

    /// Revokes the key.
    pub async fn revoke_key(&self) -> Result<()> {
        let url = format!("{AUTH}/v1/api-keys/{}", self.key_id);
        self.http.request(Method::DELETE, url).bearer_auth(&self.session).send().await?.error_for_status()?;
        Ok(())
    }

    /// Makes a hard budget of a day for the organization; its path.
    pub async fn limit_spending(&self, micros: i64) -> Result<String> {
        let body =
            json!({"name": "e2e", "scope": "organization", "period": "day", "limit_micros": micros, "currency": "USD", "hard": true});
        let made = self.http.post(format!("{BILLING}/v1/budgets")).bearer_auth(&self.session).json(&body).send().await?;
        let made: Value = made.error_for_status()?.json().await?;
        Ok(format!("/v1/budgets/{}", made["id"].as_str().context("an id")?))
    }

    /// Ends a budget.
    pub async fn end_budget(&self, path: &str) -> Result<()> {
        let url = format!("{BILLING}{path}");
        self.http.request(Method::DELETE, url).bearer_auth(&self.session).send().await?.error_for_status()?;
        Ok(())
    }

    /// The unmodified OpenAI client, with a key.
    pub fn openai(&self, key: &str) -> Client<OpenAIConfig> {
        let config = OpenAIConfig::new().with_api_base(format!("{CHAT}/v1")).with_api_key(key);
        Client::build(self.http.clone(), config)
    }

    async fn billing(&self, path: &str) -> Result<Value> {
        let answer = self.http.get(format!("{BILLING}{path}")).bearer_auth(&self.key).send().await?.error_for_status()?;
        Ok(answer.json().await?)
    }

    /// Asks billing-service for something, as a part of the caller's trace.
    pub async fn post_in(&self, trace: &str, path: &str, body: &Value) -> Result<Value> {
        let request = self.http.post(format!("{BILLING}{path}")).header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
        answer(path, request.bearer_auth(&self.session).json(body)).await
    }

    /// Sets something at billing-service.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value> {
        self.write(Method::PUT, path, body).await
    }

    async fn write(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        answer(path, self.http.request(method, format!("{BILLING}{path}")).bearer_auth(&self.session).json(body)).await
    }

    /// Available and held, in micro-units.
    pub async fn balance(&self) -> Result<(i64, i64)> {
        let balance = self.billing("/v1/balance").await?;
        let amount = |field: &str| balance[field].as_i64().context("an amount");
        Ok((amount("available_micros")?, amount("held_micros")?))
    }

    /// All usage rows.
    pub async fn usage(&self) -> Result<Vec<Value>> {
        let (mut rows, mut path) = (Vec::new(), "/v1/usage".to_owned());
        loop {
            let page = self.billing(&path).await?;
            rows.extend(page["data"].as_array().context("rows")?.iter().cloned());
            match page["next_cursor"].as_str() {
                Some(cursor) => path = format!("/v1/usage?cursor={cursor}"),
                None => return Ok(rows),
            }
        }
    }

    /// All ledger transactions' entries on the wallet, summed.
    pub async fn ledger_sum(&self) -> Result<i64> {
        let (mut sum, mut path) = (0, "/v1/ledger/transactions".to_owned());
        loop {
            let page = self.billing(&path).await?;
            for transaction in page["data"].as_array().context("transactions")? {
                let entries = transaction["entries"].as_array().context("entries")?;
                sum += entries.iter().filter_map(|entry| entry["amount_micros"].as_i64()).sum::<i64>();
            }
            match page["next_cursor"].as_str() {
                Some(cursor) => path = format!("/v1/ledger/transactions?cursor={cursor}"),
                None => return Ok(sum),
            }
        }
    }
}

async fn answer(path: &str, request: reqwest::RequestBuilder) -> Result<Value> {
    let answer = request.send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status.is_success(), "{path}: {status} {text}");
    Ok(serde_json::from_str(&text)?)
}

/// A small request.
pub fn request(model: &str, stream: bool) -> Result<CreateChatCompletionRequest> {
    let message = ChatCompletionRequestUserMessageArgs::default().content("Say something").build()?;
    Ok(CreateChatCompletionRequestArgs::default()
        .model(model)
        .max_completion_tokens(32_u32)
        .stream(stream)
        .messages(vec![message.into()])
        .build()?)
}

/// Fails unless the error is the API's own, with this status and code.
pub fn expect_error<T>(outcome: Result<T, OpenAIError>, status: u16, code: &str) -> Result<()> {
    match outcome {
        Err(OpenAIError::ApiError(error)) => {
            ensure!(error.status_code.as_u16() == status, "status {} instead of {status}", error.status_code);
            ensure!(error.api_error.code.as_deref() == Some(code), "code {:?} instead of {code}", error.api_error.code);
            Ok(())
        }
        Err(other) => anyhow::bail!("another error than the API's: {other}"),
        Ok(_) => anyhow::bail!("no error"),
    }
}
