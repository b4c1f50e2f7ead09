//! What is committed about this service: equal to what the code makes today where it is made from it, and understood by it where people
//! copy it.

use chassis::config::reference;
use testkit::repository;

use super::app::App;
use super::wallet::parse;

const MEND: &str = "write it anew: tools/docs/generate.sh";

/// [B-80]
#[tokio::test]
async fn the_committed_openapi_file_is_the_one_the_code_makes_and_the_one_that_is_served() {
    let committed = repository::read("docs/api/billing-service.json");
    assert!(committed == billing_service::router::openapi(), "{MEND}");
    let app = App::start().await;
    assert_eq!(app.public.get("/openapi.json").await.expect(200).text, committed);
}

#[test]
fn the_committed_reference_of_the_variables_is_the_one_the_code_makes() {
    let committed = repository::read("docs/operations/CONFIGURATION.md");
    assert!(committed.contains(&format!("## billing-service\n\n{}", reference::<billing_service::config::BillingConfig>())), "{MEND}");
}

#[tokio::test]
async fn the_committed_descriptions_of_the_queries_are_those_of_the_migrated_database() {
    let database = testkit::postgres::database(billing_service::MIGRATIONS).await;
    testkit::queries::assert_current(&database.owner, &repository::read_folder("services/billing-service/.sqlx")).await;
}

const WITH_COMMANDS: [&str; 4] =
    ["docs/guides/BILLING.md", "docs/guides/CATALOG.md", "docs/guides/METERING.md", "docs/operations/RUNBOOK.md"];

/// The words of a command in a document: without its comment, its files and the marks of what may be left out; of alternatives the first,
/// and something of the kind where it says that there is something.
fn words(command: &str) -> Vec<String> {
    let command = command.split(" # ").next().unwrap_or_default().split(" | ").next().unwrap_or_default();
    let mut words: Vec<String> = Vec::new();
    let mut quoted = false;
    for part in command.split(['\'', '"']) {
        if quoted {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(|word| word.trim_matches(['[', ']']).to_owned()));
        }
        quoted = !quoted;
    }
    let to_file = words.iter().position(|word| word.starts_with(['<', '>'])).unwrap_or(words.len());
    words.truncate(to_file);
    let befores = std::iter::once(String::new()).chain(words.clone());
    let filled = befores.zip(&words).map(|(before, word)| match word.split('|').next().unwrap_or_default() {
        "…" if matches!(before.as_str(), "--from" | "--to") => "2030-01-01T00:00:00Z".to_owned(),
        "org_…" | "ORG" => "org_0197f0a0000070008000000000000001".to_owned(),
        word => word.to_owned(),
    });
    filled.collect()
}

#[test]
fn the_commands_that_people_copy_from_the_documents_are_commands() {
    let mut count = 0;
    for file in WITH_COMMANDS {
        for line in repository::read(file).lines().map(str::trim) {
            let Some(command) = ["billing ", "billing-service "].into_iter().find_map(|name| line.strip_prefix(name)) else { continue };
            let words = words(command);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            assert!(parse(&words).is_ok(), "{file}: {line}\n{words:?}\n{}", parse(&words).unwrap_err());
            count += 1;
        }
    }
    assert!(count > 25, "they were not found: {count}");
}
