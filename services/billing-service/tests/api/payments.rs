//! Credit that is bought on a page, refunded and disputed.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use stripe_simulator::{Fault, FaultKind};
use testkit::http::Answer;

use super::shop::Shop;

/// [B-47] [B-70]
#[tokio::test]
async fn credit_is_there_once_when_the_events_of_its_payment_came_and_not_when_the_browser_comes_back() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    let page = shop.pack(&client, "small").await.expect(201);
    assert_eq!((page.json["amount_micros"].as_i64(), page.json["currency"].as_str()), (Some(10_000_000), Some("USD")));
    shop.pay(&page);
    assert_eq!(shop.app.balance(&client).await, (0, 0), "nobody has told us yet");
    let news = shop.news();
    for _ in 0..3 {
        join_all(news.iter().map(|event| shop.deliver(event))).await;
        shop.handled().await;
    }
    shop.settle().await;
    assert_eq!(shop.app.lots(&client).await, [("purchase".to_owned(), 10_000_000)]);
    assert_eq!(shop.app.count("select count(*) from stripe_payments").await, 1);
    let lot = client.get("/v1/grants").await.expect(200).json["data"][0].clone();
    assert_eq!(lot["expires_at"].as_str().map(|text| text[..10].to_owned()), Some("2031-01-01".to_owned()));
    let cards = client.get("/v1/payment-methods").await.expect(200).json;
    assert_eq!((cards["data"][0]["last_four"].as_str(), &cards["data"][0]["default"]), (Some("4242"), &json!(true)));
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-69] Whatever they press, one page is there to be paid.
#[tokio::test]
async fn tabs_that_begin_to_buy_at_once_share_one_page() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    let pages = join_all((0..64).map(|_| shop.pack(&client, "small"))).await;
    let plans = join_all((0..64).map(|_| shop.plan(&client, "team"))).await;
    for answers in [pages, plans] {
        let urls: std::collections::BTreeSet<String> = answers.into_iter().map(|answer| answer.expect(201).string("url")).collect();
        assert_eq!(urls.len(), 1);
    }
    let sessions = shop.stripe.events().iter().filter(|event| event["type"] == "customer.created").count();
    assert_eq!(sessions, 1, "two tabs made two customers");
    assert_eq!(shop.app.count("select count(*) from subscriptions").await, 1);
}

/// [B-69]
#[tokio::test]
async fn another_wish_takes_the_open_page_away_and_a_paid_plan_refuses_a_second() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    let first = shop.plan(&client, "team").await.expect(201);
    let second = shop.plan(&client, "pro").await.expect(201);
    assert_eq!(shop.stripe.object(&Shop::session(&first))["status"], "expired", "it could still be paid");
    assert_eq!(second.json["amount_micros"], 0, "a plan that was never paid is no trial");
    shop.pay(&second);
    shop.settle().await;
    let third = shop.plan(&client, "team").await.expect(409);
    assert_eq!(third.string("code"), "subscription_exists");
    let living = client.get("/v1/subscription").await.expect(200).json;
    assert_eq!((living["data"].as_array().unwrap().len(), living["data"][0]["plan"].as_str()), (1, Some("pro")));
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// Begins to pay a page from a bank account, which takes days; Stripe was asked for cards alone.
async fn pay_slowly(shop: &Shop, page: &Answer) {
    let session = Shop::session(page);
    assert_eq!(shop.stripe.object(&session)["payment_method_types"], json!(["card"]));
    let complete = shop.stripe.complete_checkout(&session, "pm_usBankAccount_processing").unwrap();
    assert_eq!((&complete["status"], &complete["payment_status"]), (&json!("complete"), &json!("unpaid")));
    shop.settle().await;
}

