//! The simulator over HTTP, as a gateway and its tests see it.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::error::Error;
use std::io::{self, ErrorKind};
use std::iter::successors;

use llm_simulator::{Ended, Knobs, LedgerPage, LedgerRow, Options, Running, Simulator, UsageFrames};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

struct Client {
    inner: reqwest::Client,
    simulator: Running,
}

/// A stream as far as it came.
#[derive(Debug, Default)]
struct Stream {
    events: Vec<Value>,
    done: bool,
    broken: bool,
    reset: bool,
}

impl Stream {
    /// The text of a choice.
    fn text(&self, choice: u64) -> String {
        let choices = self.events.iter().filter_map(|event| event["choices"].as_array()).flatten();
        choices.filter(|found| found["index"] == choice).filter_map(|found| found["delta"]["content"].as_str()).collect()
    }

    /// Tokens of all choices, counted from the text.
    fn tokens(&self) -> u64 {
        (0..8).map(|choice| count(&self.text(choice))).sum()
    }

    fn finish_reasons(&self) -> Vec<&str> {
        let choices = self.events.iter().filter_map(|event| event["choices"].as_array()).flatten();
        choices.filter_map(|choice| choice["finish_reason"].as_str()).collect()
    }
}

fn count(text: &str) -> u64 {
    tokenizer::count(text)
}

impl Client {
    async fn start(knobs: Knobs) -> Self {
        Self::with(Options { knobs, ..Options::default() }).await
    }

    async fn with(options: Options) -> Self {
        // Fails when it is installed already, which is what we want.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let inner = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { inner, simulator: Simulator::start(options).await.unwrap() }
    }

    /// A request with the id `req_1`; `extra` goes over its fields.
    fn ask(&self, extra: &Value) -> RequestBuilder {
        let mut body = json!({"model": "sim-small", "messages": [{"role": "user", "content": "hello world"}]});
        for (name, value) in extra.as_object().unwrap() {
            body[name] = value.clone();
        }
        let url = format!("{}/chat/completions", self.simulator.base_url);
        self.inner.post(url).header("x-request-id", "req_1").json(&body)
    }

    async fn whole(&self, extra: Value) -> (u16, Value) {
        let response = self.ask(&extra).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn stream(&self, extra: Value) -> Stream {
        let mut extra = extra;
        extra["stream"] = true.into();
        let response = self.ask(&extra).send().await.unwrap();
        assert_eq!(response.status(), 200);
        read(response).await
    }

    async fn get(&self, path: &str) -> Value {
        self.inner.get(format!("{}{path}", self.simulator.control_url)).send().await.unwrap().json().await.unwrap()
    }
}

/// The errors of the operating system behind an error.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &io::Error> {
    successors(error.source(), |cause| (*cause).source()).filter_map(|cause| cause.downcast_ref())
}

/// Reads a stream to its end, good or bad.
async fn read(mut response: Response) -> Stream {
    let mut bytes = Vec::new();
    let mut stream = Stream::default();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => {
                stream.broken = true;
                stream.reset = causes(&error).any(|cause| cause.kind() == ErrorKind::ConnectionReset);
                break;
            }
        }
    }
    let text = String::from_utf8(bytes).unwrap();
    for event in text.split_terminator("\n\n") {
        let data = event.strip_prefix("data: ").unwrap();
        if data == "[DONE]" {
            stream.done = true;
        } else {
            assert!(!stream.done, "a frame after [DONE]");
            stream.events.push(serde_json::from_str(data).unwrap());
        }
    }
    stream
}

/// What `hello world` by a user counts.
const PROMPT: u64 = 3 + 1 + 2 + 3;

fn row(input_tokens: u64, output_tokens: u64, ended: Ended) -> LedgerRow {
    LedgerRow { request_id: "req_1".to_owned(), model: "sim-small".to_owned(), input_tokens, output_tokens, ended }
}

