//! Currencies and amounts in their smallest units; whole numbers only.

use crate::error::Failure;

/// Currencies that are charged (Stripe's list, without those of a single country's special rules).
const CURRENCIES: &str = "aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd bwp byn bzd cad cdf chf clp cny cop crc cve czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd hkd hnl htg huf idr ils inr isk jmd jod jpy kes kgs khr kmf krw kwd kyd kzt lak lbp lkr lrd lsl mad mdl mga mkd mmk mnt mop mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd scr sek sgd shp sle sos srd std szl thb tjs tnd top try ttd twd tzs uah ugx usd uyu uzs vnd vuv wst xaf xcd xof xpf yer zar zmw";
const WITHOUT_DECIMALS: &str = "bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf";
const WITH_THREE_DECIMALS: &str = "bhd jod kwd omr tnd";
/// Billionths in a percent: percentages are kept with this precision.
const PERCENT_SCALE: i128 = 1_000_000;
const MAX_AMOUNT: i64 = 99_999_999;
/// Smallest charge; other currencies have none here.
const MINIMA: [(&str, i64); 6] = [("usd", 50), ("eur", 50), ("gbp", 30), ("jpy", 50), ("chf", 50), ("cad", 50)];

fn lists(list: &str, currency: &str) -> bool {
    list.split(' ').any(|listed| listed == currency)
}

/// A currency in small letters.
pub(crate) fn currency(text: &str, param: &str) -> Result<String, Failure> {
    let lower = text.to_ascii_lowercase();
    if lists(CURRENCIES, &lower) {
        return Ok(lower);
    }
    Err(Failure::invalid(format!(
        "Invalid currency: {text}. Stripe currently supports these currencies: {}",
        CURRENCIES.replace(' ', ", ")
    ))
    .param(param))
}

/// Digits after the point: 0, 2 or 3.
pub(crate) fn decimals(currency: &str) -> usize {
    if lists(WITHOUT_DECIMALS, currency) {
        0
    } else if lists(WITH_THREE_DECIMALS, currency) {
        3
    } else {
        2
    }
}

/// An amount for a person: `12.50 USD`.
pub(crate) fn written(amount: i64, currency: &str) -> String {
    let digits = decimals(currency);
    let unit = 10_u64.pow(u32::try_from(digits).unwrap_or(0));
    let (sign, size) = (if amount < 0 { "-" } else { "" }, amount.unsigned_abs());
    let whole = size / unit;
    let code = currency.to_ascii_uppercase();
    if digits == 0 { format!("{sign}{whole} {code}") } else { format!("{sign}{whole}.{:0digits$} {code}", size % unit) }
}

/// The smallest amount that is charged.
pub(crate) fn minimum(currency: &str) -> i64 {
    MINIMA.iter().find(|(name, _)| *name == currency).map_or(1, |(_, minimum)| *minimum)
}

/// Refuses amounts that no card is charged.
pub(crate) fn chargeable(amount: i64, currency: &str) -> Result<(), Failure> {
    if amount > MAX_AMOUNT {
        return Err(Failure::invalid("Amount must be no more than 999,999.99").code("amount_too_large").param("amount"));
    }
    let minimum = minimum(currency);
    if amount < minimum {
        let message = format!("Amount must be at least {}", written(minimum, currency));
        return Err(Failure::invalid(message).code("amount_too_small").param("amount"));
    }
    // Three decimals are charged in steps of ten: the last digit must be a zero.
    if decimals(currency) == 3 && amount % 10 != 0 {
        return Err(Failure::invalid("Invalid amount: the last digit of three-decimal currencies must be 0.").param("amount"));
    }
    Ok(())
}

/// A percentage such as `12.5`, in millionths of a percent.
pub(crate) fn percentage(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.bytes().all(|byte| byte.is_ascii_digit()) && fraction.len() <= 6;
    let whole: i64 = whole.parse().ok().filter(|whole| (0..=100).contains(whole))?;
    let fraction: i64 = if digits { format!("{fraction:0<6}").parse().ok()? } else { return None };
    let value = whole * 1_000_000 + fraction;
    (value <= 100_000_000).then_some(value)
}

/// A share of an amount, halves away from zero. The percentage is in millionths of a percent.
pub(crate) fn share(amount: i64, percentage: i64) -> i64 {
    ratio(amount, i128::from(percentage), 100 * PERCENT_SCALE)
}

/// The tax within an amount that includes it.
pub(crate) fn included(amount: i64, percentage: i64) -> i64 {
    ratio(amount, i128::from(percentage), 100 * PERCENT_SCALE + i128::from(percentage))
}

/// `amount · part / whole`, halves away from zero; the whole amount where `whole` is not positive.
pub(crate) fn ratio(amount: i64, part: i128, whole: i128) -> i64 {
    if whole <= 0 {
        return amount;
    }
    let product = i128::from(amount) * part;
    let rounded = (product.abs() + whole / 2) / whole * product.signum();
    i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX })
}

/// Splits an amount over weights without losing a unit: the rest goes to the largest remainders, the first ones first.
pub(crate) fn allocate(amount: i64, weights: &[i64]) -> Vec<i64> {
    let total: i128 = weights.iter().map(|weight| i128::from(*weight)).sum();
    if total <= 0 {
        return vec![0; weights.len()];
    }
    let exact = |weight: &i64| i128::from(amount) * i128::from(*weight);
    let mut parts: Vec<i64> = weights.iter().map(|weight| i64::try_from(exact(weight) / total).unwrap_or_default()).collect();
    let mut places: Vec<usize> = (0..weights.len()).collect();
    places.sort_by_key(|place| std::cmp::Reverse(exact(&weights[*place]) % total));
    let rest = amount - parts.iter().sum::<i64>();
    for place in places.into_iter().take(usize::try_from(rest).unwrap_or_default()) {
        parts[place] += 1;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_with_the_digits_of_their_currency() {
        assert_eq!([written(1250, "usd"), written(1250, "jpy"), written(-1250, "kwd")], ["12.50 USD", "1250 JPY", "-1.250 KWD"]);
    }

    #[test]
    fn percentages_have_up_to_six_decimals_and_end_at_a_hundred() {
        assert_eq!([percentage("12.5"), percentage("100"), percentage("0.000001")], [Some(12_500_000), Some(100_000_000), Some(1)]);
        assert_eq!([percentage("100.1"), percentage("-1"), percentage("1.0000001"), percentage("x")], [None; 4]);
    }

    #[test]
    fn halves_are_rounded_away_from_zero() {
        assert_eq!([ratio(5, 1, 2), ratio(-5, 1, 2), ratio(1, 1, 3), share(999, 10_000_000)], [3, -3, 0, 100]);
    }

    proptest::proptest! {
        #[test]
        fn an_allocation_loses_nothing(amount in 0_i64..1_000_000, weights in proptest::collection::vec(0_i64..1_000_000, 1..20)) {
            let parts = allocate(amount, &weights);
            let expected = if weights.iter().sum::<i64>() == 0 { 0 } else { amount };
            proptest::prop_assert_eq!(parts.iter().sum::<i64>(), expected);
        }
    }
}