/// [B-70] Of a page that was made before only cards were asked for, or by hand.
#[tokio::test]
async fn credit_that_is_paid_from_a_bank_account_is_there_when_the_money_is() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    pay_slowly(&shop, &shop.pack(&client, "small").await.expect(201)).await;
    assert_eq!(shop.app.balance(&client).await, (0, 0));
    shop.pass(Duration::from_hours(4 * 24));
    shop.stripe.end_processing(&shop.payment("payment_intent.processing"), true).unwrap();
    shop.settle().await;
    assert_eq!(shop.app.balance(&client).await, (10_000_000, 0));
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-69] [B-70] Its page is complete at Stripe and will never be paid: it stands in nobody's way from then on.
#[tokio::test]
async fn a_payment_from_a_bank_account_that_comes_back_makes_place_for_another_try_at_once() {
    let shop = Shop::open().await;
    for plan in [false, true] {
        let (_, client) = shop.customer();
        let ask = async || if plan { shop.plan(&client, "team").await } else { shop.pack(&client, "small").await };
        pay_slowly(&shop, &ask().await.expect(201)).await;
        assert_eq!(ask().await.expect(409).string("code"), "checkout_ended", "it is on its way");
        shop.stripe.end_processing(&shop.payment("payment_intent.processing"), false).unwrap();
        let news = shop.news();
        for event in news.iter().chain(&news) {
            shop.deliver(event).await;
        }
        shop.handled().await;
        assert_eq!(shop.app.balance(&client).await, (0, 0));
        shop.pay(&ask().await.expect(201));
        shop.settle().await;
        assert_eq!(shop.app.balance(&client).await, (if plan { 60_000_000 } else { 10_000_000 }, 0));
        shop.assert_clean().await;
    }
}

/// [B-48] In parts and whole, by us or at Stripe's dashboard: with all the money all the credit goes, the bonus too.
#[tokio::test]
async fn refunds_take_their_part_of_the_credit_once_and_the_whole_leaves_nothing() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    shop.pay(&shop.pack(&client, "large").await.expect(201));
    shop.settle().await;
    assert_eq!((shop.app.balance(&client).await, shop.app.house("promotion").await), ((110_000_000, 0), -10_000_000));
    let payment = shop.stripe.events().iter().find_map(|event| {
        (event["type"] == "payment_intent.succeeded").then(|| event["data"]["object"]["id"].as_str().unwrap().to_owned())
    });
    let payment = payment.unwrap();
    shop.dashboard("/v1/refunds", &[("payment_intent", &payment), ("amount", "3333")]).await;
    let news = shop.news();
    for event in news.iter().chain(&news) {
        shop.deliver(event).await;
    }
    shop.handled().await;
    assert_eq!(shop.app.balance(&client).await, (110_000_000 - 36_663_000, 0));
    shop.assert_clean().await;
    shop.dashboard("/v1/refunds", &[("payment_intent", &payment)]).await;
    shop.settle().await;
    assert_eq!((shop.app.balance(&client).await, shop.app.house("promotion").await), ((0, 0), 0));
    assert_eq!(shop.app.house("stripe_clearing").await, 0);
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-48] [B10]
#[tokio::test]
async fn a_dispute_takes_the_credit_while_it_lasts_whatever_order_its_events_come_in() {
    let shop = Shop::open().await;
    for won in [true, false] {
        let (_, client) = shop.customer();
        let before = shop.app.house("stripe_clearing").await;
        shop.pay(&shop.pack(&client, "small").await.expect(201));
        let payment = shop.news();
        let payment_intent =
            payment.iter().find(|event| event["type"] == "payment_intent.succeeded").unwrap()["data"]["object"]["id"].clone();
        let dispute = shop.stripe.open_dispute(payment_intent.as_str().unwrap(), None, "fraudulent").unwrap();
        let opened = shop.news();
        if won {
            for event in payment.iter().chain(&opened) {
                shop.deliver(event).await;
            }
            shop.handled_in_time().await;
            assert_eq!((shop.app.balance(&client).await, shop.app.house("disputes").await), ((0, 0), 10_000_000));
        }
        shop.stripe.close_dispute(dispute["id"].as_str().unwrap(), won).unwrap();
        // The end before the beginning, and both before the payment.
        for event in shop.news().iter().chain(&opened).chain(&payment) {
            shop.deliver(event).await;
        }
        // What came before its payment was known comes again.
        shop.handled_in_time().await;
        shop.settle().await;
        let (left, cost) = if won { (10_000_000, 0) } else { (0, 15_000_000) };
        assert_eq!((shop.app.balance(&client).await, shop.app.house("disputes").await), ((left, 0), -cost), "won: {won}");
        assert_eq!(shop.app.house("stripe_clearing").await - before, -left + cost);
        shop.app.assert_clean().await;
        if won {
            // What was won is a sale like any other, and goes back whole.
            shop.dashboard("/v1/refunds", &[("payment_intent", payment_intent.as_str().unwrap())]).await;
            shop.settle().await;
            assert_eq!((shop.app.balance(&client).await, shop.app.house("stripe_clearing").await), ((0, 0), before));
            shop.app.assert_clean().await;
        }
    }
}

