//! Subscriptions, their invoices, and time.

use serde_json::Value;
use stripe_simulator::{AfterRetries, Options, Settings};

use super::client::{Shop, id};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

async fn subscribe(shop: &Shop, customer: &str, price: &str, more: &str) -> Value {
    shop.post("subscriptions", &format!("customer={customer}&items[0][price]={price}{more}")).await
}

/// A date of the form `2026-01-31`, at ten o'clock.
fn at(date: &str) -> i64 {
    chrono::DateTime::parse_from_rfc3339(&format!("{date}T10:00:00Z")).unwrap().timestamp()
}

async fn invoices(shop: &Shop, subscription: &Value) -> Vec<Value> {
    let page = shop.get(&format!("invoices?subscription={}&limit=100", id(subscription))).await;
    let mut all = page["data"].as_array().unwrap().clone();
    all.reverse();
    all
}

#[tokio::test]
async fn a_subscription_is_paid_at_once_and_has_its_period_on_the_item() {
    let shop = Shop::start().await;
    let customer = shop.customer_with("pm_card_visa").await;
    let price = shop.price(1000, "usd", Some("month")).await;
    let bought = subscribe(&shop, &customer, &price, "&items[0][quantity]=3&expand[]=latest_invoice").await;
    assert_eq!(bought["status"], "active");
    let item = &bought["items"]["data"][0];
    assert_eq!(item["current_period_end"].as_i64().unwrap() - item["current_period_start"].as_i64().unwrap(), 31 * DAY);
    assert!(bought.get("current_period_end").is_none());
    let invoice = &bought["latest_invoice"];
    assert_eq!(
        (&invoice["status"], &invoice["amount_paid"], &invoice["billing_reason"]),
        (&"paid".into(), &3000.into(), &"subscription_create".into())
    );
    assert_eq!(invoice["parent"]["subscription_details"]["subscription"], bought["id"]);
    let payments = shop.get(&format!("invoices/{}?expand[]=payments", id(invoice))).await;
    assert_eq!(payments["payments"]["data"][0]["status"], "paid");
}

#[tokio::test]
async fn renewals_at_the_end_of_months_do_not_drift() {
    let shop = Shop::start().await;
    let clock = id(&shop.post("test_helpers/test_clocks", &format!("frozen_time={}", at("2028-01-31"))).await);
    let customer = id(&shop.post("customers", &format!("test_clock={clock}")).await);
    let method = id(&shop.post("payment_methods/pm_card_visa/attach", &format!("customer={customer}")).await);
    let price = shop.price(1000, "usd", Some("month")).await;
    let bought = subscribe(&shop, &customer, &price, &format!("&default_payment_method={method}")).await;
    shop.post(&format!("test_helpers/test_clocks/{clock}/advance"), &format!("frozen_time={}", at("2028-05-01"))).await;
    assert_eq!(shop.get(&format!("test_helpers/test_clocks/{clock}")).await["status"], "ready");
    let ends: Vec<_> =
        invoices(&shop, &bought).await.iter().map(|invoice| invoice["lines"]["data"][0]["period"]["end"].as_i64().unwrap()).collect();
    assert_eq!(ends, ["2028-02-29", "2028-03-31", "2028-04-30", "2028-05-31"].map(at));
    let row = &shop.simulator.ledger()[0];
    assert_eq!((row.paid_invoices, row.invoiced, row.charged), (4, 4000, 4000));
}

#[tokio::test]
async fn an_upgrade_costs_the_difference_for_the_time_left() {
    let shop = Shop::start().await;
    let customer = shop.customer_with("pm_card_visa").await;
    let (small, large) = (shop.price(3100, "usd", Some("month")).await, shop.price(6200, "usd", Some("month")).await);
    let bought = subscribe(&shop, &customer, &small, "").await;
    let item = id(&bought["items"]["data"][0]);
    shop.simulator.advance(10 * DAY);
    let change = format!("items[0][id]={item}&items[0][price]={large}&proration_behavior=always_invoice");
    let details = change
        .replace("items[0]", "subscription_details[items][0]")
        .replace("proration_behavior", "subscription_details[proration_behavior]");
    let preview = shop.post("invoices/create_preview", &format!("subscription={}&{details}", id(&bought))).await;
    assert_eq!((&preview["amount_due"], &preview["status"]), (&2100.into(), &"draft".into()));
    assert!(id(&preview).starts_with("upcoming_in_"));
    assert_eq!(invoices(&shop, &bought).await.len(), 1, "a preview changes nothing");
    let changed = shop.post(&format!("subscriptions/{}", id(&bought)), &format!("{change}&expand[]=latest_invoice")).await;
    let lines = changed["latest_invoice"]["lines"]["data"].as_array().unwrap();
    assert_eq!(lines.iter().map(|line| line["amount"].as_i64().unwrap()).collect::<Vec<_>>(), [-2100, 4200]);
    assert!(lines.iter().all(|line| line["parent"]["subscription_item_details"]["proration"] == true));
    assert_eq!((&changed["latest_invoice"]["status"], &changed["latest_invoice"]["amount_paid"]), (&"paid".into(), &2100.into()));
}

