//! Credit in lots: what gave it, what it may pay for and until when, and which lot pays.
//!
//! The lots of an organization always sum to its wallet and its holds; they are only moved under the lock of its accounts
//! ([`ledger::lock`](crate::ledger::lock)), so they have no lock of their own. Which lot pays is decided at settlement and not at the
//! hold: a hold is of the organization, and a request pays with the lots that were valid when it was admitted.
//!
//! **Restrictions.** A lot for certain models or features pays for those and nothing else, debt included. What may be spent on a model
//! is the wallet less the debt less every lot that may not pay for it ([`spendable`]). A lease for one model is taken to stand on the lots
//! that would burn for it; all other holds on the lots that the model may use, which is never too much and sometimes less than there is. Restricted lots burn before others (a lower priority,
//! unless it is said), so that what others are needed for stays. What no lot may pay for is owed (`shortfall`).
//!
//! **Expiry.** A lot may pay for requests that were admitted before it expires, and not for one admitted at that instant [B-46]. At that
//! instant all of it expires, except what holds that were made earlier may still need: that stays until they end, pays for them, and
//! expires then. Expired credit is never part of what may be spent, whether or not the sweeper has been there.

mod batch;
pub mod burn;
mod decide;
mod expiry;
mod issue;
mod list;
mod lot;
mod spend;
mod store;
mod take_back;

pub use batch::Payments;
pub use decide::{WalletChange, decide, owner};
pub use expiry::{expire, sweep, sweep_until};
pub use issue::{NewGrant, issue};
pub use list::{__path_list, Grant, list};
pub use lot::{GrantId, Lot, Source, Use};
pub use spend::{Spendable, burn, follow, spendable};
pub use store::{Movement, lots, model_holds, overdraft};
pub use take_back::{Dispute, close_dispute, open_dispute, refund, refund_usage};
