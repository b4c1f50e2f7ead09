//! The well-known test cards: what each is, and what becomes of a payment with it.

use crate::error::Failure;

/// What a card does when it is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behavior {
    /// It pays.
    Pays,
    /// It is refused: code, decline code, message.
    Declines(&'static str, Option<&'static str>, &'static str),
    /// The cardholder must confirm, each time.
    Authenticates,
    /// The cardholder must confirm once; payments while the customer is away succeed then.
    AuthenticatesOnce,
    /// It is on its way until somebody says how it ends, as with bank debits.
    Processes,
    /// It pays, and the payment is disputed at once.
    Disputes(&'static str),
}

/// A test card.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Card {
    /// `pm_card_…`
    pub(crate) name: &'static str,
    pub(crate) number: &'static str,
    pub(crate) brand: &'static str,
    pub(crate) behavior: Behavior,
    /// Refused when it is attached already.
    pub(crate) refuses_attach: bool,
}

const DECLINED: &str = "Your card was declined.";

const fn card(name: &'static str, number: &'static str, brand: &'static str, behavior: Behavior) -> Card {
    Card { name, number, brand, behavior, refuses_attach: false }
}

const fn refused(name: &'static str, number: &'static str, behavior: Behavior) -> Card {
    Card { name, number, brand: "visa", behavior, refuses_attach: true }
}

const fn generic(decline: &'static str) -> Behavior {
    Behavior::Declines("card_declined", Some(decline), DECLINED)
}

/// All of them; <https://docs.stripe.com/testing> is the source.
pub(crate) const CARDS: [Card; 25] = [
    card("pm_card_visa", "4242424242424242", "visa", Behavior::Pays),
    card("pm_card_visa_debit", "4000056655665556", "visa", Behavior::Pays),
    card("pm_card_mastercard", "5555555555554444", "mastercard", Behavior::Pays),
    card("pm_card_mastercard_debit", "5200828282828210", "mastercard", Behavior::Pays),
    card("pm_card_amex", "378282246310005", "amex", Behavior::Pays),
    card("pm_card_discover", "6011111111111117", "discover", Behavior::Pays),
    card("pm_card_diners", "3056930009020004", "diners", Behavior::Pays),
    card("pm_card_jcb", "3566002020360505", "jcb", Behavior::Pays),
    card("pm_card_unionpay", "6200000000000005", "unionpay", Behavior::Pays),
    card("pm_card_de", "4000002760000016", "visa", Behavior::Pays),
    card("pm_card_jp", "4000003920000003", "visa", Behavior::Pays),
    refused("pm_card_visa_chargeDeclined", "4000000000000002", generic("generic_decline")),
    refused("pm_card_chargeDeclined", "4000000000000002", generic("generic_decline")),
    refused(
        "pm_card_visa_chargeDeclinedInsufficientFunds",
        "4000000000009995",
        Behavior::Declines("card_declined", Some("insufficient_funds"), "Your card has insufficient funds."),
    ),
    refused(
        "pm_card_chargeDeclinedInsufficientFunds",
        "4000000000009995",
        Behavior::Declines("card_declined", Some("insufficient_funds"), "Your card has insufficient funds."),
    ),
    refused("pm_card_visa_chargeDeclinedLostCard", "4000000000009987", generic("lost_card")),
    refused("pm_card_visa_chargeDeclinedStolenCard", "4000000000009979", generic("stolen_card")),
    refused("pm_card_chargeDeclinedExpiredCard", "4000000000000069", Behavior::Declines("expired_card", None, "Your card has expired.")),
    refused(
        "pm_card_chargeDeclinedIncorrectCvc",
        "4000000000000127",
        Behavior::Declines("incorrect_cvc", None, "Your card's security code is incorrect."),
    ),
    refused(
        "pm_card_chargeDeclinedProcessingError",
        "4000000000000119",
        Behavior::Declines("processing_error", None, "An error occurred while processing your card. Try again in a little bit."),
    ),
    // Attaching works, charging does not: for renewals that fail.
    card("pm_card_chargeCustomerFail", "4000000000000341", "visa", generic("generic_decline")),
    card("pm_card_threeDSecure2Required", "4000000000003220", "visa", Behavior::Authenticates),
    card("pm_card_authenticationRequired", "4000002500003155", "visa", Behavior::AuthenticatesOnce),
    // No card: Stripe's test account at a bank whose debits stay on their way. Shown as a card all the same.
    card("pm_usBankAccount_processing", "000000000000009001", "visa", Behavior::Processes),
    card("pm_card_createDispute", "4000000000000259", "visa", Behavior::Disputes("fraudulent")),
];

/// The card of a name such as `pm_card_visa`.
pub(crate) fn named(name: &str) -> Option<Card> {
    CARDS.into_iter().find(|card| card.name == name)
}

/// The card of a number, or of a token such as `tok_visa`.
pub(crate) fn numbered(number: &str) -> Option<Card> {
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    let token = number.strip_prefix("tok_").map(|rest| format!("pm_card_{rest}"));
    CARDS.into_iter().find(|card| token.as_deref().map_or(card.number == digits, |token| card.name == token))
}

impl Card {
    /// The last four digits.
    pub(crate) fn last4(&self) -> &'static str {
        &self.number[self.number.len() - 4..]
    }

    /// The error of a card that is refused.
    pub(crate) fn decline(&self) -> Option<Failure> {
        match self.behavior {
            Behavior::Declines(code, decline, message) => Some(Failure::card(code, decline, message)),
            _ => None,
        }
    }
}