#[tokio::test]
async fn a_whole_answer_its_usage_and_the_ledger_say_the_same() {
    let client = Client::start(Knobs { output_tokens: 40, ..Knobs::default() }).await;
    let (status, answer) = client.whole(json!({"n": 2})).await;
    assert_eq!((status, &answer["object"]), (200, &json!("chat.completion")));
    let texts: Vec<&str> =
        answer["choices"].as_array().unwrap().iter().map(|choice| choice["message"]["content"].as_str().unwrap()).collect();
    assert_eq!(texts.iter().map(|text| count(text)).collect::<Vec<_>>(), [40, 40]);
    assert_ne!(texts[0], texts[1]);
    assert_eq!(answer["usage"]["prompt_tokens"], PROMPT);
    assert_eq!(answer["usage"]["completion_tokens"], 80);
    assert_eq!(client.simulator.ledger(), [row(PROMPT, 80, Ended::Completed)]);
}

#[tokio::test]
async fn a_stream_its_usage_and_the_ledger_say_the_same() {
    let client = Client::start(Knobs { output_tokens: 41, tokens_per_frame: 4, ..Knobs::default() }).await;
    let stream = client.stream(json!({"n": 2, "stream_options": {"include_usage": true}})).await;
    assert!(stream.done && !stream.broken);
    assert_eq!((count(&stream.text(0)), count(&stream.text(1))), (41, 41));
    assert_eq!(stream.finish_reasons(), ["stop", "stop"]);
    let (last, others) = stream.events.split_last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(82)));
    assert!(others.iter().all(|event| event.get("usage") == Some(&Value::Null)));
    assert_eq!(client.simulator.ledger(), [row(PROMPT, 82, Ended::Completed)]);
}

#[tokio::test]
async fn a_stream_says_what_the_whole_answer_says() {
    let client = Client::start(Knobs::default()).await;
    let (_, whole) = client.whole(json!({})).await;
    assert_eq!(client.stream(json!({})).await.text(0), whole["choices"][0]["message"]["content"].as_str().unwrap());
}

#[tokio::test]
async fn usage_comes_as_the_knob_says_and_only_when_asked_for() {
    let client = Client::start(Knobs::default()).await;
    let asked = json!({"stream_options": {"include_usage": true}});
    for (usage, early, last) in [
        (UsageFrames::NullFirst, Some(Value::Null), true),
        (UsageFrames::On, None, true),
        (UsageFrames::ZeroFirst, Some(json!(0)), true),
        (UsageFrames::Off, None, false),
    ] {
        client.simulator.set_knobs(Knobs { usage, ..Knobs::default() });
        let stream = client.stream(asked.clone()).await;
        let first = &stream.events[0];
        let found = first.get("usage").map(|usage| usage.get("completion_tokens").cloned().unwrap_or(Value::Null));
        assert_eq!(found, early, "{usage:?}");
        assert_eq!(stream.events.last().unwrap()["usage"]["completion_tokens"] == 16, last, "{usage:?}");
        let plain = client.stream(json!({})).await;
        assert!(plain.events.iter().all(|event| event.get("usage").is_none()), "{usage:?}");
        let (_, whole) = client.whole(json!({})).await;
        assert_eq!(whole.get("usage").is_some(), last, "{usage:?}");
    }
}

#[tokio::test]
async fn an_answer_is_no_longer_than_the_request_and_the_model_allow() {
    let client = Client::start(Knobs { output_tokens: 1_000_000, input_tokens: Some(5), ..Knobs::default() }).await;
    for (request, tokens) in [(json!({"max_tokens": 3}), 3), (json!({"max_completion_tokens": 7}), 7), (json!({}), 4096)] {
        let (_, answer) = client.whole(request.clone()).await;
        assert_eq!((&answer["usage"]["completion_tokens"], &answer["choices"][0]["finish_reason"]), (&json!(tokens), &json!("length")));
        assert_eq!(client.stream(request).await.finish_reasons(), ["length"]);
    }
    assert!(client.simulator.ledger().iter().all(|row| row.input_tokens == 5));
}

#[tokio::test]
async fn a_cut_resets_the_connection_after_exactly_so_many_tokens() {
    let client = Client::start(Knobs { output_tokens: 200, tokens_per_frame: 7, ..Knobs::default() }).await;
    for after in [0, 1, 13, 150, 400] {
        for _ in 0..20 {
            client.simulator.set_knobs(Knobs { cut_after: Some(after), ..Knobs::clone(&client.simulator.knobs()) });
            let stream = client.stream(json!({"n": 2})).await;
            assert!(stream.reset && !stream.done && stream.finish_reasons().is_empty());
            assert_eq!(stream.tokens(), after);
            assert_eq!(client.simulator.ledger().last(), Some(&row(PROMPT, after, Ended::Cut)));
        }
    }
}

