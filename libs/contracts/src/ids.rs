//! Identifiers that more than one service handles and that name neither a person nor an organization.

chassis::define_id!(
    /// One governed model call: made by chat-service, passed upstream as `X-Request-Id`, and the key of the reservation,
    /// of the usage row and of the provider's own record.
    RequestId, "req"
);

chassis::define_id!(
    /// A hold on a wallet for the worst-case cost of one request.
    ReservationId, "rsv"
);

chassis::define_id!(
    /// A hold on a wallet from which many requests are paid, until its deadline.
    LeaseId, "lse"
);
