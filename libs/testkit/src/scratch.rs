//! Folders for the servers of tests: gone with the process that made them, or, where whoever ran the tests ended what would have removed them,
//! with the next process that makes one.

use std::fs::File;
use std::io::Write;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, Once, PoisonError};

use anyhow::{Context, Result};

use crate::server::{NOBODY, is_root};

/// What the names of all of them begin with, and of nothing else.
const PREFIX: &str = "trivet-scratch-";
/// What stands before that until its owner has locked it.
const NEW: &str = "new-";

/// A folder of its own, gone with this value.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    /// Held for as long as it is owned; whoever ends lets go of it.
    _lock: File,
}

impl Scratch {
    /// A new one that the servers' user may write to.
    pub(crate) fn new(name: &str) -> Result<Self> {
        static SWEPT: Once = Once::new();
        // Beside the tests: what a long run has left takes seconds to remove. What this process does not finish is the next one's.
        SWEPT.call_once(|| drop(std::thread::spawn(|| sweep(&std::env::temp_dir()))));
        let scratch = Self::within(&std::env::temp_dir(), name)?;
        remove_at_the_end(&scratch)?;
        Ok(scratch)
    }

    /// Makes it and locks it; only then it has the name by which it is swept.
    fn within(parent: &Path, name: &str) -> Result<Self> {
        let output = Command::new("mktemp").arg("-d").arg(parent.join(format!("{NEW}{PREFIX}{name}-XXXXXX"))).output()?;
        anyhow::ensure!(output.status.success(), "mktemp failed");
        let new = PathBuf::from(String::from_utf8(output.stdout)?.trim());
        if is_root() {
            let owned = Command::new("chown").arg(format!("{NOBODY}:{NOBODY}")).arg(&new).status()?;
            anyhow::ensure!(owned.success(), "chown failed");
        }
        let lock = File::open(&new)?;
        lock.try_lock()?;
        let name = new.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(NEW));
        let path = parent.join(name.context("the name that mktemp was given")?);
        std::fs::rename(&new, &path)?;
        Ok(Self { path, _lock: lock })
    }
}

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed stays for the sweep.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Removes those whose owner has ended, which is when nobody holds their lock.
fn sweep(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for folder in entries.flatten().map(|entry| entry.path()).filter(|path| is_one(path)) {
        // Another user's cannot be opened, and one that somebody else sweeps is locked.
        if let Ok(lock) = File::open(&folder)
            && lock.try_lock().is_ok()
        {
            // What cannot be removed stays for the next.
            let _ = std::fs::remove_dir_all(&folder);
        }
    }
}

fn is_one(path: &Path) -> bool {
    path.is_dir() && path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX))
}

/// Has a folder removed when this process ends, whichever way: a server that serves all tests of a process is never dropped.
fn remove_at_the_end(folder: &Path) -> Result<()> {
    static INPUT: Mutex<Option<ChildStdin>> = Mutex::new(None);
    let mut input = INPUT.lock().unwrap_or_else(PoisonError::into_inner);
    if input.is_none() {
        *input = remover()?.stdin.take();
    }
    writeln!(input.as_mut().context("an input")?, "{}", folder.display())?;
    Ok(())
}

/// A process that reads names of folders and removes them when there are no more: its input ends with whoever started it. Of a session of
/// its own, since what runs tests may end all of their group. Some end every descendant: then it is the next one's sweep that removes them.
fn remover() -> Result<Child> {
    // A server that is being ended may still write to its folder.
    const SCRIPT: &str = r#"while read -r folder; do set -- "$@" "$folder"; done; rm -rf -- "$@" || { sleep 1; rm -rf -- "$@"; }"#;
    let mut command = Command::new("setsid");
    command.args(["sh", "-c", SCRIPT, "remover"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().context("setsid is not installed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_servers_are_removed_when_the_process_that_made_them_ends() {
        let folders = ["one", "two"].map(|name| Scratch::new(name).unwrap());
        let mut remover = remover().unwrap();
        let mut input = remover.stdin.take().unwrap();
        for folder in &folders {
            std::fs::write(folder.join("file"), "of a server").unwrap();
            writeln!(input, "{}", folder.display()).unwrap();
        }
        assert!(folders.iter().all(|folder| folder.exists()), "not before it ends");
        drop(input);
        assert!(remover.wait().unwrap().success());
        assert!(!folders.iter().any(|folder| folder.exists()));
    }

    #[test]
    fn folders_that_were_left_by_a_process_that_has_ended_are_removed_and_no_others() {
        let parent = Scratch::new("sweep").unwrap();
        let owned = Scratch::within(&parent, "postgres").unwrap();
        let left = parent.join("trivet-scratch-postgres-Ab12cd");
        let others = ["new-trivet-scratch-postgres-Ab12cd", "trivet-notes", "other-postgres-Ab12cd"].map(|name| parent.join(name));
        for folder in others.iter().chain([&left]) {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join("file"), "of a server").unwrap();
        }
        sweep(&parent);
        assert!(!left.exists(), "its owner has ended");
        assert!(owned.exists() && is_one(&owned), "its owner lives");
        assert!(others.iter().all(|folder| folder.join("file").exists()), "not ours, or not owned yet");
    }
}
