//! The three services with a real Postgres and a real Redis, as processes of this machine: what is measured on one processor,
//! everything else on another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::Client;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use testkit::TestRedis;
use testkit::ports::Port;
use testkit::postgres::PostgresServer;

use crate::processes::Process;

/// The issuer of all tokens.
pub const ISSUER: &str = "http://auth.example.com";
/// Everybody's password.
pub const PASSWORD: &str = "correct horse battery staple";

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
    /// Stripe; without it billing-service has none.
    #[arg(long)]
    pub stripe: Option<PathBuf>,
}

/// What a run wants otherwise than the measurements do.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// Every program on all processors.
    pub is_unpinned: bool,
    /// Postgres keeps what was committed when it is killed.
    pub is_durable: bool,
    /// Postgres and Redis flush as those of compose.yaml do.
    pub is_as_deployed: bool,
    /// Further arguments of the simulator.
    pub simulator: Vec<String>,
    /// The same of Stripe.
    pub stripe: Vec<String>,
    /// Further variables of auth-service.
    pub auth: Vec<(&'static str, String)>,
    /// Further variables of billing-service.
    pub billing: Vec<(&'static str, String)>,
    /// The same of chat-service.
    pub chat: Vec<(&'static str, String)>,
}

/// A service that runs.
#[derive(Debug)]
pub struct Running {
    /// Its name.
    pub name: &'static str,
    /// Base URL of its public listener.
    pub base: String,
    /// The process; none after it was stopped.
    process: Option<Process>,
    /// From its start to `/ready`.
    pub ready: Duration,
    launch: Launch,
    /// Where it listens, each time it is started.
    _ports: Vec<Port>,
}

/// How a program is started.
#[derive(Debug, Clone)]
struct Launch {
    program: PathBuf,
    processor: Option<usize>,
    arguments: Vec<String>,
    variables: BTreeMap<&'static str, String>,
    health: String,
}

impl Running {
    async fn start(name: &'static str, base: String, launch: Launch, ports: Vec<Port>, http: &Client) -> Result<Self> {
        let mut running = Self { name, base, process: None, ready: Duration::ZERO, launch, _ports: ports };
        running.restart(http).await?;
        Ok(running)
    }

    /// Starts it again, killed first where it runs (`SIGKILL`), and waits until it is ready.
    ///
    /// # Errors
    /// When it is not within half a minute.
    pub async fn restart(&mut self, http: &Client) -> Result<()> {
        self.kill();
        let launch = &self.launch;
        let mut process = Process::start(&launch.program, launch.processor, &launch.arguments, &launch.variables)?;
        self.ready = process.answers(http, &launch.health).await.context(self.name)?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it as a crash would, where it runs.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Asks it to stop, and waits for its end with success.
    ///
    /// # Errors
    /// When it ends otherwise.
    pub fn stop(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), Process::stop)
    }

    /// Runs a subcommand of the same program with the same variables; whether it succeeded.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn operate(&self, arguments: &[&str]) -> Result<()> {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        Process::start(&self.launch.program, None, &arguments, &self.launch.variables)?.finish()
    }

    /// What a subcommand of the same program writes to its standard output.
    ///
    /// # Errors
    /// When it cannot be started or fails.
    pub fn output(&self, arguments: &[&str]) -> Result<String> {
        let done = Command::new(&self.launch.program).args(arguments).env_clear().envs(&self.launch.variables).output()?;
        let [told, complained] = [&done.stdout, &done.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        ensure!(done.status.success(), "{arguments:?}: {told}{complained}");
        Ok(String::from_utf8(done.stdout)?)
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When it does not run, or nobody can tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.process.as_mut().context("it does not run")?.ended()
    }

    /// Its resident memory, in bytes.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.process.as_ref().context("it does not run")?.resident_bytes()
    }
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
    /// Postgres.
    pub postgres: PostgresServer,
    _auth_private: Port,
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
    auth_private: Port,
}

