//! Refunds, disputes and usage that is given back.

use super::app::App;
use billing_service::admin::{SCOPE_READ, SCOPE_WRITE};
use billing_service::error::Error;
use billing_service::grants::{self, Dispute, NewGrant, Source};
use billing_service::ledger::postings::{Fee, Sale};
use billing_service::usage::Overage;
use chassis::in_transaction;
use contracts::RequestId;
use identity::OrganizationId;
use money::Currency;
use serde_json::json;

async fn start() -> App {
    App::with(|config| config.signup_grant = 0).await
}

fn sale(key: &str, amount: i64) -> NewGrant {
    NewGrant { paid: Some(amount), ..NewGrant::plain(Source::Purchase, key, amount) }
}

async fn refund(app: &App, organization: OrganizationId, sale: &str, amount: i64, key: &str) -> Result<Option<i64>, Error> {
    let state = app.state();
    in_transaction!(state.pool, |transaction| {
        grants::refund(&state, transaction, organization, sale, Sale::of(amount, amount), key).await
    })
}

async fn dispute(app: &App, organization: OrganizationId, sale: &str, amount: i64, key: &str) -> Option<i64> {
    let state = app.state();
    let opened: Result<_, Error> = in_transaction!(state.pool, |transaction| {
        grants::open_dispute(&state, transaction, organization, sale, Sale::of(amount, amount), key).await
    });
    opened.unwrap()
}

async fn close(app: &App, organization: OrganizationId, key: &str, outcome: Dispute) -> Result<bool, Error> {
    let state = app.state();
    in_transaction!(state.pool, |transaction| { grants::close_dispute(&state, transaction, organization, key, outcome).await })
}

async fn spend(app: &App, organization: OrganizationId, output: u64) -> RequestId {
    let request = app.request();
    let hold = app.reserve(&app.reservation(organization, request, 0, output)).await.expect(201).string("id");
    app.settle(&hold, &app.usage(0, output)).await.expect(200);
    request
}

/// [B-48]
#[tokio::test]
async fn a_refund_takes_what_is_left_of_its_purchase_then_other_credit_and_what_was_burned_is_owed() {
    let app = start().await;
    let (organization, client) = app.organization();
    app.give(organization, &sale("cs_1", 2400)).await;
    app.give(organization, &NewGrant::plain(Source::Promotion, "gift", 500)).await;
    spend(&app, organization, 150).await;
    assert_eq!(app.lots(&client).await, [("purchase".to_owned(), 600), ("promotion".to_owned(), 500)]);
    assert_eq!(refund(&app, organization, "cs_1", 2400, "re_1").await.unwrap(), Some(2400));
    assert_eq!((app.lots(&client).await, app.debt(organization).await), (vec![], 1300));
    assert_eq!(app.balance(&client).await, (-1300, 0));
    app.reserve(&app.reservation(organization, app.request(), 0, 0)).await.expect(402);
    assert_eq!(app.house("stripe_clearing").await, 0, "the money went back");
    app.assert_clean().await;
}

/// [B-46] [B-48] Or a refund of good will would take from other credit what the house had kept already.
#[tokio::test]
async fn credit_that_expired_is_not_owed_when_its_money_goes_back_and_the_house_gives_it_up() {
    let app = start().await;
    let (organization, client) = app.organization();
    let expires_at = Some(app.clock.now() + chrono::TimeDelta::days(30));
    app.give(organization, &NewGrant { expires_at, ..sale("cs_1", 2400) }).await;
    spend(&app, organization, 50).await;
    app.give(organization, &sale("cs_2", 500)).await;
    app.turn.advance(std::time::Duration::from_hours(31 * 24));
    // No sweeper has come by yet.
    assert_eq!(refund(&app, organization, "cs_1", 1000, "re_1").await.unwrap(), Some(1000));
    assert_eq!((app.balance(&client).await, app.house("breakage").await), ((500, 0), 800));
    assert_eq!(dispute(&app, organization, "cs_1", 1400, "dp_1").await, Some(1400), "six hundred of that were burned");
    assert_eq!((app.debt(organization).await, app.house("breakage").await), (100, 0));
    assert!(close(&app, organization, "dp_1", Dispute::Won).await.unwrap());
    assert_eq!((app.balance(&client).await, app.house("breakage").await), ((500, 0), 800));
    assert_eq!(refund(&app, organization, "cs_1", 1400, "re_2").await.unwrap(), Some(1400));
    assert_eq!((app.debt(organization).await, app.house("breakage").await, app.house("stripe_clearing").await), (100, 0, -500));
    app.assert_clean().await;
}

