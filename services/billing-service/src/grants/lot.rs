//! A lot, what it came from, and what it may pay for.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ledger::chart::Account;

chassis::define_id!(
    /// A lot of credit.
    GrantId, "grt"
);

/// What gave a lot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Signing up.
    Signup,
    /// A plan that was paid for.
    Plan,
    /// A purchase of credit.
    Purchase,
    /// A gift.
    Promotion,
    /// Usage that was given back.
    Refund,
    /// An operator's correction.
    Adjustment,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Signup, Self::Plan, Self::Purchase, Self::Promotion, Self::Refund, Self::Adjustment];

    /// Its name in the database and in statements.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signup => "signup",
            Self::Plan => "plan",
            Self::Purchase => "purchase",
            Self::Promotion => "promotion",
            Self::Refund => "refund",
            Self::Adjustment => "adjustment",
        }
    }

    /// The source of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == name)
    }

    /// The account of the house that gives such credit when nobody pays for it.
    #[must_use]
    pub const fn given_by(self) -> Account {
        match self {
            Self::Signup | Self::Plan | Self::Purchase | Self::Promotion => Account::Promotion,
            Self::Refund => Account::Refunds,
            Self::Adjustment => Account::Adjustments,
        }
    }
}

/// What somebody wants to pay for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use<'a> {
    model: Option<&'a str>,
    feature: Option<&'a str>,
}

impl<'a> Use<'a> {
    /// Debt, a transfer, a refund: only lots that may pay for everything.
    pub const ANYTHING: Self = Self { model: None, feature: None };

    /// Chats with any model: what a lease is for, before it is known which.
    pub const CHAT: Self = Self { model: None, feature: Some("chat") };

    /// A chat with a model.
    #[must_use]
    pub const fn model(model: &'a str) -> Self {
        Self { model: Some(model), feature: Some("chat") }
    }

    /// A model in another feature.
    #[must_use]
    pub const fn feature(self, feature: &'a str) -> Self {
        Self { feature: Some(feature), ..self }
    }
}

/// What leases hold for the requests of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelHold {
    /// The model.
    pub model: String,
    /// In micro-units.
    pub held: i64,
}

/// The names that a lot may pay for; an empty list restricts nothing, as if none were given.
pub(super) fn restriction(names: Vec<String>) -> Option<Vec<String>> {
    (!names.is_empty()).then_some(names)
}

/// A lot that has something left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lot {
    /// Its id.
    pub id: GrantId,
    /// What gave it.
    pub source: Source,
    /// What is left of it, in micro-units.
    pub remaining: i64,
    /// Lower burns first.
    pub priority: i32,
    /// It may pay before this instant and not at it.
    pub expires_at: Option<DateTime<Utc>>,
    /// Its place among all lots: the older of two that were given at one instant.
    pub position: i64,
    /// When it was given.
    pub created_at: DateTime<Utc>,
    /// The models it may pay for; all when none.
    pub models: Option<Vec<String>>,
    /// The features it may pay for; all when none.
    pub features: Option<Vec<String>>,
    /// How often it moved.
    pub version: i32,
    /// What is on hold since before it expired; zero for one that has not.
    pub held_before: i64,
}

impl Lot {
    /// Whether it may pay for something that was admitted at this instant [B-46].
    #[must_use]
    pub fn is_valid_at(&self, at: DateTime<Utc>) -> bool {
        self.expires_at.is_none_or(|expires_at| at < expires_at)
    }

    /// Whether its restriction lets it pay for this.
    #[must_use]
    pub fn pays_for(&self, wanted: Use<'_>) -> bool {
        let allows = |list: &Option<Vec<String>>, name: Option<&str>| {
            list.as_ref().is_none_or(|list| name.is_some_and(|name| list.iter().any(|allowed| allowed == name)))
        };
        allows(&self.models, wanted.model) && allows(&self.features, wanted.feature)
    }

    /// Whether it pays for some things only.
    #[must_use]
    pub const fn is_restricted(&self) -> bool {
        self.models.is_some() || self.features.is_some()
    }
}
