//! The three services with a real Postgres and a real Redis, as processes of this machine: what is measured on one processor,
//! everything else on another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::Client;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use testkit::TestRedis;
use testkit::postgres::PostgresServer;

use crate::processes::{Process, free_port};

/// The issuer of all tokens.
pub const ISSUER: &str = "http://auth.example.com";
const PASSWORD: &str = "correct horse battery staple";

/// Where the programs are.
#[derive(Debug, Clone, clap::Args)]
pub struct Programs {
    /// The proxy to compare with.
    #[arg(long)]
    pub plain_proxy: PathBuf,
    /// auth-service.
    #[arg(long)]
    pub auth: PathBuf,
    /// billing-service.
    #[arg(long)]
    pub billing: PathBuf,
    /// chat-service.
    #[arg(long)]
    pub chat: PathBuf,
    /// The model provider.
    #[arg(long)]
    pub simulator: PathBuf,
}

/// A service that runs.
#[derive(Debug)]
pub struct Running {
    /// Its name.
    pub name: &'static str,
    /// Base URL of its public listener.
    pub base: String,
    /// The process.
    pub process: Process,
    /// From its start to `/ready`.
    pub ready: Duration,
}

/// Everything, running.
#[derive(Debug)]
pub struct Stack {
    /// auth, billing, chat, the plain proxy and the simulator.
    pub running: Vec<Running>,
    /// A customer's API key.
    pub key: String,
    /// chat-service's own key.
    pub chat_key: String,
    /// Base URL of the private listener of auth-service.
    pub auth_url: String,
    /// The same of billing-service.
    pub billing_url: String,
    /// Redis.
    pub redis: TestRedis,
    _postgres: PostgresServer,
}

/// A service's own key, and its public half for auth-service.
fn service_key(name: &str) -> Result<(String, Value)> {
    let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| anyhow::anyhow!("no key could be made"))?;
    let pair = Ed25519KeyPair::from_pkcs8(der.as_ref()).map_err(|_| anyhow::anyhow!("a key cannot be read"))?;
    let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der.as_ref()));
    Ok((pem, json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": name, "x": x})))
}

/// What the services share of their environment.
struct Surroundings {
    postgres: PostgresServer,
    redis: TestRedis,
    auth_private: u16,
}

impl Surroundings {
    fn service(&self, public: u16, private: u16) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("TRIVET_HTTP_BIND", format!("127.0.0.1:{public}")),
            ("TRIVET_PRIVATE_BIND", format!("127.0.0.1:{private}")),
            ("TRIVET_REDIS_URL", self.redis.config.url.clone()),
            ("TRIVET_ISSUER", ISSUER.to_owned()),
            ("TRIVET_LOG", "warn".to_owned()),
        ])
    }

    async fn migrate(&self, program: &Path, name: &'static str) -> Result<()> {
        let owner = format!("{name}_migrator");
        self.postgres.empty(name, &owner).await?;
        let variables = BTreeMap::from([("TRIVET_DATABASE_URL", self.postgres.url(&owner, name))]);
        Process::start(program, 0, &["migrate"], &variables)?.finish()
    }
}

impl Stack {
    /// Starts everything; the chat service and the plain proxy get processor 1, all others processor 0.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn start(programs: &Programs, http: &Client) -> Result<Self> {
        let around = Surroundings { postgres: PostgresServer::start().await?, redis: TestRedis::start().await, auth_private: free_port()? };
        let (simulator, auth, billing, billing_private, chat) = (free_port()?, free_port()?, free_port()?, free_port()?, free_port()?);
        let (chat_key, chat_jwk) = service_key("chat-service")?;
        let (billing_key, billing_jwk) = service_key("billing-service")?;
        around.migrate(&programs.auth, "auth").await?;
        around.migrate(&programs.billing, "billing").await?;
        let provider = format!("http://127.0.0.1:{simulator}");
        let auth_url = format!("http://127.0.0.1:{}", around.auth_private);

