//! `gateway-bench`: prints the raw figures as JSON; `tools/loadreport` makes a table of them.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use gateway_bench::admission::{Gateway, Way};
use gateway_bench::load::{Measured, Target};
use gateway_bench::stack::{ISSUER, Programs, Stack};
use serde_json::{Value, json};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    programs: Programs,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Rounds; each measures every lane once, in turned order.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Clients at once.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32])]
    concurrency: Vec<usize>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let http = chassis::http::client::builder().timeout(Duration::from_secs(30)).build()?;
    let stack = Stack::start(&arguments.programs, &http).await?;
    let memory_idle = memory(&stack)?;
    let mut measured = measure(&arguments, &stack, &http).await?;
    measured.extend(measure_admission(&arguments, &stack, &http).await?);
    let ready: Value = stack.running.iter().map(|running| (running.name.to_owned(), json!(running.ready.as_secs_f64() * 1000.0))).collect();
    let report = json!({
        "seconds": arguments.seconds,
        "ready_ms": ready,
        "resident_bytes_idle": memory_idle,
        "resident_bytes_after_load": memory(&stack)?,
        "measured": measured,
    });
    writeln!(std::io::stdout(), "{report:#}")?;
    Ok(())
}

/// Money alone: from a lease, and by a call for each request; on one wallet and on many.
async fn measure_admission(arguments: &Arguments, stack: &Stack, http: &reqwest::Client) -> Result<Vec<Measured>> {
    let mut measured = Vec::new();
    for (kind, wallets) in [("one wallet", 1), ("1000 wallets", 1000)] {
        let urls = (ISSUER, stack.auth_url.as_str(), stack.billing_url.as_str());
        let gateway = Gateway::start(urls, &stack.chat_key, stack.redis.redis.clone(), http.clone(), wallets, 150_000).await?;
        for round in 0..arguments.rounds {
            for &concurrency in &arguments.concurrency {
                for way in [Way::CallPerRequest, Way::Lease] {
                    measured.push(gateway.measure(way, kind, concurrency, Duration::from_secs(arguments.seconds), round).await?.0);
                }
            }
        }
    }
    Ok(measured)
}

/// Resident memory of each program.
fn memory(stack: &Stack) -> Result<Value> {
    stack.running.iter().map(|running| Ok((running.name.to_owned(), json!(running.resident_bytes()?)))).collect()
}

/// All lanes side by side, round after round: a machine that becomes slower does so for all.
async fn measure(arguments: &Arguments, stack: &Stack, http: &reqwest::Client) -> Result<Vec<Measured>> {
    let mut targets = Vec::new();
    for stream in [false, true] {
        for (lane, name) in [("direct", "llm-simulator"), ("plain proxy", "plain-proxy"), ("gateway", "chat-service")] {
            targets.push(Target { lane, base: stack.base(name)?, key: stack.key.clone(), stream });
        }
    }
    for target in &targets {
        target.measure(http, 4, Duration::from_secs(1), 0).await?;
    }
    let mut measured = Vec::new();
    for round in 0..arguments.rounds {
        targets.rotate_left(1);
        for &concurrency in &arguments.concurrency {
            for target in &targets {
                measured.push(target.measure(http, concurrency, Duration::from_secs(arguments.seconds), round).await?);
            }
        }
    }
    Ok(measured)
}
