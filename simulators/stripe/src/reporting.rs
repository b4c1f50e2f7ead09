//! Events of one customer and meter that come at the same time: Stripe takes one after the other, and refuses the second with a 429.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use url::form_urlencoded;

use crate::error::Failure;

/// Meters and customers of which an event is being taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reporting(Arc<Mutex<HashSet<String>>>);

/// The turn of one event; the next one's comes when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn(Reporting, String);

impl Reporting {
    /// The turn of a request; of what reports nothing, none.
    pub(crate) fn begin(&self, path: &str, form: &[u8]) -> Result<Option<Turn>, Failure> {
        if path != "/v1/billing/meter_events" {
            return Ok(None);
        }
        let named = |name: &str| form_urlencoded::parse(form).find_map(|(field, value)| (field == name).then(|| value.into_owned()));
        let of = format!("{:?} {:?}", named("event_name"), named("payload[stripe_customer_id]"));
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(of.clone());
        if free { Ok(Some(Turn(self.clone(), of))) } else { Err(Failure::rate_limited()) }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}
