//! What is committed about this service and made from its code: equal to what the code makes today.

use chassis::config::reference;
use testkit::repository;

use super::app::App;

const MEND: &str = "write it anew: tools/docs/generate.sh";

/// [I-82]
#[tokio::test]
async fn the_committed_openapi_file_is_the_one_the_code_makes_and_the_one_that_is_served() {
    let committed = repository::read("docs/api/auth-service.json");
    assert!(committed == auth_service::router::openapi(), "{MEND}");
    let app = App::start().await;
    assert_eq!(app.public.get("/openapi.json").await.expect(200).text, committed);
}

#[test]
fn the_committed_reference_of_the_variables_is_the_one_the_code_makes() {
    let committed = repository::read("docs/operations/CONFIGURATION.md");
    assert!(committed.contains(&format!("## auth-service\n\n{}", reference::<auth_service::config::AuthConfig>())), "{MEND}");
}

#[tokio::test]
async fn the_committed_descriptions_of_the_queries_are_those_of_the_migrated_database() {
    let database = testkit::postgres::database(auth_service::MIGRATIONS).await;
    testkit::queries::assert_current(&database.owner, &repository::read_folder("services/auth-service/.sqlx")).await;
}
