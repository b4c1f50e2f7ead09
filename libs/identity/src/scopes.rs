//! What a credential may be used for.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum Scope {
    /// Call models.
    #[serde(rename = "chat:write")]
    ChatWrite,
    /// List models.
    #[serde(rename = "models:read")]
    ModelsRead,
    /// See balance, usage and ledger.
    #[serde(rename = "billing:read")]
    BillingRead,
    /// Set budgets and where alerts go.
    #[serde(rename = "billing:write")]
    BillingWrite,
    /// List API keys.
    #[serde(rename = "api_keys:read")]
    ApiKeysRead,
    /// Make and revoke API keys.
    #[serde(rename = "api_keys:write")]
    ApiKeysWrite,
    /// See the user's own profile.
    #[serde(rename = "profile:read")]
    ProfileRead,
    /// Report usage of anything to the meters.
    #[serde(rename = "usage:write")]
    UsageWrite,
    /// Make meters.
    #[serde(rename = "meters:write")]
    MetersWrite,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::ChatWrite,
        Self::ModelsRead,
        Self::BillingRead,
        Self::BillingWrite,
        Self::ApiKeysRead,
        Self::ApiKeysWrite,
        Self::ProfileRead,
        Self::UsageWrite,
        Self::MetersWrite,
    ];

    /// Its text in tokens and APIs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChatWrite => "chat:write",
            Self::ModelsRead => "models:read",
            Self::BillingRead => "billing:read",
            Self::BillingWrite => "billing:write",
            Self::ApiKeysRead => "api_keys:read",
            Self::ApiKeysWrite => "api_keys:write",
            Self::ProfileRead => "profile:read",
            Self::UsageWrite => "usage:write",
            Self::MetersWrite => "meters:write",
        }
    }
}

impl FromStr for Scope {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(())
    }
}

/// A set of permissions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Scopes(BTreeSet<Scope>);

impl Scopes {
    /// Everything a person may do in their own organization.
    #[must_use]
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// What a new API key may do when nothing is said: use the product, change nothing.
    #[must_use]
    pub fn api_key_default() -> Self {
        [Scope::ChatWrite, Scope::ModelsRead, Scope::BillingRead].into_iter().collect()
    }

    /// Whether the permission is in the set.
    #[must_use]
    pub fn contains(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }

    /// Whether every permission is also in `other`.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The texts, sorted.
    #[must_use]
    pub fn to_strings(&self) -> Vec<String> {
        self.0.iter().map(|scope| scope.as_str().to_owned()).collect()
    }

    /// The known permissions among the texts; unknown ones (of a newer version) give nothing.
    pub fn known<'t>(texts: impl IntoIterator<Item = &'t str>) -> Self {
        texts.into_iter().filter_map(|text| text.parse().ok()).collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().collect())
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_strings().join(" "))
    }
}
