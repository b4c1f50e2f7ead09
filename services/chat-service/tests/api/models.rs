//! The list of models, and the document of the API.

use llm_simulator::{Options, Simulator};
use serde_json::json;

use crate::harness::Chat;

#[tokio::test]
async fn the_models_of_the_configuration_are_listed_as_openai_lists_them() {
    let chat = Chat::start().await;
    let list = chat.client().get("/v1/models").await.expect(200).json;
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][0], json!({"id": "sim-small", "object": "model", "created": 0, "owned_by": "trivet"}));
    let one = chat.client().get("/v1/models/gpt-4o").await.expect(200).json;
    assert_eq!(one, json!({"id": "gpt-4o", "object": "model", "created": 1_715_367_049, "owned_by": "openai"}));
    assert_eq!(chat.client().get("/v1/models/none").await.expect(404).json["error"]["code"], "model_not_found");
}

#[tokio::test]
async fn a_sync_tells_which_models_the_provider_has() {
    let simulator = Simulator::start(Options::default()).await.expect("a simulator");
    let mut config = None;
    let _chat = Chat::with(|chat| {
        chat.provider.base_url.clone_from(&simulator.base_url);
        config = Some(chat.clone());
    })
    .await;
    let synced = chat_service::admin::sync(&config.expect("a configuration")).await.expect("the provider answers");
    let kept: Vec<&str> = synced.kept.iter().map(|model| model.id.as_str()).collect();
    assert_eq!(kept, ["sim-small", "sim-large"]);
    assert!(synced.missing.contains(&"gpt-4o".to_owned()) && synced.others.is_empty(), "{synced:?}");
    assert_eq!((synced.kept[0].context_window, synced.kept[0].max_output_tokens), (16384, 4096), "limits stay the configuration's");
}