#[tokio::test]
async fn a_downgrade_waits_for_the_next_invoice_and_a_yearly_plan_begins_anew() {
    let shop = Shop::start().await;
    let customer = shop.customer_with("pm_card_visa").await;
    let (large, small, yearly) = (
        shop.price(6200, "usd", Some("month")).await,
        shop.price(3100, "usd", Some("month")).await,
        shop.price(30_000, "usd", Some("year")).await,
    );
    let bought = subscribe(&shop, &customer, &large, "").await;
    let (path, item) = (format!("subscriptions/{}", id(&bought)), id(&bought["items"]["data"][0]));
    shop.simulator.advance(10 * DAY);
    shop.post(&path, &format!("items[0][id]={item}&items[0][price]={small}")).await;
    shop.simulator.advance(21 * DAY + HOUR);
    let all = invoices(&shop, &bought).await;
    assert_eq!((all.len(), &all[1]["status"], &all[1]["total"]), (2, &"paid".into(), &(3100 - 2100).into()));
    let changed = shop.post(&path, &format!("items[0][id]={item}&items[0][price]={yearly}&expand[]=latest_invoice")).await;
    let unused = 3100 * (28 * DAY - HOUR) / (28 * DAY);
    assert!((changed["latest_invoice"]["total"].as_i64().unwrap() - (30_000 - unused)).abs() <= 1);
    assert_eq!(changed["billing_cycle_anchor"].as_i64().unwrap(), shop.simulator.now());
}

#[tokio::test]
async fn a_trial_costs_nothing_is_announced_and_then_paid() {
    let shop = Shop::start().await;
    let customer = shop.customer_with("pm_card_visa").await;
    let price = shop.price(1000, "usd", Some("month")).await;
    let bought = subscribe(&shop, &customer, &price, "&trial_period_days=14").await;
    assert_eq!((&bought["status"], invoices(&shop, &bought).await[0]["total"].clone()), (&"trialing".into(), 0.into()));
    shop.simulator.advance(11 * DAY);
    assert_eq!(shop.event_types().last().unwrap(), "customer.subscription.trial_will_end");
    shop.simulator.advance(3 * DAY);
    assert_eq!(shop.get(&format!("subscriptions/{}", id(&bought))).await["status"], "active");
    shop.simulator.advance(HOUR);
    assert_eq!(invoices(&shop, &bought).await[1]["amount_paid"], 1000);
    assert_eq!(shop.event_types().iter().filter(|kind| *kind == "customer.subscription.trial_will_end").count(), 1);
}

#[tokio::test]
async fn a_first_payment_that_fails_is_waited_for_23_hours() {
    let shop = Shop::start().await;
    let price = shop.price(1000, "usd", Some("month")).await;
    let (late, saved) = (shop.customer_with("pm_card_chargeCustomerFail").await, shop.customer_with("pm_card_chargeCustomerFail").await);
    let [late, saved] = [subscribe(&shop, &late, &price, "").await, subscribe(&shop, &saved, &price, "").await];
    assert_eq!((&late["status"], &saved["status"]), (&"incomplete".into(), &"incomplete".into()));
    shop.simulator.advance(23 * HOUR - 1);
    shop.post(&format!("invoices/{}/pay", saved["latest_invoice"].as_str().unwrap()), "payment_method=pm_card_visa").await;
    shop.simulator.advance(1);
    let status = async |bought: &Value| shop.get(&format!("subscriptions/{}", id(bought))).await["status"].clone();
    assert_eq!((status(&late).await, status(&saved).await), ("incomplete_expired".into(), "active".into()));
    assert_eq!(invoices(&shop, &late).await[0]["status"], "void");
    let failing = shop.customer_with("pm_card_chargeCustomerFail").await;
    let form = format!("customer={failing}&items[0][price]={price}&payment_behavior=error_if_incomplete");
    assert_eq!(shop.try_post("subscriptions", &form).await.0, 402);
}

