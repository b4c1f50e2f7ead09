//! Kills programs of the stack at random instants under load, and then looks at the books: the model provider's own ledger, the usage
//! rows and the double-entry ledger must agree to the token and the micro, with nothing left on hold [B-58]; every event of Stripe that was
//! acknowledged is there and was worked through once [B-10] [B-14].
//!
//! Real programs over a real Postgres and Redis, without containers. `SIGKILL` for chat, billing, auth, the provider, Redis and Postgres;
//! now and then `SIGTERM`, after which a service must have ended by itself with status 0 [B-81] [B21].

mod books;
mod kills;
mod load;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use gateway_bench::stack::{Programs, Stack, Wishes};
use serde_json::json;

/// Organizations that are charged.
const PEOPLE: usize = 4;
/// What each has: enough for everything.
pub const GRANT: i64 = 1_000_000_000_000;
/// Kills between two looks at the books.
const ROUND: usize = 30;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    programs: Programs,
    /// Programs to be ended.
    #[arg(long, default_value_t = 60)]
    kills: usize,
    /// Which random instants.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Where the provider's ledger outlives its process.
fn ledger_file() -> PathBuf {
    std::env::temp_dir().join(format!("trivet-kill-drill-{}", std::process::id()))
}

/// Deadlines so short that the requests of a dead process are settled while we look.
fn wishes() -> Wishes {
    let set = |name, value: &str| (name, value.to_owned());
    Wishes {
        is_unpinned: true,
        is_durable: true,
        simulator: ["--ttfb-ms", "5", "--pace-ms", "5", "--output-tokens", "24", "--ledger-file", &ledger_file().display().to_string()]
            .map(ToOwned::to_owned)
            .to_vec(),
        billing: vec![
            set("BILLING_SIGNUP_GRANT_MICROS", &GRANT.to_string()),
            set("BILLING_LEASE_MS", "2000"),
            set("BILLING_LEASE_DRAIN_MS", "6000"),
            set("BILLING_SWEEP_MS", "200"),
            set("STRIPE_WEBHOOK_SECRETS", load::WEBHOOK_SECRET),
        ],
        chat: vec![set("CHAT_DEADLINE_MS", "3000"), set("CHAT_RESERVATION_MARGIN_MS", "1000"), set("CHAT_CHECKPOINT_MS", "50")],
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let http = chassis::http::client::builder().timeout(Duration::from_secs(15)).build()?;
    let mut stack = Stack::with(&arguments.programs, &http, &wishes()).await?;
    let mut keys = Vec::new();
    for number in 0..PEOPLE {
        keys.push(stack.sign_up(&http, &format!("person-{number}@example.com")).await?);
    }
    let mut killer = kills::Killer::new(arguments.seed);
    let (mut events, mut answers) = (Vec::new(), load::Answers::new());
    let mut books = books::Books::default();
    let mut left = arguments.kills;
    while left > 0 {
        let load = load::Load::begin(&http, &stack.base("chat-service")?, &stack.base("billing-service")?, &keys);
        let ended = killer.round(&mut stack, &http, left.min(ROUND)).await;
        let (seen, acknowledged) = load.end().await?;
        for (answer, times) in seen {
            *answers.entry(answer).or_default() += times;
        }
        events.extend(acknowledged);
        ended?;
        left -= left.min(ROUND);
        books = books::agree(&mut stack, &http, &events).await?;
        writeln!(std::io::stderr(), "{left} kills left: {books:?}")?;
    }
    std::fs::remove_file(ledger_file())?;
    ensure!(answers.contains_key("complete"), "no request was ever answered: {answers:?}");
    writeln!(
        std::io::stdout(),
        "{:#}",
        json!({"seed": arguments.seed, "kills": killer.counts, "answers": answers, "books": books.report()})
    )?;
    Ok(())
}
