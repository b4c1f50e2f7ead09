//! Commands for operators.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Context;
use async_openai::config::OpenAIConfig;
use chassis::ExposeSecret;
use clap::Subcommand;

use crate::config::ChatConfig;
use crate::models::Model;

/// `chat-service …`
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// The models that are offered.
    #[command(subcommand)]
    Models(Models),
}

/// `chat-service models …`
#[derive(Debug, Clone, Subcommand)]
pub enum Models {
    /// Ask the provider for its models. Prints the configured ones that it has, with its own data, as the JSON for `CHAT_MODELS`;
    /// says on standard error which it does not have and which others it has.
    Sync,
}

/// What the provider says about the models of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// Those that it has, with its own data.
    pub kept: Vec<Model>,
    /// Those that it does not have, by its names.
    pub missing: Vec<String>,
    /// Others that it has, sorted.
    pub others: Vec<String>,
}

/// Runs a command.
///
/// # Errors
/// When the provider does not answer.
pub async fn run(command: Command, config: ChatConfig) -> anyhow::Result<()> {
    match command {
        Command::Models(Models::Sync) => print(&sync(&config).await?),
    }
}

fn print(synced: &Synced) -> anyhow::Result<()> {
    let mut report = std::io::stderr();
    for model in &synced.missing {
        writeln!(report, "the provider does not have {model}")?;
    }
    for model in &synced.others {
        writeln!(report, "not offered here: {model} (add it with its context_window and max_output_tokens, and a rate card)")?;
    }
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&synced.kept)?)?;
    Ok(())
}

/// Asks the provider for its models.
///
/// # Errors
/// When it does not answer.
pub async fn sync(config: &ChatConfig) -> anyhow::Result<Synced> {
    let key = config.provider.api_key.as_ref().map_or("", |key| key.expose_secret());
    let settings = OpenAIConfig::new().with_api_base(config.provider.base_url.trim_end_matches('/')).with_api_key(key);
    let http = chassis::http::client::builder().timeout(config.provider.first_byte_timeout.0).build()?;
    let client = async_openai::Client::build(http, settings);
    let listed = client.models().list().await.context("the provider does not tell its models")?;
    let mut offered: BTreeMap<_, _> = listed.data.into_iter().map(|model| (model.id.clone(), model)).collect();
    let (mut kept, mut missing) = (Vec::new(), Vec::new());
    for model in config.models.iter() {
        match offered.remove(model.provider_model()) {
            Some(known) => kept.push(Model { created: known.created, owned_by: known.owned_by, ..model.clone() }),
            None => missing.push(model.provider_model().to_owned()),
        }
    }
    Ok(Synced { kept, missing, others: offered.into_keys().collect() })
}
