//! Identifiers of those who act.

chassis::define_id!(
    /// An organization: owns wallets, keys and conversations.
    OrganizationId, "org"
);
chassis::define_id!(
    /// A person; a member of organizations.
    UserId, "usr"
);
chassis::define_id!(
    /// An API key; acts for its organization.
    ApiKeyId, "key"
);
chassis::define_id!(
    /// A login: the family of refresh tokens that began with one.
    SessionId, "ses"
);
