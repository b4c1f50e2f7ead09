//! `secrets FOLDER`: writes what an installation must keep to itself, where it is missing; what is there is never touched.
//! `secrets FOLDER --set NAME` puts what it reads from standard input into one of the files that start empty.
//! `secrets FOLDER --service NAME` makes a key for a program of the operator's, which auth-service knows from then on.
//!
//! Each file is random, and readable only by the container that needs it: Docker gives a file secret its owner and mode on the
//! host, so the owner is the container's user where this runs as root. The folder is closed to everybody but its owner; Docker
//! mounts the files without going through it. A file appears whole or not at all.
//!
//! Prints a digest of all files, which changes when one of them does.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clap::Parser;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

/// The users of the containers (compose/*.yaml).
const SERVICE: u32 = 1001;
const POSTGRES: u32 = 70;
const REDIS: u32 = 999;

#[derive(Debug, Parser)]
struct Arguments {
    /// Where the secrets live; made if missing.
    folder: PathBuf,
    /// A file to write anew from standard input: `openai_api_key`, `stripe_secret_key` or `stripe_webhook_secrets`.
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(GIVEN))]
    set: Option<String>,
    /// A program of the operator's, such as `console`, that shall have a key (`NAME_key.pem`).
    #[arg(long, value_parser = service_name)]
    service: Option<String>,
}

/// The name of a program: what stands in its tokens, and in the name of its file.
fn service_name(text: &str) -> Result<String, String> {
    let fits = text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.len() <= 40
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if fits { Ok(text.to_owned()) } else { Err("must be lower-case letters, digits and hyphens, a letter first, 40 at most".to_owned()) }
}

/// What others give us: empty, or of the simulator, until somebody sets it.
const GIVEN: [&str; 3] = ["openai_api_key", "stripe_secret_key", "stripe_webhook_secrets"];

/// The key of the simulator's account, by which `compose/prepare.sh` knows that it is one.
const SIMULATOR_KEY: &str = "sk_test_simulator";

fn main() -> Result<()> {
    let Arguments { folder, set, service } = Arguments::parse();
    fs::create_dir_all(&folder)?;
    fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
    make_all(&folder, service)?;
    if let Some(name) = set {
        let mut value = String::new();
        std::io::stdin().read_to_string(&mut value)?;
        write(&folder.join(name), value.trim(), SERVICE)?;
    }
    writeln!(std::io::stdout(), "{}", digest(&folder)?)?;
    Ok(())
}

/// Every file that is missing, with that of one more program.
fn make_all(folder: &Path, service: Option<String>) -> Result<()> {
    for name in ["auth_migrator", "auth_app", "billing_migrator", "billing_app"] {
        // One value, one copy for each reader: the server sets it, the service presents it.
        let value = random_text()?;
        let service = folder.join(format!("{name}_password"));
        let value = if service.exists() { present(&service)? } else { value };
        write_new(&service, &value, SERVICE)?;
        write_new(&folder.join(format!("postgres_{name}_password")), &value, POSTGRES)?;
    }
    write_new(&folder.join("postgres_password"), &random_text()?, POSTGRES)?;
    redis(folder)?;
    write_new(&folder.join("openai_api_key"), "", SERVICE)?;
    // Until there is a real account, the simulator is one: its key is no secret, but what it signs its events with is.
    write_if_empty(&folder.join("stripe_secret_key"), SIMULATOR_KEY)?;
    write_if_empty(&folder.join("stripe_webhook_secrets"), &format!("whsec_{}", random_text()?))?;
    write_new(&folder.join("auth_secret"), &STANDARD.encode(random_bytes()?), SERVICE)?;
    write_new(&folder.join("billing_secret"), &random_text()?, SERVICE)?;
    service_keys(folder, service)
}

/// The value of a file that must have one.
fn present(path: &Path) -> Result<String> {
    let value = fs::read_to_string(path)?;
    anyhow::ensure!(!value.trim().is_empty(), "{} is empty: delete it, and what was made with it", path.display());
    Ok(value)
}

/// SHA-256 over names and contents, in order.
fn digest(folder: &Path) -> Result<String> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for file in files {
        context.update(file.display().to_string().as_bytes());
        context.update(ring::digest::digest(&ring::digest::SHA256, &fs::read(&file)?).as_ref());
    }
    Ok(context.finish().as_ref().iter().take(8).fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
}

/// The password as the services read it, and as the server's own configuration.
fn redis(folder: &Path) -> Result<()> {
    let file = folder.join("redis_password");
    let password = if file.exists() { present(&file)? } else { random_text()? };
    write_new(&file, &password, SERVICE)?;
    write_new(&folder.join("redis.conf"), &format!("requirepass {password}\n"), REDIS)
}

/// What the name of a service's key ends with.
const KEY: &str = "_key.pem";

/// Everybody who has a key already.
fn with_keys(folder: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_str().and_then(|file| file.strip_suffix(KEY)).map(|name| name.replace('_', "-"));
        names.extend(name.filter(|name| service_name(name).is_ok()));
    }
    Ok(names)
}

/// An Ed25519 key for each service that calls others, for one more program if it is named, and all public keys for auth-service.
fn service_keys(folder: &Path, service: Option<String>) -> Result<()> {
    let public = folder.join("service_jwks.json");
    let mut keys: Vec<Value> = Vec::new();
    let ours = ["billing-service", "chat-service"].map(str::to_owned);
    for service in with_keys(folder)?.into_iter().chain(ours).chain(service).collect::<BTreeSet<_>>() {
        let file = folder.join(format!("{}{KEY}", service.replace('-', "_")));
        let der = if file.exists() {
            let pem = present(&file)?;
            let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
            STANDARD.decode(text).with_context(|| format!("{} is no PEM", file.display()))?
        } else {
            let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| anyhow::anyhow!("no key could be made"))?;
            made.as_ref().to_vec()
        };
        write_new(&file, &format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(&der)), SERVICE)?;
        let pair = Ed25519KeyPair::from_pkcs8(&der).map_err(|_| anyhow::anyhow!("{} is not an Ed25519 key", file.display()))?;
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        keys.push(json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": service, "x": x}));
    }
    // Made from the private keys: the one file that follows others.
    write(&public, &serde_json::to_string(&json!({ "keys": keys }))?, SERVICE)
}

fn random_bytes() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow::anyhow!("the operating system has no randomness"))?;
    Ok(bytes)
}

fn random_text() -> Result<String> {
    Ok(URL_SAFE_NO_PAD.encode(random_bytes()?))
}

/// Writes a file that is not there, for one reader.
fn write_new(path: &Path, text: &str, reader: u32) -> Result<()> {
    if path.exists() { Ok(()) } else { write(path, text, reader) }
}

/// Writes a file that has nothing in it, for the services.
fn write_if_empty(path: &Path, text: &str) -> Result<()> {
    let empty = !path.exists() || fs::metadata(path)?.len() == 0;
    if empty { write(path, text, SERVICE) } else { Ok(()) }
}

/// Writes a file for one reader, beside its place, and moves it there when it is whole and belongs to whom it shall.
fn write(path: &Path, text: &str, reader: u32) -> Result<()> {
    let unfinished = path.with_extension(format!("new-{}", process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&unfinished)?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", unfinished.display()))?;
    if chown(&unfinished, Some(reader), Some(reader)).is_err() {
        // Not root: the container's user can be given the file only by letting others read it; nobody else comes into the folder.
        fs::set_permissions(&unfinished, Permissions::from_mode(0o444))?;
    }
    fs::rename(&unfinished, path).with_context(|| format!("cannot make {}", path.display()))
}