impl Surroundings {
    fn service(&self, public: &Port, private: &Port) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("TRIVET_HTTP_BIND", address(public)),
            ("TRIVET_PRIVATE_BIND", address(private)),
            ("TRIVET_REDIS_URL", self.redis.config.url.clone()),
            ("TRIVET_ISSUER", ISSUER.to_owned()),
            ("TRIVET_LOG", "warn".to_owned()),
        ])
    }

    async fn migrate(&self, program: &Path, name: &'static str) -> Result<()> {
        let owner = format!("{name}_migrator");
        self.postgres.empty(name, &owner).await?;
        let variables = BTreeMap::from([("TRIVET_DATABASE_URL", self.postgres.url(&owner, name))]);
        Process::start(program, None, &["migrate".to_owned()], &variables)?.finish()
    }
}

impl Stack {
    /// Starts everything; the chat service and the plain proxy get processor 1, all others processor 0.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn start(programs: &Programs, http: &Client) -> Result<Self> {
        Self::with(programs, http, &Wishes::default()).await
    }

    /// The same, with wishes.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn with(programs: &Programs, http: &Client, wishes: &Wishes) -> Result<Self> {
        let postgres = match wishes {
            Wishes { is_as_deployed: true, .. } => PostgresServer::start_flushing().await?,
            Wishes { is_durable: true, .. } => PostgresServer::start_durable().await?,
            _ => PostgresServer::start().await?,
        };
        let redis = if wishes.is_as_deployed { TestRedis::flushed_each_second().await } else { TestRedis::start().await };
        let on = |processor| (!wishes.is_unpinned).then_some(processor);
        let around = Surroundings { postgres, redis, auth_private: Port::claim()? };
        let (simulator, auth, billing, billing_private, chat) =
            (Port::claim()?, Port::claim()?, Port::claim()?, Port::claim()?, Port::claim()?);
        let (chat_key, chat_jwk) = service_key("chat-service")?;
        let (billing_key, billing_jwk) = service_key("billing-service")?;
        around.migrate(&programs.auth, "auth").await?;
        around.migrate(&programs.billing, "billing").await?;
        let provider = base(&simulator);
        let (auth_base, auth_url) = (base(&auth), base(&around.auth_private));
        let (billing_base, billing_url) = (base(&billing), base(&billing_private));

        let mut running = Vec::new();
        let mut arguments = vec!["--bind".to_owned(), address(&simulator)];
        arguments.extend(wishes.simulator.iter().cloned());
        running
            .push(run("llm-simulator", &programs.simulator, on(0), arguments, BTreeMap::new(), (vec![simulator], "/health"), http).await?);

        let mut variables = around.service(&auth, &around.auth_private);
        variables.extend([
            ("TRIVET_DATABASE_URL", around.postgres.url("auth_app", "auth")),
            ("AUTH_SECRET", STANDARD.encode([7; 32])),
            // As compose/services.yaml has it.
            ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=1048576".to_owned()),
            ("AUTH_SERVICE_JWKS", json!({"keys": [chat_jwk, billing_jwk]}).to_string()),
        ]);
        variables.extend(wishes.auth.iter().cloned());
        running.push(run("auth-service", &programs.auth, on(0), Vec::new(), variables, (vec![auth], "/ready"), http).await?);

        let mut variables = around.service(&billing, &billing_private);
        variables.extend([
            ("TRIVET_DATABASE_URL", around.postgres.url("billing_app", "billing")),
            ("TRIVET_AUTH_URL", auth_url.clone()),
            ("TRIVET_SERVICE_KEY", billing_key),
            ("BILLING_SECRET", "a secret of the measurement".to_owned()),
            ("BILLING_SIGNUP_GRANT_MICROS", "1000000000000".to_owned()),
        ]);
        if let Some(program) = &programs.stripe {
            let stripe = Port::claim()?;
            let mut arguments = vec!["--bind".to_owned(), address(&stripe)];
            arguments.extend(["--webhook".to_owned(), format!("{billing_base}/stripe/webhooks")]);
            arguments.extend(wishes.stripe.iter().cloned());
            variables.insert("STRIPE_API_BASE", base(&stripe));
            running.push(run("stripe-simulator", program, on(0), arguments, BTreeMap::new(), (vec![stripe], "/health"), http).await?);
        }
        variables.extend(wishes.billing.iter().cloned());
        running.push(
            run("billing-service", &programs.billing, on(0), Vec::new(), variables, (vec![billing, billing_private], "/ready"), http)
                .await?,
        );

        let chat_private = Port::claim()?;
        let mut variables = around.service(&chat, &chat_private);
        variables.extend([
            ("TRIVET_AUTH_URL", auth_url.clone()),
            ("TRIVET_SERVICE_KEY", chat_key.clone()),
            ("TRIVET_BILLING_URL", billing_url.clone()),
            ("OPENAI_BASE_URL", format!("{provider}/v1")),
            ("CHAT_REQUESTS_PER_MINUTE", "100000000".to_owned()),
        ]);
        variables.extend(wishes.chat.iter().cloned());
        running.push(run("chat-service", &programs.chat, on(1), Vec::new(), variables, (vec![chat, chat_private], "/ready"), http).await?);

        let proxy = Port::claim()?;
        let arguments = vec![address(&proxy), provider];
        running.push(run("plain-proxy", &programs.plain_proxy, on(1), arguments, BTreeMap::new(), (vec![proxy], "/health"), http).await?);

        let key = sign_up(http, &auth_base, "bench@example.com").await?;
        let Surroundings { postgres, redis, auth_private } = around;
        Ok(Self { running, key, chat_key, auth_url, billing_url, redis, postgres, _auth_private: auth_private })
    }

    /// Another customer's API key.
    ///
    /// # Errors
    /// When auth-service refuses.
    pub async fn sign_up(&self, http: &Client, email: &str) -> Result<String> {
        sign_up(http, &self.base("auth-service")?, email).await
    }

    /// A program.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn program(&mut self, name: &str) -> Result<&mut Running> {
        self.running.iter_mut().find(|running| running.name == name).context("no such program")
    }

    /// Starts another process of a service, with ports of its own and everything else the same.
    ///
    /// # Errors
    /// When there is none of that name, or it does not start.
    pub async fn replica(&self, name: &str, http: &Client) -> Result<Running> {
        let first = self.running.iter().find(|running| running.name == name).context("no such program")?;
        let (public, private) = (Port::claim()?, Port::claim()?);
        let mut launch = first.launch.clone();
        let base = base(&public);
        launch.variables.insert("TRIVET_HTTP_BIND", address(&public));
        launch.variables.insert("TRIVET_PRIVATE_BIND", address(&private));
        launch.health = format!("{base}/ready");
        Running::start(first.name, base, launch, vec![public, private], http).await
    }

    /// Base URL of a program.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn base(&self, name: &str) -> Result<String> {
        self.running.iter().find(|running| running.name == name).map(|running| running.base.clone()).context("no such program")
    }
}

