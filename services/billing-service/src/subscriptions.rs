//! Subscriptions: a pure state machine that decides, and a store that writes what it decided, once.
//!
//! [`machine`] knows neither database nor Stripe. Its effects become rows in the same transaction as the new state: charges and
//! grants, each once for a subscription, a period and a reason [B-77], wishes towards Stripe, and the news that what the customer
//! may do has changed.

pub mod api;
pub mod changes;
pub mod command;
pub mod due;
pub mod grants;
pub mod machine;
pub mod moving;
pub mod operator;
pub mod period;
pub mod preview;
pub mod proration;
pub mod redemptions;
pub mod state;
pub mod status;
pub mod store;
pub mod terms;
pub mod view;

chassis::define_id!(
    /// One subscription.
    SubscriptionId, "sub"
);
