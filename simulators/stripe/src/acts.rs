//! What customers and banks do, as methods for tests; the control routes call the same.

use serde_json::Value;

use crate::checkout::{self, Outcome};
use crate::disputes;
use crate::error::Failure;
use crate::payments;
use crate::shown::shown;
use crate::simulator::Simulator;
use crate::world::text;

/// Why an act was refused: Stripe's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub String);

impl std::fmt::Display for Refused {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self(failure.error.get("message").and_then(Value::as_str).unwrap_or_default().to_owned())
    }
}

impl Simulator {
    /// Pays a checkout session with a test card such as `pm_card_visa`; a bank that asks is answered. The session as it is then.
    ///
    /// # Errors
    /// When the card is refused, or the session is not open.
    pub fn complete_checkout(&self, session: &str, card: &str) -> Result<Value, Refused> {
        self.act(|world| match checkout::complete(world, session, card, true)? {
            Outcome::Complete(session) => Ok(shown(&session)),
            Outcome::Challenge => Err(Refused("The bank was not answered.".to_owned())),
            Outcome::Declined(message) => Err(Refused(message)),
        })
    }

    /// Answers the bank's question about a payment that requires action. The intent as it is then.
    ///
    /// # Errors
    /// When nothing was asked.
    pub fn authenticate(&self, payment_intent: &str, confirms: bool) -> Result<Value, Refused> {
        Ok(self.act(|world| payments::authenticate(world, payment_intent, confirms)).map(|intent| shown(&intent))?)
    }

    /// Ends a payment that is on its way: it arrives, or comes back. The intent as it is then.
    ///
    /// # Errors
    /// When it is not on its way.
    pub fn end_processing(&self, payment_intent: &str, pays: bool) -> Result<Value, Refused> {
        Ok(self.act(|world| payments::end_processing(world, payment_intent, pays)).map(|intent| shown(&intent))?)
    }

    /// Opens a dispute about a charge (`ch_…`) or the last charge of an intent (`pi_…`), in smallest units; about all of it by default.
    ///
    /// # Errors
    /// When the charge is disputed already, or the amount is more than is left of it.
    pub fn open_dispute(&self, of: &str, amount: Option<i64>, reason: &str) -> Result<Value, Refused> {
        let opened = self.act(|world| {
            let charge = world.find(of).map_or_else(
                || of.to_owned(),
                |object| if object["object"] == "payment_intent" { text(object, "latest_charge") } else { of.to_owned() },
            );
            disputes::open(world, &charge, amount, reason)
        });
        Ok(opened.map(|dispute| shown(&dispute))?)
    }

    /// Decides a dispute: won by the shop, or lost.
    ///
    /// # Errors
    /// When it is decided already.
    pub fn close_dispute(&self, dispute: &str, won: bool) -> Result<Value, Refused> {
        Ok(self.act(|world| disputes::close(world, dispute, won)).map(|dispute| shown(&dispute))?)
    }
}
