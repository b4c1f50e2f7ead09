//! What a rate card can say beyond a rate: whose it is, long prompts, images, fees, what is free; and the import that says it.

use std::time::Duration;

use super::app::{App, GRANT};
use super::gateway::RESERVED;
use admission::{Counted, End, Limit, Meter, Settlement};
use billing_service::rates::{export, show};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use testkit::eventually;

const PRICES: &str = "{input: 1, cached_input: 1, cache_write: 1, output: 1, reasoning: 1}";

async fn load(app: &App, cards: &str) {
    app.import(&format!("cards:\n{cards}"), 0, app.clock.now(), false).await.unwrap();
}

/// [B-31]
#[tokio::test]
async fn the_card_of_an_organization_wins_over_the_general_one_and_is_nobody_elses() {
    let app = App::start().await;
    let ((ada, ada_client), (eve, eve_client)) = (app.organization(), app.organization());
    load(&app, &format!("- {{model: sim-large, organization: {ada}, cost: {PRICES}}}\n")).await;
    for organization in [ada, eve] {
        let hold = app.hold(organization, 100, 100).await;
        app.settle(&hold, &app.usage(100, 100)).await.expect(200);
    }
    assert_eq!(app.balance(&ada_client).await, (GRANT - 200, 0));
    assert_eq!(app.balance(&eve_client).await, (GRANT - 1_500, 0));
    let own = "select count(*) from usage_events u join rate_cards c on c.id = u.rate_card_id where c.organization_id = u.organization_id";
    assert_eq!(app.count(own).await, 1, "the row does not name the card that priced it");
    app.assert_clean().await;
}

/// [B-31]
#[tokio::test]
async fn the_cards_of_one_organization_cannot_overlap_and_those_of_two_can() {
    let app = App::start().await;
    let ((ada, _), (eve, _)) = (app.organization(), app.organization());
    load(&app, &format!("- {{model: m, organization: {ada}, cost: {PRICES}}}\n- {{model: m, organization: {eve}, cost: {PRICES}}}\n"))
        .await;
    let again = "insert into rate_cards (model, organization_id, valid_from, price_input, price_cached, price_cache_write, price_output, price_reasoning,
          cost_input, cost_cached, cost_cache_write, cost_output, cost_reasoning)
        select model, organization_id, valid_from + interval '1 day', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 from rate_cards where model = 'm' limit 1";
    let refused = sqlx::query(again).execute(&app.database.pool).await.unwrap_err();
    assert_eq!(chassis::postgres::constraint(&refused), Some("rate_cards_no_overlap"));
}

/// [B-31] Half-open: the old card has the last microsecond, the new one the instant itself.
#[tokio::test]
async fn at_the_instant_of_a_change_the_new_card_holds_and_a_microsecond_before_it_the_old_one() {
    let app = App::start().await;
    let (organization, _) = app.organization();
    let from = app.clock.now() + chrono::TimeDelta::hours(1);
    app.import(&format!("cards:\n- {{model: sim-large, cost: {PRICES}}}\n"), 0, from, false).await.unwrap();
    app.turn.set(from - chrono::TimeDelta::microseconds(1));
    let held = async || app.reserve(&app.reservation(organization, app.request(), 100, 0)).await.expect(201).json["amount_micros"].clone();
    assert_eq!(held().await, 300);
    app.turn.advance(Duration::from_micros(1));
    assert_eq!(held().await, 100);
}