#[tokio::test]
async fn what_cannot_be_bought_is_refused_by_field_and_rule_and_nothing_is_begun() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    let urls = json!({"success_url": "https://a.example.com", "cancel_url": "https://a.example.com"});
    let ask = async |mut body: Value| {
        for (name, value) in urls.as_object().unwrap() {
            body.as_object_mut().unwrap().entry(name).or_insert(value.clone());
        }
        client.post("/v1/checkout-sessions", &body).await
    };
    let pack = |code: &str, currency: &str| json!({"item": "credit_pack", "credit_pack": code, "currency": currency});
    ask(pack("none", "USD")).await.expect(404);
    assert_eq!(ask(pack("small", "JPY")).await.expect(409).string("code"), "not_sold");
    let refused = ask(pack("small", "XXX")).await.expect(422);
    assert_eq!(refused.json["errors"][0]["field"], "currency");
    let mut elsewhere = pack("small", "USD");
    elsewhere["success_url"] = json!("javascript:alert(1)");
    assert_eq!(ask(elsewhere).await.expect(422).json["errors"][0]["field"], "success_url");
    shop.app.public.post("/v1/checkout-sessions", &pack("small", "USD")).await.expect(401);
    assert_eq!(shop.app.count("select (select count(*) from checkouts) + (select count(*) from subscriptions)").await, 0);
    let without = super::app::App::start().await;
    let (_, client) = without.organization_with(identity::Scopes::all());
    let answer = client.post("/v1/portal-sessions", &json!({"return_url": "https://a.example.com"})).await.expect(501);
    assert_eq!(answer.string("code"), "payments_not_configured");
}

/// [B-79]
#[tokio::test]
async fn nobody_sees_the_invoices_cards_or_top_ups_of_somebody_else() {
    let shop = Shop::open().await;
    let ((_, ada), (_, eve)) = (shop.customer(), shop.customer());
    shop.pay(&shop.pack(&ada, "small").await.expect(201));
    shop.pay(&shop.plan(&ada, "pro").await.expect(201));
    shop.settle().await;
    shop.pass(Duration::from_hours(15 * 24));
    shop.renewed(1).await;
    assert_eq!(ada.get("/v1/invoices").await.expect(200).json["data"].as_array().unwrap().len(), 1);
    assert_eq!(ada.get("/v1/payment-methods").await.expect(200).json["data"].as_array().unwrap().len(), 2);
    for path in ["/v1/invoices", "/v1/payment-methods"] {
        assert_eq!(eve.get(path).await.expect(200).json["data"], json!([]), "{path}");
    }
    let settings = json!({"enabled": true, "threshold_micros": 0, "amount_micros": 5_000_000, "monthly_cap_micros": 5_000_000});
    ada.send("PUT".parse().unwrap(), "/v1/auto-top-up", Some(settings.to_string())).await.expect(200);
    eve.get("/v1/auto-top-up").await.expect(404);
    let portal = ada.post("/v1/portal-sessions", &json!({"return_url": "https://a.example.com"})).await.expect(201);
    assert!(portal.string("url").contains("/p/session/"), "{}", portal.text);
}

/// [B-48] A customer that was deleted at Stripe and made anew: what the old one paid is refunded, and still ours.
#[tokio::test]
async fn a_refund_to_a_customer_that_was_replaced_takes_its_credit_back() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    let (gone, payment) = (shop.stripe_customer(organization).await, shop.payment("payment_intent.succeeded"));
    shop.delete_at_stripe(&format!("/v1/customers/{gone}")).await;
    shop.pack(&client, "large").await.expect(201);
    assert_ne!(shop.stripe_customer(organization).await, gone);
    shop.dashboard("/v1/refunds", &[("payment_intent", &payment)]).await;
    shop.settle().await;
    assert_eq!(shop.app.balance(&client).await, (0, 0));
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-22] A card that is gone again when it is to be kept holds up none of the later ones.
#[tokio::test]
async fn a_card_that_was_taken_away_does_not_hold_up_the_next_one() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    let page = shop.pack(&client, "small").await.expect(201);
    shop.pay(&page);
    let payment = shop.stripe.object(&shop.payment("payment_intent.succeeded"));
    shop.dashboard(&format!("/v1/payment_methods/{}/detach", payment["payment_method"].as_str().unwrap()), &[]).await;
    shop.settle().await;
    let page = shop.pack(&client, "small").await.expect(201);
    shop.pay(&page);
    shop.settle().await;
    assert_eq!(shop.app.count("select count(*) from intents where kind = 'customer.card' and sent_at is null").await, 0);
    let customer = shop.stripe.object(&shop.stripe_customer(organization).await);
    let paid = shop.stripe.object(&shop.payment("payment_intent.succeeded"));
    assert_eq!(customer["invoice_settings"]["default_payment_method"], paid["payment_method"]);
}