/// [B-48] [B13]
#[tokio::test]
async fn the_money_of_a_purchase_is_taken_back_once_however_many_refunds_and_disputes_tell_of_it() {
    let app = start().await;
    let (organization, client) = app.organization();
    let (eve, _) = app.organization();
    app.give(organization, &sale("cs_1", 1000)).await;
    app.give(eve, &sale("cs_2", 1000)).await;
    let same = futures::future::join_all((0..64).map(|_| refund(&app, organization, "cs_1", 300, "re_1"))).await;
    assert_eq!(same.into_iter().filter_map(Result::unwrap).collect::<Vec<_>>(), [300]);
    assert_eq!(dispute(&app, organization, "cs_1", 1000, "dp_1").await, Some(700), "more than was paid");
    assert_eq!(dispute(&app, organization, "cs_1", 1000, "dp_2").await, None);
    assert_eq!(app.balance(&client).await, (0, 0));
    assert!(matches!(refund(&app, organization, "cs_2", 1, "re_2").await, Err(Error::NotFound)), "somebody else's purchase");
    app.assert_clean().await;
}

/// [B-48]
#[tokio::test]
async fn a_dispute_that_is_won_restores_the_lots_it_took_from_and_one_that_is_lost_costs_its_fee() {
    let app = start().await;
    let (organization, client) = app.organization();
    app.give(organization, &sale("cs_1", 1000)).await;
    app.give(organization, &sale("cs_2", 1000)).await;
    spend(&app, organization, 50).await;
    let before = app.lots(&client).await;
    assert_eq!(dispute(&app, organization, "cs_1", 1000, "dp_1").await, Some(1000));
    assert_eq!((app.balance(&client).await, app.house("disputes").await), ((400, 0), 1000));
    assert!(close(&app, organization, "dp_1", Dispute::Won).await.unwrap());
    assert!(!close(&app, organization, "dp_1", Dispute::Lost { fee: None }).await.unwrap(), "it ended twice");
    assert_eq!((app.lots(&client).await, app.house("disputes").await), (before, 0));
    dispute(&app, organization, "cs_2", 1000, "dp_2").await;
    assert!(close(&app, organization, "dp_2", Dispute::Lost { fee: Some(Fee { currency: Currency::USD, amount: 15 }) }).await.unwrap());
    assert_eq!((app.balance(&client).await, app.house("disputes").await, app.house("stripe_clearing").await), ((400, 0), -15, -985));
    assert!(matches!(close(&app, organization, "dp_3", Dispute::Won).await, Err(Error::NotFound)));
    app.assert_clean().await;
}

/// [B-48] What was owed for a dispute and repaid since returns as credit, not as nothing.
#[tokio::test]
async fn a_dispute_that_is_won_after_its_debt_was_repaid_gives_the_money_back_as_credit() {
    let app = start().await;
    let (organization, client) = app.organization();
    app.give(organization, &sale("cs_1", 1200)).await;
    spend(&app, organization, 100).await;
    dispute(&app, organization, "cs_1", 1200, "dp_1").await;
    assert_eq!(app.debt(organization).await, 1200);
    app.give(organization, &sale("cs_2", 1200)).await;
    assert_eq!((app.debt(organization).await, app.balance(&client).await), (0, (0, 0)));
    assert!(close(&app, organization, "dp_1", Dispute::Won).await.unwrap());
    assert_eq!(app.lots(&client).await, [("refund".to_owned(), 1200)]);
    app.assert_clean().await;
}

/// Three lots, of which a request of 100 tokens out burns the first two and a half of the third.
async fn three_lots(app: &App, organization: OrganizationId) {
    let lots = [(Source::Promotion, "first", 400), (Source::Purchase, "second", 400), (Source::Adjustment, "third", 800)];
    for (priority, (source, key, amount)) in (1..).zip(lots) {
        let key = format!("{key} {organization}");
        app.give(organization, &NewGrant { priority: Some(priority), ..NewGrant::plain(source, &key, amount) }).await;
    }
}

/// [B-45] [B-50] [B8]
#[tokio::test]
async fn usage_that_is_given_back_returns_to_its_lots_in_reverse_and_exactly_once() {
    let app = start().await;
    let (organization, client) = app.organization();
    let (eve, _) = app.organization();
    three_lots(&app, organization).await;
    let request = spend(&app, organization, 100).await;
    assert_eq!(app.lots(&client).await, [("adjustment".to_owned(), 400)]);
    let state = app.state();
    let give_back = |whose: OrganizationId, amount: i64| {
        let state = state.clone();
        async move {
            let given: Result<bool, Error> =
                in_transaction!(state.pool, |transaction| { grants::refund_usage(&state, transaction, whose, request, amount).await });
            given
        }
    };
    assert!(matches!(give_back(eve, 600).await, Err(Error::Refused(_))), "somebody else's request");
    assert!(matches!(give_back(organization, 1201).await, Err(Error::Refused(_))), "more than it cost");
    let given = futures::future::join_all((0..64).map(|_| give_back(organization, 600))).await;
    assert_eq!(given.into_iter().filter(|given| *given.as_ref().unwrap()).count(), 1);
    let expected = [("purchase", 200), ("adjustment", 800)].map(|(source, left)| (source.to_owned(), left));
    assert_eq!((app.lots(&client).await, app.house("refunds").await), (expected.to_vec(), -600));
    let states = client.get("/v1/grants").await.expect(200).json;
    let states: Vec<_> = states["data"].as_array().unwrap().iter().map(|grant| grant["state"].clone()).collect();
    assert_eq!(states, [json!("active"), json!("active"), json!("exhausted")]);
    app.assert_clean().await;
}

