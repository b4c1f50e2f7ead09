//! `prepare-queries SERVICE_FOLDER`: describes the checked queries of a service on a private, migrated Postgres and writes them
//! to its `.sqlx/`, so that no build needs a database.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use chassis::postgres::Migrations;
use testkit::postgres::PostgresServer;

#[tokio::main]
async fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).context("usage: prepare-queries SERVICE_FOLDER")?).canonicalize()?;
    let package = folder.file_name().and_then(|name| name.to_str()).context("the folder has a name")?.to_owned();
    let app_role: &'static str = format!("{}_app", package.trim_end_matches("-service")).leak();
    let migrations = Migrations { app_role, files: read(&folder.join("migrations"))?.leak() };
    let server = PostgresServer::start().await?;
    server.template("prepare", migrations).await?;
    let queries = folder.join(".sqlx");
    if queries.exists() {
        std::fs::remove_dir_all(&queries)?;
    }
    std::fs::create_dir_all(&queries)?;
    // The macros must run again, whatever cargo thinks: a comment's worth of change in time is enough.
    Command::new("touch").arg(folder.join("src/lib.rs")).status()?;
    let status = Command::new("cargo")
        .args(["check", "--package", &package])
        .env("DATABASE_URL", server.url(&app_role.replace("_app", "_migrator"), "prepare"))
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", &queries)
        .status()?;
    anyhow::ensure!(status.success(), "cargo check failed");
    println!("{} queries in {}", std::fs::read_dir(&queries)?.count(), queries.display());
    Ok(())
}

/// The migrations of a folder, in order.
fn read(folder: &Path) -> Result<Vec<(&'static str, &'static str)>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    let load = |path: PathBuf| {
        let name = path.file_stem().and_then(|stem| stem.to_str()).context("a migration has a name")?.to_owned();
        Ok((&*name.leak(), &*std::fs::read_to_string(path)?.leak()))
    };
    files.into_iter().map(load).collect()
}
