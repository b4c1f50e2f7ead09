//! HTTP in and out: the edge that every request passes, the extractors that name what is wrong, and the client that
//! carries the trace on.

pub mod body;
pub mod client;
pub mod edge;
pub mod extract;
pub mod openapi;
pub mod proxies;
pub mod server;
mod stall;
pub mod strangers;

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::{CommaList, Millis};

pub use client::Client;
pub use edge::RequestContext;
pub use extract::{Json, Path, Query};
pub use proxies::Network;

crate::settings! {
    /// The HTTP listeners and their limits.
    pub struct HttpConfig {
        /// Address of the public listener.
        pub bind: SocketAddr = required "TRIVET_HTTP_BIND",
        /// Address of the private listener (`/metrics`, `/internal/v1`); never publish it.
        pub private_bind: SocketAddr = required "TRIVET_PRIVATE_BIND",
        /// Networks (`10.0.0.0/8`, `::1/128`) whose `X-Forwarded-For` is believed; none by default.
        pub trusted_proxies: CommaList<Network> = default "TRIVET_TRUSTED_PROXIES" "",
        /// Largest request body, in bytes.
        pub body_limit: usize = default "TRIVET_HTTP_BODY_LIMIT_BYTES" "1048576",
        /// Milliseconds until a response must have begun.
        pub timeout: Millis = default "TRIVET_HTTP_TIMEOUT_MS" "30000",
        /// Milliseconds a client may take to send its body.
        pub body_timeout: Millis = default "TRIVET_HTTP_BODY_TIMEOUT_MS" "30000",
        /// Milliseconds a client may take to send its headers.
        pub header_timeout: Millis = default "TRIVET_HTTP_HEADER_TIMEOUT_MS" "10000",
        /// Milliseconds a client may take nothing of an answer that is written to it; its connection ends then.
        pub stall_timeout: Millis = default "TRIVET_HTTP_STALL_TIMEOUT_MS" "60000",
        /// Requests in flight at once; one more is answered 503 at once.
        pub max_concurrency: usize = default "TRIVET_HTTP_MAX_CONCURRENCY" "1024",
        /// Milliseconds that requests in flight get to end when the process stops.
        pub shutdown_grace: Millis = default "TRIVET_SHUTDOWN_GRACE_MS" "20000",
    }
}

impl HttpConfig {
    /// Both listeners on free loopback ports, for tests.
    #[must_use]
    pub fn for_tests() -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            bind: loopback,
            private_bind: loopback,
            trusted_proxies: CommaList(Vec::new()),
            body_limit: 1 << 20,
            timeout: Millis(Duration::from_secs(30)),
            body_timeout: Millis(Duration::from_secs(30)),
            header_timeout: Millis(Duration::from_secs(10)),
            stall_timeout: Millis(Duration::from_mins(1)),
            max_concurrency: 1024,
            shutdown_grace: Millis(Duration::from_secs(5)),
        }
    }
}
