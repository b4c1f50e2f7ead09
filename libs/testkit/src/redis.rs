//! A Redis (or Valkey) server of its own for each test that asks for one; it starts in milliseconds.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use chassis::config::Millis;
use chassis::redis::{Redis, RedisConfig};

use crate::ports::Port;
use crate::scratch::Scratch;
use crate::server::{Server, find};

/// A Redis server with throw-away data, and a connection to it.
#[derive(Debug)]
pub struct TestRedis {
    /// How a service connects to it.
    pub config: RedisConfig,
    /// A connection.
    pub redis: Redis,
    // It ends before its folder goes.
    server: Option<Server>,
    folder: Scratch,
    port: Port,
    fsync: &'static str,
}

impl TestRedis {
    /// Starts a server that keeps an append-only file, flushed at each write.
    ///
    /// # Panics
    /// When Redis cannot be had: no test can go on without it.
    pub async fn start() -> Self {
        Self::answering_within(Duration::from_millis(500)).await
    }

    /// The same, with patience of another length for each answer: a busy machine is no Redis that is away.
    ///
    /// # Panics
    /// When Redis cannot be had: no test can go on without it.
    pub async fn answering_within(timeout: Duration) -> Self {
        Self::try_start(timeout, "always").await.expect("a Redis for the test")
    }

    /// A server whose append-only file is flushed each second, as compose.yaml has it: for measurements.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn flushed_each_second() -> Self {
        Self::try_start(Duration::from_millis(500), "everysec").await.expect("a Redis for the measurement")
    }

    async fn try_start(timeout: Duration, fsync: &'static str) -> Result<Self> {
        let (folder, port) = (Scratch::new("redis")?, Port::claim()?);
        let config = RedisConfig { url: format!("redis://127.0.0.1:{}/0", port.number()), password: None, timeout: Millis(timeout) };
        let mut redis = Self { redis: Redis::connect(&config)?, config, server: None, folder, port, fsync };
        redis.restart().await?;
        Ok(redis)
    }

    /// Starts the server again, with the data it had.
    ///
    /// # Errors
    /// When Redis is not installed.
    pub async fn restart(&mut self) -> Result<()> {
        let started = Instant::now();
        let program = find(&["redis-server", "valkey-server"], &[])?;
        let folder = self.folder.display().to_string();
        let port = self.port.number().to_string();
        let arguments =
            ["--port", &port, "--bind", "127.0.0.1", "--dir", &folder, "--appendonly", "yes", "--appendfsync", self.fsync, "--save", ""];
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let log = self.folder.join("log");
        let mut server = Server::start(&program, &arguments, &log)?;
        while redis::cmd("PING").query_async::<String>(&mut self.redis.connection()).await.is_err() {
            let is_hopeless = server.has_ended() || started.elapsed() > Duration::from_secs(30);
            anyhow::ensure!(!is_hopeless, "Redis does not answer: {}", std::fs::read_to_string(&log)?);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.server = Some(server);
        Ok(())
    }

    /// Ends the server as a crash would.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// How many bytes of the append-only file there are: what a power failure would leave, if no more had reached the disk by now.
    ///
    /// # Panics
    /// When the server keeps none.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        std::fs::metadata(self.log_file()).expect("an append-only file").len()
    }

    /// Ends the server as a power failure would, with so many bytes of the append-only file on the disk.
    ///
    /// # Panics
    /// When the server keeps none.
    pub fn lose_power(&mut self, log_bytes: u64) {
        self.kill();
        let file = std::fs::OpenOptions::new().write(true).open(self.log_file()).expect("an append-only file");
        file.set_len(log_bytes).expect("a shorter file");
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("appendonlydir").join("appendonly.aof.1.incr.aof")
    }

    /// Lets the server hang: it accepts and does not answer.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets a paused server go on.
    ///
    /// # Panics
    /// When it does not run.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        self.server.as_ref().expect("the server runs").signal(name).expect("the server can be signalled");
    }
}
