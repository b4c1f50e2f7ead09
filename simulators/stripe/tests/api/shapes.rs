//! Answers are read by the types that async-stripe generates from Stripe's specification: required fields and known words.

use miniserde::Deserialize;
use reqwest::Method;
use stripe_shared::{
    Charge, CheckoutSession, Coupon, CreditNote, Customer, CustomerBalanceTransaction, Dispute, Event, Invoice, InvoicePayment,
    PaymentIntent, PaymentMethod, Price, Product, PromotionCode, Refund, SetupIntent, Subscription, SubscriptionSchedule, TaxRate,
    TestHelpersTestClock,
};

use super::client::{Shop, id};

async fn reads<T: Deserialize>(shop: &Shop, path: &str) {
    let text = shop.request(Method::GET, path, "").send().await.unwrap().text().await.unwrap();
    assert!(miniserde::json::from_str::<T>(&text).is_ok(), "{path} is no {}: {text}", std::any::type_name::<T>());
}

/// The path of the newest object of a list.
async fn newest(shop: &Shop, list: &str) -> String {
    let found = id(&shop.get(list).await["data"][0]);
    format!("{}/{found}", list.split('?').next().unwrap())
}

#[tokio::test]
async fn every_object_of_a_subscription_bought_by_checkout_can_be_read() {
    let shop = Shop::start().await;
    let clock = id(&shop.post("test_helpers/test_clocks", "frozen_time=1767225600").await);
    let price = shop.price(1000, "usd", Some("month")).await;
    let rate = id(&shop.post("tax_rates", "display_name=VAT&percentage=7.5&inclusive=false").await);
    shop.post("coupons", "percent_off=12.5&duration=repeating&duration_in_months=3&id=C").await;
    let code = id(&shop.post("promotion_codes", "promotion[type]=coupon&promotion[coupon]=C&code=X").await);
    let form = format!(
        "mode=subscription&success_url=http://s.example&line_items[0][price]={price}&line_items[0][quantity]=1\
         &line_items[0][tax_rates][0]={rate}&discounts[0][promotion_code]={code}"
    );
    let session = id(&shop.post("checkout/sessions", &form).await);
    reads::<CheckoutSession>(&shop, &format!("checkout/sessions/{session}?expand[]=line_items")).await;
    let done = shop.simulator.complete_checkout(&session, "pm_card_visa").unwrap();
    let customer = done["customer"].as_str().unwrap();
    reads::<CheckoutSession>(&shop, &format!("checkout/sessions/{session}?expand[]=line_items&expand[]=subscription&expand[]=invoice"))
        .await;
    let (subscription, invoice) = (done["subscription"].as_str().unwrap(), done["invoice"].as_str().unwrap());
    reads::<Subscription>(&shop, &format!("subscriptions/{subscription}?expand[]=customer&expand[]=latest_invoice&expand[]=discounts"))
        .await;
    reads::<Invoice>(&shop, &format!("invoices/{invoice}?expand[]=payments&expand[]=confirmation_secret&expand[]=discounts")).await;
    shop.post("credit_notes", &format!("invoice={invoice}&amount=100&credit_amount=60&refund_amount=40")).await;
    shop.post("subscription_schedules", &format!("from_subscription={subscription}")).await;
    let method = newest(&shop, &format!("payment_methods?customer={customer}")).await;
    reads::<PaymentMethod>(&shop, &method).await;
    reads::<Customer>(&shop, &format!("customers/{customer}")).await;
    let moved = id(&shop.get(&format!("customers/{customer}/balance_transactions")).await["data"][0]);
    reads::<CustomerBalanceTransaction>(&shop, &format!("customers/{customer}/balance_transactions/{moved}")).await;
    reads::<CreditNote>(&shop, &format!("{}?expand[]=customer_balance_transaction", newest(&shop, "credit_notes").await)).await;
    reads::<Refund>(&shop, &newest(&shop, "refunds").await).await;
    reads::<SubscriptionSchedule>(&shop, &newest(&shop, "subscription_schedules").await).await;
    reads::<PaymentIntent>(&shop, &format!("{}?expand[]=latest_charge", newest(&shop, "payment_intents").await)).await;
    reads::<Charge>(&shop, &format!("{}?expand[]=refunds", newest(&shop, "charges").await)).await;
    reads::<Price>(&shop, &format!("prices/{price}?expand[]=product")).await;
    reads::<Product>(&shop, &newest(&shop, "products").await).await;
    reads::<Coupon>(&shop, "coupons/C").await;
    reads::<PromotionCode>(&shop, &format!("promotion_codes/{code}")).await;
    reads::<TaxRate>(&shop, &format!("tax_rates/{rate}")).await;
    reads::<TestHelpersTestClock>(&shop, &format!("test_helpers/test_clocks/{clock}")).await;
    let payment = shop.get(&format!("invoice_payments?invoice={invoice}")).await["data"][0].to_string();
    assert!(miniserde::json::from_str::<InvoicePayment>(&payment).is_ok(), "{payment}");
}

#[tokio::test]
async fn what_lacks_a_required_field_cannot_be_read() {
    let shop = Shop::start().await;
    let mut customer = shop.get(&format!("customers/{}", shop.customer().await)).await;
    assert!(miniserde::json::from_str::<Customer>(&customer.to_string()).is_ok());
    assert!(miniserde::json::from_str::<Invoice>(&customer.to_string()).is_err());
    customer.as_object_mut().unwrap().remove("livemode");
    assert!(miniserde::json::from_str::<Customer>(&customer.to_string()).is_err());
}

#[tokio::test]
async fn every_event_and_the_odd_objects_can_be_read() {
    let shop = Shop::start().await;
    let asked = shop.post("payment_intents", "amount=500&currency=jpy&payment_method=pm_card_threeDSecure2Required&confirm=true").await;
    reads::<PaymentIntent>(&shop, &format!("payment_intents/{}", id(&asked))).await;
    shop.simulator.authenticate(&id(&asked), false).unwrap();
    reads::<PaymentIntent>(&shop, &format!("payment_intents/{}", id(&asked))).await;
    shop.post("payment_intents", "amount=500&currency=jpy&payment_method=pm_card_createDispute&confirm=true").await;
    reads::<Dispute>(&shop, &newest(&shop, "disputes").await).await;
    let customer = shop.customer().await;
    let session = id(&shop.post("checkout/sessions", &format!("mode=setup&success_url=http://s.example&customer={customer}")).await);
    let done = shop.simulator.complete_checkout(&session, "pm_card_visa").unwrap();
    reads::<CheckoutSession>(&shop, &format!("checkout/sessions/{session}")).await;
    reads::<SetupIntent>(&shop, &format!("setup_intents/{}", done["setup_intent"].as_str().unwrap())).await;
    let preview = format!("customer={customer}&subscription_details[items][0][price]={}", shop.price(100, "jpy", Some("year")).await);
    let preview = shop.post("invoices/create_preview", &preview).await.to_string();
    assert!(miniserde::json::from_str::<Invoice>(&preview).is_ok(), "{preview}");
    for event in shop.simulator.events() {
        reads::<Event>(&shop, &format!("events/{}", id(&event))).await;
    }
}
