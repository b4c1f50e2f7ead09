//! Every kind of difference there is, how bad it is, and what it means.

/// How bad a difference is; the worst comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Money or access is not what it should be: somebody must act.
    Error,
    /// Somebody should know.
    Warning,
    /// It is on its way, or means nothing.
    Info,
}

impl Severity {
    /// Its name in the database, in metrics and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// A kind of difference.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) severity: Severity,
    pub(super) sentence: &'static str,
}

const fn error(name: &'static str, sentence: &'static str) -> Kind {
    Kind { name, severity: Severity::Error, sentence }
}

const fn warning(name: &'static str, sentence: &'static str) -> Kind {
    Kind { name, severity: Severity::Warning, sentence }
}

/// All of them.
pub(super) const KINDS: &[Kind] = &[
    error("customer_missing", "An organization waits for its customer at Stripe; look at what Stripe answers"),
    Kind {
        name: "customer_none",
        severity: Severity::Info,
        sentence: "An organization has no customer at Stripe; its first purchase makes one",
    },
    error("customer_unknown", "Stripe does not know the customer that we have for the organization"),
    error("customer_double", "The organization has another customer at Stripe than the one we know"),
    error("payment_missing", "A payment succeeded at Stripe, and we know nothing of it: repair brings its effect"),
    warning("payment_foreign", "A customer of ours paid something at Stripe that nothing of ours asked for"),
    error("payment_unknown", "We sold something for a payment that did not succeed at Stripe"),
    error("payment_owner", "The payment is another organization's at Stripe"),
    error("payment_amount", "The payment is of another amount at Stripe, without its tax"),
    warning("payment_kept", "A payment that was for nothing is not given back"),
    error("sale_missing", "A payment has no sale in the ledger"),
    error("sale_unknown", "The ledger has a sale for which nothing was paid"),
    error("sale_amount", "The sale in the ledger is of another amount, or another organization's, than its payment"),
    error("refund_missing", "Money went back at Stripe, and its credit was not taken back: repair does it"),
    error("refund_unknown", "We took credit back for a refund that Stripe does not have"),
    error("refund_amount", "The refund is of another amount at Stripe"),
    error("refund_failed", "A refund failed after its credit was taken back: decide whether the credit returns"),
    error("dispute_missing", "A payment is disputed at Stripe, and its credit was not taken back: repair does it"),
    error("dispute_unknown", "We took credit back for a dispute that Stripe does not have"),
    error("dispute_amount", "The dispute is about another amount at Stripe"),
    error("dispute_state", "A dispute is decided on one side and open on the other: repair brings Stripe's decision"),
    error("reversal_unposted", "Something was given back, and the ledger has nothing of it"),
    error("reversed_sum", "What went back of a payment does not come to the sum of its refunds and disputes at Stripe"),
    error("invoice_missing", "Stripe has an invoice of which we know nothing: repair brings it"),
    error("invoice_unknown", "We have an invoice that Stripe does not have"),
    error("invoice_owner", "The invoice is another organization's at Stripe"),
    error("invoice_status", "The invoice has another status at Stripe: repair brings it"),
    error("invoice_amount", "The invoice comes to another total at Stripe: repair brings it"),
    error("invoice_sums", "The lines of the invoice, less discount, plus tax, do not come to its total"),
    error("credit_note_missing", "Stripe has a credit note of which we know nothing: repair brings it"),
    error("credit_note_unknown", "We have a credit note that Stripe does not have"),
    error("credit_note_owner", "The credit note is another organization's at Stripe"),
    error("credit_note_status", "The credit note has another status at Stripe: repair brings it"),
    error(
        "credit_note_amount",
        "The credit note is of another amount at Stripe, or another part of it went to the balance: repair brings it",
    ),
    error(
        "customer_balance",
        "The customer's balance at Stripe is not what the ledger says: repair books what somebody changed at Stripe as a correction",
    ),
    error("charge_double", "A charge of a subscription was paid more than once: give one back"),
    error("charge_payable", "An invoice of a charge that was given up can be paid at Stripe yet: void it there"),
    error(
        "charge_lost",
        "A charge of a subscription has neither payment nor page nor an invoice that is not void, and nothing is about to collect it",
    ),
    error("checkout_unpaid", "A page was completed at Stripe, and it is not paid here: repair brings its effect"),
    error("checkout_unproved", "A page counts as paid here, and Stripe does not say so"),
    error("checkout_owner", "The page is another organization's at Stripe"),
    warning("checkout_unknown", "A page was paid at Stripe that we did not make: is the account shared with another installation?"),
    error("clearing", "What the ledger says that Stripe holds for us of the organization is not what Stripe says"),
    error("clearing_total", "What the ledger says that Stripe holds for us is not what Stripe says"),
    error("meter_sum", "The sum of a meter in an hour at Stripe is not what was reported: repair reports what is missing"),
    error("meter_parked", "Stripe did not want a report of usage, and it was set aside: mend the reason and replay it"),
    warning("meter_behind", "What was counted in an hour that has ended is in no report, or does not fit into one"),
    error("meter_unusable", "Stripe has no active meter of that event name, or one that adds up differently: nothing is reported to it"),
    error("unreadable", "Something could not be compared: Stripe did not tell it, or its object has not what is needed"),
];

/// A kind by its name.
pub(super) fn find(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}
