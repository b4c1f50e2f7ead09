//! Refunds, disputes and usage that is given back.

use super::app::App;
use billing_service::error::Error;
use billing_service::grants::{self, Dispute, NewGrant, Source};
use billing_service::ledger::postings::{Fee, Sale};
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

/// [B-45] [B-50] [B8]
#[tokio::test]
async fn usage_that_is_given_back_returns_to_its_lots_in_reverse_and_exactly_once() {
    let app = start().await;
    let (organization, client) = app.organization();
    let (eve, _) = app.organization();
    app.give(organization, &NewGrant { priority: Some(1), ..NewGrant::plain(Source::Promotion, "first", 400) }).await;
    app.give(organization, &NewGrant { priority: Some(2), ..NewGrant::plain(Source::Purchase, "second", 400) }).await;
    app.give(organization, &NewGrant { priority: Some(3), ..NewGrant::plain(Source::Adjustment, "third", 800) }).await;
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
    assert!(matches!(give_back(eve, 600).await, Err(Error::NotFound)), "somebody else's request");
    assert!(matches!(give_back(organization, 1201).await, Err(Error::NotFound)), "more than it cost");
    let given = futures::future::join_all((0..64).map(|_| give_back(organization, 600))).await;
    assert_eq!(given.into_iter().filter(|given| *given.as_ref().unwrap()).count(), 1);
    let expected = [("purchase", 200), ("adjustment", 800)].map(|(source, left)| (source.to_owned(), left));
    assert_eq!((app.lots(&client).await, app.house("refunds").await), (expected.to_vec(), -600));
    let states = client.get("/v1/grants").await.expect(200).json;
    let states: Vec<_> = states["data"].as_array().unwrap().iter().map(|grant| grant["state"].clone()).collect();
    assert_eq!(states, [json!("active"), json!("active"), json!("exhausted")]);
    app.assert_clean().await;
}
