//! Amounts as people write them: decimals in text, exact to the minor unit, never through a floating point number [B-26, B-27].

use money::Currency;
use money::currency::MICROS_PER_UNIT;

/// Why a text is not an amount of the currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAmount {
    /// Not digits with at most one point between them.
    #[error("must be a decimal number in quotes, such as \"20.00\"")]
    NotDecimal,
    /// Parts of what is the smallest that can be paid.
    #[error("must have at most {0} decimals, as {1} has")]
    TooFine(u32, Currency),
    /// Beyond 64 bits.
    #[error("is too large")]
    TooLarge,
}

/// How many decimals an amount may have that somebody pays: those of the currency. Stripe wants whole units of UGX and ISK although
/// it counts them in hundredths.
#[must_use]
pub fn payable_decimals(currency: Currency) -> u32 {
    if matches!(currency.code(), "UGX" | "ISK") { 0 } else { currency.decimals() }
}

/// Micro-units of the smallest amount that can be paid: the smallest unit, or ten of it where there are three decimals, of which Stripe
/// wants the last to be zero.
#[must_use]
pub fn minor_micros(currency: Currency) -> i64 {
    10_i64.pow(6 - payable_decimals(currency).min(2))
}

/// Reads an amount into micro-units. No sign: nothing in a catalogue is below zero.
///
/// # Errors
/// [`InvalidAmount`].
pub fn parse(text: &str, currency: Currency) -> Result<i64, InvalidAmount> {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || fraction.is_some_and(|fraction| !digits(fraction)) {
        return Err(InvalidAmount::NotDecimal);
    }
    let fraction = fraction.unwrap_or_default();
    let decimals = payable_decimals(currency);
    if fraction.len() > decimals as usize {
        return Err(InvalidAmount::TooFine(decimals, currency));
    }
    let whole: i64 = whole.parse().map_err(|_| InvalidAmount::TooLarge)?;
    let part: i64 = format!("{fraction:0<6}").parse().map_err(|_| InvalidAmount::TooLarge)?;
    whole.checked_mul(MICROS_PER_UNIT).and_then(|micros| micros.checked_add(part)).ok_or(InvalidAmount::TooLarge)
}

/// Writes an amount with all decimals of its currency; the opposite of [`parse`] for whole minor units.
#[must_use]
pub fn print(micros: i64, currency: Currency) -> String {
    let decimals = payable_decimals(currency) as usize;
    let sign = if micros < 0 { "-" } else { "" };
    let (whole, part) = (micros.unsigned_abs() / MICROS_PER_UNIT.unsigned_abs(), micros.unsigned_abs() % MICROS_PER_UNIT.unsigned_abs());
    if decimals == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{}", &format!("{part:06}")[..decimals]) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn currency(code: &str) -> Currency {
        code.parse().unwrap()
    }

    /// [B-27]
    #[test]
    fn an_amount_has_as_many_decimals_as_its_currency_and_no_more() {
        assert_eq!(parse("20.5", currency("USD")), Ok(20_500_000));
        assert_eq!(parse("2000", currency("JPY")), Ok(2_000_000_000));
        assert_eq!(parse("1.234", currency("KWD")), Ok(1_234_000));
        assert_eq!(parse("0.001", currency("USD")), Err(InvalidAmount::TooFine(2, currency("USD"))));
        assert_eq!(parse("1.5", currency("JPY")), Err(InvalidAmount::TooFine(0, currency("JPY"))));
        assert_eq!(parse("1.5", currency("ISK")), Err(InvalidAmount::TooFine(0, currency("ISK"))));
    }

    #[test]
    fn what_is_not_a_plain_decimal_is_refused() {
        for text in ["", ".5", "5.", "-1", "+1", "1e3", "1,5", " 1", "0x1", "1.2.3", "NaN"] {
            assert_eq!(parse(text, currency("USD")), Err(InvalidAmount::NotDecimal), "{text}");
        }
        assert_eq!(parse("9223372036855", currency("USD")), Err(InvalidAmount::TooLarge));
        assert_eq!(parse("99999999999999999999", currency("USD")), Err(InvalidAmount::TooLarge));
    }

    proptest! {
        #[test]
        fn an_amount_that_is_printed_is_read_as_itself(minor in 0..1_000_000_000_i64, code in prop_oneof![Just("USD"), Just("EUR"), Just("JPY"), Just("KWD"), Just("ISK")]) {
            let currency = currency(code);
            let micros = minor * minor_micros(currency);
            prop_assert_eq!(parse(&print(micros, currency), currency), Ok(micros));
        }
    }
}
