//! The simulator as a part of a test: started on a free port, asked for its ledger, gone with its handle.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use tokio::sync::oneshot;

use crate::knobs::Knobs;
use crate::ledger::{Ledger, LedgerRow};
use crate::line::{Line, Lines};
use crate::router;

/// How a simulator starts.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens; by default a free port of the loopback interface.
    pub bind: SocketAddr,
    /// What it does unless a request or `POST /knobs` says otherwise.
    pub knobs: Knobs,
    /// File that keeps the ledger when the process is killed; none by default.
    pub ledger_file: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { bind: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0), knobs: Knobs::default(), ledger_file: None }
    }
}

/// A simulator; clones are the same one.
#[derive(Debug, Clone)]
pub struct Simulator {
    knobs: Arc<Mutex<Arc<Knobs>>>,
    pub(crate) ledger: Ledger,
}

impl Simulator {
    /// A simulator that does not listen yet: [`Simulator::router`] is all there is of it.
    ///
    /// # Errors
    /// When the ledger's file cannot be read or written.
    pub fn new(options: &Options) -> io::Result<Self> {
        let knobs = Arc::new(Mutex::new(Arc::new(options.knobs.clone())));
        Ok(Self { knobs, ledger: Ledger::new(options.ledger_file.as_deref())? })
    }

    /// Starts a simulator in this process; it ends with its handle.
    ///
    /// # Errors
    /// When the address is taken, or the ledger's file cannot be read or written.
    pub async fn start(options: Options) -> io::Result<Running> {
        let simulator = Self::new(&options)?;
        let lines = Lines::bind(options.bind).await?;
        let address = lines.address()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let service = simulator.router().into_make_service_with_connect_info::<Line>();
        tokio::spawn(async move {
            let stopped = async {
                // Either a message or the handle's end.
                let _ = stopped.await;
            };
            if let Err(error) = axum::serve(lines, service).with_graceful_shutdown(stopped).await {
                tracing::error!(error.message = %error, "the simulator ended");
            }
        });
        Ok(Running { base_url: format!("http://{address}/v1"), control_url: format!("http://{address}"), address, simulator, _stop: stop })
    }

    /// All routes. Without a listener of this crate a cut is the end of the body, not of a socket.
    pub fn router(&self) -> Router {
        router::router(self.clone())
    }

    /// What is done unless a request says otherwise.
    #[must_use]
    pub fn knobs(&self) -> Arc<Knobs> {
        Arc::clone(&self.knobs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Turns the knobs for the requests that come.
    pub fn set_knobs(&self, knobs: Knobs) {
        *self.knobs.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(knobs);
    }
}

/// A simulator that listens. Dropping it closes the port; requests in flight go on.
#[derive(Debug)]
pub struct Running {
    /// What a client takes for a provider's base URL: `http://127.0.0.1:<port>/v1`.
    pub base_url: String,
    /// The same without `/v1`: the base of `/ledger`, `/knobs` and `/health`.
    pub control_url: String,
    /// Where it listens.
    pub address: SocketAddr,
    simulator: Simulator,
    _stop: oneshot::Sender<()>,
}

impl Running {
    /// A row for each request that has ended, in the order of their ends.
    #[must_use]
    pub fn ledger(&self) -> Vec<LedgerRow> {
        self.simulator.ledger.page().data
    }

    /// The row of a request, if it has ended.
    #[must_use]
    pub fn row(&self, request_id: &str) -> Option<LedgerRow> {
        self.ledger().into_iter().find(|row| row.request_id == request_id)
    }

    /// Waits until so many requests have ended; then their rows.
    pub async fn ended(&self, requests: u64) -> Vec<LedgerRow> {
        self.simulator.ledger.wait_for(|counts| counts.ended >= requests).await;
        self.ledger()
    }

    /// Waits until so many requests are being answered.
    pub async fn open(&self, requests: u64) {
        self.simulator.ledger.wait_for(|counts| counts.open >= requests).await;
    }

    /// What is done unless a request says otherwise.
    #[must_use]
    pub fn knobs(&self) -> Arc<Knobs> {
        self.simulator.knobs()
    }

    /// Turns the knobs for the requests that come.
    pub fn set_knobs(&self, knobs: Knobs) {
        self.simulator.set_knobs(knobs);
    }
}
