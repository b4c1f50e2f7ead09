//! Budgets: what an organization wants to spend at most. Hard ones are limits that admission enforces; all can tell somebody, once
//! for each threshold and period, by signed webhooks.

pub mod alerts;
pub mod api;
pub mod counted;
pub mod evaluate;
pub mod limits;
pub mod retention;
pub mod spent;
pub mod store;
pub mod webhooks;

chassis::define_id!(
    /// One budget.
    BudgetId, "bud"
);