        let mut running = Vec::new();
        let bind = format!("127.0.0.1:{simulator}");
        running
            .push(run("llm-simulator", &programs.simulator, 0, &["--bind", &bind], &BTreeMap::new(), (simulator, "/health"), http).await?);

        let mut variables = around.service(auth, around.auth_private);
        variables.extend([
            ("TRIVET_DATABASE_URL", around.postgres.url("auth_app", "auth")),
            ("AUTH_SECRET", STANDARD.encode([7; 32])),
            // As compose/services.yaml has it.
            ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=1048576".to_owned()),
            ("AUTH_SERVICE_JWKS", json!({"keys": [chat_jwk, billing_jwk]}).to_string()),
        ]);
        running.push(run("auth-service", &programs.auth, 0, &[], &variables, (auth, "/ready"), http).await?);

        let mut variables = around.service(billing, billing_private);
        variables.extend([
            ("TRIVET_DATABASE_URL", around.postgres.url("billing_app", "billing")),
            ("TRIVET_AUTH_URL", auth_url.clone()),
            ("TRIVET_SERVICE_KEY", billing_key),
            ("BILLING_SECRET", "a secret of the measurement".to_owned()),
            ("BILLING_SIGNUP_GRANT_MICROS", "1000000000000".to_owned()),
        ]);
        running.push(run("billing-service", &programs.billing, 0, &[], &variables, (billing, "/ready"), http).await?);

        let mut variables = around.service(chat, free_port()?);
        variables.extend([
            ("TRIVET_AUTH_URL", auth_url.clone()),
            ("TRIVET_SERVICE_KEY", chat_key.clone()),
            ("TRIVET_BILLING_URL", format!("http://127.0.0.1:{billing_private}")),
            ("OPENAI_BASE_URL", format!("{provider}/v1")),
            ("CHAT_REQUESTS_PER_MINUTE", "100000000".to_owned()),
        ]);
        running.push(run("chat-service", &programs.chat, 1, &[], &variables, (chat, "/ready"), http).await?);

        let proxy = free_port()?;
        let arguments = [format!("127.0.0.1:{proxy}"), provider];
        let arguments = arguments.each_ref().map(String::as_str);
        running.push(run("plain-proxy", &programs.plain_proxy, 1, &arguments, &BTreeMap::new(), (proxy, "/health"), http).await?);

        let key = sign_up(http, &format!("http://127.0.0.1:{auth}")).await?;
        let billing_url = format!("http://127.0.0.1:{billing_private}");
        Ok(Self { running, key, chat_key, auth_url, billing_url, redis: around.redis, _postgres: around.postgres })
    }

    /// Base URL of a program.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn base(&self, name: &str) -> Result<String> {
        self.running.iter().find(|running| running.name == name).map(|running| running.base.clone()).context("no such program")
    }
}

async fn run(
    name: &'static str,
    program: &Path,
    processor: usize,
    arguments: &[&str],
    variables: &BTreeMap<&str, String>,
    (port, path): (u16, &str),
    http: &Client,
) -> Result<Running> {
    let process = Process::start(program, processor, arguments, variables)?;
    let base = format!("http://127.0.0.1:{port}");
    let ready = process.answers(http, &format!("{base}{path}")).await?;
    Ok(Running { name, base, process, ready })
}

async fn sign_up(http: &Client, auth: &str) -> Result<String> {
    let post = |path: &str, body: Value| http.post(format!("{auth}{path}")).json(&body);
    post("/v1/accounts", json!({"email": "bench@example.com", "password": PASSWORD, "name": "Bench"})).send().await?.error_for_status()?;
    let session = post("/v1/sessions", json!({"email": "bench@example.com", "password": PASSWORD})).send().await?.error_for_status()?;
    let session: Value = session.json().await?;
    let token = session["access_token"].as_str().context("a token")?;
    let made = post("/v1/api-keys", json!({"name": "bench"})).bearer_auth(token).send().await?.error_for_status()?;
    let made: Value = made.json().await?;
    Ok(made["key"].as_str().context("a key")?.to_owned())
}
