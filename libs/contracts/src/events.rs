//! Facts that auth-service publishes through its outbox, and the stream they come on.

use chrono::{DateTime, Utc};
use identity::{ApiKeyId, OrganizationId, SessionId, UserId};
use serde::{Deserialize, Serialize};

/// The Redis stream of auth-service's events.
pub const AUTH_STREAM: &str = "trivet:events:auth";

/// `organization.created`: billing makes the wallet and, with Stripe configured, the customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrganizationCreated {
    /// The new organization.
    pub organization_id: OrganizationId,
    /// Its display name.
    pub name: String,
    /// The user who made it.
    pub owner_id: UserId,
    /// Where invoices go.
    pub billing_email: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

impl OrganizationCreated {
    /// The event's kind on the stream.
    pub const KIND: &'static str = "organization.created";
}

/// `api_key.revoked`: every cache drops the key at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeyRevoked {
    /// The revoked key.
    pub api_key_id: ApiKeyId,
    /// Its organization.
    pub organization_id: OrganizationId,
}

impl ApiKeyRevoked {
    /// The event's kind on the stream.
    pub const KIND: &'static str = "api_key.revoked";
}

/// `session.revoked`: access tokens of the session are refused from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRevoked {
    /// The revoked session.
    pub session_id: SessionId,
    /// Its user.
    pub user_id: UserId,
}

impl SessionRevoked {
    /// The event's kind on the stream.
    pub const KIND: &'static str = "session.revoked";
}
