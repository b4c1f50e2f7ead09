//! Stripe, in both directions. In: `webhook` stores an event, `worker` fetches what it is about, `facts` says what that means. Out:
//! what we want is written with the change that wants it (`intents`), and `sender` has it done by `operations`; what was used is reported by
//! `meters`. Between: `reconcile` compares, and `gaps` finds events that never came.

pub(crate) mod backoff;
pub mod call;
mod catalog;
pub mod collect;
pub mod customers;
pub mod facts;
#[cfg(test)]
mod fuzzing;
pub mod gaps;
pub mod meters;
pub mod object;
mod operations;
mod pace;
mod patience;
pub mod reconcile;
pub mod sender;
pub mod signature;
pub(crate) mod storable;
pub mod transport;
pub(crate) mod turns;
pub mod webhook;
pub mod worker;
