//! Customers and their cards.

use super::client::{Shop, id};

#[tokio::test]
async fn metadata_is_merged_and_empty_values_remove_keys() {
    let shop = Shop::start().await;
    let customer = id(&shop.post("customers", "metadata[a]=1&metadata[b]=2&name=Ann").await);
    let changed = shop.post(&format!("customers/{customer}"), "metadata[a]=&metadata[c]=3&name=").await;
    assert_eq!(changed["metadata"], serde_json::json!({"b": "2", "c": "3"}));
    assert!(changed["name"].is_null());
    let events = shop.simulator.events();
    let previous = &events.last().unwrap()["data"]["previous_attributes"];
    assert_eq!(*previous, serde_json::json!({"metadata": {"a": "1", "b": "2"}, "name": "Ann"}));
}

#[tokio::test]
async fn a_deleted_customer_is_found_as_deleted_and_listed_no_more() {
    let shop = Shop::start().await;
    let customer = shop.customer().await;
    assert_eq!(shop.delete(&format!("customers/{customer}")).await["deleted"], true);
    assert_eq!(shop.get(&format!("customers/{customer}")).await["deleted"], true);
    assert!(shop.get("customers").await["data"].as_array().unwrap().is_empty());
    assert_eq!(shop.try_post(&format!("customers/{customer}"), "name=x").await.0, 404);
}

#[tokio::test]
async fn cards_are_attached_listed_and_detached() {
    let shop = Shop::start().await;
    let customer = shop.customer_with("pm_card_mastercard").await;
    let methods = shop.get(&format!("customers/{customer}/payment_methods?type=card")).await;
    let method = &methods["data"][0];
    assert_eq!((&method["card"]["brand"], &method["card"]["last4"]), (&"mastercard".into(), &"4444".into()));
    let other = shop.customer().await;
    assert_eq!(shop.try_post(&format!("payment_methods/{}/attach", id(method)), &format!("customer={other}")).await.0, 400);
    shop.post(&format!("payment_methods/{}/detach", id(method)), "").await;
    let left = shop.get(&format!("customers/{customer}")).await;
    assert!(left["invoice_settings"]["default_payment_method"].is_null());
}

#[tokio::test]
async fn a_card_that_is_declined_cannot_be_attached() {
    let shop = Shop::start().await;
    let customer = shop.customer().await;
    let (status, refused) = shop.try_post("payment_methods/pm_card_chargeDeclined/attach", &format!("customer={customer}")).await;
    assert_eq!((status, &refused["error"]["type"], &refused["error"]["code"]), (402, &"card_error".into(), &"card_declined".into()));
    assert_eq!(refused["error"]["decline_code"], "generic_decline");
}
