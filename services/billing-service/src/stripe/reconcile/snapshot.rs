//! What Stripe has of ours: lists, read from end to end, with the few fields that are compared. All of it is in memory once, some two
//! hundred bytes for each object.

use std::collections::HashMap;

use identity::OrganizationId;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::Error;
use crate::state::AppState;
use crate::stripe::call::Call;
use crate::stripe::facts::checkout::tax_on_top;
use crate::stripe::facts::invoice::{Sums, paid_with};
use crate::stripe::object::Object;
use crate::stripe::transport::Transport;

/// Rows for the comparisons, as JSON. Amounts are micro-units, times seconds since 1970.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// `id`, `organization`, `at`
    pub(super) customers: Vec<Value>,
    /// `id`, `organization`, `object` (what it paid), `asked` (whether that was ours), `currency`, `amount` (without tax), `at`
    pub(super) payments: Vec<Value>,
    /// `id`, `kind`, `payment_intent`, `amount`, `fee`, `phase`, `at`
    pub(super) reversals: Vec<Value>,
    /// `id`, `organization`, `status`, `currency`, `total`, `agrees`, `charge`, `at`
    pub(super) invoices: Vec<Value>,
    /// `id`, `organization`, `checkout`, `at`: those that are complete and paid
    pub(super) sessions: Vec<Value>,
    /// Objects without a field that is needed.
    pub(super) unreadable: Vec<(String, &'static str)>,
}

/// What a payment was for.
struct Paid {
    object: String,
    asked: bool,
    tax: i64,
    at: i64,
}

/// What is known while the lists are read.
struct Reader<'a> {
    owners: HashMap<String, Uuid>,
    /// By payment.
    paid: HashMap<String, Paid>,
    /// The currencies of our payments.
    payments: HashMap<String, money::Currency>,
    stripe: &'a Transport,
    snapshot: Snapshot,
}

impl Snapshot {
    /// Reads it.
    pub(super) async fn take(state: &AppState, stripe: &Transport) -> Result<Self, Error> {
        let known = sqlx::query!(
            r#"select customer_id as "id!", organization_id as "organization_id!" from stripe_customers where customer_id is not null
               union all select customer_id, organization_id from stripe_former_customers"#
        );
        let owners = known.fetch_all(&state.pool).await?.into_iter().map(|row| (row.id, row.organization_id)).collect();
        let mut reader = Reader { owners, paid: HashMap::new(), payments: HashMap::new(), stripe, snapshot: Self::default() };
        // Payments are read after what they are for, and before what went back of them.
        let customers = Call::get("/customers");
        reader.each(customers, Reader::customer).await?;
        reader.each(Call::get("/checkout/sessions").with("status", "complete"), Reader::session).await?;
        reader.each(Call::get("/invoices").with("expand[]", "data.payments"), Reader::invoice).await?;
        reader.each(Call::get("/payment_intents"), Reader::payment).await?;
        reader.each(Call::get("/refunds"), Reader::refund).await?;
        reader.each(Call::get("/disputes"), Reader::dispute).await?;
        Ok(reader.snapshot)
    }

    /// How many there are of each.
    pub(super) fn sizes(&self) -> [i64; 5] {
        [&self.customers, &self.payments, &self.reversals, &self.invoices, &self.sessions]
            .map(|list| i64::try_from(list.len()).unwrap_or(i64::MAX))
    }
}