/// [B-70] A page that Stripe does not make is given up: the next one is not held up by it.
#[tokio::test]
async fn what_stripe_refuses_to_make_a_page_of_is_refused_and_given_up() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    let long = format!("https://shop.example.com/{}", "a".repeat(2048));
    let body = json!({"item": "credit_pack", "credit_pack": "small", "currency": "USD", "success_url": long, "cancel_url": "https://a.example.com"});
    assert_eq!(client.post("/v1/checkout-sessions", &body).await.expect(422).json["errors"][0]["field"], "success_url");
    assert_eq!(client.post("/v1/portal-sessions", &json!({"return_url": long})).await.expect(422).json["errors"][0]["field"], "return_url");
    for plan in [false, true] {
        let refuse = Fault::next(FaultKind::Refused, "POST", "/v1/checkout/sessions");
        shop.stripe.turn_knobs(|knobs| knobs.faults = vec![refuse]);
        let ask = async || if plan { shop.plan(&client, "team").await } else { shop.pack(&client, "small").await };
        assert_eq!(ask().await.expect(422).string("code"), "checkout_refused");
        shop.pay(&ask().await.expect(201));
    }
    shop.settle().await;
    assert_eq!(shop.app.balance(&client).await, (70_000_000, 0));
    shop.assert_clean().await;
    shop.assert_reconciled().await;
}

/// [B-70] A card is not charged less than so much, and that is nobody's URL.
#[tokio::test]
async fn what_costs_less_than_stripe_takes_is_refused_for_its_price() {
    let cheap = r#"
format: 1
credit_packs:
  tiny: {name: Ten cents of credit, prices: {USD: "0.10"}, credit: {USD: "0.10"}, expires: never}
  small: {name: Ten dollars of credit, prices: {USD: "10.00"}, credit: {USD: "10.00"}, expires: never}
"#;
    let shop = Shop::selling(cheap, |_| {}).await;
    let (_, client) = shop.customer();
    let refused = shop.pack(&client, "tiny").await.expect(422);
    assert_eq!((refused.string("code").as_str(), &refused.json["errors"][0]["field"]), ("amount_too_small", &json!("item")));
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    assert_eq!(shop.app.balance(&client).await, (10_000_000, 0));
    shop.assert_reconciled().await;
}

/// What Stripe says of a field is told of that field, and that its portal was never set up is nothing that a customer can mend.
#[tokio::test]
async fn a_portal_that_stripe_does_not_open_is_refused_for_what_it_says() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    let ask = async |param: Option<&str>| {
        let refuse = Fault::next(FaultKind::Refused, "POST", "/v1/billing_portal/sessions");
        shop.stripe.turn_knobs(|knobs| knobs.faults = vec![Fault { param: param.map(ToOwned::to_owned), ..refuse }]);
        client.post("/v1/portal-sessions", &json!({"return_url": "https://a.example.com"})).await
    };
    assert_eq!(ask(Some("return_url")).await.expect(422).json["errors"][0]["field"], "return_url");
    assert_eq!(ask(None).await.expect(501).string("code"), "portal_not_configured");
    ask(Some("configuration")).await.expect(500);
}

/// [B-68]
#[tokio::test]
async fn who_was_deleted_at_stripe_has_no_cards_there_and_visits_the_portal_as_a_new_customer() {
    let shop = Shop::open().await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    let gone = shop.stripe_customer(organization).await;
    shop.delete_at_stripe(&format!("/v1/customers/{gone}")).await;
    assert_eq!(client.get("/v1/payment-methods").await.expect(200).json["data"], json!([]));
    let page = client.post("/v1/portal-sessions", &json!({"return_url": "https://a.example.com"})).await.expect(201);
    let visit = shop.stripe.object(page.string("url").rsplit('/').next().unwrap());
    let customer = shop.stripe_customer(organization).await;
    assert_ne!(customer, gone);
    assert_eq!(visit["customer"], json!(customer));
    assert_eq!(client.get("/v1/payment-methods").await.expect(200).json["data"], json!([]));
}

