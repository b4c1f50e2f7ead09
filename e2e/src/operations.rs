//! What operators do, and what must come of it.

use std::fs::File;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use crate::person::{Person, request};
use crate::reconcile::agree;
use crate::stack::Stack;

/// H-55
pub fn up_again(stack: &Stack) -> Result<()> {
    let before = stack.compose(&["ps", "--quiet"])?;
    stack.compose(&["up", "--detach", "--wait"])?;
    ensure!(stack.compose(&["ps", "--quiet"])? == before, "containers were replaced");
    Ok(())
}

/// Bad values and unknown names, all in one message, none of the values in it.
pub fn unusable_configuration(stack: &Stack) -> Result<()> {
    for service in ["auth-service", "billing-service", "chat-service"] {
        let variables = ["TRIVET_HTTP_BIND=nowhere", "TRIVET_HTTP_TIMEOUT_MS=soon", "TRIVET_HTPP_TIMEOUT_MS=1"];
        let mut arguments = vec!["run", "--rm", "--no-deps", "-T"];
        arguments.extend(variables.iter().flat_map(|variable| ["--env", variable]));
        arguments.extend([service, "serve", "--check-config"]);
        let output = stack.attempt(&arguments, Stdio::null())?;
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(2), "{service} ended with {}: {message}", output.status);
        for name in ["TRIVET_HTTP_BIND must", "TRIVET_HTTP_TIMEOUT_MS must", "TRIVET_HTPP_TIMEOUT_MS is not a variable"] {
            ensure!(message.contains(name), "{service} does not say {name}: {message}");
        }
        ensure!(!message.contains("nowhere"), "{service} repeats a value: {message}");
    }
    Ok(())
}

/// The commands of `docs/operations/BACKUP_AND_RESTORE.md`.
pub async fn restored_backup(stack: &Stack) -> Result<()> {
    let person = Person::sign_up(stack).await?;
    person.openai(&person.key).chat().create(request("sim-small", false)?).await?;
    stack.eventually("the usage row", async || Ok((person.usage().await?.len() == 1).then_some(()))).await?;
    let books = async || -> Result<_> {
        let (available, held) = person.balance().await?;
        Ok((available + held, person.usage().await?))
    };
    let before = books().await?;
    let ledger_verify = ["exec", "-T", "billing-service", "/app/billing-service", "ledger", "verify"];
    let verify = |more: &[&str]| stack.compose(&[&ledger_verify[..], more].concat());
    let clean = verify(&[])?;
    let sealed = clean.split_whitespace().last().context("no seal was printed")?;
    let dump = stack.scratch("trivet.sql");
    let text = stack.compose(&["exec", "-T", "postgres", "pg_dumpall", "--username", "postgres", "--clean", "--if-exists"])?;
    std::fs::write(&dump, text)?;
    stack.compose(&["down", "--volumes"])?;
    stack.compose(&["up", "--detach", "--wait", "postgres", "redis"])?;
    let restore = ["exec", "-T", "postgres", "psql", "--username", "postgres", "--quiet"];
    stack.compose_with(&restore, Stdio::from(File::open(&dump)?))?;
    stack.compose(&["up", "--detach", "--wait"])?;
    stack.recovered().await?;
    // The same key still works, on the same books; what was leased from a Redis that is gone is held until its requests must be over.
    ensure!(books().await? == before, "the books differ");
    person.openai(&person.key).chat().create(request("sim-small", false)?).await?;
    stack.eventually("the next usage row", async || Ok((person.usage().await?.len() == 2).then_some(()))).await?;
    agree(stack, &person, false).await?;
    // And the ledger is the one that was backed up, gone on from.
    verify(&["--expect", sealed]).map(drop)
}
