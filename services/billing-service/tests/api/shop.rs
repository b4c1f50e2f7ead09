//! billing-service and a Stripe beside it, both moved through time together. Events are delivered by the test, so that it chooses their
//! order; what is wanted of Stripe is sent when the test says so, or by the service itself.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use billing_service::config::BillingConfig;
use billing_service::lanes;
use billing_service::state::AppState;
use billing_service::stripe::reconcile::{self, Difference};
use billing_service::stripe::sender;
use billing_service::stripe::signature::sign;
use billing_service::stripe::worker;
use chassis::SecretString;
use chassis::config::CommaList;
use futures::{StreamExt, stream};
use identity::{OrganizationId, Scopes};
use serde_json::{Value, json};
use stripe_simulator::{Options, Running, Start, StripeSimulator};
use testkit::http::{Answer, TestClient};
use testkit::{eventually, repository};
use tokio_util::sync::CancellationToken;

use super::app::App;
use super::selling::sell;

/// Little, so that Stripe is told of it in a moment.
pub const CATALOG: &str = r#"
format: 1
plans:
  team:
    name: Team
    group: main
    grace_days: 14
    prices: {USD: {month: "100.00", year: "1000.00"}}
    included_credit: {amounts: {USD: "60.00"}, expires: days, days: 90}
    seats: {included: 5, prices: {USD: {month: "15.00", year: "150.00"}}}
  pro:
    name: Pro
    group: main
    trial_days: 14
    grace_days: 7
    prices: {USD: {month: "20.00"}}
  plain:
    name: Plain
    group: extra
    prices: {USD: {month: "7.00"}, KWD: {month: "2.150"}}
credit_packs:
  small: {name: Ten dollars of credit, prices: {USD: "10.00", EUR: "9.50"}, credit: {USD: "10.00"}, expires: days, days: 365}
  large: {name: A hundred and ten more, prices: {USD: "100.00"}, credit: {USD: "110.00"}, expires: never}
coupons:
  all: {name: All off, percent_off: 100, duration: once}
"#;

const SECRET: &str = "whsec_shop";
/// What is sent or delivered at once.
pub const LANES: usize = 8;

pub struct Shop {
    pub app: App,
    pub stripe: Running,
    /// The service's, for calling its parts directly.
    pub state: AppState,
    dashboard: TestClient,
    /// Events that were given out.
    seen: Mutex<usize>,
    /// The kinds of events that its endpoint is told of; all, where there are none.
    hears: BTreeSet<String>,
}

impl Shop {
    /// With a small catalogue, and nothing given for signing up.
    pub async fn open() -> Self {
        Self::with(|_| {}).await
    }

    /// With other settings.
    pub async fn with(adjust: impl FnOnce(&mut BillingConfig)) -> Self {
        Self::selling(CATALOG, adjust).await
    }

    /// With another catalogue and other settings.
    pub async fn selling(catalog: &str, adjust: impl FnOnce(&mut BillingConfig)) -> Self {
        let (clock, _) = testkit::clock();
        let stripe = StripeSimulator::start(Options { start: Start::At(clock.now().timestamp()), ..Options::default() }).await.unwrap();
        let url = stripe.url.clone();
        let app = App::with(|config| {
            config.signup_grant = 0;
            config.stripe.secret_key = Some("sk_test_shop".to_owned().into());
            config.stripe.webhook_secrets = CommaList(vec![SECRET.to_owned().into()]);
            config.stripe.api_base = url;
            adjust(config);
        })
        .await;
        sell(&app, catalog).await;
        let dashboard = TestClient::new(stripe.address)
            .bearer("sk_test_dashboard")
            .header("content-type", "application/x-www-form-urlencoded".to_owned());
        Self { state: app.state(), dashboard, app, stripe, seen: Mutex::default(), hears: BTreeSet::new() }
    }

