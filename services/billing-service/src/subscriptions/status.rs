//! Where a subscription stands, and what that gives access to [B-71].

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a subscription stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[schema(as = SubscriptionStatus)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its first payment is awaited.
    Incomplete,
    /// Its first payment did not come in 23 hours.
    IncompleteExpired,
    /// In its trial.
    Trialing,
    /// Paid, or its payment is on its way.
    Active,
    /// A payment failed and may still be mended.
    PastDue,
    /// A payment failed and was not mended in time.
    Unpaid,
    /// The customer wants it to rest.
    Paused,
    /// Over.
    Canceled,
}

/// What a status gives access to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// All that the plan has.
    Full,
    /// All that the plan has, and a reminder to pay.
    Grace,
    /// What somebody without a subscription has.
    None,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Incomplete,
        Self::IncompleteExpired,
        Self::Trialing,
        Self::Active,
        Self::PastDue,
        Self::Unpaid,
        Self::Paused,
        Self::Canceled,
    ];

    /// The policy, one row for each status.
    #[must_use]
    pub const fn access(self) -> Access {
        match self {
            Self::Trialing | Self::Active => Access::Full,
            Self::PastDue => Access::Grace,
            Self::Incomplete | Self::IncompleteExpired | Self::Unpaid | Self::Paused | Self::Canceled => Access::None,
        }
    }

    /// Whether nothing comes after it [B-18].
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::IncompleteExpired | Self::Canceled)
    }

    /// The text stored in the database and shown in APIs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::IncompleteExpired => "incomplete_expired",
            Self::Trialing => "trialing",
            Self::Active => "active",
            Self::PastDue => "past_due",
            Self::Unpaid => "unpaid",
            Self::Paused => "paused",
            Self::Canceled => "canceled",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [B-71] Row by row, written out: a new status does not compile above and fails here.
    #[test]
    fn each_status_gives_the_access_of_its_row() {
        let table = [
            ("incomplete", Access::None, false),
            ("incomplete_expired", Access::None, true),
            ("trialing", Access::Full, false),
            ("active", Access::Full, false),
            ("past_due", Access::Grace, false),
            ("unpaid", Access::None, false),
            ("paused", Access::None, false),
            ("canceled", Access::None, true),
        ];
        assert_eq!(Status::ALL.map(|status| (status.as_str(), status.access(), status.is_terminal())), table);
    }
}