#[tokio::test]
async fn a_subscription_that_waits_becomes_active_when_its_intent_is_confirmed() {
    let shop = Shop::start().await;
    let customer = shop.customer().await;
    let price = shop.price(1000, "usd", Some("month")).await;
    let more = "&payment_behavior=default_incomplete&expand[]=latest_invoice.confirmation_secret&expand[]=latest_invoice.payments";
    let bought = subscribe(&shop, &customer, &price, more).await;
    assert_eq!((&bought["status"], &bought["latest_invoice"]["status"]), (&"incomplete".into(), &"open".into()));
    let secret = bought["latest_invoice"]["confirmation_secret"]["client_secret"].as_str().unwrap();
    let intent = bought["latest_invoice"]["payments"]["data"][0]["payment"]["payment_intent"].as_str().unwrap();
    assert!(secret.starts_with(intent));
    shop.post(&format!("payment_intents/{intent}/confirm"), "payment_method=pm_card_visa").await;
    assert_eq!(shop.get(&format!("subscriptions/{}", id(&bought))).await["status"], "active");
}

#[tokio::test]
async fn a_change_that_may_not_fail_to_be_paid_is_taken_back_as_a_whole() {
    let shop = Shop::start().await;
    let customer = shop.customer_with("pm_card_visa").await;
    let price = shop.price(1000, "usd", Some("month")).await;
    let bought = subscribe(&shop, &customer, &price, "").await;
    let failing = id(&shop.post("payment_methods/pm_card_chargeCustomerFail/attach", &format!("customer={customer}")).await);
    shop.post(&format!("customers/{customer}"), &format!("invoice_settings[default_payment_method]={failing}")).await;
    let (path, before) = (format!("subscriptions/{}", id(&bought)), shop.simulator.events());
    let change = format!("items[0][id]={}&items[0][quantity]=5&proration_behavior=always_invoice", id(&bought["items"]["data"][0]));
    assert_eq!(shop.try_post(&path, &format!("{change}&payment_behavior=error_if_incomplete")).await.0, 402);
    assert_eq!(shop.get(&path).await, bought);
    assert_eq!(invoices(&shop, &bought).await.len(), 1);
    assert_eq!(shop.simulator.events(), before);
    assert_eq!(shop.post(&path, &change).await["status"], "past_due");
}

#[tokio::test]
async fn a_renewal_that_fails_is_retried_and_then_ends_as_the_settings_say() {
    for (after_retries, last) in [(AfterRetries::Cancel, "canceled"), (AfterRetries::Unpaid, "unpaid"), (AfterRetries::PastDue, "past_due")]
    {
        let shop = Shop::with(Options { settings: Settings { after_retries, ..Settings::default() }, ..Options::default() }).await;
        let customer = shop.customer_with("pm_card_visa").await;
        let price = shop.price(1000, "usd", Some("month")).await;
        let bought = subscribe(&shop, &customer, &price, "").await;
        let failing = id(&shop.post("payment_methods/pm_card_chargeCustomerFail/attach", &format!("customer={customer}")).await);
        shop.post(&format!("customers/{customer}"), &format!("invoice_settings[default_payment_method]={failing}")).await;
        shop.simulator.advance(31 * DAY + HOUR);
        let status = async || shop.get(&format!("subscriptions/{}", id(&bought))).await["status"].clone();
        assert_eq!(status().await, "past_due");
        let open = invoices(&shop, &bought).await[1].clone();
        assert_eq!((&open["status"], &open["attempt_count"]), (&"open".into(), &1.into()));
        assert_eq!(open["next_payment_attempt"].as_i64().unwrap(), shop.simulator.now() + 3 * DAY);
        shop.simulator.advance(22 * DAY);
        assert_eq!(status().await, last);
        assert_eq!(shop.event_types().iter().filter(|kind| *kind == "invoice.payment_failed").count(), 5);
        if after_retries == AfterRetries::Unpaid {
            shop.post(&format!("invoices/{}/pay", id(&open)), "payment_method=pm_card_visa").await;
            assert_eq!(status().await, "active");
        }
    }
}

