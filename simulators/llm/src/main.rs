//! llm-simulator: the simulator as a program.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use llm_simulator::{DEFAULT_BIND, Knobs, Options, Simulator};
use tokio::signal::unix::{SignalKind, signal};

const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// A model provider for tests, demos and load.
#[derive(Debug, Parser)]
struct Arguments {
    /// Address to listen on.
    #[arg(long, global = true, default_value_t = DEFAULT_BIND)]
    bind: SocketAddr,
    /// File that keeps the ledger over a restart; without it the ledger is in memory.
    #[arg(long)]
    ledger_file: Option<PathBuf>,
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
    match arguments.command {
        Some(Command::Healthcheck) => healthcheck(arguments.bind),
        None => serve(Options { bind: arguments.bind, knobs: arguments.knobs, ledger_file: arguments.ledger_file }),
    }
}

#[tokio::main]
async fn serve(options: Options) -> anyhow::Result<()> {
    tracing_subscriber::fmt().json().init();
    // Beside the start: it takes a second, and only who asks first may have to wait for it.
    std::thread::spawn(llm_simulator::warm_up);
    let running = Simulator::start(options).await.context("the simulator cannot start")?;
    tracing::info!(server.address = %running.address, "the simulator is ready");
    let mut terminated = signal(SignalKind::terminate()).context("signals cannot be received")?;
    tokio::select! {
        _ = terminated.recv() => {}
        outcome = tokio::signal::ctrl_c() => outcome.context("signals cannot be received")?,
    }
    Ok(())
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
