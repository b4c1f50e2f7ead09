//! `secrets FOLDER`: writes what an installation must keep to itself, where it is missing; what is there is never touched.
//!
//! Each file is random, and readable only by the container that needs it: Docker gives a file secret its owner and mode on the
//! host, so the owner is the container's user where this runs as root.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

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
}

fn main() -> Result<()> {
    let folder = Arguments::parse().folder;
    fs::create_dir_all(&folder)?;
    fs::set_permissions(&folder, Permissions::from_mode(0o711))?;
    for name in ["auth_migrator", "auth_app", "billing_migrator", "billing_app"] {
        // One value, one copy for each reader: the server sets it, the service presents it.
        let value = random_text()?;
        let service = folder.join(format!("{name}_password"));
        let value = if service.exists() { fs::read_to_string(&service)? } else { value };
        write_new(&service, &value, SERVICE)?;
        write_new(&folder.join(format!("postgres_{name}_password")), &value, POSTGRES)?;
    }
    write_new(&folder.join("postgres_password"), &random_text()?, POSTGRES)?;
    redis(&folder)?;
    write_new(&folder.join("auth_secret"), &STANDARD.encode(random_bytes()?), SERVICE)?;
    write_new(&folder.join("billing_secret"), &random_text()?, SERVICE)?;
    service_keys(&folder)
}

/// The password as the services read it, and as the server's own configuration.
fn redis(folder: &Path) -> Result<()> {
    let file = folder.join("redis_password");
    let password = if file.exists() { fs::read_to_string(&file)? } else { random_text()? };
    write_new(&file, &password, SERVICE)?;
    write_new(&folder.join("redis.conf"), &format!("requirepass {password}\n"), REDIS)
}

/// An Ed25519 key for each service that calls others, and their public keys for auth-service.
fn service_keys(folder: &Path) -> Result<()> {
    let public = folder.join("service_jwks.json");
    let mut keys: Vec<Value> = Vec::new();
    for service in ["billing-service", "chat-service"] {
        let file = folder.join(format!("{}_key.pem", service.replace('-', "_")));
        let der = if file.exists() {
            let pem = fs::read_to_string(&file)?;
            STANDARD.decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>())?
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
    if public.exists() {
        fs::remove_file(&public)?;
    }
    write_new(&public, &serde_json::to_string(&json!({ "keys": keys }))?, SERVICE)
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
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o400).open(path);
    match opened {
        Ok(mut file) => file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot make {}", path.display())),
    }
    if chown(path, Some(reader), Some(reader)).is_err() {
        // Not root: the container's user can be given the file only by letting others read it; the folder's name is no secret,
        // its list is (0711).
        fs::set_permissions(path, Permissions::from_mode(0o444))?;
    }
    Ok(())
}
