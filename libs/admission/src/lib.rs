//! What an organization may still spend and how often it may ask, in Redis: taken before a call by one script, settled after it by
//! another, both in one round trip and without SQL.
//!
//! The money is a **lease**: a hold that billing-service has placed on the wallet in its ledger. Its remainder lives here. A request
//! in flight takes its worst-case cost and leaves a note (a **flight**), so that whoever finds it after its deadline can settle it;
//! at its end the unused part goes back and the usage is appended to the shard's stream, exactly once by request id.
//!
//! chat-service admits, checkpoints and settles; billing-service funds and closes leases and settles what dead processes left behind.
//! All keys of one call are of one [shard](contracts::Shard), so that the scripts run unchanged on a cluster.

pub mod asking;
mod flight;
pub mod lease;
pub mod limit;
mod scripts;
pub mod settlement;

pub use flight::{Admission, Expired, Note, Shortage, Verdict};
pub use lease::{Closed, Funded, Funding, Instance};
pub use limit::{Counted, Limit, Meter, Window};
pub use scripts::Admissions;
pub use settlement::{End, REMEMBERED, ServerRun, Settled, Settlement};
