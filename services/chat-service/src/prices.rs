//! billing-service's price list, kept here: a request is priced without asking anybody.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chassis::Clock;
use chrono::{DateTime, TimeDelta, Utc};
use contracts::billing::BillingClient;
use contracts::rates::{PriceList, PricedModel};
use identity::OrganizationId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;

/// A new card is in force here at most so much late.
const REFRESH: Duration = Duration::from_secs(10);
/// While there is no list at all.
const RETRY: Duration = Duration::from_millis(200);
/// How long a request waits for the first list.
const PATIENCE: Duration = Duration::from_secs(2);
/// An older list is none: billing-service has been away for so long that prices may have changed.
const OLDEST: TimeDelta = TimeDelta::minutes(10);

/// The price list; cheap to clone.
#[derive(Debug, Clone)]
pub struct Prices {
    list: watch::Receiver<Option<Arc<Snapshot>>>,
}

/// Keeps the list up to date.
#[derive(Debug)]
pub struct Refresher {
    list: watch::Sender<Option<Arc<Snapshot>>>,
    clock: Clock,
}

#[derive(Debug)]
struct Snapshot {
    models: HashMap<String, Vec<PricedModel>>,
    read_at: DateTime<Utc>,
}

impl Snapshot {
    fn new(list: PriceList, read_at: DateTime<Utc>) -> Self {
        let mut models: HashMap<String, Vec<PricedModel>> = HashMap::new();
        for card in list.data {
            models.entry(card.model.clone()).or_default().push(card);
        }
        Self { models, read_at }
    }

    /// The card for everybody, unless there is one for this organization alone.
    fn find(&self, model: &str, organization: OrganizationId, at: DateTime<Utc>) -> Option<&PricedModel> {
        let cards = || self.models.get(model).into_iter().flatten().filter(|card| card.is_in_force(at));
        let own = cards().find(|card| card.organization_id == Some(organization));
        own.or_else(|| cards().find(|card| card.organization_id.is_none()))
    }
}

impl Prices {
    /// No list yet, and who gets it.
    #[must_use]
    pub fn new(clock: Clock) -> (Self, Refresher) {
        let (sender, list) = watch::channel(None);
        (Self { list }, Refresher { list: sender, clock })
    }

    /// What a model costs an organization at an instant.
    ///
    /// # Errors
    /// [`ApiError::ModelNotFound`] for a model without a price: it is refused, never free. [`ApiError::Unavailable`] when there is no
    /// list, or none of late.
    pub async fn find(&self, model: &str, organization: OrganizationId, at: DateTime<Utc>) -> Result<PricedModel, ApiError> {
        let mut list = self.list.clone();
        let snapshot = tokio::time::timeout(PATIENCE, list.wait_for(Option::is_some)).await;
        let snapshot = snapshot.ok().and_then(Result::ok).and_then(|snapshot| snapshot.clone());
        let snapshot = snapshot.filter(|snapshot| at - snapshot.read_at < OLDEST).ok_or(ApiError::Unavailable("the price list"))?;
        snapshot.find(model, organization, at).cloned().ok_or(ApiError::ModelNotFound)
    }
}

impl Refresher {
    /// Asks again and again until the token is cancelled. When no answer comes, the last list stays.
    pub async fn run(self, billing: &BillingClient, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let asked_at = self.clock.now();
            if let Some(list) = billing.price_list().await {
                self.list.send_replace(Some(Arc::new(Snapshot::new(list, asked_at))));
            }
            let pause = if self.list.borrow().is_some() { REFRESH } else { RETRY };
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use chassis::Random;
    use money::Rates;

    use super::*;

    fn card(rate_card_id: i64, organization_id: Option<OrganizationId>, from: i64, to: Option<i64>) -> PricedModel {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).expect("an instant");
        PricedModel {
            rate_card_id,
            model: "m".into(),
            organization_id,
            valid_from: at(from),
            valid_to: to.map(at),
            price: Rates {
                input: 1,
                cached_input: 1,
                cache_write: 1,
                cache_write_1h: None,
                output: 1,
                reasoning: 1,
                audio_input: None,
                audio_output: None,
                image: None,
                request: 0,
            }
            .into(),
        }
    }

    /// [B-31]
    #[test]
    fn a_card_is_in_force_from_its_first_instant_to_just_before_its_end_and_ones_own_comes_first() {
        let (clock, random) = (Clock::system(), Random::seeded(1));
        let (ada, eve) = (OrganizationId::new(&clock, &random), OrganizationId::new(&clock, &random));
        let cards = vec![card(1, None, 0, Some(100)), card(2, None, 100, None), card(3, Some(ada), 50, Some(150))];
        let snapshot = Snapshot::new(PriceList { data: cards }, DateTime::UNIX_EPOCH);
        let found = |organization, milliseconds| {
            let at = DateTime::from_timestamp_millis(milliseconds).expect("an instant");
            snapshot.find("m", organization, at).map(|card| card.rate_card_id)
        };
        assert_eq!([found(eve, -1), found(eve, 0), found(eve, 99_999), found(eve, 100_000)], [None, Some(1), Some(1), Some(2)]);
        assert_eq!(
            [found(ada, 49_999), found(ada, 50_000), found(ada, 149_999), found(ada, 150_000)],
            [Some(1), Some(3), Some(3), Some(2)]
        );
        assert!(snapshot.find("other", ada, DateTime::UNIX_EPOCH).is_none());
    }
}
