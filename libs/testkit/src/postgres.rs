//! A database of its own for each test, cloned from one that is migrated once per test binary.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chassis::config::Millis;
use chassis::postgres::{Migrations, PostgresConfig, connect};
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection};
use tokio::sync::{Mutex, OnceCell};

use crate::eventually;
use crate::ports::Port;
use crate::scratch::Scratch;
use crate::server::{Server, as_ordinary_user, find};

/// The roles of all services, as the compose stack makes them.
const ROLES: [&str; 4] = ["auth_migrator", "auth_app", "billing_migrator", "billing_app"];

/// A migrated database that one test has for itself.
#[derive(Debug, Clone)]
pub struct TestDatabase {
    /// How the service under test connects: as the role that owns nothing.
    pub config: PostgresConfig,
    /// Connections of that role.
    pub pool: PgPool,
    /// Connections of the role that owns the schema.
    pub owner: PgPool,
}

/// A Postgres server with throw-away data.
#[derive(Debug)]
pub struct PostgresServer {
    /// The process; it ends before its folder goes.
    pub server: Server,
    port: Port,
    /// Where its socket is.
    folder: Scratch,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
}

impl PostgresServer {
    /// Makes a cluster and starts it.
    ///
    /// # Errors
    /// When Postgres is not installed or does not start.
    pub async fn start() -> Result<Self> {
        Self::with(&[]).await
    }

