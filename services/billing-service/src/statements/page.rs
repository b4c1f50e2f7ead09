//! A statement to print: one page that needs nothing from anywhere.

use std::fmt::Write;

use chrono::{DateTime, SecondsFormat, Utc};

use super::build::Statement;
use crate::spreadsheet::decimal;

/// No script, no image, no request: its own style and nothing else.
pub const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = "body{font:14px/1.4 system-ui,sans-serif;margin:2rem auto;max-width:60rem;color:#111}\
h1{font-size:1.4rem;margin:0}table{border-collapse:collapse;width:100%;margin-top:1rem}\
th,td{padding:.3rem .5rem;border-bottom:1px solid #ddd;text-align:left;overflow-wrap:anywhere}\
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}.b{font-weight:600}\
thead{display:table-header-group}tr{break-inside:avoid}@media print{body{margin:0;max-width:none}}";

/// The page.
pub fn html(statement: &Statement) -> String {
    let (from, to) = (time(statement.from), time(statement.to));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Statement</title><style>{STYLE}</style></head><body>\n\
         <h1>Statement</h1>\n<p>{}<br>{from} to {to} (exclusive), in {}</p>\n\
         <table><thead><tr><th>Time</th><th>What</th><th>Reference</th><th class=\"n\">Amount</th><th class=\"n\">Balance</th></tr></thead><tbody>\n",
        escaped(&statement.organization_id.to_string()),
        escaped(statement.currency)
    );
    total(&mut page, &from, "Opening balance", statement.opening.posted_micros);
    for movement in &statement.movements {
        // Writing to a string does not fail.
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            time(movement.time),
            escaped(&movement.kind),
            requests(movement.requests),
            escaped(&movement.reference),
            decimal(movement.amount_micros),
            decimal(movement.balance_micros)
        );
    }
    total(&mut page, &to, "Closing balance", statement.closing.posted_micros);
    page.push_str("</tbody></table>\n</body></html>\n");
    page
}

/// How many requests a line is of, behind its name.
fn requests(requests: Option<i64>) -> String {
    match requests {
        None => String::new(),
        Some(1) => " (1 request)".to_owned(),
        Some(many) => format!(" ({many} requests)"),
    }
}

fn total(page: &mut String, at: &str, name: &str, micros: i64) {
    let _ = writeln!(page, "<tr class=\"b\"><td>{at}</td><td>{name}</td><td></td><td></td><td class=\"n\">{}</td></tr>", decimal(micros));
}

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Text as HTML shows it, in content and in attributes.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            character => html.push(character),
        }
    }
    html
}
