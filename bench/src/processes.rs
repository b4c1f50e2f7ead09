//! Programs under measurement: started on the processors they are to have, asked for their memory, gone with their handle.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

const PATIENCE: Duration = Duration::from_secs(30);

/// A running program.
#[derive(Debug)]
pub struct Process {
    child: Child,
    started: Instant,
}

impl Process {
    /// Starts a program, on one processor or on all.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Path, processor: Option<usize>, arguments: &[String], variables: &BTreeMap<&str, String>) -> Result<Self> {
        let mut command = processor.map_or_else(
            || Command::new(program),
            |processor| {
                let mut command = Command::new("taskset");
                command.arg("--cpu-list").arg(processor.to_string()).arg(program);
                command
            },
        );
        command.args(arguments);
        command.env_clear().envs(variables).stdin(Stdio::null()).stdout(Stdio::null());
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child, started })
    }

    /// Waits for its success.
    ///
    /// # Errors
    /// When it fails.
    pub fn finish(mut self) -> Result<()> {
        let status = self.child.wait()?;
        ensure!(status.success(), "a program ended with {status}");
        Ok(())
    }

    /// Asks it to stop, and waits until it has, with success.
    ///
    /// # Errors
    /// When it ends otherwise.
    pub fn stop(self) -> Result<()> {
        let told = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        ensure!(told.success(), "a program is gone");
        self.finish()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When nobody can tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Asks `url` until it is 200; the time that took since the program was started.
    ///
    /// # Errors
    /// When it is not within half a minute.
    pub async fn answers(&mut self, http: &reqwest::Client, url: &str) -> Result<Duration> {
        while !http.get(url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            ensure!(self.started.elapsed() < PATIENCE, "{url} does not answer");
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("it ended with {status} and {url} does not answer");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(self.started.elapsed())
    }

    /// Its resident memory, in bytes.
    ///
    /// # Errors
    /// When it is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kilobytes: u64 = line.trim().strip_suffix("kB").context("kB")?.trim().parse()?;
        Ok(kilobytes * 1024)
    }

    /// Processor time it has used, in clock ticks of a hundredth of a second.
    ///
    /// # Errors
    /// When it is gone.
    pub fn processor_ticks(&self) -> Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit_once(')').context("a name")?.1.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).context("a field")?.parse::<u64>().context("a number");
        Ok(ticks(11)? + ticks(12)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time that a process and all it started have used, those that ended counted in, in clock ticks of a hundredth of a second.
///
/// # Errors
/// When the process is gone.
pub fn ticks_of_family(parent: u32) -> Result<u64> {
    let sum = |stat: &str, fields: std::ops::Range<usize>| -> Option<u64> {
        let (_, rest) = stat.rsplit_once(')')?;
        rest.split_whitespace().skip(fields.start).take(fields.len()).map(|field| field.parse::<u64>().ok()).sum()
    };
    // Its own and that of children which ended; then that of those which run.
    let mut ticks = sum(&std::fs::read_to_string(format!("/proc/{parent}/stat"))?, 11..15).context("times of a process")?;
    for entry in std::fs::read_dir("/proc")? {
        // Others come and go meanwhile: what cannot be read is not ours.
        let Ok(stat) = std::fs::read_to_string(entry?.path().join("stat")) else { continue };
        if sum(&stat, 1..2) == Some(u64::from(parent)) {
            ticks += sum(&stat, 11..13).context("times of a process")?;
        }
    }
    Ok(ticks)
}
