//! The journal for accountants: CSV with account codes, one balanced transaction after the other, one row in memory at a time.

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use futures::{Stream, TryStreamExt};
use identity::OrganizationId;
use sqlx::PgPool;
use tokio::sync::mpsc::Sender;

use super::chart::Account;
use super::journal::{Journaled, journaled};
use crate::spreadsheet::{Cell, row};

/// The columns.
const HEADER: &str = "position,transaction,time,kind,reference,account_code,account,organization,currency,debit,credit\r\n";

/// Characters that are handed on together.
const CHUNK: usize = 1 << 16;

/// What became true in `[from, to)`, in the order of posting, as a stream; whoever reads slowly holds it up. Reads one consistent picture.
pub fn chunks(pool: PgPool, from: DateTime<Utc>, to: DateTime<Utc>) -> impl Stream<Item = Result<Bytes, sqlx::Error>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(2);
    tokio::spawn(async move {
        if let Err(error) = write(&pool, from, to, &sender).await {
            // Nobody to tell when the reader is gone.
            let _ = sender.send(Err(error)).await;
        }
    });
    futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
}

async fn write(pool: &PgPool, from: DateTime<Utc>, to: DateTime<Utc>, out: &Sender<Result<Bytes, sqlx::Error>>) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    sqlx::query!("set transaction isolation level repeatable read, read only").execute(&mut *transaction).await?;
    // A year takes longer than a request may.
    sqlx::query!("set local statement_timeout = 0").execute(&mut *transaction).await?;
    let mut rows = sqlx::query!(
        r#"select position as "position!", id as "id!", kind as "kind!", external_key as "external_key!", organization_id,
             occurred_at as "occurred_at!", accounts as "accounts!", owners as "owners!: Vec<Option<uuid::Uuid>>", kinds as "kinds!",
             currencies as "currencies!", amounts as "amounts!"
           from ledger_journal where occurred_at >= $1 and occurred_at < $2 order by position"#,
        from,
        to
    )
    .fetch(&mut *transaction);
    let mut csv = HEADER.to_owned();
    while let Some(found) = rows.try_next().await? {
        append(&mut csv, &journaled!(found));
        if csv.len() >= CHUNK && out.send(Ok(std::mem::take(&mut csv).into())).await.is_err() {
            return Ok(());
        }
    }
    let _ = out.send(Ok(csv.into())).await;
    Ok(())
}

fn append(csv: &mut String, transaction: &Journaled) {
    let (position, id) = (transaction.position.to_string(), transaction.id.to_string());
    let time = transaction.occurred_at.to_rfc3339_opts(SecondsFormat::Micros, true);
    for entry in &transaction.entries {
        let code = Account::named(&entry.kind).map(|account| account.code().to_string()).unwrap_or_default();
        let organization = entry.owner.map(|owner| OrganizationId::from_uuid(owner).to_string()).unwrap_or_default();
        // The signs of the ledger are those of a credit.
        let (debit, credit) = if entry.amount < 0 {
            (Cell::Amount(entry.amount.saturating_neg()), Cell::Empty)
        } else {
            (Cell::Empty, Cell::Amount(entry.amount))
        };
        row(
            csv,
            &[
                Cell::Text(&position),
                Cell::Text(&id),
                Cell::Text(&time),
                Cell::Text(&transaction.kind),
                Cell::Text(&transaction.external_key),
                Cell::Text(&code),
                Cell::Text(&entry.kind),
                Cell::Text(&organization),
                Cell::Text(&entry.currency),
                debit,
                credit,
            ],
        );
    }
}
