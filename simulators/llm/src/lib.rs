//! A model provider that is none: `OpenAI`'s chat API with answers made of words, for tests, demos and load.
//!
//! What makes it useful is that it is exact. Every word of an answer is one token of `o200k_base`, prompts are counted by
//! `OpenAI`'s published rule, and [`Ledger`](LedgerRow) keeps a row for each request with the tokens that were handed over: what
//! a gateway charges must equal it, also after the faults that [`Knobs`] ask for.
//!
//! It is not a provider's edge: keys are not looked at, and nothing is limited unless a knob says so.

mod completions;
mod control;
mod knobs;
mod ledger;
mod line;
mod models;
mod prompt;
mod router;
mod simulator;
mod wire;
mod words;

pub use knobs::{Knobs, UsageFrames};
pub use ledger::{Ended, LedgerPage, LedgerRow};
pub use simulator::{Options, Running, Simulator};

/// Where the program listens unless told otherwise.
pub const DEFAULT_BIND: std::net::SocketAddr = std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4010);

/// Loads the tokenizer, which otherwise happens with the first prompt.
pub fn warm_up() {
    prompt::count_text("");
}
