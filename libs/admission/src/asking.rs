//! What billing-service is asked for when no lease reaches, or when one runs low.

use contracts::leases::{LeaseRequest, ModelRequest, SeenLease};

use crate::flight::{Admission, Shortage};

impl Admission<'_> {
    /// Asks for what the leases lack for this request.
    #[must_use]
    pub fn short(&self, all: Shortage, model: Shortage) -> LeaseRequest {
        let of_model = self.of_model(model.missing_micros, model.lease);
        let (needed_micros, seen) = (all.missing_micros, all.lease);
        LeaseRequest { organization_id: self.organization_id, needed_micros, seen, model: Some(of_model) }
    }

    /// Asks that a lease that admitted this request be filled before it runs dry.
    #[must_use]
    pub fn low(&self, lease: SeenLease, of_model: bool) -> LeaseRequest {
        let (seen, model) = if of_model { (None, Some(self.of_model(0, Some(lease)))) } else { (Some(lease), None) };
        LeaseRequest { organization_id: self.organization_id, needed_micros: 0, seen, model }
    }

    fn of_model(&self, needed_micros: i64, seen: Option<SeenLease>) -> ModelRequest {
        ModelRequest { model: self.note.event.model.clone(), needed_micros, cost_micros: self.cost_micros, seen }
    }
}
