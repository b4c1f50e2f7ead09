//! Chats that are paid from credit for one model alone: a lease of their own, as exact as the one for all.

use std::time::Duration;

use billing_service::grants::{NewGrant, Source};
use billing_service::leases::{sweep_flights, sweep_leases};
use chassis::config::Millis;
use contracts::usage::UsageEvent;
use futures::future::join_all;
use identity::OrganizationId;
use money::TokenUsage;
use testkit::eventually;
use testkit::http::TestClient;

use crate::app::App;
use crate::gateway::RESERVED;

/// A service that gives nothing for signing up, sells `sim-large` and `special`, and sweeps when it is told to.
async fn app() -> App {
    let app = App::with(|config| (config.sweep, config.signup_grant) = (Millis(Duration::from_hours(1)), 0)).await;
    app.sell("special", true).await;
    app
}

/// Credit for `special` alone.
async fn special(app: &App, organization: OrganizationId, amount: i64) {
    app.give(
        organization,
        &NewGrant { models: Some(vec!["special".into()]), ..NewGrant::plain(Source::Promotion, format!("s:{organization}"), amount) },
    )
    .await;
}

async fn general(app: &App, organization: OrganizationId, amount: i64) {
    app.give(organization, &NewGrant::plain(Source::Purchase, format!("p:{organization}"), amount)).await;
}

/// So many at once; those that are in flight.
async fn at_once(app: &App, template: &UsageEvent, many: usize) -> Vec<UsageEvent> {
    let requests: Vec<UsageEvent> = (0..many).map(|_| UsageEvent { request_id: app.request(), ..template.clone() }).collect();
    let admitted = join_all(requests.iter().map(|event| app.admit(event))).await;
    requests.into_iter().zip(admitted).filter_map(|(event, lease)| lease.map(|lease_id| UsageEvent { lease_id, ..event })).collect()
}

/// Ten tokens in and ten out: 150.
async fn settle(app: &App, event: &UsageEvent) {
    let event = UsageEvent { usage: TokenUsage::text(10, 10), ..event.clone() };
    app.settled(&event, 150).await;
}

async fn posted(client: &TestClient, rows: usize) {
    let is_there = || async { (client.get("/v1/usage").await.expect(200).json["data"].as_array().unwrap().len() == rows).then_some(()) };
    eventually("the postings", is_there).await;
}

/// [B-37] [B-38] [B-45]
#[tokio::test(flavor = "multi_thread")]
async fn credit_for_one_model_pays_for_exactly_the_chats_with_it_that_it_reaches_for_and_for_no_other() {
    const K: usize = 21;
    let app = app().await;
    let (organization, client) = app.organization();
    special(&app, organization, 21 * RESERVED + 700).await;
    assert_eq!(app.admit(&app.wanted(organization, "sim-large").await).await, None);
    let template = app.wanted(organization, "special").await;
    let flying = at_once(&app, &template, 64).await;
    assert_eq!((flying.len(), app.balance(&client).await), (K, (700, 21 * RESERVED)));
    assert_eq!(app.admit(&app.wanted(organization, "sim-large").await).await, None, "nor from what lies in the lease");
    for event in &flying {
        settle(&app, event).await;
    }
    let again = at_once(&app, &template, 64).await;
    assert_eq!(again.len(), 19, "what they did not use pays for others at once: 28,350 and 700");
    posted(&client, K).await;
    assert_eq!(app.house("revenue").await, 21 * 150);
    app.assert_clean().await;
}

/// [B-42] [B-58]
#[tokio::test]
async fn a_chat_on_credit_for_its_model_whose_process_died_is_settled_and_the_rest_is_in_the_wallet_again() {
    let app = app().await;
    let (organization, client) = app.organization();
    special(&app, organization, 5 * RESERVED).await;
    let flying = at_once(&app, &app.wanted(organization, "special").await, 2).await;
    assert!(app.admissions.checkpoint(organization, flying[0].request_id, &TokenUsage::text(10, 4)).await.unwrap());
    app.turn.advance(Duration::from_mins(5));
    assert_eq!(sweep_flights(&app.state()).await.unwrap(), 2);
    posted(&client, 2).await;
    for _ in 0..2 {
        sweep_leases(&app.state()).await.unwrap();
        app.turn.advance(Duration::from_mins(2));
    }
    assert_eq!(app.balance(&client).await, (5 * RESERVED - (10 * 3 + 4 * 12), 0));
    assert_eq!(app.count("select count(*) from leases where state <> 'closed' or held_micros > 0").await, 0);
    app.assert_clean().await;
}

