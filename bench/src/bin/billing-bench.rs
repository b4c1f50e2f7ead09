//! `billing-bench`: figures of billing-service as JSON; `tools/loadreport` makes tables of them.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use gateway_bench::admission::{Gateway, Way};
use gateway_bench::billing::{SECRET, acknowledgements, export, settled_rows};
use gateway_bench::load::Target;
use gateway_bench::stack::{ISSUER, Programs, Stack, Wishes};
use serde_json::json;

/// What a lease of a wallet must hold for a request, in micro-units.
const EACH: i64 = 1500;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    programs: Programs,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Usage rows that wait to be posted.
    #[arg(long, default_value_t = 20_000)]
    rows: usize,
    /// Wallets that are many.
    #[arg(long, default_value_t = 10_000)]
    wallets: usize,
    /// Rows to be exported.
    #[arg(long, default_value_t = 200_000)]
    exported: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let http = chassis::http::client::builder().timeout(Duration::from_mins(10)).build()?;
    let wishes = Wishes {
        billing: vec![("STRIPE_WEBHOOK_SECRETS", SECRET.to_owned()), ("BILLING_LEASE_MS", "3600000".to_owned())],
        ..Wishes::default()
    };
    let mut stack = Stack::with(&arguments.programs, &http, &wishes).await?;
    // A customer with one usage row, for the export.
    let target = Target { lane: "gateway", base: stack.base("chat-service")?, key: stack.key.clone(), stream: false };
    target.measure(&http, 1, Duration::from_millis(1), 0).await?;
    let (mut figures, mut admissions) = (Vec::new(), Vec::new());
    for (kind, wallets) in [("one wallet", 1), ("many wallets", arguments.wallets)] {
        let urls = (ISSUER, stack.auth_url.as_str(), stack.billing_url.as_str());
        let each = EACH * i64::try_from(arguments.rows.div_ceil(wallets) + 100)?;
        let gateway = Gateway::start(urls, &stack.chat_key, stack.redis.redis.clone(), http.clone(), wallets, each).await?;
        figures.push(settled_rows(&mut stack, &http, &gateway, kind, arguments.rows).await?);
        for concurrency in [1, 32] {
            admissions.push(gateway.measure(Way::Lease, kind, concurrency, Duration::from_secs(arguments.seconds), 0).await?);
        }
    }
    figures.extend(acknowledgements(&http, &stack.base("billing-service")?, 200, Duration::from_secs(arguments.seconds)).await?);
    figures.extend(export(&mut stack, &http, arguments.exported).await.context("the export")?);
    let report = json!({"seconds": arguments.seconds, "wallets": arguments.wallets, "figures": figures, "admissions": admissions});
    writeln!(std::io::stdout(), "{report:#}")?;
    Ok(())
}
