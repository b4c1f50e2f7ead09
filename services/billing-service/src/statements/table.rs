//! A statement for spreadsheets.

use chrono::SecondsFormat;

use super::build::Statement;
use crate::spreadsheet::{Cell, row};

/// The columns.
const HEADER: &str = "time,kind,reference,amount,balance,currency,requests\r\n";

/// One row for each line between those of the opening and the closing balance.
pub fn csv(statement: &Statement) -> String {
    let mut csv = HEADER.to_owned();
    let time = |time: chrono::DateTime<chrono::Utc>| time.to_rfc3339_opts(SecondsFormat::Micros, true);
    let mut line = |at: &str, kind: &str, reference: &str, amount: Cell<'_>, balance: i64, requests: Option<i64>| {
        let (balance, currency) = (Cell::Amount(balance), Cell::Text(statement.currency));
        let requests = requests.map_or(Cell::Empty, Cell::Integer);
        row(&mut csv, &[Cell::Text(at), Cell::Text(kind), Cell::Text(reference), amount, balance, currency, requests]);
    };
    line(&time(statement.from), "opening", "", Cell::Empty, statement.opening.posted_micros, None);
    for movement in &statement.movements {
        let amount = Cell::Amount(movement.amount_micros);
        line(&time(movement.time), &movement.kind, &movement.reference, amount, movement.balance_micros, movement.requests);
    }
    line(&time(statement.to), "closing", "", Cell::Empty, statement.closing.posted_micros, None);
    csv
}
