//! Exact decimals: prices of a price list and metered values, read digit by digit and never as floating point [B-26].

use std::fmt;
use std::str::FromStr;

/// Digits behind the point that a [`Decimal`] keeps.
pub const SCALE: u32 = 12;
const UNIT: i128 = 10_i128.pow(SCALE);
/// An exponent beyond this is no number anybody means; it bounds the work of reading.
const MAX_EXPONENT: i32 = 64;
/// Characters of a number at most.
const MAX_LENGTH: usize = 64;

/// A number that is not negative, in units of 10^-12, below 10^18.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Decimal(i128);

/// Why a text is not a [`Decimal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDecimal {
    /// It is not a decimal number in JSON's spelling.
    #[error("must be a decimal number")]
    Malformed,
    /// It is below zero.
    #[error("must not be negative")]
    Negative,
    /// It is 10^18 or more.
    #[error("must be less than 10^18")]
    TooLarge,
    /// It has digits beyond the twelfth behind the point.
    #[error("must have at most 12 digits behind the point")]
    TooFine,
}

impl Decimal {
    /// The number in units of 10^-12.
    #[must_use]
    pub const fn scaled(self) -> i128 {
        self.0
    }

    /// Reads a number whose digits beyond the twelfth are rounded up: a price never becomes free by being small.
    ///
    /// # Errors
    /// [`InvalidDecimal`].
    pub fn parse_rounding_up(text: &str) -> Result<Self, InvalidDecimal> {
        let (value, exact) = scaled(text)?;
        Self::bounded(if exact { value } else { value + 1 })
    }

    fn bounded(value: i128) -> Result<Self, InvalidDecimal> {
        if value < 10_i128.pow(18) * UNIT { Ok(Self(value)) } else { Err(InvalidDecimal::TooLarge) }
    }
}

impl FromStr for Decimal {
    type Err = InvalidDecimal;

    fn from_str(text: &str) -> Result<Self, InvalidDecimal> {
        let (value, exact) = scaled(text)?;
        if exact { Self::bounded(value) } else { Err(InvalidDecimal::TooFine) }
    }
}

/// The shortest spelling that reads as the same number.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / UNIT, self.0 % UNIT);
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        let fraction = format!("{fraction:012}");
        write!(f, "{whole}.{}", fraction.trim_end_matches('0'))
    }
}

/// The number in units of 10^-12, cut off behind them, and whether nothing was cut off.
fn scaled(text: &str) -> Result<(i128, bool), InvalidDecimal> {
    if text.len() > MAX_LENGTH {
        return Err(InvalidDecimal::Malformed);
    }
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    if !digits(whole) || !digits(fraction) || leading_zero || !digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)) {
        return Err(InvalidDecimal::Malformed);
    }
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Ok((0, true));
    }
    if negative {
        return Err(InvalidDecimal::Negative);
    }
    let exponent: i32 = exponent.parse().map_err(|_| InvalidDecimal::TooLarge)?;
    if exponent.abs() > MAX_EXPONENT {
        return Err(if exponent > 0 { InvalidDecimal::TooLarge } else { InvalidDecimal::TooFine });
    }
    // Below 64 characters of text: both fit.
    let shift = i32::try_from(SCALE).unwrap_or_default() + exponent - i32::try_from(fraction.len()).unwrap_or_default();
    shifted(digits, shift)
}

fn shifted(digits: &str, shift: i32) -> Result<(i128, bool), InvalidDecimal> {
    let read = |digits: &str| digits.parse::<i128>().map_err(|_| InvalidDecimal::TooLarge);
    if let Ok(shift) = u32::try_from(shift) {
        let power = 10_i128.checked_pow(shift).ok_or(InvalidDecimal::TooLarge)?;
        return Ok((read(digits)?.checked_mul(power).ok_or(InvalidDecimal::TooLarge)?, true));
    }
    let cut = usize::try_from(shift.unsigned_abs()).unwrap_or(usize::MAX);
    let (kept, dropped) = if cut >= digits.len() { ("0", digits) } else { digits.split_at(digits.len() - cut) };
    Ok((read(kept)?, dropped.bytes().all(|digit| digit == b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// [B-26]
    #[test]
    fn numbers_are_read_exactly_in_every_spelling_of_json() {
        for (text, expected) in [
            ("2.5e-06", 2_500_000),
            ("0.0000025", 2_500_000),
            ("1.5E-7", 150_000),
            ("0", 0),
            ("-0.0", 0),
            ("1e+3", 1_000 * UNIT),
            ("0.000000000001", 1),
            ("0.0000000000010", 1),
            ("999999999999999999", 999_999_999_999_999_999 * UNIT),
        ] {
            assert_eq!(text.parse(), Ok(Decimal(expected)), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_negative_too_large_or_too_fine_is_refused_by_its_rule() {
        let rule = |text: &str| text.parse::<Decimal>().unwrap_err();
        for text in ["", ".", "1.", ".5", "01", "+1", "1e", "NaN", "Infinity", "0x1", "1_000", " 1", "null", "1e1e1", "--1"] {
            assert_eq!(rule(text), InvalidDecimal::Malformed, "{text}");
        }
        assert_eq!(rule("-1e-6"), InvalidDecimal::Negative);
        for text in ["1000000000000000000", "1e18", "1e99", "1e99999999999"] {
            assert_eq!(rule(text), InvalidDecimal::TooLarge, "{text}");
        }
        for text in ["1e-13", "0.0000000000001", "1e-999"] {
            assert_eq!(rule(text), InvalidDecimal::TooFine, "{text}");
        }
        assert_eq!(Decimal::parse_rounding_up("3e-13"), Ok(Decimal(1)), "a small price became free");
        assert_eq!(Decimal::parse_rounding_up("1.0000000000001"), Ok(Decimal(UNIT + 1)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same_number(value in 0..10_i128.pow(30)) {
            prop_assert_eq!(Decimal(value).to_string().parse(), Ok(Decimal(value)));
        }

        #[test]
        fn reading_never_panics(text in "[-+0-9.eE]{0,40}") {
            let _ = text.parse::<Decimal>();
            let _ = Decimal::parse_rounding_up(&text);
        }
    }
}
