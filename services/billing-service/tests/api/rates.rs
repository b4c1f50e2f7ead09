//! Rate cards: which one applies, and what an import makes of a price list.

use std::time::Duration;

use super::app::{App, GRANT};
use billing_service::reservations::sweep;
use chassis::config::Millis;
use serde_json::json;
use testkit::http::Answer;

/// `sim-large` at 6 micro-units for a token in and 24 for one out.
const DOUBLED: &str = r#"{"sim-large": {"input_cost_per_token": 6e-6, "output_cost_per_token": 2.4e-5}}"#;

fn amount(answer: Answer) -> i64 {
    answer.expect(201).json["amount_micros"].as_i64().unwrap()
}

/// [B-31]
#[tokio::test]
async fn rate_cards_of_a_model_cannot_overlap() {
    let app = App::start().await;
    let overlapping = "insert into rate_cards (model, valid_from, valid_to, price_input, price_cached, price_cache_write, price_output, price_reasoning,
          price_audio_in, price_audio_out, cost_input, cost_cached, cost_cache_write, cost_output, cost_reasoning, cost_audio_in, cost_audio_out)
        select model, '2021-01-01T00:00:00Z', '2021-01-02T00:00:00Z', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 from rate_cards where model = 'sim-large'";
    let refused = sqlx::query(overlapping).execute(&app.database.pool).await.unwrap_err();
    assert_eq!(chassis::postgres::constraint(&refused), Some("rate_cards_no_overlap"));
}

/// [B-31]
#[tokio::test]
async fn an_import_takes_effect_at_its_instant_and_a_dry_run_has_none() {
    let app = App::start().await;
    let (organization, _) = app.organization();
    let from = app.clock.now() + chrono::TimeDelta::hours(1);
    let list = r#"{"sim-large": {"input_cost_per_token": 1e-6, "output_cost_per_token": "0.000002"}}"#;
    app.import(list, 0, from, true).await.unwrap();
    assert_eq!(app.count("select count(*) from rate_cards where model = 'sim-large'").await, 1, "a dry run wrote");
    app.import(list, 0, from, false).await.unwrap();
    assert_eq!(amount(app.reserve(&app.reservation(organization, app.request(), 100, 0)).await), 300);
    app.turn.advance(Duration::from_hours(1));
    assert_eq!(amount(app.reserve(&app.reservation(organization, app.request(), 100, 0)).await), 100);
}

/// [B-31]
#[tokio::test]
async fn a_settlement_after_a_change_of_rates_uses_the_card_of_the_hold_and_stores_its_id() {
    let app = App::start().await;
    let (organization, _) = app.organization();
    let before = app.count("select id from rate_cards where model = 'sim-large'").await;
    let hold = app.hold(organization, 100, 100).await;
    app.turn.advance(Duration::from_mins(1));
    let list = r#"{"sim-large": {"input_cost_per_token": 1e-3, "output_cost_per_token": 1e-3}}"#;
    app.import(list, 0, app.clock.now(), false).await.unwrap();
    app.turn.advance(Duration::from_mins(1));
    // Also a caller that dates its request after the change does not get at the new card.
    assert_eq!(app.settle(&hold, &app.usage(10, 10)).await.expect(200).json["price_micros"], 150);
    assert_eq!(app.count("select rate_card_id from usage_events").await, before);
    let next = app.hold(organization, 1, 1).await;
    app.settle(&next, &app.usage(1, 1)).await.expect(200);
    assert_eq!(
        app.count("select count(*) from usage_events u join rate_cards c on c.id = u.rate_card_id where c.price_input = 1000000000").await,
        1
    );
    app.assert_clean().await;
}

/// [B-31] Settled, given up for dead, and settled after all.
#[tokio::test]
async fn a_hold_is_priced_by_its_own_card_also_when_one_that_is_imported_later_begins_before_it() {
    // The sweeper of the service would end the second hold before the test does.
    let app = App::with(|config| config.sweep = Millis(Duration::from_hours(1))).await;
    let (organization, client) = app.organization();
    let before = app.count("select id from rate_cards where model = 'sim-large'").await;
    let (hold, dead) = (app.hold(organization, 100, 100).await, app.hold(organization, 100, 100).await);
    app.turn.advance(Duration::from_secs(30));
    // Twice what they were held at, from ten seconds before that.
    app.import(DOUBLED, 0, app.clock.now() - chrono::TimeDelta::seconds(40), false).await.unwrap();
    assert_eq!(app.settle(&hold, &app.usage(100, 100)).await.expect(200).json["price_micros"], 1500);
    app.turn.advance(Duration::from_mins(10));
    assert_eq!(sweep(&app.state()).await.unwrap(), 1);
    assert_eq!(app.count("select rate_card_id from usage_events where counted_by = 'abandoned'").await, before);
    assert_eq!(app.settle(&dead, &app.usage(100, 100)).await.expect(200).json["price_micros"], 1500);
    assert_eq!(app.count("select min(rate_card_id) from usage_events").await, before);
    assert_eq!(app.count("select max(rate_card_id) from usage_events").await, before);
    assert_eq!(app.balance(&client).await, (GRANT - 3000, 0));
    assert_eq!(amount(app.reserve(&app.reservation(organization, app.request(), 100, 100)).await), 3000, "the new card was not in force");
    app.assert_clean().await;
}

/// [B-31] As versions before `0139_reservation_cards` wrote them.
#[tokio::test]
async fn a_hold_that_names_no_card_is_settled_by_the_one_of_the_instant_at_which_it_was_made() {
    let app = App::start().await;
    let (organization, _) = app.organization();
    let before = app.count("select id from rate_cards where model = 'sim-large'").await;
    let hold = app.hold(organization, 100, 100).await;
    app.as_owner("update reservations set rate_card_id = null").await;
    app.turn.advance(Duration::from_mins(1));
    app.import(DOUBLED, 0, app.clock.now(), false).await.unwrap();
    assert_eq!(app.settle(&hold, &app.usage(100, 100)).await.expect(200).json["price_micros"], 1500);
    assert_eq!(app.count("select rate_card_id from usage_events").await, before);
    app.assert_clean().await;
}

/// [B-32]
#[tokio::test]
async fn imported_audio_is_sold_at_its_listed_price_and_not_at_all_without_one() {
    let app = App::start().await;
    let (organization, _) = app.organization();
    let list = r#"{"mute": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6},
        "voice": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "output_cost_per_reasoning_token": 3e-6,
                  "input_cost_per_audio_token": 4e-5, "output_cost_per_audio_token": 8e-5}}"#;
    app.import(list, 100, app.clock.now(), false).await.unwrap();
    let reserve = async |model: &str, audio: bool| {
        let mut body = app.reservation(organization, app.request(), 100, 100);
        (body["model"], body["audio"]) = (json!(model), json!(audio));
        app.reserve(&body).await
    };
    // 100 × 2 and 100 × 4 micro-units; reasoning at 6 is dearer than the text that is seen.
    assert_eq!(amount(reserve("mute", false).await), 600);
    assert_eq!(amount(reserve("voice", false).await), 800);
    assert_eq!(amount(reserve("voice", true).await), 24_000);
    assert_eq!(reserve("mute", true).await.expect(404).json["code"], "model_not_priced");
}
