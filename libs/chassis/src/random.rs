//! The one source of randomness, injected so that tests can repeat a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use uuid::Uuid;

use crate::clock::Clock;

/// A source of random bytes; cheap to clone.
#[derive(Debug, Clone)]
pub struct Random(Source);

#[derive(Debug, Clone)]
enum Source {
    System(SystemRandom),
    Seeded { seed: u64, counter: Arc<AtomicU64> },
}

impl Random {
    /// The operating system's generator.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System(SystemRandom::new()))
    }

    /// A repeatable generator for tests: SHA-256 over seed and counter.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Source::Seeded { seed, counter: Arc::default() })
    }

    /// `N` random bytes.
    ///
    /// # Panics
    /// When the operating system refuses randomness: nothing that needs it may go on.
    #[must_use]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        match &self.0 {
            Source::System(system) => {
                system.fill(&mut bytes).expect("the operating system has randomness");
            }
            Source::Seeded { seed, counter } => {
                for chunk in bytes.chunks_mut(32) {
                    let block = [seed.to_be_bytes(), counter.fetch_add(1, Ordering::SeqCst).to_be_bytes()].concat();
                    chunk.copy_from_slice(&digest(&SHA256, &block).as_ref()[..chunk.len()]);
                }
            }
        }
        bytes
    }

    /// A `UUIDv7` (RFC 9562 section 5.7) of this instant.
    #[must_use]
    pub fn uuid_v7(&self, clock: &Clock) -> Uuid {
        let millis = u64::try_from(clock.now().timestamp_millis()).unwrap_or_default();
        uuid::Builder::from_unix_timestamp_millis(millis, &self.bytes()).into_uuid()
    }
}