/// [B-32]
#[tokio::test]
async fn long_prompts_images_an_hours_cache_and_the_request_itself_are_held_and_settled_at_their_rates() {
    let app = App::start().await;
    let (organization, client) = app.organization();
    let cost = "{input: 1, cached_input: 0.5, cache_write: 2, cache_write_1h: 4, output: 10, reasoning: 20, image: 0.001, request: 0.0005,
        above: [{tokens: 1000, rates: {input: 3, cached_input: 3, cache_write: 3, cache_write_1h: 3, output: 3, reasoning: 3, image: 0.001}}]}";
    load(&app, &format!("- {{model: sim-large, cost: {cost}}}\n")).await;
    let mut wish = app.reservation(organization, app.request(), 1_000, 100);
    wish["max_images"] = json!(2);
    let reserved = app.reserve(&wish).await.expect(201);
    assert_eq!(reserved.json["amount_micros"], 1_000 * 4 + 100 * 20 + 500 + 2_000);
    let mut used = app.usage(100, 10);
    used["usage"] = json!({"input_tokens": 100, "cached_input_tokens": 100, "cache_write_tokens": 100, "cache_write_1h_tokens": 100,
        "output_tokens": 10, "reasoning_tokens": 10, "images": 2});
    let settled = app.settle(&reserved.string("id"), &used).await.expect(200);
    assert_eq!(settled.json["price_micros"], 100 + 50 + 200 + 400 + 100 + 200 + 2_000 + 500);
    let long = app.reserve(&app.reservation(organization, app.request(), 1_001, 100)).await.expect(201);
    // Either tier may be the one it ends in; the lower one is the dearer.
    assert_eq!(long.json["amount_micros"], 1_001 * 4 + 100 * 20 + 500);
    assert_eq!(app.settle(&long.string("id"), &app.usage(1_001, 100)).await.expect(200).json["price_micros"], 1_101 * 3);
    // Nothing used, nothing paid, not even the fee.
    let failed = app.hold(organization, 10, 10).await;
    assert_eq!(app.settle(&failed, &app.usage(0, 0)).await.expect(200).json["price_micros"], 0);
    assert_eq!(app.balance(&client).await, (GRANT - 3_550 - 3_303, 0));
    app.assert_clean().await;
}

/// [B-32]
#[tokio::test]
async fn usage_of_a_dimension_without_a_rate_is_refused_by_name_and_the_hold_stays() {
    let app = App::start().await;
    let (organization, client) = app.organization();
    let hold = app.hold(organization, 100, 0).await;
    let mut used = app.usage(1, 0);
    used["usage"]["images"] = json!(1);
    app.settle(&hold, &used).await.expect(422);
    assert_eq!(app.balance(&client).await, (GRANT - 300, 300));
    app.settle(&hold, &app.usage(1, 0)).await.expect(200);
    app.assert_clean().await;
}

#[tokio::test]
async fn a_free_allowance_is_used_up_exactly_and_begins_anew_with_the_month() {
    let app = App::start().await;
    let ((organization, client), (other, other_client)) = (app.organization(), app.organization());
    load(&app, &format!("- {{model: sim-large, cost: {PRICES}, free_per_month: 0.0005}}\n")).await;
    let spend = async |organization, tokens: u64| -> Value {
        let hold = app.hold(organization, tokens, 0).await;
        app.settle(&hold, &app.usage(tokens, 0)).await.expect(200).json["price_micros"].clone()
    };
    assert_eq!(
        (spend(organization, 300).await, spend(organization, 300).await, spend(organization, 300).await),
        (json!(0), json!(100), json!(300))
    );
    assert_eq!(spend(other, 100).await, 0, "an allowance is each organization's own");
    app.turn.advance(Duration::from_hours(24 * 31));
    assert_eq!(spend(organization, 600).await, 100);
    assert_eq!(app.balance(&client).await, (GRANT - 500, 0));
    assert_eq!(app.balance(&other_client).await, (GRANT, 0));
    // The cost is ours, paid or not [B-33].
    assert_eq!(app.count("select sum(cost_micros)::bigint from usage_events").await, 1_600);
    app.assert_clean().await;
}

/// [B-43] A process that was taken for dead pays the difference of what was used, less what is left of the allowance.
#[tokio::test]
async fn usage_that_is_told_late_is_charged_beyond_what_was_free_and_no_more() {
    let app = App::start().await;
    let (organization, _) = app.organization();
    load(&app, &format!("- {{model: sim-large, cost: {PRICES}, free_per_month: 0.0005}}\n")).await;
    let mut event = app.used(organization).await;
    event.rate_card_id = app.count("select max(id) from rate_cards where model = 'sim-large'").await;
    let tell = async |event: &contracts::usage::UsageEvent| {
        app.gateway.post("/internal/v1/settlements", &serde_json::to_value(event).unwrap()).await.expect(200);
    };
    (event.usage, event.counted_by) = (money::TokenUsage::text(400, 0), contracts::usage::CountedBy::Abandoned);
    tell(&event).await;
    assert_eq!(app.count("select sum(price_micros)::bigint from usage_events").await, 0, "all of it was free");
    (event.usage, event.counted_by) = (money::TokenUsage::text(700, 0), contracts::usage::CountedBy::Reported);
    tell(&event).await;
    assert_eq!(app.count("select sum(price_micros)::bigint from usage_events").await, 200, "five hundred were free");
    app.assert_clean().await;
}

