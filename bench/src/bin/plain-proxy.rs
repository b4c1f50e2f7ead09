//! `plain-proxy ADDRESS UPSTREAM`: forwards, and does nothing else: what a gateway costs on top of it is the gateway's own.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use reqwest::{Client, StatusCode};

#[derive(Debug, Clone)]
struct Upstream {
    client: Client,
    url: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address: SocketAddr = arguments.next().context("usage: plain-proxy ADDRESS UPSTREAM")?.parse()?;
    let upstream = arguments.next().context("usage: plain-proxy ADDRESS UPSTREAM")?;
    let client = chassis::http::client::builder().build()?;
    let state = Upstream { client, url: format!("{upstream}/v1/chat/completions") };
    let router = Router::new().route("/v1/chat/completions", post(forward)).route("/health", get(|| async { "ok" })).with_state(state);
    let listener = tokio::net::TcpListener::bind(address).await?;
    Ok(axum::serve(axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true))), router).await?)
}

async fn forward(State(upstream): State<Upstream>, body: Bytes) -> Result<Response, StatusCode> {
    let sent = upstream.client.post(&upstream.url).header("content-type", "application/json").body(body).send().await;
    let answer = sent.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    *response.body_mut() = Body::from_stream(answer.bytes_stream());
    Ok(response)
}
