//! The account in a file: the same after a restart.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use stripe_simulator::{Options, Webhook};

use super::client::{Shop, id};
use super::receiver::Receiver;

/// A folder that is gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("stripe-simulator-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("account.json")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn options(file: &Path) -> Options {
    Options { state_file: Some(file.to_owned()), ..Options::default() }
}

async fn keyed(shop: &Shop, form: &str) -> (u16, bool, Value) {
    let answer = shop.request(Method::POST, "customers", form).header("idempotency-key", "k").send().await.unwrap();
    let replayed = answer.headers().contains_key("idempotent-replayed");
    (answer.status().as_u16(), replayed, answer.json().await.unwrap())
}

#[tokio::test]
async fn objects_time_keys_and_what_is_due_are_the_same_after_a_restart() {
    let folder = Folder::new("same");
    let shop = Shop::with(options(&folder.file())).await;
    let (_, _, customer) = keyed(&shop, "name=Ada").await;
    shop.simulator.advance(3_600);
    let session = shop.post("checkout/sessions", "mode=setup&currency=usd&success_url=https://a.example.com").await;
    let (events, now) = (shop.simulator.events(), shop.simulator.now());
    shop.simulator.save().unwrap();
    drop(shop);
    let again = Shop::with(options(&folder.file())).await;
    assert_eq!((again.simulator.events(), again.simulator.now()), (events, now));
    assert_eq!(again.get(&format!("customers/{}", id(&customer))).await, customer);
    assert_eq!(keyed(&again, "name=Ada").await, (200, true, customer.clone()), "the key is forgotten");
    assert_eq!(keyed(&again, "name=Eve").await.0, 400);
    assert_ne!(id(&again.post("customers", "name=Eve").await), id(&customer), "an id was given twice");
    again.simulator.advance(2 * 86_400);
    assert_eq!(again.get(&format!("checkout/sessions/{}", id(&session))).await["status"], "expired", "nobody remembers when it ends");
}

#[tokio::test]
async fn an_event_that_nobody_has_taken_yet_is_delivered_after_the_restart_once_and_by_the_secrets_of_then() {
    let folder = Folder::new("events");
    // Nobody listens there.
    let gone = Webhook { url: "http://127.0.0.1:9/".to_owned(), secrets: vec!["old".to_owned()] };
    let mut patient = Options { webhooks: vec![gone], ..options(&folder.file()) };
    patient.knobs.retry_ms = 3_600_000;
    let shop = Shop::with(patient).await;
    let customer = shop.customer().await;
    shop.simulator.save().unwrap();
    drop(shop);
    let receiver = Receiver::start(0).await;
    let text = std::fs::read_to_string(folder.file()).unwrap().replace("http://127.0.0.1:9/", &receiver.url);
    let moved = folder.0.join("moved.json");
    std::fs::write(&moved, text).unwrap();
    let here = Webhook { url: receiver.url.clone(), secrets: vec!["new".to_owned()] };
    let again = Shop::with(Options { webhooks: vec![here], ..options(&moved) }).await;
    again.simulator.settled().await;
    assert_eq!(receiver.types(), ["customer.created"]);
    assert_eq!(receiver.all()[0].event()["data"]["object"]["id"], customer.as_str());
    again.customer().await;
    again.simulator.settled().await;
    assert_eq!(receiver.types().len(), 2, "the endpoint is there twice");
    assert!(receiver.all()[1].is_signed_by("new"));
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_not_overwritten() {
    let folder = Folder::new("broken");
    for text in ["{\"format\":", "{\"format\":2,\"world\":{},\"keys\":[],\"pending\":[],\"held\":[]}"] {
        std::fs::write(folder.file(), text).unwrap();
        let refused = stripe_simulator::StripeSimulator::start(options(&folder.file())).await.unwrap_err();
        assert!(refused.to_string().contains("cannot be read"), "{refused}");
        assert_eq!(std::fs::read_to_string(folder.file()).unwrap(), text);
    }
}

/// Nobody says good-bye: what was written until then is there.
#[tokio::test]
async fn a_process_that_is_killed_is_remembered_as_it_was_last_written() {
    let folder = Folder::new("killed");
    let shop = Shop::with(options(&folder.file())).await;
    let customer = shop.customer().await;
    let written = || std::fs::read_to_string(folder.file()).is_ok_and(|text| text.contains(&customer));
    for _ in 0..600 {
        if written() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(written(), "it was never written");
    drop(shop);
    let again = Shop::with(options(&folder.file())).await;
    assert_eq!(id(&again.get(&format!("customers/{customer}")).await), customer);
}

/// Nobody saves: what was answered is there all the same, with the answer of its key.
#[tokio::test]
async fn what_was_answered_is_in_the_file_of_a_durable_simulator_that_is_killed() {
    let folder = Folder::new("durable");
    let shop = Shop::with(Options { durable: true, ..options(&folder.file()) }).await;
    // The first look at the account would write it; later ones come when something is asked.
    shop.post("customers", "name=Eve").await;
    let (_, _, customer) = keyed(&shop, "name=Ada").await;
    drop(shop);
    let again = Shop::with(options(&folder.file())).await;
    assert_eq!(again.get(&format!("customers/{}", id(&customer))).await, customer);
    assert_eq!(keyed(&again, "name=Ada").await, (200, true, customer), "the key is forgotten");
}
