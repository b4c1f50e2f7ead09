//! The billing portal: a page on which a customer sees what it has.

use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::error::Failure;
use crate::subscriptions::items;
use crate::world::{World, text};
use crate::{cards, page, payment_methods};

pub(crate) mod pages;

pub(crate) const CONFIGURATION_FIELDS: &str = "active business_profile.* default_return_url features.* login_page.* metadata.* name";

pub(crate) fn create(call: &mut Call) -> Answer {
    let customer = call.named("customer", "customer")?;
    let configuration = match call.maybe_named("billing_portal.configuration", "configuration")? {
        Some(configuration) => configuration,
        None => default_configuration(call.world),
    };
    let id = call.world.id("bps");
    let session = json!({
        "id": id, "object": "billing_portal.session", "configuration": configuration["id"], "created": call.world.now_of(&customer),
        "customer": customer["id"], "customer_account": null, "flow": null, "livemode": false, "locale": call.params.value("locale"),
        "on_behalf_of": null, "return_url": call.params.value("return_url"), "url": format!("{}/p/session/{id}", call.world.public_url),
    });
    call.world.put(&session);
    call.world.emit("billing_portal.session.created", &session);
    Ok(session)
}

fn default_configuration(world: &mut World) -> Value {
    let known = world.all("billing_portal.configuration").find(|configuration| configuration["is_default"] == true).cloned();
    known.unwrap_or_else(|| {
        let configuration = blank(world, true);
        world.put(&configuration);
        configuration
    })
}

fn blank(world: &mut World, is_default: bool) -> Value {
    let now = world.clock.now();
    json!({
        "id": world.id("bpc"), "object": "billing_portal.configuration", "active": true, "application": null,
        "business_profile": { "headline": null, "privacy_policy_url": null, "terms_of_service_url": null }, "created": now,
        "default_return_url": null,
        "features": {
            "customer_update": { "allowed_updates": [], "enabled": false }, "invoice_history": { "enabled": true },
            "payment_method_update": { "enabled": false },
            "subscription_cancel": {
                "cancellation_reason": { "enabled": false, "options": [] }, "enabled": true, "mode": "at_period_end", "proration_behavior": "none",
            },
            "subscription_update": {
                "default_allowed_updates": [], "enabled": false, "proration_behavior": "none",
                "schedule_at_period_end": { "conditions": [] }, "trial_update_behavior": "end_trial",
            },
        },
        "is_default": is_default, "livemode": false, "login_page": { "enabled": false, "url": null }, "metadata": {}, "name": null, "updated": now,
    })
}

pub(crate) fn create_configuration(call: &mut Call) -> Answer {
    let mut configuration = blank(call.world, false);
    change(call, &mut configuration)?;
    call.world.put(&configuration);
    call.world.emit("billing_portal.configuration.created", &configuration);
    Ok(configuration)
}

fn change(call: &Call, configuration: &mut Value) -> Result<(), Failure> {
    call.params.change_texts(configuration, "default_return_url name");
    call.params.change_flags(configuration, "active")?;
    call.params.change_metadata(configuration);
    for part in ["customer_update", "invoice_history", "payment_method_update", "subscription_cancel", "subscription_update"] {
        if let Some(enabled) = call.params.flag(&format!("features.{part}.enabled"))? {
            configuration["features"][part]["enabled"] = enabled.into();
        }
    }
    Ok(())
}

pub(crate) fn update_configuration(call: &mut Call) -> Answer {
    let mut configuration = call.target("billing_portal.configuration")?;
    change(call, &mut configuration)?;
    call.world.update("billing_portal.configuration.updated", &configuration);
    Ok(configuration)
}

pub(crate) fn retrieve_configuration(call: &mut Call) -> Answer {
    call.target("billing_portal.configuration")
}

pub(crate) fn list_configurations(call: &mut Call) -> Answer {
    page::of(call, "billing_portal.configuration", |configuration| page::matches(call, configuration, "active is_default"))
}

/// Has a subscription of the session's customer end with its period.
pub(crate) fn cancel(world: &mut World, session: &str, subscription: &str) -> Result<(), Failure> {
    let session = world.get("billing_portal.session", session, "id")?;
    let mut subscription = world.get("subscription", subscription, "id")?;
    if subscription["customer"] != session["customer"] || !subscription["ended_at"].is_null() {
        return Err(Failure::no_such("subscription", &text(&subscription, "id"), "id"));
    }
    let end = items::period(&subscription).1;
    subscription["cancel_at_period_end"] = true.into();
    subscription["cancel_at"] = end.into();
    subscription["canceled_at"] = world.now_of(&subscription).into();
    subscription["cancellation_details"]["reason"] = "cancellation_requested".into();
    world.update("customer.subscription.updated", &subscription);
    world.wake(&subscription, end);
    Ok(())
}

/// Has the session's customer pay with another card from now on.
pub(crate) fn set_card(world: &mut World, session: &str, card: &str) -> Result<(), Failure> {
    let session = world.get("billing_portal.session", session, "id")?;
    let card = cards::named(card).ok_or_else(|| Failure::no_such("test card", card, "card"))?;
    let mut customer = world.get("customer", &text(&session, "customer"), "customer")?;
    let method = payment_methods::of_card(world, card);
    let mut method = payment_methods::attach_to(world, &method, &text(&customer, "id"))?;
    if card.behavior == cards::Behavior::AuthenticatesOnce {
        // Whoever sits here answers the bank.
        method["__authenticated"] = true.into();
        world.put(&method);
    }
    customer["invoice_settings"]["default_payment_method"] = method["id"].clone();
    world.update("customer.updated", &customer);
    Ok(())
}
