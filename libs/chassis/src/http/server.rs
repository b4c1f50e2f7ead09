//! The accept loop: HTTP/1.1 with a limit on how long headers may take, and on how long a client may take nothing of its answer, `TCP_NODELAY`,
//! and a bounded drain.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::HttpConfig;
use super::stall::Stalling;

/// Largest head of a request, in bytes [I-78].
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// Serves `router` until `stop` is cancelled; then no new connection is taken, and those that are open get `grace` to end.
pub async fn serve(listener: TcpListener, router: Router, config: &HttpConfig, grace: Duration, stop: CancellationToken) {
    let (header_timeout, stall_timeout) = (config.header_timeout.0, config.stall_timeout.0);
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(header_timeout).max_buf_size(MAX_HEAD_BYTES);
    let graceful = GracefulShutdown::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: give others time to close theirs.
                    tracing::warn!(error.message = %error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = stop.cancelled() => break,
        };
        // A socket that refuses is about to fail anyway.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone().map_request(move |mut request: http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(ConnectInfo::<SocketAddr>(peer));
            request
        }));
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(Stalling::new(stream, stall_timeout)), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error.message = %error, "a connection ended early");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!(
            grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
            "requests were still in flight at the end of the grace"
        );
    }
}
