//! An organization of the months: what it does, and what happens to it.

use identity::OrganizationId;
use serde_json::{Value, json};
use testkit::http::{Answer, TestClient};

use crate::shop::Shop;

/// What an organization did and had done to it.
#[derive(Debug, Default, Clone, Copy)]
pub struct Did {
    pub plans: u32,
    pub packs: u32,
    pub refunds: u32,
    pub disputes_won: u32,
    pub disputes_lost: u32,
    pub failures: u32,
    pub requests: u32,
}

/// An organization that pays in one currency.
pub struct Customer {
    pub number: usize,
    pub organization: OrganizationId,
    pub client: TestClient,
    pub currency: &'static str,
    pub did: Did,
    fails: bool,
    redeemed: bool,
    disputed: Option<String>,
}

impl Customer {
    pub fn new(shop: &Shop, number: usize, currency: &'static str) -> Self {
        let (organization, client) = shop.customer();
        Self { number, organization, client, currency, did: Did::default(), fails: false, redeemed: false, disputed: None }
    }

    /// One thing that a customer does in a month, beside using what it has.
    pub async fn act(&mut self, shop: &Shop, month: usize) {
        let who = self.number;
        self.use_up(shop, 60_000 + 37_000 * ((who * 5 + month * 3) % 11) as u64).await;
        match (who * 5 + month * 7) % 13 {
            0 => self.buy_pack(shop).await,
            1 => self.refund(shop, 3).await,
            2 => self.refund(shop, 1).await,
            3 | 4 => self.dispute(shop).await,
            5 => self.change(json!({"kind": "plan", "plan": "pro", "interval": "month", "seats": 2})).await,
            6 => self.change(json!({"kind": "plan", "plan": "lite", "interval": "month", "seats": 1})).await,
            7 => self.change(json!({"kind": "seats", "seats": 1 + month % 5})).await,
            8 => self.change(json!({"kind": "cancel"})).await,
            9 => self.change(json!({"kind": "uncancel"})).await,
            10 if !self.fails => self.card_fails(shop).await,
            11 => self.change(json!({"kind": "plan", "plan": "pro", "interval": "year", "seats": 1})).await,
            _ => {}
        }
        // Every other one that may: what it uses is bought again when little is left.
        if self.currency == "USD" && who.is_multiple_of(2) && month % 6 == 1 {
            self.top_up_automatically().await;
        }
    }

    /// What was left open by the month before: failed cards are mended, disputes end, and who left comes again.
    pub async fn mend(&mut self, shop: &Shop, month: usize) {
        let number = self.number + month;
        if self.fails && !number.is_multiple_of(3) {
            self.mend_card(shop).await;
        }
        self.end_dispute(shop, number.is_multiple_of(2));
        if self.living().await.is_none() {
            if self.fails {
                self.mend_card(shop).await;
            }
            // A coupon is redeemed once.
            let redeems = number.is_multiple_of(2) && !self.redeemed;
            self.redeemed |= redeems;
            let coupon = redeems.then_some("third");
            let plan = ["lite", "pro"][(self.number + month / 3) % 2];
            let interval = if number % 7 == 3 { "year" } else { "month" };
            self.buy(shop, json!({"item": "plan", "plan": plan, "interval": interval, "seats": 1, "coupon": coupon})).await;
            self.did.plans += 1;
        }
    }

    /// The bank decides, if it was asked.
    pub fn end_dispute(&mut self, shop: &Shop, won: bool) {
        if let Some(dispute) = self.disputed.take() {
            shop.stripe.close_dispute(&dispute, won).unwrap();
            let ended = if won { &mut self.did.disputes_won } else { &mut self.did.disputes_lost };
            *ended += 1;
        }
    }

    /// A request of `sim-large`, as far as the wallet reaches; it uses half of what it holds.
    async fn use_up(&mut self, shop: &Shop, tokens: u64) {
        let app = &shop.app;
        let hold = app.reserve(&app.reservation(self.organization, app.request(), tokens, tokens)).await;
        if hold.status == 201 {
            app.settle(&hold.string("id"), &app.usage(tokens / 2, tokens / 2)).await.expect(200);
            self.did.requests += 1;
        }
    }

