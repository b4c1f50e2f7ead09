//! Splitting an amount without losing or making a micro-unit: the largest remainder gets what rounding leaves [B-29].

use crate::rates::PriceError;

/// Splits an amount by weights. The parts sum to the amount exactly; each is within one micro-unit of its exact share. Equal
/// remainders are served in the order of the parts, so that a split is the same every time.
///
/// # Errors
/// [`PriceError::Overflow`] when there is an amount and nothing to split it by.
pub fn split(amount: i64, weights: &[u64]) -> Result<Vec<i64>, PriceError> {
    let total: i128 = weights.iter().map(|weight| i128::from(*weight)).sum();
    if total == 0 {
        return if amount == 0 { Ok(vec![0; weights.len()]) } else { Err(PriceError::Overflow) };
    }
    let sign = if amount < 0 { -1 } else { 1 };
    let magnitude = i128::from(amount.unsigned_abs());
    let products = weights.iter().map(|weight| magnitude.checked_mul(i128::from(*weight)).ok_or(PriceError::Overflow));
    let products: Vec<i128> = products.collect::<Result<_, _>>()?;
    let mut parts: Vec<i128> = products.iter().map(|product| product / total).collect();
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(products[*index] % total));
    // Less than one for each part: every remainder is below the total.
    let left = usize::try_from(magnitude - parts.iter().sum::<i128>()).map_err(|_| PriceError::Overflow)?;
    for index in order.into_iter().take(left) {
        parts[index] += 1;
    }
    parts.into_iter().map(|part| i64::try_from(part * sign).map_err(|_| PriceError::Overflow)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A generator of the test's own, so that a million cases take a second and are the same ones every time.
    struct Sequence(u64);

    impl Sequence {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }
    }

    /// [B-29]
    #[test]
    fn the_parts_of_a_million_random_splits_sum_to_the_whole_and_are_within_a_micro_of_their_share() {
        let mut sequence = Sequence(0x2026_0b29);
        for _ in 0..1_000_000 {
            let mut amount = i64::try_from(sequence.next() >> (1 + sequence.next() % 40)).unwrap();
            if sequence.next().is_multiple_of(4) {
                amount = -amount;
            }
            let weights: Vec<u64> = (0..=(sequence.next() % 6)).map(|_| sequence.next() >> (2 + sequence.next() % 60)).collect();
            let total: i128 = weights.iter().map(|weight| i128::from(*weight)).sum();
            if total == 0 {
                continue;
            }
            let parts = split(amount, &weights).unwrap();
            assert_eq!(parts.iter().map(|part| i128::from(*part)).sum::<i128>(), i128::from(amount), "{amount} by {weights:?}");
            for (part, weight) in parts.iter().zip(&weights) {
                let distance = i128::from(*part) * total - i128::from(amount) * i128::from(*weight);
                assert!(distance.abs() < total, "{part} is not the share of {weight} in {amount} by {weights:?}");
            }
        }
    }

    #[test]
    fn nothing_to_split_by_is_an_error_unless_there_is_nothing_to_split() {
        assert_eq!(split(0, &[0, 0]), Ok(vec![0, 0]));
        assert_eq!(split(1, &[0, 0]), Err(PriceError::Overflow));
        assert_eq!(split(1, &[]), Err(PriceError::Overflow));
        assert_eq!(split(100, &[1, 1, 1]), Ok(vec![34, 33, 33]));
        assert_eq!(split(i64::MIN, &[1]), Ok(vec![i64::MIN]));
        assert_eq!(split(i64::MAX, &[u64::MAX, u64::MAX]), Ok(vec![4_611_686_018_427_387_904, 4_611_686_018_427_387_903]));
    }
}
