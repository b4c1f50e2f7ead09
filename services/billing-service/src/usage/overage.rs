//! What is charged of a request that cost more than was taken for it when it was admitted [B-40].
//!
//! Nothing of it is lost: the row has all tokens, what was charged and what was not (`written_off_micros`); what was not charged is no
//! revenue, and the provider's cost stays, so that the margin shows it.

use chassis::config::FromSetting;
use contracts::RequestId;
use identity::OrganizationId;
use sqlx::{Postgres, Transaction};

use crate::grants;

/// Who pays for what goes beyond the estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overage {
    /// The house: no request costs more than was taken for it.
    Cap,
    /// The organization, as far as its wallet and its overdraft limit reach; the house beyond that.
    Overdraft,
    /// The organization; what its wallet does not have is owed.
    Debt,
}

impl FromSetting for Overage {
    fn from_setting(text: &str) -> Result<Self, String> {
        match text.trim() {
            "cap" => Ok(Self::Cap),
            "overdraft" => Ok(Self::Overdraft),
            "debt" => Ok(Self::Debt),
            _ => Err("must be cap, overdraft or debt".to_owned()),
        }
    }
}

/// A request's price, and what there is for it; in micro-units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bill {
    /// What it used, at the rate card, less what was free.
    pub price: i64,
    /// What was taken for it when it was admitted.
    pub reserved: i64,
    /// What of that its hold still has.
    pub held: i64,
    /// What its organization has that may pay for it, less what it owes: beyond that, and beyond the overdraft limit, nothing is owed for it.
    pub available: i64,
}

impl Overage {
    /// What the organization pays; `limit` is its overdraft limit. Never less than the price or what was taken, whichever is lower.
    #[must_use]
    pub fn charged(self, bill: Bill, limit: i64) -> i64 {
        let promised = bill.price.min(bill.reserved);
        match self {
            Self::Cap => promised,
            Self::Overdraft => {
                let reach = bill.held.saturating_add(bill.available.saturating_add(limit).max(0));
                bill.price.min(promised.max(reach))
            }
            Self::Debt => bill.price,
        }
    }

    /// The same, with the limit of the organization where it is needed; what is not charged is said.
    ///
    /// # Errors
    /// The database's.
    pub async fn charge(
        self,
        transaction: &mut Transaction<'static, Postgres>,
        (organization, request): (OrganizationId, RequestId),
        bill: Bill,
    ) -> Result<i64, sqlx::Error> {
        if bill.price <= bill.reserved || self == Self::Debt {
            return Ok(bill.price);
        }
        let limit = if self == Self::Overdraft { grants::overdraft(&mut **transaction, organization).await? } else { 0 };
        let charged = self.charged(bill, limit);
        let written_off = bill.price - charged;
        if written_off > 0 {
            metrics::counter!("billing_written_off_micros_total").increment(written_off.unsigned_abs());
            tracing::warn!(organization.id = %organization, request.id = %request, written_off_micros = written_off, "a request cost more than is charged for it");
        }
        Ok(charged)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Overage; 3] = [Overage::Cap, Overage::Overdraft, Overage::Debt];

    fn bill(price: i64, wallet: i64, debt: i64) -> Bill {
        Bill { price, reserved: 1000, held: 1000, available: wallet - debt }
    }

    #[test]
    fn each_policy_charges_what_it_says_of_what_goes_beyond_the_estimate() {
        let charged = |bill| ALL.map(|policy| policy.charged(bill, 200));
        assert_eq!(charged(bill(900, 0, 0)), [900; 3], "within the estimate they are one");
        assert_eq!(charged(bill(1500, 5000, 0)), [1000, 1500, 1500]);
        assert_eq!(charged(bill(1500, 100, 0)), [1000, 1300, 1500], "the wallet, and the limit");
        assert_eq!(charged(bill(1500, 0, 300)), [1000, 1000, 1500], "more than the limit is owed already: the estimate all the same");
        assert!(["cap", " overdraft", "debt "].into_iter().zip(ALL).all(|(text, policy)| Overage::from_setting(text) == Ok(policy)));
        assert!(Overage::from_setting("none").is_err());
    }

    proptest! {
        /// [B-37] [B-40]
        #[test]
        fn an_overdraft_is_never_exceeded_by_what_goes_beyond_an_estimate(
            price in 0..5000_i64, reserved in 0..3000_i64, wallet in -500..3000_i64, debt in 0..1000_i64, limit in 0..2000_i64
        ) {
            let available = wallet - debt;
            let bill = Bill { price, reserved, held: reserved, available };
            for policy in ALL {
                let charged = policy.charged(bill, limit);
                prop_assert!(charged <= price && charged >= price.min(reserved));
            }
            let charged = Overage::Overdraft.charged(bill, limit);
            let after = available + reserved - charged;
            prop_assert!(charged <= reserved || after >= -limit, "{after} left of {available}");
        }
    }
}
