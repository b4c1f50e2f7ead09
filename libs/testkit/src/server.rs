//! A server process for tests: found on the machine, run as a user that is not root, gone when its owner is.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// Who runs the servers when the tests run as root (Debian's `nobody`): Postgres refuses to be root.
pub(crate) const NOBODY: &str = "65534";

/// A running server; it ends with this value, and with the process that started it, whichever way that ends.
#[derive(Debug)]
pub struct Server(Child);

impl Server {
    /// Starts `program`; as another user when we are root.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(program: &Path, arguments: &[String], log: &Path) -> Result<Self> {
        let mut command = as_ordinary_user(Some("KILL"), program);
        let output = std::fs::File::create(log)?;
        command.args(arguments).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        Ok(Self(command.spawn().with_context(|| format!("cannot start {}", program.display()))?))
    }

    /// Sends a signal: `STOP` pauses, `CONT` resumes, `KILL` is a crash.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status()?;
        anyhow::ensure!(status.success(), "kill -{name} failed");
        Ok(())
    }
}

impl Server {
    /// Ends it as a crash would, and waits for its end.
    pub fn kill(&mut self) {
        // Already gone is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|status| status.is_some())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A command under an identity that servers accept; with `death_signal` it is told when its parent thread's process dies.
pub(crate) fn as_ordinary_user(death_signal: Option<&str>, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
    }
    if let Some(signal) = death_signal {
        command.args(["--pdeathsig", signal]);
    }
    command.arg("--").arg(program);
    command
}

/// Whether we are root, as in most containers.
pub(crate) fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// The first of `names` in `folders` or on the path.
pub(crate) fn find(names: &[&str], folders: &[PathBuf]) -> Result<PathBuf> {
    let path = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/opt/homebrew/bin"].map(PathBuf::from);
    let candidates = folders.iter().chain(&path).flat_map(|folder| names.iter().map(|name| folder.join(name)));
    candidates.into_iter().find(|candidate| candidate.is_file()).with_context(|| format!("none of {names:?} is installed"))
}