#[tokio::test]
async fn cancelling_at_the_end_of_the_period_can_be_taken_back() {
    let shop = Shop::start().await;
    let customer = shop.customer_with("pm_card_visa").await;
    let price = shop.price(1000, "usd", Some("month")).await;
    let [kept, ended] = [subscribe(&shop, &customer, &price, "").await, subscribe(&shop, &customer, &price, "").await];
    for bought in [&kept, &ended] {
        shop.post(&format!("subscriptions/{}", id(bought)), "cancel_at_period_end=true").await;
    }
    shop.post(&format!("subscriptions/{}", id(&kept)), "cancel_at_period_end=false").await;
    shop.simulator.advance(31 * DAY + HOUR);
    let status = async |bought: &Value| shop.get(&format!("subscriptions/{}", id(bought))).await["status"].clone();
    assert_eq!((status(&kept).await, status(&ended).await), ("active".into(), "canceled".into()));
    assert_eq!((invoices(&shop, &kept).await.len(), invoices(&shop, &ended).await.len()), (2, 1));
    assert_eq!(shop.try_post(&format!("subscriptions/{}", id(&ended)), "cancel_at_period_end=false").await.0, 400);
}

#[tokio::test]
async fn paused_collection_voids_or_keeps_invoices_and_ends_by_itself() {
    let shop = Shop::start().await;
    let customer = shop.customer_with("pm_card_visa").await;
    let price = shop.price(1000, "usd", Some("month")).await;
    let bought = subscribe(&shop, &customer, &price, "").await;
    let resumes = shop.simulator.now() + 40 * DAY;
    shop.post(
        &format!("subscriptions/{}", id(&bought)),
        &format!("pause_collection[behavior]=void&pause_collection[resumes_at]={resumes}"),
    )
    .await;
    shop.simulator.advance(60 * DAY);
    let all = invoices(&shop, &bought).await;
    assert_eq!(all.iter().map(|invoice| invoice["status"].as_str().unwrap()).collect::<Vec<_>>(), ["paid", "void", "paid"]);
}

#[tokio::test]
async fn a_coupon_for_once_is_used_once_and_credit_is_settled_with_the_next_invoice() {
    let shop = Shop::start().await;
    let customer = shop.customer_with("pm_card_visa").await;
    let price = shop.price(1000, "usd", Some("month")).await;
    shop.post("coupons", "percent_off=50&duration=once&id=HALF").await;
    let bought = subscribe(&shop, &customer, &price, "&discounts[0][coupon]=HALF").await;
    shop.post(&format!("customers/{customer}/balance_transactions"), "amount=-300&currency=usd").await;
    shop.simulator.advance(31 * DAY + HOUR);
    let all = invoices(&shop, &bought).await;
    assert_eq!((&all[0]["total"], &all[0]["total_discount_amounts"][0]["amount"]), (&500.into(), &500.into()));
    assert_eq!((&all[1]["total"], &all[1]["amount_due"], &all[1]["amount_paid"]), (&1000.into(), &700.into(), &700.into()));
    assert_eq!(shop.get(&format!("customers/{customer}")).await["balance"], 0);
}

#[tokio::test]
async fn a_schedule_changes_the_price_when_its_phase_begins_and_then_lets_go() {
    let shop = Shop::start().await;
    let customer = shop.customer_with("pm_card_visa").await;
    let (large, small) = (shop.price(2000, "usd", Some("month")).await, shop.price(500, "usd", Some("month")).await);
    let bought = subscribe(&shop, &customer, &large, "").await;
    let schedule = shop.post("subscription_schedules", &format!("from_subscription={}", id(&bought))).await;
    let first = &schedule["phases"][0];
    let (start, end) = (first["start_date"].as_i64().unwrap(), first["end_date"].as_i64().unwrap());
    let form = format!(
        "end_behavior=release&phases[0][items][0][price]={large}&phases[0][start_date]={start}&phases[0][end_date]={end}\
         &phases[1][items][0][price]={small}&phases[1][end_date]={}&phases[1][proration_behavior]=none",
        end + 28 * DAY
    );
    shop.post(&format!("subscription_schedules/{}", id(&schedule)), &form).await;
    shop.simulator.advance(31 * DAY + HOUR);
    let now = shop.get(&format!("subscriptions/{}", id(&bought))).await;
    assert_eq!(now["items"]["data"][0]["price"]["id"], small);
    shop.simulator.advance(28 * DAY);
    assert_eq!(shop.get(&format!("subscription_schedules/{}", id(&schedule))).await["status"], "released");
    assert!(shop.get(&format!("subscriptions/{}", id(&bought))).await["schedule"].is_null());
}