/// [B-37] Two and a half requests of each: four with the model and one with another are all that it comes to, in whatever order.
#[tokio::test(flavor = "multi_thread")]
async fn credit_for_everything_and_credit_for_one_model_pay_together_to_the_last_request() {
    let app = app().await;
    for others_first in [true, false] {
        let (organization, client) = app.organization();
        special(&app, organization, 5 * RESERVED / 2).await;
        general(&app, organization, 5 * RESERVED / 2).await;
        let (with, without) = (app.wanted(organization, "special").await, app.wanted(organization, "sim-large").await);
        let mut flying = Vec::new();
        if others_first {
            flying.extend(at_once(&app, &without, 1).await);
        }
        let special = at_once(&app, &with, 64).await.len();
        flying.extend(at_once(&app, &without, 64).await);
        assert_eq!((special, flying.len()), if others_first { (4, 1) } else { (5, 0) });
        assert_eq!(app.balance(&client).await, (0, 5 * RESERVED));
    }
    app.assert_clean().await;
}

/// [B-37] What a lease for one model keeps of credit for everything comes back for whoever needs it, and the other way round.
#[tokio::test]
async fn what_lies_unused_in_the_lease_for_one_kind_of_requests_is_refused_to_no_other() {
    let app = app().await;
    let (organization, client) = app.organization();
    special(&app, organization, RESERVED / 2).await;
    general(&app, organization, RESERVED / 2).await;
    let (with, without) = (app.wanted(organization, "special").await, app.wanted(organization, "sim-large").await);
    // Twice round: each of them leaves its money in its own lease.
    for round in 0..2 {
        let whole = at_once(&app, &with, 3).await;
        assert_eq!(whole.len(), 1, "both halves together, round {round}");
        app.settled(&whole[0], 0).await;
        let half = UsageEvent { reserved_micros: RESERVED / 2, ..without.clone() };
        let halves = at_once(&app, &half, 3).await;
        assert_eq!(halves.len(), 1, "what is for everything, round {round}");
        app.settled(&halves[0], 0).await;
        posted(&client, 2 * (round + 1)).await;
    }
    assert_eq!(app.balance(&client).await, (RESERVED, 0));
    app.assert_clean().await;
}

/// [B-37] Credit for the model burns first: what its lease still keeps is for everything.
#[tokio::test]
async fn what_the_lease_for_a_model_keeps_is_refused_to_no_other_once_the_credit_for_the_model_is_used_up() {
    let app = app().await;
    let (organization, client) = app.organization();
    special(&app, organization, 150).await;
    general(&app, organization, RESERVED).await;
    let both = UsageEvent { reserved_micros: RESERVED + 150, ..app.wanted(organization, "special").await };
    let flying = at_once(&app, &both, 1).await;
    settle(&app, &flying[0]).await;
    posted(&client, 1).await;
    let without = app.wanted(organization, "sim-large").await;
    assert_eq!(at_once(&app, &without, 3).await.len(), 1);
    assert_eq!(app.balance(&client).await, (0, RESERVED));
    app.assert_clean().await;
}

/// [B-38] It could not be paid from that, so nothing is taken out of it.
#[tokio::test]
async fn what_lies_in_the_lease_for_a_model_stays_there_when_a_reservation_for_another_is_refused() {
    let app = app().await;
    let (organization, _) = app.organization();
    special(&app, organization, 5 * RESERVED).await;
    assert_eq!(at_once(&app, &app.wanted(organization, "special").await, 1).await.len(), 1);
    let open = "select count(*) from leases where state = 'open' and model = 'special' and held_micros > 1500";
    assert_eq!(app.count(open).await, 1);
    app.reserve(&app.reservation(organization, app.request(), 1, 0)).await.expect(402);
    assert_eq!(app.count(open).await, 1);
    app.assert_clean().await;
}
