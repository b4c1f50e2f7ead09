//! What is committed about this service and made from its code: equal to what the code makes today.

use chassis::config::reference;
use testkit::repository;

use crate::harness::Chat;

const MEND: &str = "write it anew: tools/docs/generate.sh";

/// [I-82]
#[tokio::test]
async fn the_committed_openapi_file_is_the_one_the_code_makes_and_the_one_that_is_served() {
    let committed = repository::read("docs/api/chat-service.json");
    assert!(committed == chat_service::router::openapi(), "{MEND}");
    let chat = Chat::start().await;
    assert_eq!(chat.client().get("/openapi.json").await.expect(200).text, committed);
}

#[test]
fn the_committed_reference_of_the_variables_is_the_one_the_code_makes() {
    let committed = repository::read("docs/operations/CONFIGURATION.md");
    assert!(committed.contains(&format!("## chat-service\n\n{}", reference::<chat_service::config::ChatConfig>())), "{MEND}");
}