fn address(port: &Port) -> String {
    format!("127.0.0.1:{}", port.number())
}

fn base(port: &Port) -> String {
    format!("http://{}", address(port))
}

async fn run(
    name: &'static str,
    program: &Path,
    processor: Option<usize>,
    arguments: Vec<String>,
    variables: BTreeMap<&'static str, String>,
    (ports, path): (Vec<Port>, &str),
    http: &Client,
) -> Result<Running> {
    let base = base(ports.first().context("a port")?);
    let launch = Launch { program: program.to_owned(), processor, arguments, variables, health: format!("{base}{path}") };
    Running::start(name, base, launch, ports, http).await
}

async fn sign_up(http: &Client, auth: &str, email: &str) -> Result<String> {
    let post = |path: &str, body: Value| http.post(format!("{auth}{path}")).json(&body);
    post("/v1/accounts", json!({"email": email, "password": PASSWORD, "name": "Bench"})).send().await?.error_for_status()?;
    let session = post("/v1/sessions", json!({"email": email, "password": PASSWORD})).send().await?.error_for_status()?;
    let session: Value = session.json().await?;
    let token = session["access_token"].as_str().context("a token")?;
    let made = post("/v1/api-keys", json!({"name": "bench"})).bearer_auth(token).send().await?.error_for_status()?;
    let made: Value = made.json().await?;
    Ok(made["key"].as_str().context("a key")?.to_owned())
}
