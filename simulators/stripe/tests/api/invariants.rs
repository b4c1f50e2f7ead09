//! Whatever is done to subscriptions, the sums agree: lines with invoices, invoices with charges, balances with credit.

use serde_json::Value;

use super::client::{Shop, id};

const DAY: i64 = 86_400;
const STEPS: u32 = 250;

/// A repeatable choice (an LCG's high bits).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn sum(list: &Value, field: &str) -> i64 {
    list.as_array().unwrap().iter().map(|entry| entry[field].as_i64().unwrap()).sum()
}

/// Every invoice adds up, and what is paid was charged or was credit.
fn check(shop: &Shop, seed: u64, step: u32) {
    let events = shop.simulator.events();
    let invoices = events
        .iter()
        .filter(|event| event["type"].as_str().unwrap().starts_with("invoice.p") && event["data"]["object"]["object"] == "invoice");
    for invoice in invoices.map(|event| &event["data"]["object"]) {
        let lines = sum(&invoice["lines"]["data"], "amount");
        let taxes: i64 = sum(&invoice["total_taxes"], "amount");
        let off = sum(&invoice["total_discount_amounts"], "amount");
        let on_lines: i64 = invoice["lines"]["data"].as_array().unwrap().iter().map(|line| sum(&line["discount_amounts"], "amount")).sum();
        assert_eq!(invoice["subtotal"], lines, "seed {seed}, step {step}: {invoice:#}");
        assert_eq!(on_lines, off, "seed {seed}, step {step}: {invoice:#}");
        assert_eq!(invoice["total"], lines - off + taxes, "seed {seed}, step {step}: {invoice:#}");
        let before = invoice["starting_balance"].as_i64().unwrap();
        let after = invoice["ending_balance"].as_i64().unwrap();
        let due = invoice["amount_due"].as_i64().unwrap();
        assert_eq!(due, invoice["total"].as_i64().unwrap() + before - after, "seed {seed}, step {step}: {invoice:#}");
        assert!(due >= 50 && after == 0 || due == 0 && after < 50, "seed {seed}, step {step}: {invoice:#}");
    }
    for row in shop.simulator.ledger() {
        assert_eq!(row.invoiced, row.charged, "seed {seed}, step {step}: {row:?}");
    }
}

/// What makes no sense at the time may be refused, but nothing may break.
async fn attempt(shop: &Shop, path: &str, form: &str) {
    let (status, body) = shop.try_post(path, form).await;
    assert!(status < 500, "{path} {form}: {body:#}");
}

async fn step(shop: &Shop, dice: &mut Dice, customers: &[String], prices: &[String], cards: &[&str]) {
    let customer = &customers[usize::try_from(dice.roll(3)).unwrap()];
    let price = &prices[usize::try_from(dice.roll(3)).unwrap()];
    let running = shop.get(&format!("subscriptions?customer={customer}&limit=1")).await["data"][0].clone();
    if running.is_null() {
        let trial = if dice.roll(4) == 0 { "&trial_period_days=5" } else { "" };
        let discount = if dice.roll(2) == 0 { "&discounts[0][coupon]=THIRD" } else { "" };
        attempt(
            shop,
            "subscriptions",
            &format!("customer={customer}&items[0][price]={price}&items[0][quantity]={}{trial}{discount}", 1 + dice.roll(5)),
        )
        .await;
        return;
    }
    let (path, item) = (format!("subscriptions/{}", id(&running)), id(&running["items"]["data"][0]));
    match dice.roll(8) {
        0 => {
            let how = ["create_prorations", "always_invoice", "none"][usize::try_from(dice.roll(3)).unwrap()];
            attempt(
                shop,
                &path,
                &format!("items[0][id]={item}&items[0][price]={price}&items[0][quantity]={}&proration_behavior={how}", 1 + dice.roll(5)),
            )
            .await;
        }
        1 => attempt(shop, &path, "cancel_at_period_end=true").await,
        2 => attempt(shop, &path, "cancel_at_period_end=false").await,
        3 => {
            let card = cards[usize::try_from(dice.roll(2)).unwrap()];
            let method = id(&shop.post(&format!("payment_methods/{card}/attach"), &format!("customer={customer}")).await);
            shop.post(&format!("customers/{customer}"), &format!("invoice_settings[default_payment_method]={method}")).await;
        }
        4 => {
            let path = format!("customers/{customer}/balance_transactions");
            attempt(shop, &path, &format!("amount=-{}&currency=usd", 1 + dice.roll(900))).await;
        }
        _ => shop.simulator.advance(i64::try_from(dice.roll(9)).unwrap() * DAY + 3601),
    }
}

#[tokio::test]
async fn after_any_changes_in_any_order_all_sums_agree() {
    for seed in 1..=3 {
        let shop = Shop::start().await;
        let mut dice = Dice(seed);
        shop.post("coupons", "percent_off=33.333&duration=repeating&duration_in_months=2&id=THIRD").await;
        let mut customers = Vec::new();
        for _ in 0..3 {
            customers.push(shop.customer_with("pm_card_visa").await);
        }
        let prices = [
            shop.price(999, "usd", Some("month")).await,
            shop.price(2501, "usd", Some("month")).await,
            shop.price(10_007, "usd", Some("year")).await,
        ];
        for number in 0..STEPS {
            step(&shop, &mut dice, &customers, &prices, &["pm_card_visa", "pm_card_chargeCustomerFail"]).await;
            check(&shop, seed, number);
        }
        for customer in &customers {
            let moves = shop.get(&format!("customers/{customer}/balance_transactions?limit=100")).await;
            let (newest, balance) = (&moves["data"][0], shop.get(&format!("customers/{customer}")).await["balance"].clone());
            assert!(newest.is_null() || newest["ending_balance"] == balance, "seed {seed}: {newest:#}");
        }
        assert!(shop.simulator.ledger().iter().map(|row| row.paid_invoices).sum::<u64>() > 20, "seed {seed} proves little");
    }
}
