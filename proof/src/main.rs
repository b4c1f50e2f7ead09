//! Kills programs of the stack at random instants under load, and then looks at the books: the model provider's own ledger, the usage
//! rows and the double-entry ledger must agree to the token and the micro, with nothing left on hold [B-58]; every event of Stripe that was
//! acknowledged is there and was worked through once [B-10] [B-14], and what was paid at Stripe or went back is sold or taken back once, to
//! the cent, with a clean `stripe reconcile`; what another program reported counts once [B-55], and all sums are those of the rows [B-61].
//!
//! Real programs over a real Postgres and Redis, without containers. `SIGKILL` for chat, billing, auth, the provider, Stripe, Redis and Postgres;
//! now and then `SIGTERM`, after which a service must have ended by itself with status 0 [B-81] [B21].

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use gateway_bench::stack::{Programs, Stack, Wishes};
use kill_drill::coverage::FULL;
use kill_drill::{GRANT, books, incidents, kills, load, metrics, reports, shop, steps};
use serde_json::json;

/// Organizations that are charged.
const PEOPLE: usize = 4;
/// Of these so many buy as well.
const BUYERS: usize = 3;
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

/// What outlives the processes: the provider's ledger, Stripe's account, and the orders to end at a step.
fn folder() -> PathBuf {
    std::env::temp_dir().join(format!("trivet-kill-drill-{}", std::process::id()))
}

/// Deadlines so short that the requests of a dead process are settled while we look.
fn wishes(folder: &Path) -> Wishes {
    let set = |name, value: &str| (name, value.to_owned());
    let file = |name: &str| folder.join(name).display().to_string();
    let steps = |program: &str| (steps::FILE, steps::file(folder, program).display().to_string());
    Wishes {
        is_unpinned: true,
        is_durable: true,
        simulator: ["--ttfb-ms", "5", "--pace-ms", "5", "--output-tokens", "400", "--ledger-file", &file("served")]
            .map(ToOwned::to_owned)
            .to_vec(),
        // Stripe tells again for days: for most of a minute here, which is longer than anything is away.
        stripe: ["--webhook-secret", load::WEBHOOK_SECRET, "--state-file", &file("stripe"), "--durable", "--attempts", "9"]
            .map(ToOwned::to_owned)
            .to_vec(),
        auth: vec![steps("auth-service")],
        billing: vec![
            steps("billing-service"),
            set("STRIPE_SECRET_KEY", shop::SECRET_KEY),
            set("STRIPE_GAPS_MS", "2000"),
            set("BILLING_SIGNUP_GRANT_MICROS", &GRANT.to_string()),
            set("BILLING_LEASE_MS", "2000"),
            set("BILLING_LEASE_DRAIN_MS", "6000"),
            set("BILLING_SWEEP_MS", "200"),
            set("STRIPE_WEBHOOK_SECRETS", load::WEBHOOK_SECRET),
        ],
        chat: vec![
            steps("chat-service"),
            set("CHAT_DEADLINE_MS", &incidents::DEADLINE.to_string()),
            set("CHAT_RESERVATION_MARGIN_MS", &incidents::MARGIN.to_string()),
            set("CHAT_CHECKPOINT_MS", "50"),
        ],
        ..Wishes::default()
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let folder = folder();
    std::fs::create_dir_all(&folder)?;
    let http = chassis::http::client::builder().timeout(Duration::from_secs(15)).build()?;
    let mut stack = Stack::with(&arguments.programs, &http, &wishes(&folder)).await?;
    let (mut people, mut keys) = (Vec::new(), Vec::new());
    for number in 0..PEOPLE {
        people.push(format!("person-{number}@example.com"));
        keys.push(stack.sign_up(&http, &people[number]).await?);
    }
    shop::sell(&mut stack, &folder)?;
    let mut killer = kills::Killer::new(arguments.seed, folder.clone());
    let watch = metrics::Watch::begin(&http, &stack.billing_url);
    let (mut bought, mut told) = (0, books::Told::default());
    let mut answers = load::Answers::new();
    let mut books = books::Books::default();
    let mut left = arguments.kills;
    while left > 0 {
        let load = load::Load::begin(&http, &stack.base("chat-service")?, &stack.base("billing-service")?, &keys);
        let shop = shop::Shop::open(&stack, &http, &people[..BUYERS])?;
        let reports = reports::Reports::begin(&stack, &http, &people[0])?;
        let mut ended = killer.round(&mut stack, &http, left.min(ROUND)).await;
        if ended.is_ok() && left <= ROUND && arguments.kills >= FULL {
            ended = killer.rest(&mut stack, &http).await;
        }
        let (purchases, newcomers) = shop.close().await?;
        bought += purchases;
        told.begun.extend(newcomers);
        told.reported.extend(reports.end().await?);
        let (seen, acknowledged) = load.end().await?;
        for (answer, times) in seen {
            *answers.entry(answer).or_default() += times;
        }
        told.acknowledged.extend(acknowledged);
        ended?;
        left -= left.min(ROUND);
        books = books::agree(&mut stack, &http, &told, &killer.incidents).await?;
        writeln!(std::io::stderr(), "{left} kills left: {books:?}")?;
    }
    let abandoned = watch.end().await?;
    std::fs::remove_dir_all(folder)?;
    ensure!(answers.contains_key("complete"), "no request was ever answered: {answers:?}");
    ensure!(bought > 0, "nothing was ever bought");
    ensure!(!told.begun.is_empty(), "nobody ever signed up, signed in and exchanged tokens");
    ensure!(!told.reported.is_empty(), "no program ever reported anything");
    writeln!(
        std::io::stdout(),
        "{:#}",
        json!({"seed": arguments.seed, "kills": killer.counts, "answers": answers, "bought": bought, "newcomers": told.begun.len(),
            "steps": killer.coverage.report(), "books": books.report(), "metrics": abandoned})
    )?;
    killer.coverage.check(arguments.kills)
}
