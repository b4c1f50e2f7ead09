//! Everything a process logs, for tests that look for what must not be there.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use chassis::telemetry::JsonLines;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Debug, Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Collects every line, span and field of the process at the finest level, from the first call on.
#[derive(Debug, Clone)]
pub struct Logs(Buffer);

impl Logs {
    /// Starts collecting; once per process.
    ///
    /// # Panics
    /// When something else installed a subscriber before.
    #[must_use]
    pub fn capture() -> Self {
        static LOGS: OnceLock<Logs> = OnceLock::new();
        LOGS.get_or_init(|| {
            let buffer = Buffer::default();
            let (events, spans) = (buffer.clone(), buffer.clone());
            tracing_subscriber::registry()
                .with(JsonLines::new(move || events.clone()))
                .with(tracing_subscriber::fmt::layer().with_ansi(false).with_span_events(FmtSpan::FULL).with_writer(move || spans.clone()))
                .init();
            Self(buffer)
        })
        .clone()
    }

    /// Everything so far.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}