impl Reader<'_> {
    async fn each(&mut self, list: Call, see: fn(&mut Self, Object<'_>) -> Result<(), Error>) -> Result<(), Error> {
        let mut after: Option<String> = None;
        loop {
            let call = list.clone().with("limit", 100).with_some("starting_after", after.as_deref());
            let page = self.stripe.ask_patiently(&call).await?;
            let mut newest = None;
            for object in Object(&page).list("data") {
                newest = Some(object.needs("id")?);
                match see(self, object) {
                    Err(Error::Unreadable(field)) => self.snapshot.unreadable.push((object.needs("id")?.to_owned(), field)),
                    seen => seen?,
                }
            }
            after = newest.filter(|_| page["has_more"] == true).map(ToOwned::to_owned);
            if after.is_none() {
                return Ok(());
            }
        }
    }

    fn owner(&self, object: Object<'_>) -> Option<Uuid> {
        self.owners.get(object.related("customer")?).copied()
    }

    fn customer(&mut self, customer: Object<'_>) -> Result<(), Error> {
        if let Some(organization) = customer.metadata::<OrganizationId>("organization_id") {
            self.snapshot
                .customers
                .push(json!({"id": customer.needs("id")?, "organization": organization.uuid(), "at": customer.number("created")}));
        }
        Ok(())
    }

    fn session(&mut self, session: Object<'_>) -> Result<(), Error> {
        let Some(organization) = self.owner(session) else { return Ok(()) };
        let (id, at) = (session.needs("id")?, session.number("created").unwrap_or(0));
        let checkout = session.metadata::<Uuid>("checkout_id");
        if let Some(payment) = session.related("payment_intent") {
            let tax = tax_on_top(session, session.currency()?)?;
            self.paid.insert(payment.to_owned(), Paid { object: id.to_owned(), asked: checkout.is_some(), tax, at });
        }
        if checkout.is_some() && matches!(session.text("payment_status"), Some("paid" | "no_payment_required")) {
            let row = json!({"id": id, "organization": organization, "checkout": checkout, "payment": session.related("payment_intent"), "at": at});
            self.snapshot.sessions.push(row);
        }
        Ok(())
    }

    fn invoice(&mut self, invoice: Object<'_>) -> Result<(), Error> {
        let Some(organization) = self.owner(invoice) else { return Ok(()) };
        let (id, status, currency) = (invoice.needs("id")?, invoice.needs("status")?, invoice.currency()?);
        let sums = Sums::of(invoice, currency)?;
        // When it last changed its status.
        let changes = invoice.at("status_transitions");
        let times = ["finalized_at", "paid_at", "voided_at", "marked_uncollectible_at"].map(|name| changes.number(name).unwrap_or(0));
        let at = times.into_iter().fold(invoice.number("created").unwrap_or(0), i64::max);
        let charge = invoice.metadata::<Uuid>("charge_id");
        let asked = charge.is_some() || invoice.metadata::<Uuid>("top_up_id").is_some();
        if let Some(payment) = paid_with(invoice) {
            self.paid.insert(payment.to_owned(), Paid { object: id.to_owned(), asked, tax: sums.tax, at });
        } else if asked && status == "paid" {
            // The customer's balance at Stripe paid: the invoice is the payment.
            let amount = sums.total - sums.tax;
            self.snapshot.payments.push(json!({"id": id, "organization": organization, "object": id, "asked": true,
                "currency": currency.code(), "amount": amount, "at": at}));
        }
        // A long list of lines is not all here, and not summed.
        let agrees = sums.agree() || invoice.at("lines").0["has_more"] == true;
        self.snapshot.invoices.push(json!({"id": id, "organization": organization, "status": status, "currency": currency.code(),
            "total": sums.total, "agrees": agrees, "charge": charge, "at": at}));
        Ok(())
    }

    fn payment(&mut self, payment: Object<'_>) -> Result<(), Error> {
        let Some(organization) = self.owner(payment).filter(|_| payment.text("status") == Some("succeeded")) else { return Ok(()) };
        let (id, currency) = (payment.needs("id")?, payment.currency()?);
        let received = payment.micros("amount_received", currency)?;
        let created = payment.number("created").unwrap_or(0);
        let paid = self.paid.get(id);
        let (object, tax) = paid.map_or((id, 0), |paid| (paid.object.as_str(), paid.tax));
        let row = json!({"id": id, "organization": organization, "object": object, "asked": paid.is_some_and(|paid| paid.asked),
            "currency": currency.code(), "amount": received - tax, "at": paid.map_or(created, |paid| paid.at.max(created))});
        self.payments.insert(id.to_owned(), currency);
        self.snapshot.payments.push(row);
        Ok(())
    }

    fn refund(&mut self, refund: Object<'_>) -> Result<(), Error> {
        let phase = match refund.needs("status")? {
            "succeeded" | "pending" => "taken",
            "failed" | "canceled" => "failed",
            _ => "none",
        };
        self.reversal(refund, "refund", phase)
    }

    fn dispute(&mut self, dispute: Object<'_>) -> Result<(), Error> {
        let phase = match dispute.needs("status")? {
            "won" => "won",
            "lost" => "lost",
            status if status.starts_with("warning") || status == "prevented" => "none",
            _ => "open",
        };
        self.reversal(dispute, "dispute", phase)
    }

    fn reversal(&mut self, object: Object<'_>, kind: &str, phase: &str) -> Result<(), Error> {
        let Some((payment, currency)) = object.related("payment_intent").and_then(|id| self.payments.get_key_value(id)) else {
            return Ok(());
        };
        let mut fee = 0_i64;
        for movement in object.list("balance_transactions") {
            fee = fee.saturating_add(movement.micros("fee", *currency)?);
        }
        self.snapshot.reversals.push(json!({"id": object.needs("id")?, "kind": kind, "payment_intent": payment,
            "amount": object.micros("amount", *currency)?, "fee": fee, "phase": phase, "at": object.number("created")}));
        Ok(())
    }
}
