//! What was served: one row for each request, written when it ends, whatever its end is.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

mod journal;

use journal::Journal;

/// Rows that are kept: a load test must not end with a full memory.
const MAX_ROWS: usize = 1_000_000;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// With all of its answer.
    Completed,
    /// By a knob, with a connection reset in the middle.
    Cut,
    /// By a client that left.
    ClientGone,
    /// By a knob, with an error instead of an answer or in the middle of it.
    Error,
    /// By a client that gave up on a silence that a knob asked for.
    Hang,
    /// By a 429, or for being no proper request.
    Refused,
    /// With the simulator itself; only in a ledger that has a file.
    Killed,
}

/// A request that was served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRow {
    /// The client's `X-Request-Id`, or one of the simulator's.
    pub request_id: String,
    /// The model as the client named it; empty when it did not.
    pub model: String,
    /// Tokens of the prompt; zero when nothing of an answer was handed over.
    pub input_tokens: u64,
    /// Tokens that were handed over, of all choices together. A whole answer that broke off has handed over none.
    pub output_tokens: u64,
    /// How it ended.
    pub ended: Ended,
}

/// `GET /ledger`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerPage {
    /// The rows, in the order of the requests' ends.
    pub data: Vec<LedgerRow>,
    /// Requests that have not ended.
    pub open: u64,
    /// Older rows that are no longer kept.
    pub dropped: u64,
}

/// How many requests there are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) open: u64,
    pub(crate) ended: u64,
}

/// The ledger; clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Ledger(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    book: Mutex<Book>,
    counts: watch::Sender<Counts>,
}

#[derive(Debug, Default)]
struct Book {
    rows: VecDeque<LedgerRow>,
    dropped: u64,
    next: u64,
    journal: Option<Journal>,
}

impl Book {
    fn push(&mut self, row: LedgerRow) {
        if self.rows.len() == MAX_ROWS {
            self.rows.pop_front();
            self.dropped += 1;
        }
        self.rows.push_back(row);
    }

    fn note(&mut self, number: u64, row: &LedgerRow) {
        if let Some(journal) = &mut self.journal
            && let Err(error) = journal.note(number, row)
        {
            tracing::error!(error.message = %error, "the ledger's file cannot be written");
        }
    }
}

impl Ledger {
    /// An empty ledger, or the one of the file.
    pub(crate) fn new(file: Option<&Path>) -> io::Result<Self> {
        let mut book = Book::default();
        if let Some(file) = file {
            for (number, row) in journal::read(file)? {
                book.next = book.next.max(number + 1);
                book.push(row);
            }
            book.journal = Some(Journal::append(file)?);
        }
        let counts = Counts { open: 0, ended: book.rows.len() as u64 + book.dropped };
        Ok(Self(Arc::new(Shared { book: Mutex::new(book), counts: watch::Sender::new(counts) })))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All rows.
    pub(crate) fn page(&self) -> LedgerPage {
        let book = self.book();
        LedgerPage { data: book.rows.iter().cloned().collect(), open: self.0.counts.borrow().open, dropped: book.dropped }
    }

    /// Waits until the number of requests is as wished.
    pub(crate) async fn wait_for(&self, wished: impl FnMut(&Counts) -> bool) {
        let mut wished = wished;
        let mut counts = self.0.counts.subscribe();
        // The sender lives as long as the ledger.
        let _ = counts.wait_for(|counts| wished(counts)).await;
    }

    /// Begins a request; its row is written when the entry goes.
    pub(crate) fn open(&self, request_id: Option<&str>) -> Entry {
        let mut book = self.book();
        let number = book.next;
        book.next += 1;
        let request_id = request_id.map_or_else(|| format!("sim_{number}"), str::to_owned);
        let row = LedgerRow { request_id, model: String::new(), input_tokens: 0, output_tokens: 0, ended: Ended::Killed };
        book.note(number, &row);
        drop(book);
        self.0.counts.send_modify(|counts| counts.open += 1);
        Entry { ledger: self.clone(), number, row, end: Ended::ClientGone }
    }
}

/// A request that has not ended. Only a client that leaves drops it without having said how it ended.
#[derive(Debug)]
pub(crate) struct Entry {
    ledger: Ledger,
    number: u64,
    row: LedgerRow,
    end: Ended,
}

impl Entry {
    /// How many requests there were before this one.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// The request's id.
    pub(crate) fn request_id(&self) -> &str {
        &self.row.request_id
    }

    /// The model, once it is known.
    pub(crate) fn set_model(&mut self, model: &str) {
        model.clone_into(&mut self.row.model);
    }

    /// Takes down what is about to be handed over, before it is: who has it in hands finds it here.
    pub(crate) fn hand_over(&mut self, input_tokens: u64, output_tokens: u64) {
        self.row.input_tokens = input_tokens;
        self.row.output_tokens += output_tokens;
        self.ledger.book().note(self.number, &self.row);
    }

    /// Tokens of the answer until now.
    pub(crate) const fn output_tokens(&self) -> u64 {
        self.row.output_tokens
    }

    /// What the request will have ended with when the entry goes.
    pub(crate) const fn will_end(&mut self, end: Ended) {
        self.end = end;
    }

    /// Ends the request.
    pub(crate) fn end(mut self, end: Ended) {
        self.end = end;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let row = LedgerRow { ended: self.end, ..self.row.clone() };
        let mut book = self.ledger.book();
        book.note(self.number, &row);
        book.push(row);
        drop(book);
        self.ledger.0.counts.send_modify(|counts| {
            counts.open -= 1;
            counts.ended += 1;
        });
    }
}
