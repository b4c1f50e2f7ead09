//! stripe-simulator: the simulator as a program.

use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use stripe_simulator::{AfterRetries, DEFAULT_BIND, Knobs, Options, Settings, Start, StripeSimulator, Webhook};
use tokio::signal::unix::{SignalKind, signal};

const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// A Stripe for tests, demos and load.
#[derive(Debug, Parser)]
struct Arguments {
    /// Address to listen on.
    #[arg(long, global = true, default_value_t = DEFAULT_BIND)]
    bind: SocketAddr,
    /// Where a browser finds this: the base of the pages of checkout and portal.
    #[arg(long)]
    public_url: Option<String>,
    /// Ids and all chance come from it; without it each start has another: whoever kept ids of an earlier account meets none of them again.
    #[arg(long)]
    seed: Option<u64>,
    /// Instant (seconds since 1970) at which the global clock stands still; without it, it is the system's.
    #[arg(long)]
    start_at: Option<i64>,
    /// Where events are sent; may be repeated.
    #[arg(long)]
    webhook: Vec<String>,
    /// What they are signed with; several make several signatures.
    #[arg(long)]
    webhook_secret: Vec<String>,
    /// File with more of them, commas between, as billing-service reads them.
    #[arg(long)]
    webhook_secrets_file: Option<PathBuf>,
    /// What becomes of a subscription that could not be paid after all retries.
    #[arg(long, value_enum, default_value_t)]
    after_retries: AfterRetries,
    /// Requests of the API that are admitted in a second, beyond which they are refused with 429; any number without it.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    requests_per_second: Option<u32>,
    /// Keep the account in this file, so that it is the same after a restart.
    #[arg(long)]
    state_file: Option<PathBuf>,
    /// Answer, and send an event, only after the file has all of it: nothing that anybody was told of is lost when this is killed.
    #[arg(long, requires = "state_file")]
    durable: bool,
    #[command(flatten)]
    knobs: Knobs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask the running simulator whether it lives; for container health checks.
    Healthcheck,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if matches!(arguments.command, Some(Command::Healthcheck)) {
        return healthcheck(arguments.bind);
    }
    let mut secrets = arguments.webhook_secret;
    if let Some(file) = arguments.webhook_secrets_file {
        let text = std::fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        secrets.extend(text.split(',').map(str::trim).filter(|secret| !secret.is_empty()).map(str::to_owned));
    }
    serve(Options {
        bind: arguments.bind,
        public_url: arguments.public_url,
        // A new hasher's keys are the system's randomness.
        seed: arguments.seed.unwrap_or_else(|| RandomState::new().hash_one(())),
        start: arguments.start_at.map_or(Start::Now, Start::At),
        webhooks: arguments.webhook.into_iter().map(|url| Webhook { url, secrets: secrets.clone() }).collect(),
        knobs: arguments.knobs,
        settings: Settings {
            after_retries: arguments.after_retries,
            requests_per_second: arguments.requests_per_second,
            ..Settings::default()
        },
        state_file: arguments.state_file,
        durable: arguments.durable,
    })
}

#[tokio::main]
async fn serve(options: Options) -> anyhow::Result<()> {
    tracing_subscriber::fmt().json().init();
    let running = StripeSimulator::start(options).await.context("the simulator cannot start")?;
    tracing::info!(server.address = %running.address, "the simulator is ready");
    let mut terminated = signal(SignalKind::terminate()).context("signals cannot be received")?;
    tokio::select! {
        _ = terminated.recv() => {}
        outcome = tokio::signal::ctrl_c() => outcome.context("signals cannot be received")?,
    }
    running.save().context("the account cannot be kept")
}

fn healthcheck(bind: SocketAddr) -> anyhow::Result<()> {
    let ip = if bind.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { bind.ip() };
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(ip, bind.port()), HEALTHCHECK_TIMEOUT).context("nobody listens")?;
    stream.set_read_timeout(Some(HEALTHCHECK_TIMEOUT))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("no answer came")?;
    anyhow::ensure!(answer.starts_with("HTTP/1.1 200 "), "the answer was not 200");
    Ok(())
}