/// [B-69] Another tab wants something else while a page is made: that page cannot be paid any more.
#[tokio::test]
async fn a_page_whose_checkout_ended_while_it_was_made_is_taken_away() {
    let shop = Shop::open().await;
    let (_, client) = shop.customer();
    // Whoever was faster has ended it: this page finds nothing that waits for it.
    shop.app
        .as_owner(
            "create function end_it() returns trigger language plpgsql as $$
               begin return null; end $$;
             create trigger end_it before update on checkouts for each row when (new.state = 'open') execute function end_it()",
        )
        .await;
    assert_eq!(shop.pack(&client, "small").await.expect(409).string("code"), "checkout_ended");
    let session = shop.stripe.events().into_iter().rfind(|event| event["type"] == "checkout.session.expired");
    assert!(session.is_some(), "the page can still be paid");
}

/// [B-47] [B-76] Stripe computes the tax and adds it: the sale is what was asked for, and the tax is not ours.
#[tokio::test]
async fn tax_that_stripe_adds_is_no_part_of_a_sale() {
    let shop = Shop::with(|config| config.stripe.automatic_tax = true).await;
    shop.stripe.tax_automatically(20);
    let (_, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.pay(&shop.plan(&client, "team").await.expect(201));
    shop.settle().await;
    assert_eq!((shop.app.balance(&client).await, shop.at_stripe()), ((70_000_000, 0), 1_200 + 12_000));
    shop.pass(Duration::from_hours(32 * 24));
    shop.renewed(1).await;
    assert_eq!((shop.app.balance(&client).await, shop.at_stripe()), ((130_000_000, 0), 1_200 + 24_000));
    let invoice = client.get("/v1/invoices").await.expect(200).json["data"][0].clone();
    assert_eq!((&invoice["total_micros"], &invoice["tax_micros"]), (&json!(120_000_000), &json!(20_000_000)), "{invoice}");
    assert_eq!(shop.app.house("stripe_clearing").await, -210_000_000);
    shop.assert_reconciled().await;
}

/// [B-48] [B-76] Half of what was paid with its tax is half of the credit.
#[tokio::test]
async fn a_part_of_a_taxed_payment_takes_the_same_part_of_the_credit_and_the_rest_takes_the_rest() {
    let shop = Shop::with(|config| config.stripe.automatic_tax = true).await;
    shop.stripe.tax_automatically(20);
    let (_, client) = shop.customer();
    shop.pay(&shop.pack(&client, "small").await.expect(201));
    shop.settle().await;
    let payment: String =
        sqlx::query_scalar("select payment_intent_id from stripe_payments").fetch_one(&shop.app.database.owner).await.unwrap();
    for (part, left) in [("600", 5_000_000), ("1", 4_991_667), ("599", 0)] {
        shop.dashboard("/v1/refunds", &[("payment_intent", &payment), ("amount", part)]).await;
        shop.settle().await;
        assert_eq!(shop.app.balance(&client).await, (left, 0), "{part}");
        assert_eq!(shop.app.house("stripe_clearing").await, -left);
        shop.assert_reconciled().await;
    }
}

/// [B-76] Nothing is paid on the page of a trial, and what is charged after it is taxed by where the customer is.
#[tokio::test]
async fn the_page_of_a_trial_asks_where_the_customer_is_when_tax_is_computed_and_stripe_keeps_it() {
    for (taxed, asked, country) in [(true, json!("required"), json!("US")), (false, Value::Null, Value::Null)] {
        let shop = Shop::with(|config| config.stripe.automatic_tax = taxed).await;
        let (organization, client) = shop.customer();
        let page = shop.plan(&client, "pro").await.expect(201);
        let session = shop.stripe.object(&Shop::session(&page));
        assert_eq!((&session["mode"], &session["billing_address_collection"]), (&json!("setup"), &asked));
        shop.pay(&page);
        shop.settle().await;
        assert_eq!(shop.stripe.object(&shop.stripe_customer(organization).await)["address"]["country"], country);
        assert_eq!(client.get("/v1/subscription").await.expect(200).json["data"][0]["status"], "trialing");
    }
}
