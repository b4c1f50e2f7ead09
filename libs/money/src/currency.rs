//! Currencies (ISO 4217) and the one place where micro-units become a payment provider's minor units.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Micro-units of one unit of any currency: 1 USD = 1,000,000.
pub const MICROS_PER_UNIT: i64 = 1_000_000;

/// Currencies and the decimals of their minor unit. UGX and ISK have none in use, and Stripe still wants two for them.
const TABLE: [(&str, u32); 14] = [
    ("AUD", 2),
    ("CAD", 2),
    ("CHF", 2),
    ("CLP", 0),
    ("EUR", 2),
    ("GBP", 2),
    ("ISK", 2),
    ("JOD", 3),
    ("JPY", 0),
    ("KRW", 0),
    ("KWD", 3),
    ("UGX", 2),
    ("USD", 2),
    ("VND", 0),
];

/// A currency we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct Currency(&'static str);

/// The text is not a currency we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a supported ISO 4217 currency code")]
pub struct UnknownCurrency;

impl Currency {
    /// US dollars.
    pub const USD: Self = Self("USD");

    /// The ISO 4217 code, upper case.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.0
    }

    /// Decimals of the minor unit, as Stripe counts them.
    #[must_use]
    pub fn decimals(self) -> u32 {
        TABLE.iter().find(|(code, _)| *code == self.0).map_or(2, |(_, decimals)| *decimals)
    }
}

impl FromStr for Currency {
    type Err = UnknownCurrency;

    fn from_str(text: &str) -> Result<Self, UnknownCurrency> {
        TABLE.iter().find(|(code, _)| *code == text).map(|(code, _)| Self(code)).ok_or(UnknownCurrency)
    }
}

impl TryFrom<String> for Currency {
    type Error = UnknownCurrency;

    fn try_from(text: String) -> Result<Self, UnknownCurrency> {
        text.parse()
    }
}

/// By hand: derived over a `&'static str`, it would read only what lives as long as the program.
impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.0.to_owned()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Micro-units as minor units of the currency, half away from zero: the one rounding point towards a payment provider [B-29].
/// UGX and ISK amounts come out as whole units times one hundred, as Stripe asks.
#[must_use]
pub fn minor_units(currency: Currency, micros: i64) -> i64 {
    let whole_units_only = matches!(currency.0, "UGX" | "ISK");
    let divisor = if whole_units_only { MICROS_PER_UNIT } else { 10_i64.pow(6 - currency.decimals()) };
    let half = divisor / 2;
    let magnitude = (micros.unsigned_abs().saturating_add(half.unsigned_abs())) / divisor.unsigned_abs();
    let minor = i64::try_from(magnitude).unwrap_or(i64::MAX) * if whole_units_only { 100 } else { 1 };
    if micros < 0 { -minor } else { minor }
}

/// What an amount of a payment provider is in micro-units; none when it does not fit.
#[must_use]
pub fn from_minor_units(currency: Currency, minor: i64) -> Option<i64> {
    // UGX and ISK come as hundredths, of which there are none.
    let decimals = if matches!(currency.0, "UGX" | "ISK") { 2 } else { currency.decimals() };
    minor.checked_mul(10_i64.pow(6 - decimals))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minor(code: &str, micros: i64) -> i64 {
        minor_units(code.parse().unwrap(), micros)
    }

    /// [B-27] [B15]
    #[test]
    fn currencies_with_none_two_and_three_decimals_convert_by_one_table() {
        assert_eq!(minor("USD", 1_234_567), 123);
        assert_eq!(minor("JPY", 1_500_000), 2);
        assert_eq!(minor("KWD", 1_234_567), 1_235);
        assert_eq!(minor("UGX", 3_000_000), 300);
        assert_eq!(minor("ISK", 2_600_000), 300);
    }

    /// [B-27]
    #[test]
    fn what_a_provider_says_is_what_it_was_told() {
        for (code, _) in TABLE {
            let currency: Currency = code.parse().unwrap();
            for minor in [0, 100, 12_300, -700] {
                assert_eq!(from_minor_units(currency, minor).map(|micros| minor_units(currency, micros)), Some(minor), "{code}");
            }
        }
        assert_eq!(from_minor_units(Currency::USD, i64::MAX), None);
    }

    /// [B-29]
    #[test]
    fn half_a_minor_unit_rounds_away_from_zero_both_ways() {
        assert_eq!(minor("USD", 5_000), 1);
        assert_eq!(minor("USD", 4_999), 0);
        assert_eq!(minor("USD", -5_000), -1);
        assert_eq!(minor("USD", -4_999), 0);
    }

    #[test]
    fn an_unknown_currency_is_refused() {
        for code in ["usd", "XXX", "", "USDT"] {
            assert!(code.parse::<Currency>().is_err(), "{code}");
        }
    }
}