    async fn buy(&self, shop: &Shop, mut body: Value) {
        body["currency"] = self.currency.into();
        body["success_url"] = "https://shop.example.com/thanks".into();
        body["cancel_url"] = "https://shop.example.com/prices".into();
        let page = self.client.post("/v1/checkout-sessions", &body).await.expect(201);
        shop.pay(&page);
    }

    async fn buy_pack(&mut self, shop: &Shop) {
        self.buy(shop, json!({"item": "credit_pack", "credit_pack": "small"})).await;
        self.did.packs += 1;
    }

    async fn living(&self) -> Option<Value> {
        let living = self.client.get("/v1/subscription").await.expect(200).json;
        living["data"].get(0).cloned()
    }

    async fn change(&self, change: Value) {
        let Some(living) = self.living().await else { return };
        let body = json!({"subscription_id": living["id"], "change": change});
        let answer: Answer = self.client.post("/v1/subscription/changes", &body).await;
        assert!(matches!(answer.status.as_u16(), 200 | 409), "{}", answer.text);
    }

    async fn top_up_automatically(&self) {
        let settings =
            json!({"enabled": true, "threshold_micros": 4_000_000, "amount_micros": 10_000_000, "monthly_cap_micros": 30_000_000});
        self.client.send("PUT".parse().unwrap(), "/v1/auto-top-up", Some(settings.to_string())).await.expect(200);
    }

    /// The newest payment that was never asked back, and its amount in smallest units.
    async fn payment(&self, shop: &Shop) -> Option<(String, i64)> {
        let newest: Option<String> = sqlx::query_scalar(
            "select payment_intent_id from stripe_payments p where organization_id = $1 and sold and amount_micros > 0
               and not exists (select from stripe_reversals r where r.payment_intent_id = p.payment_intent_id)
             order by paid_at desc, payment_intent_id limit 1",
        )
        .bind(self.organization.uuid())
        .fetch_optional(&shop.app.database.owner)
        .await
        .unwrap();
        let newest = newest?;
        let amount = shop.stripe.object(&newest)["amount_received"].as_i64()?;
        Some((newest, amount))
    }

    async fn refund(&mut self, shop: &Shop, divisor: i64) {
        let Some((payment, amount)) = self.payment(shop).await else { return };
        let part = (amount / divisor / 10 * 10).max(10);
        shop.dashboard("/v1/refunds", &[("payment_intent", &payment), ("amount", &part.to_string())]).await;
        self.did.refunds += 1;
    }

    async fn dispute(&mut self, shop: &Shop) {
        if self.disputed.is_some() {
            return;
        }
        let Some((payment, _)) = self.payment(shop).await else { return };
        let dispute = shop.stripe.open_dispute(&payment, None, "fraudulent").unwrap();
        self.disputed = Some(dispute["id"].as_str().unwrap().to_owned());
    }

    async fn card_fails(&mut self, shop: &Shop) {
        // Who has not bought anything yet has no card.
        if shop.app.balance(&self.client).await == (0, 0) && self.living().await.is_none() {
            return;
        }
        shop.card_fails(self.organization).await;
        self.did.failures += 1;
        self.fails = true;
    }

    /// Another card, which pays what is open.
    async fn mend_card(&mut self, shop: &Shop) {
        let customer = shop.stripe_customer(self.organization).await;
        let card = shop.dashboard("/v1/payment_methods/pm_card_visa/attach", &[("customer", &customer)]).await;
        let card = card["id"].as_str().unwrap().to_owned();
        let body = [("invoice_settings[default_payment_method]", card.as_str())];
        shop.dashboard(&format!("/v1/customers/{customer}"), &body).await;
        let open = self.client.get("/v1/invoices").await.expect(200).json;
        for invoice in open["data"].as_array().unwrap().iter().filter(|invoice| invoice["status"] == "open") {
            let path = format!("/v1/invoices/{}/pay", invoice["id"].as_str().unwrap());
            shop.dashboard(&path, &[("payment_method", &card)]).await;
        }
        self.fails = false;
    }
}