    /// The same, with a log that has what was committed when the server is killed.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_durable() -> Result<Self> {
        Self::with(&["synchronous_commit=on"]).await
    }

    /// A server that flushes what it commits and keeps as much in memory as that of compose.yaml: for measurements.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_flushing() -> Result<Self> {
        Self::with(&[
            "fsync=on",
            "synchronous_commit=on",
            "full_page_writes=on",
            "shared_buffers=64MB",
            "autovacuum=on",
            "update_process_title=on",
            "wal_level=replica",
        ])
        .await
    }

    async fn with(more: &[&str]) -> Result<Self> {
        let bin = binaries()?;
        let folder = Scratch::new("postgres")?;
        let data = folder.join("data");
        let arguments = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions"];
        let made = as_ordinary_user(None, &bin.join("initdb")).args(arguments).arg("--pgdata").arg(&data).output()?;
        anyhow::ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = Port::claim()?;
        let settings = [
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "max_connections=200",
            "shared_buffers=128MB",
            "jit=off",
            // What nobody reads of a server that lives for one test.
            "autovacuum=off",
            "update_process_title=off",
            "wal_level=minimal",
            "max_wal_senders=0",
            // A container's /dev/shm is small, and what a killed server leaves there stays.
            "dynamic_shared_memory_type=mmap",
        ];
        let mut arguments = vec![
            "-D".to_owned(),
            data.display().to_string(),
            "-p".into(),
            port.number().to_string(),
            "-h".into(),
            "127.0.0.1".into(),
            "-k".into(),
            folder.display().to_string(),
        ];
        arguments.extend(settings.iter().chain(more).flat_map(|setting| ["-c".to_owned(), (*setting).to_owned()]));
        let (program, log) = (bin.join("postgres"), folder.join("log"));
        let started = Self { server: Server::start(&program, &arguments, &log)?, port, folder, program, arguments, log };
        let mut connection = eventually("a connection to Postgres", || async { started.connect("postgres", "postgres").await.ok() }).await;
        for role in ROLES {
            connection.execute(AssertSqlSafe(format!("create role {role} login"))).await?;
        }
        Ok(started)
    }

    /// Ends the server as a crash would and starts it again, with the data it had.
    ///
    /// # Errors
    /// When it does not come back within half a minute.
    pub async fn crash(&mut self) -> Result<()> {
        self.server.kill();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(30) {
            // What the dead server's own processes still hold keeps the next one from starting, until they have noticed.
            self.server = Server::start(&self.program, &self.arguments, &self.log)?;
            while !self.server.has_ended() && began.elapsed() < Duration::from_secs(30) {
                if self.connect("postgres", "postgres").await.is_ok() {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        anyhow::bail!("Postgres did not come back: {}", std::fs::read_to_string(&self.log)?)
    }

    fn options(&self, role: &str, database: &str) -> PgConnectOptions {
        PgConnectOptions::new().host("127.0.0.1").port(self.port.number()).username(role).database(database).disable_statement_logging()
    }

    async fn connect(&self, role: &str, database: &str) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect_with(&self.options(role, database)).await
    }

    /// A database of that name, owned by `owner`, empty or a copy of another.
    async fn create(&self, name: &str, owner: &str, template: &str) -> Result<()> {
        let mut connection = self.connect("postgres", "postgres").await?;
        connection.execute(AssertSqlSafe(format!("create database {name} owner {owner} template {template}"))).await?;
        Ok(())
    }

    /// A URL without password for the role and database.
    #[must_use]
    pub fn url(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{database}", self.port.number())
    }

    /// The same through the server's socket, which costs a test less than the network does.
    #[must_use]
    pub fn local_url(&self, role: &str, database: &str) -> String {
        format!("{}?host={}", self.url(role, database), self.folder.display())
    }

    /// An empty database whose schema belongs to `owner`, as the init script of the compose stack makes it.
    ///
    /// # Errors
    /// When it is there already.
    pub async fn empty(&self, name: &str, owner: &str) -> Result<()> {
        self.create(name, owner, "template0").await?;
        let mut admin = self.connect("postgres", name).await?;
        admin.execute(AssertSqlSafe(format!("alter schema public owner to {owner}"))).await?;
        Ok(())
    }

    /// A migrated, otherwise empty database.
    ///
    /// # Errors
    /// When a migration fails.
    pub async fn template(&self, name: &str, migrations: Migrations) -> Result<()> {
        let owner = migrator(migrations);
        self.empty(name, &owner).await?;
        let mut connection = self.connect(&owner, name).await?;
        migrations.apply(&mut connection).await?;
        Ok(connection.close().await?)
    }
}

fn migrator(migrations: Migrations) -> String {
    migrations.app_role.replace("_app", "_migrator")
}

static SERVER: OnceCell<PostgresServer> = OnceCell::const_new();
static TEMPLATES: Mutex<Option<HashMap<&'static str, String>>> = Mutex::const_new(None);
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A migrated database for one test.
///
/// # Panics
/// When Postgres cannot be had: no test can go on without it.
pub async fn database(migrations: Migrations) -> TestDatabase {
    try_database(migrations).await.expect("a Postgres for the test")
}

async fn try_database(migrations: Migrations) -> Result<TestDatabase> {
    // Started from a thread that stays: the server is told to die with the thread that started it.
    let server = SERVER.get_or_try_init(start_for_process).await?;
    let owner = migrator(migrations);
    let template = {
        let mut templates = TEMPLATES.lock().await;
        let templates = templates.get_or_insert_with(HashMap::new);
        if let Some(name) = templates.get(migrations.app_role) {
            name.clone()
        } else {
            let name = format!("template_{}", migrations.app_role);
            server.template(&name, migrations).await?;
            templates.insert(migrations.app_role, name.clone());
            name
        }
    };
    let name = format!("test_{}", COUNTER.fetch_add(1, Ordering::SeqCst));
    {
        // A template must have no other connection while it is copied, and copies exclude each other.
        let _one_at_a_time = TEMPLATES.lock().await;
        server.create(&name, &owner, &template).await?;
    }
    let config = PostgresConfig {
        url: server.local_url(migrations.app_role, &name),
        password: None,
        max_connections: 10,
        statement_timeout: Millis(Duration::from_secs(20)),
        wait_timeout: Millis(Duration::from_secs(10)),
    };
    let owner_config = PostgresConfig { url: server.local_url(&owner, &name), max_connections: 2, ..config.clone() };
    Ok(TestDatabase { pool: connect(&config, "test")?, owner: connect(&owner_config, "test")?, config })
}

/// Starts the server on a thread that lives as long as the process.
async fn start_for_process() -> Result<PostgresServer> {
    let (send, receive) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let started = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(PostgresServer::start()));
        // The test is gone when nobody receives.
        let _ = send.send(started);
        loop {
            std::thread::park();
        }
    });
    receive.await?
}

/// The folder of Postgres' programs: the highest version that is installed.
fn binaries() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<(u32, PathBuf)> =
        versions.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))).collect();
    folders.sort();
    let folders: Vec<PathBuf> = folders.into_iter().rev().map(|(_, folder)| folder).collect();
    find(&["initdb"], &folders)?.parent().map(PathBuf::from).context("initdb is in a folder")
}
