//! The account in a file, so that a shop that was restarted with the simulator finds the customers that it knows. Written beside and
//! renamed, so that it is whole whenever the process ends: when something has changed, a few times in a second, and at the end. What
//! happened after the last time is lost with a process that is killed, unless nothing is told to anybody before it is in the file.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use crate::idempotency::{Kept, Keys};
use crate::simulator::Simulator;
use crate::webhooks::{Delivery, Sender};
use crate::world::World;
use crate::world::memory::Memory;

/// Of the file's form.
const FORMAT: u32 = 1;
const PAUSE: Duration = Duration::from_millis(250);
/// One writes at a time.
static SAVING: Mutex<()> = Mutex::new(());

/// How far the account is in its file.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Whether anybody waits for it.
    durable: bool,
    wanted: Notify,
    changes: watch::Sender<u64>,
    /// Read by a request from its effect to the answer that its key has; written by whoever writes the file.
    requests: RwLock<()>,
}

impl Progress {
    pub(crate) fn new(durable: bool) -> Self {
        Self { durable, wanted: Notify::new(), changes: watch::Sender::new(0), requests: RwLock::default() }
    }

    /// A request that the file has whole or not at all.
    pub(crate) fn begin(&self) -> RwLockReadGuard<'_, ()> {
        self.requests.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until so many changes are in the file.
    pub(crate) async fn reached(&self, changes: u64) {
        if self.durable {
            let mut kept = self.changes.subscribe();
            self.wanted.notify_one();
            // The sender is ours: the channel cannot close while it is waited for.
            let _ = kept.wait_for(|kept| *kept >= changes).await;
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Saved<'a> {
    format: u32,
    #[serde(borrow)]
    world: Memory<'a>,
    keys: Vec<Kept>,
    /// Events that no endpoint has taken yet, and those that are held back.
    pending: Vec<Delivery>,
    held: Vec<Delivery>,
}

/// Takes up what a file holds; nothing when there is none yet. What cannot be read is not overwritten: the start fails.
pub(crate) fn load(path: &Path, world: &mut World, keys: &mut Keys, sender: &Sender) -> io::Result<()> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text?,
    };
    let unreadable = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{} cannot be read: {why}", path.display()));
    let saved: Saved<'_> = serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
    if saved.format != FORMAT {
        return Err(unreadable(format!("it is of format {}", saved.format)));
    }
    world.recall(saved.world);
    keys.recall(saved.keys);
    sender.recall(saved.pending, saved.held);
    Ok(())
}

/// Writes it, whole or not at all.
pub(crate) fn save(simulator: &Simulator, path: &Path) -> io::Result<()> {
    let _turn = SAVING.lock().unwrap_or_else(PoisonError::into_inner);
    let beside = path.with_extension("new");
    let mut file = BufWriter::new(File::create(&beside)?);
    let changes = {
        let _no_request = simulator.file().requests.write().unwrap_or_else(PoisonError::into_inner);
        // Under the account's lock no request is half done, and no event between the account and the sender.
        let world = simulator.world();
        let (pending, held) = simulator.sender().remember();
        let saved = Saved { format: FORMAT, world: world.remember(), keys: simulator.keys().remember(), pending, held };
        serde_json::to_writer(&mut file, &saved).map_err(io::Error::other)?;
        world.changes
    };
    file.flush()?;
    file.get_ref().sync_all()?;
    fs::rename(beside, path)?;
    simulator.file().changes.send_replace(changes);
    Ok(())
}

/// Writes it whenever something has changed.
pub(crate) async fn keep(simulator: Simulator, path: PathBuf) {
    let mut written = None;
    loop {
        let changes = (simulator.world().changes, simulator.sender().changes());
        if written != Some(changes) {
            let (saver, file) = (simulator.clone(), path.clone());
            match tokio::task::spawn_blocking(move || save(&saver, &file)).await {
                Ok(Ok(())) => written = Some(changes),
                Ok(Err(error)) => tracing::error!(error.message = %error, file.path = %path.display(), "the account cannot be kept"),
                Err(error) => tracing::error!(error.message = %error, "the account cannot be kept"),
            }
        }
        tokio::select! {
            () = simulator.file().wanted.notified() => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}
