//! `billing-bench`: figures of billing-service as JSON; `tools/loadreport` makes tables of them.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use gateway_bench::billing::{Figure, Point, SECRET, Size, acknowledgements, export, point};
use gateway_bench::load::Target;
use gateway_bench::stack::{Programs, Stack, Wishes};
use serde_json::json;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    programs: Programs,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Usage rows that wait to be posted.
    #[arg(long, default_value_t = 5_000)]
    rows: usize,
    /// Numbers of wallets to compare; all but this comparison is made with the second of them.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 1_000])]
    wallets: Vec<usize>,
    /// Numbers of usage rows that are there already, to compare; 10000000 takes minutes and some 6 GB.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 100_000])]
    there: Vec<u64>,
    /// Compare from one process of billing-service to so many.
    #[arg(long, default_value_t = 2)]
    replicas: usize,
    /// Rows to be exported; more when more are there.
    #[arg(long, default_value_t = 100_000)]
    exported: u64,
}

impl Arguments {
    /// One thing grows at a time. Rows only come, so what has the most of them is measured last.
    fn sizes(&self) -> Vec<Size> {
        let (mut there, usual) = (self.there.clone(), self.wallets.get(1).or(self.wallets.first()).copied().unwrap_or(1));
        there.sort_unstable();
        let least = there.first().copied().unwrap_or(0);
        let wallets = self.wallets.iter().map(|wallets| Size { wallets: (*wallets).max(1), there: least, replicas: 1 });
        let replicas = (2..=self.replicas).map(|replicas| Size { wallets: usual, there: least, replicas });
        let rows = there.iter().skip(1).map(|there| Size { wallets: usual, there: *there, replicas: 1 });
        wallets.chain(replicas).chain(rows).collect()
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let http = chassis::http::client::builder().timeout(Duration::from_mins(30)).build()?;
    let wishes = Wishes {
        is_unpinned: true,
        is_as_deployed: true,
        billing: vec![("STRIPE_WEBHOOK_SECRETS", SECRET.to_owned()), ("BILLING_LEASE_MS", "3600000".to_owned())],
        ..Wishes::default()
    };
    let mut stack = Stack::with(&arguments.programs, &http, &wishes).await?;
    let mut figures = start(&mut stack)?;
    // A customer with one usage row, of which the rows that are there already and those of the export are made.
    let target = Target { lane: "gateway", base: stack.base("chat-service")?, key: stack.key.clone(), stream: false };
    target.measure(&http, 1, Duration::from_millis(1), 0).await?;
    let (time, mut scaling) = (Duration::from_secs(arguments.seconds), Vec::<Point>::new());
    for size in arguments.sizes() {
        scaling.push(point(&mut stack, &http, size, arguments.rows, time).await.with_context(|| format!("{size:?}"))?);
    }
    figures.extend(acknowledgements(&http, &stack.base("billing-service")?, 200, time).await?);
    figures.extend(export(&mut stack, &http, arguments.exported).await.context("the export")?);
    let report = json!({"seconds": arguments.seconds, "rows": arguments.rows, "figures": figures, "scaling": scaling});
    writeln!(std::io::stdout(), "{report:#}")?;
    Ok(())
}

/// Of a process that has served nobody yet.
fn start(stack: &mut Stack) -> Result<Vec<Figure>> {
    let billing = stack.program("billing-service")?;
    let megabytes = f64::from(u32::try_from(billing.resident_bytes()? / 1024)?) / 976.5625;
    Ok(vec![
        Figure::new("billing-service ready after exec", billing.ready.as_secs_f64() * 1000.0, "ms"),
        Figure::new("memory of billing-service, idle", megabytes, "MB"),
    ])
}
