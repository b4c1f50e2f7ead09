//! Do the simulator's ledger, the usage rows and the double-entry ledger agree, to the token and the micro?

use std::collections::{HashMap, HashSet};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::person::Person;
use crate::stack::Stack;

/// What a new organization of this stack gets.
pub const GRANT: i64 = 50_000;

/// The same for somebody who was given, or bought, so much.
pub async fn books_agree(stack: &Stack, person: &Person, credit: i64) -> Result<()> {
    compare(stack, person, false, credit).await
}

/// Waits until nothing is held, then compares. Rows may be `abandoned` only where a chat process was killed.
pub async fn agree(stack: &Stack, person: &Person, chat_was_killed: bool) -> Result<()> {
    compare(stack, person, chat_was_killed, GRANT).await
}

/// Nothing differs at Stripe, however young it is and however little it matters, but that somebody has bought nothing.
pub async fn stripe_agrees(stack: &Stack) -> Result<()> {
    let command = ["exec", "-T", "billing-service", "/app/billing-service", "stripe", "reconcile", "--grace", "0"];
    let is_expected = |line: &str| {
        let mut words = line.split_whitespace();
        !matches!(words.next(), Some("error" | "warning" | "info")) || words.next() == Some("customer_none")
    };
    // What the last event tells may be on its way.
    let agreement = async || {
        let done = stack.attempt(&command, Stdio::null())?;
        let [told, complained] = [&done.stdout, &done.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        ensure!(done.status.success() && told.lines().all(is_expected), "{told}{complained}");
        Ok(Some(()))
    };
    stack.eventually("agreement with Stripe", agreement).await
}

async fn compare(stack: &Stack, person: &Person, chat_was_killed: bool, credit: i64) -> Result<()> {
    stack.eventually("the end of all holds", async || Ok((person.balance().await?.1 == 0).then_some(()))).await?;
    let served = stack.served().await?;
    let served: HashMap<&str, &Value> =
        served.iter().skip(person.served_before).filter_map(|row| Some((row["request_id"].as_str()?, row))).collect();
    // What died before it counted anything costs nothing, so nothing is held for it while it waits to be posted.
    let rows = stack
        .eventually("a usage row for each request that was served", async || {
            let rows = person.usage().await?;
            let known: HashSet<&str> = rows.iter().filter_map(|row| row["request_id"].as_str()).collect();
            let lost = served.iter().find(|(id, row)| row["output_tokens"] != 0 && !known.contains(*id));
            ensure!(lost.is_none(), "none for {lost:?}");
            Ok(Some(rows))
        })
        .await?;
    let mut charged = 0;
    for row in &rows {
        let id = row["request_id"].as_str().context("an id")?;
        charged += row["price_micros"].as_i64().context("a price")?;
        let number = |row: &Value, field: &str| row[field].as_i64().unwrap_or_default();
        if row["counted_by"] == "abandoned" {
            ensure!(chat_was_killed, "{id} is abandoned although no chat process was killed");
        }
        let (input, output) = served.get(id).map_or((0, 0), |row| (number(row, "input_tokens"), number(row, "output_tokens")));
        let (used_input, used_output) = (number(row, "input_tokens"), number(row, "output_tokens"));
        // What a provider that died had taken down and not sent, nobody has received.
        let unsent = served.get(id).is_some_and(|row| row["ended"] == "killed") && used_input <= input && used_output <= output;
        // What a chat process had not noted when it died is not charged.
        let unnoted = row["counted_by"] == "abandoned" && used_input <= input && used_output <= output;
        ensure!(
            (used_input, used_output) == (input, output) || unsent || unnoted,
            "{id}: usage says {row} and the simulator {:?}",
            served.get(id)
        );
    }
    let known: HashSet<&str> = rows.iter().filter_map(|row| row["request_id"].as_str()).collect();
    ensure!(known.len() == rows.len(), "a request stands there twice");
    let (available, held) = person.balance().await?;
    ensure!(available + charged == credit && held == 0, "credit {credit}, available {available}, held {held}, charged {charged}");
    ensure!(person.ledger_sum().await? == available, "the ledger's entries do not sum to the balance");
    stack.compose(&["exec", "-T", "billing-service", "/app/billing-service", "ledger", "verify"])?;
    Ok(())
}