/// [B-50] [B-51] [B-78] [B8]
#[tokio::test]
async fn operators_give_usage_back_once_for_each_request_with_who_and_why_whatever_key_and_whichever_way_they_come() {
    let app = start().await;
    let (organization, client) = app.organization();
    three_lots(&app, organization).await;
    let request = spend(&app, organization, 100).await;
    let console = app.service(&format!("{SCOPE_READ} {SCOPE_WRITE}"));
    let path = format!("/v1/admin/wallets/{organization}/changes");
    let wanted = json!({"by": {"actor": "grace", "reason": "a blank answer"}, "change": {"what": "refund_usage", "request": request, "amount": 600}});
    // Half of them under one key, half under keys of their own.
    let keyed = console.header("idempotency-key", "ticket");
    let races = (0..64).map(|number| if number % 2 == 0 { keyed.post(&path, &wanted) } else { console.post(&path, &wanted) });
    let answers = futures::future::join_all(races).await;
    let done = answers.iter().filter(|answer| answer.status == 200 && answer.headers.get("idempotency-replayed").is_none());
    assert_eq!(done.count(), 1);
    for refused in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!((refused.status.as_u16(), &refused.json["errors"][0]["field"]), (422, &json!("request")), "{}", refused.text);
    }
    let expected = [("purchase", 200), ("adjustment", 800)].map(|(source, left)| (source.to_owned(), left));
    assert_eq!((app.lots(&client).await, app.house("refunds").await), (expected.to_vec(), -600));
    let (o, r) = (organization.to_string(), request.to_string());
    let line = ["wallet", "refund-usage", &o, "--request", &r, "--amount-micros", "600", "--actor", "ada", "--reason", "again"];
    assert!(super::wallet::run(&app, &line).await.unwrap_err().to_string().contains("request was given back before"));
    let logged =
        "select count(*) from audit_log where action = 'wallet.refund_usage' and actor like 'grace via %' and reason = 'a blank answer'
        and (before ->> 'wallet_micros')::bigint = 400 and (after ->> 'wallet_micros')::bigint = 1000";
    assert_eq!((app.count(logged).await, app.count("select count(*) from audit_log").await), (1, 1));
    app.assert_clean().await;
}

/// [B-50] [B-79]
#[tokio::test]
async fn usage_is_given_back_in_the_terminal_and_never_more_than_its_request_was_charged_nor_to_another_organization() {
    let app = App::with(|config| (config.signup_grant, config.overage) = (0, Overage::Cap)).await;
    let ((organization, client), (eve, other)) = (app.organization(), app.organization());
    app.give(organization, &NewGrant::plain(Source::Promotion, "gift", 2000)).await;
    app.give(eve, &NewGrant::plain(Source::Promotion, "another", 2000)).await;
    // It used 1800 and was charged what was taken for it.
    let request = app.request();
    let hold = app.reserve(&app.reservation(organization, request, 0, 100)).await.expect(201).string("id");
    app.settle(&hold, &app.usage(0, 150)).await.expect(200);
    assert_eq!(app.balance(&client).await, (800, 0));
    let console = app.service(&format!("{SCOPE_READ} {SCOPE_WRITE}"));
    let refused = [
        (organization, json!({"what": "refund_usage", "request": request, "amount": 1201}), "amount"),
        (organization, json!({"what": "refund_usage", "request": request, "amount": 0}), "amount"),
        (organization, json!({"what": "refund_usage", "request": request, "amount": -5}), "amount"),
        (organization, json!({"what": "refund_usage", "request": app.request(), "amount": 1}), "request"),
        (eve, json!({"what": "refund_usage", "request": request, "amount": 1}), "request"),
    ];
    for (whose, change, field) in refused {
        let body = json!({"by": {"actor": "grace", "reason": "why"}, "change": change});
        let answer = console.post(&format!("/v1/admin/wallets/{whose}/changes"), &body).await.expect(422);
        assert_eq!(answer.json["errors"][0]["field"], field, "{body}");
    }
    assert_eq!((app.balance(&other).await, app.count("select count(*) from audit_log").await), ((2000, 0), 0));
    let (o, r) = (organization.to_string(), request.to_string());
    let line = ["wallet", "refund-usage", &o, "--request", &r, "--amount-micros", "1200"];
    let who = ["--actor", "ada", "--reason", "a blank answer", "--idempotency-key", "ticket"];
    assert!(super::wallet::run(&app, &line).await.is_err(), "nobody and no reason");
    for _ in 0..2 {
        super::wallet::run(&app, &[&line[..], &who].concat()).await.unwrap();
        assert_eq!((app.balance(&client).await, app.house("refunds").await), ((2000, 0), -1200));
    }
    assert_eq!(app.count("select count(*) from audit_log where actor = 'ada' and action = 'wallet.refund_usage'").await, 1);
    app.assert_clean().await;
}
