//! Usage reported to Stripe's billing meters [B-66]: an operator names what is kept there too (`mirrors`), what an organization used in an
//! hour that has ended becomes a report (`plan`), and each is sent until Stripe has it (`sender`). Sums there and here are compared with
//! everything else (`compare`). Nothing here moves money.
//!
//! Never double: a report has an identifier made of what it is about, and Stripe takes an identifier once within a day; when a try may
//! have had its effect longer ago than that, the sums at Stripe are looked at before it is sent again (`look`). Never lost: a report is a
//! row before its first try, and whatever was counted and is in no report becomes one, as late as Stripe takes it; later it is told.

pub mod compare;
mod look;
pub mod mirrors;
pub mod parked;
pub mod plan;
mod remote;
pub mod retention;
pub mod sender;
mod stranded;