#[tokio::test]
async fn a_whole_answer_that_is_cut_has_handed_over_nothing() {
    let client = Client::start(Knobs { cut_after: Some(1), ..Knobs::default() }).await;
    let response = client.ask(&json!({})).send().await.unwrap();
    assert!(response.bytes().await.is_err());
    assert_eq!(client.simulator.ledger(), [row(0, 0, Ended::Cut)]);
}

#[tokio::test]
async fn a_silence_in_mid_stream_lasts_until_the_client_leaves() {
    let client = Client::start(Knobs { hang_after: Some(5), ..Knobs::default() }).await;
    let mut response = client.ask(&json!({"stream": true})).send().await.unwrap();
    let mut text = String::new();
    while text.matches("data: ").count() < 6 {
        text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
    }
    assert_eq!((client.simulator.ledger(), client.get("/ledger").await["open"].as_u64()), (Vec::new(), Some(1)));
    drop(response);
    assert_eq!(client.simulator.ended(1).await, [row(PROMPT, 5, Ended::Hang)]);
}

#[tokio::test]
async fn a_silence_before_the_answer_lasts_until_the_client_leaves() {
    let client = Client::start(Knobs { hang: true, ..Knobs::default() }).await;
    let asked = tokio::spawn(client.ask(&json!({})).send());
    client.simulator.open(1).await;
    asked.abort();
    assert_eq!(client.simulator.ended(1).await, [row(0, 0, Ended::Hang)]);
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_is_charged_for_what_was_sent() {
    // An hour between the frames: the second is never sent.
    let client = Client::start(Knobs { pace_ms: 3_600_000, tokens_per_frame: 3, ..Knobs::default() }).await;
    let mut response = client.ask(&json!({"stream": true})).send().await.unwrap();
    let mut text = String::new();
    while text.matches("data: ").count() < 2 {
        text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
    }
    drop(response);
    assert_eq!(client.simulator.ended(1).await, [row(PROMPT, 3, Ended::ClientGone)]);
}

#[tokio::test]
async fn an_error_in_mid_stream_is_the_last_frame() {
    let client = Client::start(Knobs { error_after: Some(4), ..Knobs::default() }).await;
    let stream = client.stream(json!({})).await;
    assert!(!stream.done && !stream.broken);
    assert_eq!(stream.events.last().unwrap()["error"]["type"], "server_error");
    assert_eq!(stream.tokens(), 4);
    assert_eq!(client.simulator.ledger(), [row(PROMPT, 4, Ended::Error)]);
}

#[tokio::test]
async fn shares_of_requests_fail_or_are_limited_and_their_rows_have_no_tokens() {
    let client = Client::start(Knobs { error_percent: 20, error_status: 503, ..Knobs::default() }).await;
    let mut failed = 0;
    for _ in 0..100 {
        failed += u64::from(client.whole(json!({})).await.0 == 503);
    }
    assert_eq!(failed, 20);
    let rows = client.simulator.ledger();
    assert_eq!(rows.iter().filter(|found| **found == row(0, 0, Ended::Error)).count(), 20);
    assert_eq!(rows.iter().filter(|found| **found == row(PROMPT, 16, Ended::Completed)).count(), 80);

    let limited = client.ask(&json!({})).header("x-sim-limit-percent", "100").header("x-sim-retry-after-s", "7").send().await.unwrap();
    assert_eq!((limited.status().as_u16(), limited.headers()["retry-after"].to_str().unwrap()), (429, "7"));
    assert_eq!(limited.json::<Value>().await.unwrap()["error"]["code"], "rate_limit_exceeded");
    assert_eq!(client.simulator.ledger().last(), Some(&row(0, 0, Ended::Refused)));
}

#[tokio::test]
async fn a_header_turns_a_knob_for_its_request_alone() {
    let client = Client::start(Knobs::default()).await;
    let turned: Value = client.ask(&json!({})).header("x-sim-output-tokens", "3").send().await.unwrap().json().await.unwrap();
    assert_eq!(turned["usage"]["completion_tokens"], 3);
    assert_eq!(client.whole(json!({})).await.1["usage"]["completion_tokens"], 16);
    let wrong = client.ask(&json!({})).header("x-sim-colour", "red").send().await.unwrap();
    assert_eq!(wrong.status(), 400);
}

#[tokio::test]
async fn knobs_are_turned_and_undone_over_http() {
    let client = Client::start(Knobs::default()).await;
    let url = format!("{}/knobs", client.simulator.control_url);
    let set = client.inner.post(&url).json(&json!({"output_tokens": 2, "usage": "on"})).send().await.unwrap();
    assert_eq!(set.json::<Knobs>().await.unwrap(), Knobs { output_tokens: 2, usage: UsageFrames::On, ..Knobs::default() });
    assert_eq!(client.whole(json!({})).await.1["usage"]["completion_tokens"], 2);
    assert_eq!(client.inner.post(&url).json(&json!({"speed": 2})).send().await.unwrap().status(), 422);
    assert_eq!(client.inner.post(&url).json(&json!({})).send().await.unwrap().status(), 200);
    assert_eq!(*client.simulator.knobs(), Knobs::default());
}

#[tokio::test]
async fn what_is_no_proper_request_is_refused_as_openai_does() {
    let client = Client::start(Knobs::default()).await;
    let (status, answer) = client.whole(json!({"model": "gpt-0"})).await;
    assert_eq!((status, &answer["error"]["code"], &answer["error"]["param"]), (404, &json!("model_not_found"), &json!("model")));
    for wrong in [json!({"n": 0}), json!({"n": 129}), json!({"max_tokens": 0}), json!({"messages": []}), json!({"messages": 1})] {
        let (status, answer) = client.whole(wrong.clone()).await;
        assert_eq!((status, &answer["error"]["type"]), (400, &json!("invalid_request_error")), "{wrong}");
    }
    assert!(client.simulator.ledger().iter().all(|row| (row.output_tokens, row.ended) == (0, Ended::Refused)));
}

#[tokio::test]
async fn models_ledger_and_health_are_there() {
    let client = Client::start(Knobs::default()).await;
    let models = client.get("/v1/models").await;
    let ids: Vec<&str> = models["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["sim-small", "sim-large"]);
    assert_eq!(client.get("/v1/models/sim-large").await["object"], "model");
    assert_eq!(client.get("/v1/models/gpt-0").await["error"]["code"], "model_not_found");
    assert_eq!(client.get("/health").await["status"], "ok");
    client.whole(json!({})).await;
    let page: LedgerPage = serde_json::from_value(client.get("/ledger").await).unwrap();
    assert_eq!(page, LedgerPage { data: vec![row(PROMPT, 16, Ended::Completed)], open: 0, dropped: 0 });
}

#[tokio::test]
async fn a_ledger_with_a_file_outlives_its_process() {
    let file = std::env::temp_dir().join(format!("ledger-{}", std::process::id()));
    let options = Options { ledger_file: Some(file.clone()), ..Options::default() };
    let first = Client::with(options.clone()).await;
    first.whole(json!({})).await;
    let open = first.ask(&json!({"stream": true})).header("x-sim-hang-after", "2").send().await.unwrap();
    let mut open = open;
    let mut text = String::new();
    while text.matches("data: ").count() < 3 {
        text.push_str(std::str::from_utf8(&open.chunk().await.unwrap().unwrap()).unwrap());
    }

    // What a process that is killed here leaves behind, with half a line.
    let left = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{left}[9,{{\"request_id\":")).unwrap();
    let second = Client::with(options).await;
    assert_eq!(second.simulator.ledger(), [row(PROMPT, 16, Ended::Completed), row(PROMPT, 2, Ended::Killed)]);
    second.whole(json!({})).await;
    assert_eq!(second.simulator.ended(3).await.last(), Some(&row(PROMPT, 16, Ended::Completed)));
    std::fs::remove_file(&file).unwrap();
}