    /// Its endpoint is told of those events alone that the guide says to enable.
    pub fn by_the_guide(self) -> Self {
        let guide = repository::read("docs/guides/BILLING.md");
        let kinds = guide.split("enabled_events[]=").skip(1).filter_map(|rest| rest.split('\'').next());
        let hears: BTreeSet<String> = kinds.map(ToOwned::to_owned).collect();
        assert!(hears.contains("invoice.paid"), "{hears:?}");
        Self { hears, ..self }
    }

    /// An organization, and a client that may spend its money.
    pub fn customer(&self) -> (OrganizationId, TestClient) {
        self.app.organization_with(Scopes::known(["billing:read", "billing:write"]))
    }

    /// Both clocks.
    pub fn pass(&self, time: Duration) {
        self.app.turn.advance(time);
        self.stripe.advance(i64::try_from(time.as_secs()).unwrap());
    }

    /// A page for a pack.
    pub async fn pack(&self, client: &TestClient, pack: &str) -> Answer {
        client.post("/v1/checkout-sessions", &with_urls(json!({"item": "credit_pack", "credit_pack": pack, "currency": "USD"}))).await
    }

    /// A page for a plan.
    pub async fn plan(&self, client: &TestClient, plan: &str) -> Answer {
        client
            .post(
                "/v1/checkout-sessions",
                &with_urls(json!({"item": "plan", "plan": plan, "currency": "USD", "interval": "month", "seats": 1})),
            )
            .await
    }

    /// Stripe's session of a page.
    pub fn session(page: &Answer) -> String {
        page.string("url").rsplit('/').next().unwrap().to_owned()
    }

    /// Presses Pay.
    pub fn pay(&self, page: &Answer) {
        self.stripe.complete_checkout(&Self::session(page), "pm_card_visa").unwrap();
    }

    /// Presses a button on a page of Stripe's, as a browser does.
    pub async fn press(&self, page: &str, action: &str) -> Answer {
        let path = page.strip_prefix(&self.stripe.url).unwrap();
        self.dashboard.send("POST".parse().unwrap(), path, Some(format!("action={action}"))).await
    }

    /// Delivers an event; it is acknowledged.
    pub async fn deliver(&self, event: &Value) {
        let body = event.to_string();
        let signature = sign(body.as_bytes(), &SecretString::from(SECRET.to_owned()), self.app.clock.now());
        let client = self.app.public.header("stripe-signature", signature);
        client.send("POST".parse().unwrap(), "/stripe/webhooks", Some(body)).await.expect(200);
    }

    /// Events that were not given out before, oldest first.
    pub fn news(&self) -> Vec<Value> {
        let mut seen = self.seen.lock().unwrap();
        let (news, count) = self.stripe.events_after(*seen, |kind| self.hears.is_empty() || self.hears.contains(kind));
        *seen = count;
        news
    }

    /// Waits until every stored event has had its effect.
    pub async fn handled(&self) {
        eventually("every event has its effect", || async {
            let waiting = "select count(*) from (select from stripe_events where state = 'received' limit 1) as waiting";
            (self.app.count(waiting).await == 0).then_some(())
        })
        .await;
    }

    /// The same for events that fail at first: their pauses pass.
    pub async fn handled_in_time(&self) {
        eventually("every event has its effect", || async {
            self.app.turn.advance(Duration::from_secs(5));
            (self.app.count("select count(*) from stripe_events where state = 'received'").await == 0).then_some(())
        })
        .await;
    }

    /// From now on the customer's card is refused by its bank.
    pub async fn card_fails(&self, organization: OrganizationId) {
        self.pays_with(organization, "pm_card_chargeCustomerFail").await;
    }

    /// From now on the customer pays with one of Stripe's test cards.
    pub async fn pays_with(&self, organization: OrganizationId, card: &str) {
        let customer = self.stripe_customer(organization).await;
        let card = self.dashboard(&format!("/v1/payment_methods/{card}/attach"), &[("customer", &customer)]).await;
        let card = card["id"].as_str().unwrap();
        self.dashboard(&format!("/v1/customers/{customer}"), &[("invoice_settings[default_payment_method]", card)]).await;
    }

