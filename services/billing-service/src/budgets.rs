//! Budgets: what an organization wants to spend at most. Hard ones are limits that admission enforces; soft ones tell somebody.

pub mod evaluate;
pub mod limits;

chassis::define_id!(
    /// One budget.
    BudgetId, "bud"
);
