//! A shop: sends forms, reads JSON.

use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;
use stripe_simulator::{Options, Running, StripeSimulator};

/// A simulator and who talks to it.
pub struct Shop {
    pub http: reqwest::Client,
    pub simulator: Running,
}

impl Shop {
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Self {
        let simulator = StripeSimulator::start(options).await.unwrap();
        // A page's redirect is looked at, not followed.
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { http, simulator }
    }

    /// A request with a test key and a form such as `a=1&b[c]=2`.
    pub fn request(&self, method: Method, path: &str, form: &str) -> RequestBuilder {
        let sends = method == Method::POST;
        let request = self.http.request(method, format!("{}/v1/{path}", self.simulator.url)).bearer_auth("sk_test_1");
        if sends { request.header("content-type", "application/x-www-form-urlencoded").body(form.to_owned()) } else { request }
    }

    /// A POST; the status and the body.
    pub async fn try_post(&self, path: &str, form: &str) -> (u16, Value) {
        read(self.request(Method::POST, path, form).send().await.unwrap()).await
    }

    /// A POST that must succeed.
    #[track_caller]
    pub fn post(&self, path: &str, form: &str) -> impl Future<Output = Value> {
        succeeds(self.request(Method::POST, path, form))
    }

    /// A GET that must succeed.
    #[track_caller]
    pub fn get(&self, path: &str) -> impl Future<Output = Value> {
        succeeds(self.request(Method::GET, path, ""))
    }

    /// A GET; the status and the body.
    pub async fn try_get(&self, path: &str) -> (u16, Value) {
        read(self.request(Method::GET, path, "").send().await.unwrap()).await
    }

    /// A DELETE that must succeed.
    #[track_caller]
    pub fn delete(&self, path: &str) -> impl Future<Output = Value> {
        succeeds(self.request(Method::DELETE, path, ""))
    }

    /// A new customer.
    pub async fn customer(&self) -> String {
        id(&self.post("customers", "email=a@example.com").await)
    }

    /// A new customer whose default card is of a name such as `pm_card_visa`.
    pub async fn customer_with(&self, card: &str) -> String {
        let customer = self.customer().await;
        let method = self.post(&format!("payment_methods/{card}/attach"), &format!("customer={customer}")).await;
        let form = format!("invoice_settings[default_payment_method]={}", id(&method));
        self.post(&format!("customers/{customer}"), &form).await;
        customer
    }

    /// A new price of a new product; recurring where an interval is given.
    pub async fn price(&self, amount: i64, currency: &str, interval: Option<&str>) -> String {
        let recurring = interval.map(|interval| format!("&recurring[interval]={interval}")).unwrap_or_default();
        let form = format!("unit_amount={amount}&currency={currency}&product_data[name]=Plan{recurring}");
        id(&self.post("prices", &form).await)
    }

    /// Presses a page's button, as a browser does.
    pub async fn press(&self, url: &str, name: &str, value: &str) -> Response {
        let request = self.http.post(url).header("content-type", "application/x-www-form-urlencoded");
        request.body(format!("{name}={value}")).send().await.unwrap()
    }

    /// The types of all events so far.
    pub fn event_types(&self) -> Vec<String> {
        self.simulator.events().iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    }
}

#[track_caller]
fn succeeds(request: RequestBuilder) -> impl Future<Output = Value> {
    let caller = std::panic::Location::caller();
    async move {
        let (status, body) = read(request.send().await.unwrap()).await;
        assert_eq!(status, 200, "{caller}: {body:#}");
        body
    }
}

async fn read(response: Response) -> (u16, Value) {
    (response.status().as_u16(), response.json().await.unwrap())
}

/// An object's id.
pub fn id(object: &Value) -> String {
    object["id"].as_str().unwrap().to_owned()
}