/// [B-43] And one that used less has that of the allowance back, too.
#[tokio::test]
async fn usage_that_is_told_late_and_is_less_gives_back_what_was_charged_and_then_what_was_free() {
    let app = App::start().await;
    let (organization, _) = app.organization();
    load(&app, &format!("- {{model: sim-large, cost: {PRICES}, free_per_month: 0.0005}}\n")).await;
    let card = app.count("select max(id) from rate_cards where model = 'sim-large'").await;
    let tell = async |event: &contracts::usage::UsageEvent| {
        app.gateway.post("/internal/v1/settlements", &serde_json::to_value(event).unwrap()).await.expect(200);
    };
    let used = || app.count("select used_micros from rate_allowances");
    let mut event = contracts::usage::UsageEvent { rate_card_id: card, ..app.used(organization).await };
    (event.usage, event.counted_by) = (money::TokenUsage::text(700, 0), contracts::usage::CountedBy::Abandoned);
    tell(&event).await;
    assert_eq!((app.count("select sum(price_micros)::bigint from usage_events").await, used().await), (200, 500));
    (event.usage, event.counted_by) = (money::TokenUsage::text(300, 0), contracts::usage::CountedBy::Reported);
    tell(&event).await;
    assert_eq!((app.count("select sum(price_micros)::bigint from usage_events").await, used().await), (0, 300));
    app.assert_clean().await;
}

/// The gateway counts prices, and does not know what is left of an allowance.
#[tokio::test]
async fn what_was_free_does_not_count_against_a_limit_of_spending() {
    let app = App::start().await;
    let (organization, _) = app.organization();
    load(&app, &format!("- {{model: sim-large, cost: {PRICES}, free_per_month: 0.0005}}\n")).await;
    let card = app.count("select max(id) from rate_cards where model = 'sim-large'").await;
    let [month, tokens, over] = ["month:2030-01", "tokens:2030-01", "minute:gone"].map(|scope| Limit::key(organization, scope));
    let counted = |key: &String, meter| Counted { key: key.clone(), meter, amount: RESERVED };
    let sums = [counted(&month, Meter::Spend), counted(&tokens, Meter::Tokens), counted(&over, Meter::Spend)];
    let mut connection = app.redis.redis.connection();
    let mut spends = async |used: u64| -> (i64, i64, bool) {
        let (event, usage) = (app.used(organization).await, money::TokenUsage::text(used, 0));
        let event = contracts::usage::UsageEvent { rate_card_id: card, usage, ..event };
        for key in [&month, &tokens] {
            redis::cmd("INCRBY").arg(key).arg(RESERVED).query_async::<i64>(&mut connection).await.unwrap();
        }
        let price_micros = i64::try_from(used).unwrap();
        let settlement = Settlement { event: &event, price_micros, end: End::Used, counted: &sums, traceparent: None };
        app.admissions.settle(&settlement).await.unwrap();
        eventually("an empty stream", || async {
            (app.length(&contracts::Shard::of(organization).usage_stream()).await == 0).then_some(())
        })
        .await;
        redis::pipe().get(&month).get(&tokens).exists(&over).query_async(&mut connection).await.unwrap()
    };
    assert_eq!(spends(300).await, (0, 300, false), "all of it was free");
    assert_eq!(spends(300).await, (100, 600, false), "two hundred were left");
    assert_eq!(spends(300).await, (400, 900, false));
    app.assert_clean().await;
}

