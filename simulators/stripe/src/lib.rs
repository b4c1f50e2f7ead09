//! A Stripe that is none: stateful, with its own time, for tests, demos and load, without an account and without a network.
//!
//! It answers in the shapes of [`API_VERSION`], keeps customers, subscriptions, invoices and payments in memory, does what Stripe
//! does when time passes (renewals, trial ends, retries), and delivers signed events, well or badly as the [`Knobs`] ask. What makes
//! it useful is that it is exact and can be repeated: amounts are whole numbers, ids and chance come from a seed, time moves when
//! told to, and [`Simulator::ledger`] sums what was paid, so that a shop's books can be compared with it to the cent.
//!
//! It is not all of Stripe: cards only, no tiers, no Connect, no tax engine. What it does not know it refuses as Stripe does.

#![recursion_limit = "512"]

mod acts;
mod balance;
mod calendar;
mod call;
mod cards;
mod charges;
mod checkout;
mod clock;
mod control;
mod coupons;
mod credit_notes;
mod customers;
mod discounts;
mod dispatch;
mod disputes;
mod documents;
mod endpoints;
mod error;
mod events;
mod expand;
mod form;
mod html;
mod idempotency;
mod ids;
mod invoice_items;
mod invoices;
mod knobs;
mod ledger;
mod meters;
mod money;
mod page;
mod params;
mod payment_methods;
mod payments;
mod portal;
mod prices;
mod products;
mod rate;
mod refunds;
mod reporting;
mod router;
mod routes;
mod schedules;
mod settings;
mod shown;
mod simulator;
mod state_file;
mod subscriptions;
mod tax_rates;
mod test_clocks;
mod time_passes;
mod webhooks;
mod world;

pub use acts::Refused;
pub use clock::Start;
pub use knobs::{Fault, FaultKind, Knobs, Order};
pub use ledger::LedgerRow;
pub use settings::{AfterRetries, Settings, Settlement};
pub use simulator::{Options, Running, Simulator, StripeSimulator, Webhook};
pub use webhooks::DeliveryRow;

/// The version whose shapes are answered: the one that the pinned async-stripe asks for.
pub const API_VERSION: &str = "2026-09-30.endive";

/// Where the program listens unless told otherwise.
pub const DEFAULT_BIND: std::net::SocketAddr = std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4020);
