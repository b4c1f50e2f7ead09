//! The command line that all services share: `serve` (the default), `migrate`, `healthcheck`, `openapi`, `config-docs`, and
//! what the service's operators need.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::config::{Environment, Settings, load, reference};
use crate::http::HttpConfig;
use crate::steps::Watcher;
use crate::telemetry::{self, TelemetryConfig};

const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// What a command does. Boxed where it is written, so that it is compiled once and in the service's library: an `async fn` is
/// compiled anew in each crate that runs it, which was a megabyte of a program's image.
pub type Task = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// A service as its `main` sees it.
pub trait ServiceProgram {
    /// Its name, as in the image and in traces.
    const NAME: &'static str;
    /// Its version.
    const VERSION: &'static str;
    /// What it needs to serve.
    type Config: Settings + Send;
    /// What it needs to migrate; the same variables with the migrator's credentials.
    type MigrateConfig: Settings + Send;
    /// Commands of its own, for operators.
    type Commands: Subcommand + Send;

    /// Its HTTP listeners.
    fn http(config: &Self::Config) -> &HttpConfig;
    /// Its telemetry.
    fn telemetry(config: &Self::Config) -> &TelemetryConfig;
    /// Its API, as `OpenAPI` 3.1 JSON.
    fn openapi() -> String;
    /// Serves until the token is cancelled.
    fn serve(config: Self::Config, shutdown: CancellationToken) -> Task;
    /// Brings its database to the version of this binary.
    fn migrate(config: Self::MigrateConfig) -> Task;
    /// Runs a command of its own.
    fn operate(command: Self::Commands, config: Self::Config) -> Task;
}

#[derive(Debug, Parser)]
struct Arguments<A: Subcommand> {
    #[command(subcommand)]
    command: Option<Command<A>>,
}

#[derive(Debug, Subcommand)]
enum Command<A: Subcommand> {
    /// Serve requests (the default).
    Serve {
        /// Read the configuration, say what is wrong with it, and end.
        #[arg(long)]
        check_config: bool,
    },
    /// Bring the database to the version of this binary.
    Migrate,
    /// Ask the running service whether it lives; for container health checks.
    Healthcheck {
        /// Ask whether it is ready instead.
        #[arg(long)]
        ready: bool,
    },
    /// Print the API as `OpenAPI` 3.1.
    Openapi,
    /// Print the reference of all variables as Markdown.
    ConfigDocs,
    #[command(flatten)]
    Operator(A),
}

/// Runs the program named by the arguments; the exit code is 0 for success, 1 for failure, 2 for a configuration that is not usable.
#[must_use]
pub fn run<S: ServiceProgram>() -> ExitCode {
    execute::<S>(None)
}

/// The same for a program of a drill, which is told of the [steps](crate::steps) that the service takes while it serves.
#[must_use]
pub fn run_watched<S: ServiceProgram>(watcher: Watcher) -> ExitCode {
    execute::<S>(Some(watcher))
}

fn execute<S: ServiceProgram>(watcher: Option<Watcher>) -> ExitCode {
    let environment = Environment::from_process();
    let outcome = match Arguments::<S::Commands>::parse().command.unwrap_or(Command::Serve { check_config: false }) {
        Command::Openapi => print(&S::openapi()),
        Command::ConfigDocs => print(&reference::<S::Config>()),
        Command::Healthcheck { ready } => configured::<S::Config>(&environment, |config| healthcheck(S::http(&config).bind, ready)),
        Command::Serve { check_config: true } => configured::<S::Config>(&environment, |_| print("the configuration is usable\n")),
        Command::Serve { check_config: false } => configured::<S::Config>(&environment, |config| {
            let runtime = runtime()?;
            let _inside = runtime.enter();
            let _telemetry = telemetry::init_watched(S::telemetry(&config), S::NAME, S::VERSION, watcher)?;
            run_to_end(&runtime, S::serve(config, crate::lifecycle::signals()?))
        }),
        Command::Migrate => configured::<S::MigrateConfig>(&environment, |config| run_to_end(&runtime()?, S::migrate(config))),
        Command::Operator(command) => configured::<S::Config>(&environment, |config| run_to_end(&runtime()?, S::operate(command, config))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let unusable = error.is::<crate::config::ConfigErrors>();
            report(&format!("{}: {error:#}", S::NAME));
            ExitCode::from(if unusable { 2 } else { 1 })
        }
    }
}

fn configured<C: Settings>(environment: &Environment, then: impl FnOnce(C) -> anyhow::Result<()>) -> anyhow::Result<()> {
    then(load(environment)?)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn run_to_end(runtime: &tokio::runtime::Runtime, task: Task) -> anyhow::Result<()> {
    runtime.block_on(task)
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn report(line: &str) {
    // Nowhere to report that standard error is closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// One small HTTP exchange with no runtime: this runs every second in every container.
fn healthcheck(bind: SocketAddr, ready: bool) -> anyhow::Result<()> {
    let address = if bind.ip().is_unspecified() { SocketAddr::from(([127, 0, 0, 1], bind.port())) } else { bind };
    let mut stream = TcpStream::connect_timeout(&address, HEALTHCHECK_TIMEOUT)?;
    stream.set_read_timeout(Some(HEALTHCHECK_TIMEOUT))?;
    stream.set_write_timeout(Some(HEALTHCHECK_TIMEOUT))?;
    let path = if ready { "/ready" } else { "/health" };
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    anyhow::ensure!(&head == b"HTTP/1.1 200", "{path} answered {}", String::from_utf8_lossy(&head[9..]));
    Ok(())
}
