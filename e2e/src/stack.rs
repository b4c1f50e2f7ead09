//! A compose project of its own, on ports of its own: a stack that already runs is not touched.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

const PROJECT: &str = "trivet-e2e";
/// How long recovery may take before a drill has failed.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where the stack is published.
pub const AUTH: &str = "http://localhost:13001";
pub const CHAT: &str = "http://localhost:13002";
pub const BILLING: &str = "http://localhost:13003";
pub const JAEGER: &str = "http://localhost:26686";
pub const SIMULATOR: &str = "http://localhost:14010";
pub const STRIPE: &str = "http://localhost:14020";

/// The running stack.
#[derive(Debug)]
pub struct Stack {
    root: String,
    pub http: reqwest::Client,
}

impl Stack {
    /// Starts it, without anything that an earlier run left behind.
    pub fn start() -> Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "bazel run says where the repository is in this way")]
        let root = std::env::var("BUILD_WORKSPACE_DIRECTORY").unwrap_or_else(|_| ".".to_owned());
        let http = reqwest::Client::builder().timeout(Duration::from_secs(40)).no_proxy().build()?;
        let stack = Self { root, http };
        stack.compose(&["down", "--volumes", "--remove-orphans"])?;
        stack.empty_ledger_folder()?;
        stack.compose(&["up", "--detach", "--wait"])?;
        Ok(stack)
    }

    /// Where the simulator's ledger outlives its process; the container's user may write to it.
    fn ledger_folder(&self) -> PathBuf {
        self.scratch("ledger")
    }

    fn empty_ledger_folder(&self) -> Result<()> {
        let folder = self.ledger_folder();
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        Ok(std::fs::set_permissions(&folder, Permissions::from_mode(0o777))?)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("compose").args(arguments).current_dir(&self.root);
        command.env("COMPOSE_FILE", "compose.yaml:e2e/compose.yaml").env("E2E_LEDGER_FOLDER", self.ledger_folder());
        command.envs([
            ("COMPOSE_PROJECT_NAME", PROJECT),
            ("COMPOSE_PROFILES", "simulators"),
            ("TRIVET_AUTH_PORT", "13001"),
            ("TRIVET_CHAT_PORT", "13002"),
            ("TRIVET_BILLING_PORT", "13003"),
            ("TRIVET_JAEGER_PORT", "26686"),
            ("TRIVET_SIMULATOR_PORT", "14010"),
            ("TRIVET_STRIPE_SIMULATOR_PORT", "14020"),
            ("OPENAI_BASE_URL", "http://llm-simulator:4010/v1"),
            ("STRIPE_API_BASE", "http://stripe-simulator:4020"),
            ("STRIPE_LIVEMODE", "false"),
            // Small, so that a wallet can be emptied; short, so that the hold of a dead process ends while we look.
            ("BILLING_SIGNUP_GRANT_MICROS", "50000"),
            ("CHAT_DEADLINE_MS", "12000"),
            ("CHAT_RESERVATION_MARGIN_MS", "3000"),
            ("BILLING_LEASE_DRAIN_MS", "20000"),
        ]);
        command
    }

    /// Runs `docker compose` on this project; its output when it succeeds.
    pub fn compose(&self, arguments: &[&str]) -> Result<String> {
        self.compose_with(arguments, Stdio::null())
    }

    /// The same, with something to read.
    pub fn compose_with(&self, arguments: &[&str], input: Stdio) -> Result<String> {
        let output = self.attempt(arguments, input)?;
        ensure!(output.status.success(), "docker compose {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The same, whatever comes of it.
    pub fn attempt(&self, arguments: &[&str], input: Stdio) -> Result<Output> {
        self.command(arguments).stdin(input).output().context("docker compose")
    }

    /// What a query of billing-service's database answers, as text.
    pub fn billing_sql(&self, query: &str) -> Result<String> {
        let psql =
            ["exec", "-T", "postgres", "psql", "--username", "postgres", "--no-align", "--tuples-only", "billing", "--command", query];
        Ok(self.compose(&psql)?.trim().to_owned())
    }

    /// A file that lives as long as the run.
    pub fn scratch(&self, name: &str) -> PathBuf {
        PathBuf::from(&self.root).join("e2e/run").join(name)
    }

    /// The last lines of every service, for a case that failed.
    pub fn print_logs(&self) {
        if let Ok(logs) = self.compose(&["logs", "--no-color", "--tail", "15"]) {
            println!("{logs}");
        }
    }

    /// Takes everything away.
    pub fn remove(&self) {
        if let Err(error) = self.compose(&["down", "--volumes", "--remove-orphans"]) {
            println!("the stack was not removed: {error:#}");
        }
    }

    /// Ends the process of a service as a crash would. `docker kill` would count as a wish, and nothing would restart it.
    pub fn kill(&self, service: &str) -> Result<()> {
        let id = self.compose(&["ps", "--quiet", service])?;
        let inspected = Command::new("docker").args(["inspect", "--format", "{{.State.Pid}}", id.trim()]).output()?;
        let pid = String::from_utf8(inspected.stdout)?.trim().to_owned();
        ensure!(pid.parse::<u32>().is_ok_and(|pid| pid > 1), "{service} has no process");
        ensure!(Command::new("kill").args(["-9", &pid]).status()?.success(), "the process of {service} could not be killed");
        Ok(())
    }

    /// Waits until every service is ready again, and the provider and Stripe there.
    pub async fn recovered(&self) -> Result<()> {
        let started = Instant::now();
        for url in [
            format!("{AUTH}/ready"),
            format!("{CHAT}/ready"),
            format!("{BILLING}/ready"),
            format!("{SIMULATOR}/health"),
            format!("{STRIPE}/health"),
        ] {
            while !self.http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                ensure!(started.elapsed() < PATIENCE, "{url} did not become ready again");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// What the simulator served, once nothing is being served.
    pub async fn served(&self) -> Result<Vec<Value>> {
        self.eventually("the end of all served requests", async || {
            let page: Value = self.http.get(format!("{SIMULATOR}/ledger")).send().await?.json().await?;
            Ok(page["data"].as_array().filter(|_| page["open"] == 0).cloned())
        })
        .await
    }

    /// Sets the simulator's knobs; `{}` undoes everything.
    pub async fn knobs(&self, knobs: &Value) -> Result<()> {
        self.http.post(format!("{SIMULATOR}/knobs")).json(knobs).send().await?.error_for_status()?;
        Ok(())
    }

    /// Asks until there is an answer.
    pub async fn eventually<T>(&self, what: &str, mut ask: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
        let started = Instant::now();
        loop {
            let answer = ask().await;
            if let Ok(Some(answer)) = answer {
                return Ok(answer);
            }
            if started.elapsed() > PATIENCE {
                let reason = answer.err().map(|error| format!(": {error:#}")).unwrap_or_default();
                anyhow::bail!("{what} did not happen{reason}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The checks of the documents, on this stack.
    pub fn run_documents(&self) -> Result<()> {
        let ports = ["3001=13001", "3002=13002", "3003=13003", "16686=26686"];
        let mut command = Command::new("python3");
        command.current_dir(&self.root).args(["tools/docs/examples.py", "--kind", "stack"]);
        for port in ports {
            command.args(["--port", port]);
        }
        let output = command.args(["README.md", "docs/guides/DOCKER_SETUP.md", "docs/guides/DEVELOPING.md"]).output()?;
        ensure!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}
