//! What a catalogue says, once it was understood. Amounts are micro-units and whole minor units of their currency.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use money::Currency;
use serde::{Deserialize, Serialize};

/// The name by which the file, the database and the API know a thing: `[a-z][a-z0-9_-]{0,62}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Code(String);

/// The text is not a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 63 of a-z, 0-9, '-' and '_', and begin with a letter")]
pub struct InvalidCode;

impl Code {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Code {
    type Err = InvalidCode;

    fn from_str(text: &str) -> Result<Self, InvalidCode> {
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        let rest = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'));
        if first && rest && text.len() <= 63 { Ok(Self(text.to_owned())) } else { Err(InvalidCode) }
    }
}

impl TryFrom<String> for Code {
    type Error = InvalidCode;

    fn try_from(text: String) -> Result<Self, InvalidCode> {
        text.parse()
    }
}

impl From<Code> for String {
    fn from(code: Code) -> Self {
        code.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One amount for each currency, in micro-units.
pub type Amounts = BTreeMap<Currency, i64>;

/// How often is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Interval {
    /// Each calendar month.
    Month,
    /// Each calendar year.
    Year,
}

impl Interval {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Month, Self::Year];

    /// The text stored in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Month => "month",
            Self::Year => "year",
        }
    }
}

/// Prices by currency and by how often is paid. What is absent is not sold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prices(pub BTreeMap<(Currency, Interval), i64>);

impl Prices {
    /// The price, if there is one.
    #[must_use]
    pub fn get(&self, currency: Currency, interval: Interval) -> Option<i64> {
        self.0.get(&(currency, interval)).copied()
    }

    /// The currencies there are prices in.
    #[must_use]
    pub fn currencies(&self) -> BTreeSet<Currency> {
        self.0.keys().map(|(currency, _)| *currency).collect()
    }
}

/// When credit ends that was included or bought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// With the period it was given for.
    PeriodEnd,
    /// So many days after it was given.
    Days(u32),
    /// Not at all.
    Never,
}

/// Credit that is given in each paid period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncludedCredit {
    /// How much for each month; a period of a year gives twelve times as much at its beginning.
    pub amounts: Amounts,
    /// When it ends.
    pub expires: Expiry,
}

/// How many people a plan is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seats {
    /// In the plan's price.
    pub included: u32,
    /// At most; none is no limit.
    pub max: Option<u32>,
    /// Of each beyond those included.
    pub prices: Prices,
}

/// Which models a plan may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Models {
    /// All that have a rate.
    All,
    /// These.
    Only(BTreeSet<String>),
}

/// What a plan limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Requests of the organization in a minute; none is no limit of the plan.
    pub requests_per_minute: Option<u32>,
    /// Tokens of the organization in a minute; none is no limit of the plan.
    pub tokens_per_minute: Option<u32>,
    /// Models.
    pub models: Models,
    /// Spending in a calendar month (UTC), in the currency of credit.
    pub monthly_caps: Amounts,
}

/// Something to subscribe to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What people call it.
    pub name: String,
    /// Of one group a customer has at most one [B-69].
    pub group: Code,
    /// Days before the first payment; zero for none.
    pub trial_days: u32,
    /// Days that a failed payment may be mended in before access ends.
    pub grace_days: u32,
    /// What it costs.
    pub prices: Prices,
    /// Credit with each paid period.
    pub included_credit: Option<IncludedCredit>,
    /// People.
    pub seats: Seats,
    /// What it unlocks.
    pub features: BTreeSet<Code>,
    /// What it limits.
    pub limits: Limits,
}

/// Credit for sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreditPack {
    /// What people call it.
    pub name: String,
    /// What it costs.
    pub prices: Amounts,
    /// What it gives, in the currency of credit.
    pub credit: Amounts,
    /// When the credit ends.
    pub expires: Expiry,
}

/// What a coupon takes off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discount {
    /// Whole percent, 1 to 100.
    Percent(u32),
    /// An amount, at most what is to be paid.
    Amount(Amounts),
}

/// How long a coupon takes something off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duration {
    /// The next charge.
    Once,
    /// Charges within so many months.
    Months(u32),
    /// All.
    Forever,
}

/// A discount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coupon {
    /// What people call it.
    pub name: String,
    /// What it takes off.
    pub discount: Discount,
    /// How long.
    pub duration: Duration,
    /// For which plans; empty is all.
    pub plans: BTreeSet<Code>,
}

/// All that is sold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    /// What an organization without a subscription has.
    pub default_plan: Option<Code>,
    /// Plans.
    pub plans: BTreeMap<Code, Plan>,
    /// Credit packs.
    pub credit_packs: BTreeMap<Code, CreditPack>,
    /// Coupons.
    pub coupons: BTreeMap<Code, Coupon>,
}