/// [B-31] A list for next year keeps nobody from a price that the provider changes today.
#[tokio::test]
async fn a_card_that_begins_before_one_that_is_planned_ends_with_it() {
    let app = App::start().await;
    let now = app.clock.now();
    let list = |input: &str| format!(r#"{{"planned": {{"input_cost_per_token": {input}, "output_cost_per_token": 1e-5}}}}"#);
    let (january, today) = (now + chrono::TimeDelta::days(60), now + chrono::TimeDelta::hours(1));
    app.import(&list("1e-6"), 0, now, false).await.unwrap();
    app.import(&list("3e-6"), 0, january, false).await.unwrap();
    let changes = app.import(&list("2e-6"), 0, today, false).await.unwrap();
    assert!(changes[0].contains("cost.input 1000000 → 2000000") && changes[0].contains(" until 2"), "{changes:?}");
    assert_eq!(app.import(&list("2e-6"), 0, today + chrono::TimeDelta::hours(1), false).await.unwrap(), [""; 0], "as it is then");
    let cards: Vec<(i64, DateTime<Utc>, Option<DateTime<Utc>>)> =
        sqlx::query_as("select cost_input, valid_from, valid_to from rate_cards where model = 'planned' order by valid_from")
            .fetch_all(&app.database.owner)
            .await
            .unwrap();
    assert_eq!(cards, [(1_000_000, now, Some(today)), (2_000_000, today, Some(january)), (3_000_000, january, None)]);
}

#[tokio::test]
async fn an_import_shows_what_changes_refuses_all_that_is_wrong_at_once_and_leaves_the_rest_alone() {
    let app = App::start().await;
    let now = app.clock.now();
    let list = r#"{"sim-large": {"input_cost_per_token": 2.5e-6, "output_cost_per_token": 1e-5, "cache_read_input_token_cost": 1.25e-6},
        "new": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}}"#;
    let lines = async |list: &str, dry_run| -> Vec<String> { app.import(list, 20, now, dry_run).await.unwrap() };
    let new = "new (new): cost.input 1000000 cost.cached_input 1000000 cost.cache_write 1000000 cost.output 2000000 cost.reasoning 2000000 cost.request 0 \
        price.input 1200000 price.cached_input 1200000 price.cache_write 1200000 price.output 2400000 price.reasoning 2400000 price.request 0";
    assert_eq!(lines(list, true).await, [new], "a card that stays as it is was listed");
    assert_eq!(lines(list, false).await, [new]);
    let later = now + chrono::TimeDelta::hours(1);
    let dearer = list.replace("2.5e-6", "3e-6");
    let change = app.import(&dearer, 20, later, true).await.unwrap();
    let expected = "sim-large: cost.input 2500000 → 3000000 cost.cache_write 2500000 → 3000000 price.input 3000000 → 3600000 price.cache_write 3000000 → 3600000";
    assert_eq!(change, [expected]);
    // Where a card begins already, no other can begin.
    let error = app.import(&list.replace("1e-6", "2e-6"), 20, now, false).await.unwrap_err();
    assert!(error.to_string().contains("new has a card that begins at"), "{error}");
    let bad = r#"{"good": {"input_cost_per_token": 1, "output_cost_per_token": 1}, "x": {"input_cost_per_token": -1, "output_cost_per_token": "y"}}"#;
    let error = app.import(bad, 0, now, false).await.unwrap_err().to_string();
    assert!(
        error.contains("x.input_cost_per_token must not be negative") && error.contains("x.output_cost_per_token must be a decimal"),
        "{error}"
    );
    assert_eq!(app.count("select count(*) from rate_cards where model in ('good', 'x')").await, 0);
}

#[tokio::test]
async fn what_is_exported_can_be_imported_and_changes_nothing() {
    let app = App::start().await;
    let (organization, _) = app.organization();
    let list = r#"{"tiered": {"input_cost_per_token": 1.5e-7, "output_cost_per_token": 2e-6, "input_cost_per_token_above_200k_tokens": 3e-7,
        "input_cost_per_image": 0.0123, "input_cost_per_audio_token": 1e-12}}"#;
    app.import(list, 33, app.clock.now(), false).await.unwrap();
    load(&app, &format!("- {{model: tiered, organization: {organization}, cost: {PRICES}, fixed_price: 0.05, free_per_month: 2.5}}\n"))
        .await;
    let at = app.clock.now() + chrono::TimeDelta::hours(1);
    let (text, left_out) = export(&app.database.pool, at).await.unwrap();
    assert!(left_out.is_empty() && text.matches("- model:").count() == 18, "{text}");
    assert_eq!(app.import(&text, 99, at, false).await.unwrap().len(), 0, "{text}");
    let shown = show(&app.database.pool, "tiered").await.unwrap();
    assert!(
        shown[0].contains("for everybody") && shown[0].contains("price[>200000]") && shown[1].contains(&organization.to_string()),
        "{shown:?}"
    );
    assert!(show(&app.database.pool, "unknown").await.unwrap().is_empty());
}
