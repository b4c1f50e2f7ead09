//! From plans and limits to entitlements; pure. Of several plans (one of each group) the most generous decides each limit, and what
//! a plan does not limit is not limited.

use std::collections::BTreeSet;

use contracts::entitlements::{EntitledPlan, Entitlements, LimitPeriod, LimitScope, SpendLimit};
use identity::OrganizationId;
use money::Currency;

use crate::catalog::domain::Models;
use crate::catalog::stored::PlanVersion;
use crate::subscriptions::status::Access;

/// A plan that gives access.
#[derive(Debug, Clone)]
pub struct Entitled {
    /// The plan.
    pub plan: PlanVersion,
    /// The subscription's status, or `default`.
    pub status: &'static str,
    /// What it gives access to.
    pub access: Access,
    /// How many seats.
    pub seats: u32,
}

/// Puts entitlements together. `plans` are those with access; with none there is nothing but the wallet.
#[must_use]
pub fn combine(
    organization_id: OrganizationId,
    version: i64,
    plans: &[Entitled],
    currency: Currency,
    hard: Vec<SpendLimit>,
) -> Entitlements {
    let cap = most(plans, |entitled| entitled.plan.plan.limits.monthly_caps.get(&currency).copied());
    let cap = cap.map(|limit_micros| SpendLimit {
        scope: LimitScope::Organization,
        id: String::new(),
        period: LimitPeriod::Month,
        limit_micros,
        currency: currency.code().to_owned(),
        spent: None,
    });
    Entitlements {
        organization_id,
        version,
        plans: plans.iter().map(entitled_plan).collect(),
        features: plans.iter().flat_map(|entitled| entitled.plan.plan.features.iter().map(ToString::to_string)).collect(),
        models: models(plans),
        requests_per_minute: most(plans, |entitled| entitled.plan.plan.limits.requests_per_minute),
        tokens_per_minute: most(plans, |entitled| entitled.plan.plan.limits.tokens_per_minute),
        seats: plans.iter().map(|entitled| entitled.seats).max(),
        spend_limits: cap.into_iter().chain(hard).collect(),
    }
}

fn entitled_plan(entitled: &Entitled) -> EntitledPlan {
    EntitledPlan {
        code: entitled.plan.code.to_string(),
        version: entitled.plan.version,
        status: entitled.status.to_owned(),
        grace: entitled.access == Access::Grace,
    }
}

/// The highest limit; none when a plan has none, or when there is no plan.
fn most<T: Ord>(plans: &[Entitled], limit: impl Fn(&Entitled) -> Option<T>) -> Option<T> {
    plans.iter().map(limit).collect::<Option<Vec<T>>>()?.into_iter().max()
}

fn models(plans: &[Entitled]) -> Option<BTreeSet<String>> {
    let each = plans.iter().map(|entitled| match &entitled.plan.plan.limits.models {
        Models::All => None,
        Models::Only(models) => Some(models),
    });
    let each = each.collect::<Option<Vec<_>>>()?;
    (!each.is_empty()).then(|| each.into_iter().flatten().cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;

    const CATALOG: &str = "
format: 1
plans:
  free:
    name: Free
    group: main
    prices: {USD: {month: '0.00'}}
    limits: {requests_per_minute: 20, tokens_per_minute: 5000, models: [sim-small], monthly_caps: {USD: '5.00'}}
  team:
    name: Team
    group: other
    prices: {USD: {month: '100.00'}}
    features: [a, b, c]
    limits: {requests_per_minute: 3000}
";

    fn entitled(code: &str, status: &'static str, access: Access) -> Entitled {
        let catalog = catalog::parse(CATALOG).unwrap();
        let code: catalog::Code = code.parse().unwrap();
        let plan = catalog.plans[&code].clone();
        Entitled { plan: PlanVersion { code, version: 1, plan }, status, access, seats: 1 }
    }

    fn combined(plans: &[Entitled]) -> Entitlements {
        combine(OrganizationId::from_uuid(uuid::Uuid::nil()), 7, plans, Currency::USD, Vec::new())
    }

    #[test]
    fn without_a_plan_the_wallet_alone_decides() {
        let nothing = combined(&[]);
        assert_eq!((nothing.models, nothing.requests_per_minute, nothing.seats), (None, None, None));
        assert!(nothing.spend_limits.is_empty() && nothing.features.is_empty());
    }

    #[test]
    fn a_plan_limits_models_requests_and_spending() {
        let free = combined(&[entitled("free", "default", Access::Full)]);
        assert_eq!(free.models, Some(BTreeSet::from(["sim-small".to_owned()])));
        assert_eq!(
            (free.requests_per_minute, free.tokens_per_minute, free.spend_limits[0].limit_micros),
            (Some(20), Some(5000), 5_000_000)
        );
    }

    #[test]
    fn of_two_plans_the_most_generous_decides_and_features_add_up() {
        let both = combined(&[entitled("free", "default", Access::Full), entitled("team", "past_due", Access::Grace)]);
        assert_eq!((both.models, both.requests_per_minute, both.spend_limits.len(), both.features.len()), (None, Some(3000), 0, 3));
        assert_eq!(both.tokens_per_minute, None, "one plan has no limit");
        assert!(both.plans[1].grace);
    }
}