    /// The newest payment of Stripe's whose event is of a kind.
    pub fn payment(&self, kind: &str) -> String {
        let events = self.stripe.events();
        let event = events.iter().rev().find(|event| event["type"] == kind).unwrap();
        event["data"]["object"]["id"].as_str().unwrap().to_owned()
    }

    /// Sends what is due.
    pub async fn send(&self) {
        let stripe = self.state.stripe.as_ref().unwrap();
        lanes::drain(LANES, &CancellationToken::new(), || sender::step(&self.state, stripe)).await.unwrap();
    }

    /// Until neither side has anything to say to the other.
    pub async fn settle(&self) {
        loop {
            self.send().await;
            // Also what the service itself is sending at the moment.
            eventually("what is wanted is sent", || async {
                (self.app.count("select count(*) from intents where sent_at is null and last_status is null").await == 0).then_some(())
            })
            .await;
            let news = self.news();
            if news.is_empty() {
                return;
            }
            for some in news.chunks(1000) {
                stream::iter(some).for_each_concurrent(LANES, |event| self.deliver(event)).await;
                lanes::drain(LANES, &CancellationToken::new(), || worker::handle_one(&self.state)).await.unwrap();
                // Also what the service itself has taken.
                self.handled().await;
            }
        }
    }

    /// The calendar has charged so many periods after the first, and Stripe was told.
    pub async fn renewed(&self, charges: i64) {
        eventually("the calendar charges", || async {
            (self.app.count("select count(*) from subscription_charges where reason <> 'start'").await == charges).then_some(())
        })
        .await;
        self.settle().await;
    }

    /// What was paid and not given back, as Stripe's own books say, in cents.
    pub fn at_stripe(&self) -> i64 {
        self.stripe.ledger().iter().filter(|row| row.currency == "usd").map(|row| row.charged - row.refunded).sum()
    }

    /// The books of both agree, while nothing is disputed.
    pub async fn assert_clean(&self) {
        self.app.assert_clean().await;
        assert_eq!(self.app.house("stripe_clearing").await, -self.at_stripe() * 10_000, "we and Stripe differ");
    }

    /// The end of a test in which both sides have nothing to say any more: the ledger is clean, and a comparison of all that Stripe has
    /// with all that we have finds nothing.
    pub async fn assert_reconciled(&self) {
        self.app.assert_clean().await;
        assert_eq!(self.differences().await, []);
    }

    /// What our books and Stripe's say differently, once nothing is young enough to be on its way. That somebody has bought nothing yet is
    /// a note, and no difference.
    async fn differences(&self) -> Vec<Difference> {
        self.pass(Duration::from_mins(20));
        let report = reconcile::compare(&self.state, self.state.stripe.as_ref().unwrap(), reconcile::GRACE).await.unwrap();
        report.differences.into_iter().filter(|difference| difference.kind != "customer_none").collect()
    }

    pub async fn stripe_customer(&self, organization: OrganizationId) -> String {
        sqlx::query_scalar("select customer_id from stripe_customers where organization_id = $1")
            .bind(organization.uuid())
            .fetch_one(&self.app.database.owner)
            .await
            .unwrap()
    }

    /// A call of Stripe's API by somebody else, as from its dashboard.
    pub async fn dashboard(&self, path: &str, fields: &[(&str, &str)]) -> Value {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.dashboard.send("POST".parse().unwrap(), path, Some(body)).await.expect(200).json
    }

    /// Something is deleted there.
    pub async fn delete_at_stripe(&self, path: &str) {
        self.dashboard.send("DELETE".parse().unwrap(), path, None).await.expect(200);
    }
}

fn with_urls(mut body: Value) -> Value {
    body["success_url"] = "https://shop.example.com/thanks".into();
    body["cancel_url"] = "https://shop.example.com/prices".into();
    body
}
