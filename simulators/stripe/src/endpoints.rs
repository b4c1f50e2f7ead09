//! Webhook endpoints: where events are sent.

use serde_json::json;

use crate::call::{Answer, Call};
use crate::page;
use crate::world::{World, text};

/// Makes an endpoint for all events with secrets of the caller's choice; one that is remembered only gets these secrets.
pub(crate) fn add(world: &mut World, url: &str, secrets: &[String]) {
    let known = world.all("webhook_endpoint").find(|endpoint| endpoint["url"] == url).map(|endpoint| text(endpoint, "id"));
    if let Some(id) = known {
        world.endpoint_secrets.insert(id, secrets.to_vec());
        return;
    }
    let id = world.id("we");
    let now = world.clock.now();
    world.put(&json!({
        "id": id, "object": "webhook_endpoint", "api_version": null, "application": null, "created": now, "description": null,
        "enabled_events": ["*"], "livemode": false, "metadata": {}, "status": "enabled", "url": url,
    }));
    world.endpoint_secrets.insert(id, secrets.to_vec());
}

/// The secret is shown this once.
pub(crate) fn create(call: &mut Call) -> Answer {
    let url = call.params.required("url")?.to_owned();
    let events = call.params.texts("enabled_events");
    if events.is_empty() {
        return Err(crate::error::Failure::missing("enabled_events"));
    }
    let (id, secret) = (call.world.id("we"), call.world.id("whsec"));
    let mut endpoint = json!({
        "id": id, "object": "webhook_endpoint", "api_version": call.params.value("api_version"), "application": null,
        "created": call.world.clock.now(), "description": call.params.value("description"), "enabled_events": events,
        "livemode": false, "metadata": {}, "status": "enabled", "url": url,
    });
    call.params.change_metadata(&mut endpoint);
    call.world.put(&endpoint);
    call.world.endpoint_secrets.insert(id, vec![secret.clone()]);
    endpoint["secret"] = secret.into();
    Ok(endpoint)
}

pub(crate) fn update(call: &mut Call) -> Answer {
    let mut endpoint = call.target("webhook_endpoint")?;
    call.params.change_texts(&mut endpoint, "description url");
    call.params.change_metadata(&mut endpoint);
    if let Some(disabled) = call.params.flag("disabled")? {
        endpoint["status"] = if disabled { "disabled" } else { "enabled" }.into();
    }
    if call.params.has("enabled_events") {
        endpoint["enabled_events"] = call.params.texts("enabled_events").into();
    }
    call.world.put(&endpoint);
    Ok(endpoint)
}

pub(crate) fn retrieve(call: &mut Call) -> Answer {
    call.target("webhook_endpoint")
}

pub(crate) fn list(call: &mut Call) -> Answer {
    page::of(call, "webhook_endpoint", |_| true)
}

pub(crate) fn delete(call: &mut Call) -> Answer {
    call.target("webhook_endpoint")?;
    let id = call.id().to_owned();
    Ok(call.world.delete(&id))
}
