//! Credit in lots: which pays, what it may pay for, and when it is over.

use std::time::Duration;

use super::app::App;
use billing_service::grants::{self, NewGrant, Source, Use};
use chassis::config::Millis;
use chrono::TimeDelta;
use identity::OrganizationId;
use serde_json::json;
use testkit::http::{Answer, TestClient};

/// A service whose sweepers come too late for the test, and which gives nothing for signing up.
async fn quiet() -> App {
    App::with(|config| (config.sweep, config.signup_grant) = (Millis(Duration::from_hours(1)), 0)).await
}

fn expiring(app: &App, key: &str, amount: i64, after: i64) -> NewGrant {
    NewGrant { expires_at: Some(app.clock.now() + TimeDelta::milliseconds(after)), ..NewGrant::plain(Source::Promotion, key, amount) }
}

fn lot(source: &str, remaining: i64) -> (String, i64) {
    (source.to_owned(), remaining)
}

/// A hold for `output` tokens of a model at the price of `sim-large`: 12 micro-units each.
async fn reserve(app: &App, organization: OrganizationId, model: &str, output: u64) -> Answer {
    let mut body = app.reservation(organization, app.request(), 0, output);
    body["model"] = json!(model);
    app.reserve(&body).await
}

/// [B-45]
#[tokio::test]
async fn usage_is_paid_by_priority_then_by_earliest_expiry_then_by_age() {
    let app = quiet().await;
    let (organization, client) = app.organization();
    app.give(organization, &NewGrant::plain(Source::Purchase, "old", 1200)).await;
    app.give(organization, &NewGrant { priority: Some(200), ..expiring(&app, "last", 1200, 1000) }).await;
    app.turn.advance(Duration::from_millis(1));
    app.give(organization, &NewGrant::plain(Source::Adjustment, "young", 1200)).await;
    app.give(organization, &expiring(&app, "soon", 1200, 5000)).await;
    assert_eq!(app.lots(&client).await, [lot("promotion", 1200), lot("purchase", 1200), lot("adjustment", 1200), lot("promotion", 1200)]);
    for (output, left) in [
        (50, vec![lot("promotion", 600), lot("purchase", 1200), lot("adjustment", 1200), lot("promotion", 1200)]),
        (100, vec![lot("purchase", 600), lot("adjustment", 1200), lot("promotion", 1200)]),
        (200, vec![lot("promotion", 600)]),
    ] {
        let hold = app.hold(organization, 0, output).await;
        app.settle(&hold, &app.usage(0, output)).await.expect(200);
        assert_eq!(app.lots(&client).await, left);
        app.assert_clean().await;
    }
}

/// [B-46]
#[tokio::test]
async fn credit_is_spendable_until_a_millisecond_before_it_expires_and_breakage_from_that_instant_on() {
    for (after, status, breakage) in [(999, 201, 0), (1000, 402, 1200), (1001, 402, 1200)] {
        let app = quiet().await;
        let (organization, client) = app.organization();
        app.give(organization, &expiring(&app, "k", 1200, 1000)).await;
        let balance = client.get("/v1/balance").await.expect(200).json;
        assert_eq!(balance["next_expiry"]["amount_micros"], 1200);
        app.turn.advance(Duration::from_millis(after));
        // No sweeper was there: it is no part of the balance all the same.
        let there = if status == 201 { 1200 } else { 0 };
        assert_eq!(app.balance(&client).await, (there, 0), "{after}");
        reserve(&app, organization, "sim-large", 100).await.expect(status);
        assert_eq!(grants::sweep(&app.state()).await.unwrap(), breakage, "{after}");
        assert_eq!((app.house("breakage").await, grants::sweep(&app.state()).await.unwrap()), (breakage, 0), "it expired twice");
        app.assert_clean().await;
    }
}

/// [B-46] The rule for what is held when it expires: it pays for the requests that were admitted before, and what they leave expires.
#[tokio::test]
async fn a_lot_under_a_hold_expires_but_for_what_requests_admitted_before_use_of_it() {
    let app = quiet().await;
    let (organization, client) = app.organization();
    app.give(organization, &expiring(&app, "k", 2400, 1000)).await;
    let hold = app.hold(organization, 0, 100).await;
    app.turn.advance(Duration::from_secs(1));
    assert_eq!(grants::sweep(&app.state()).await.unwrap(), 1200, "what no hold needs");
    assert_eq!(app.balance(&client).await, (0, 1200));
    reserve(&app, organization, "sim-large", 1).await.expect(402);
    app.settle(&hold, &app.usage(0, 60)).await.expect(200);
    // What came back has expired, and is not spendable although no sweeper was there.
    assert_eq!(app.balance(&client).await, (0, 0));
    reserve(&app, organization, "sim-large", 1).await.expect(402);
    assert_eq!(grants::sweep(&app.state()).await.unwrap(), 480);
    assert_eq!((app.house("breakage").await, app.house("revenue").await, app.debt(organization).await), (1680, 720, 0));
    let grant = client.get("/v1/grants").await.expect(200).json["data"][0].clone();
    assert_eq!((&grant["state"], &grant["remaining_micros"], &grant["amount_micros"]), (&json!("expired"), &json!(0), &json!(2400)));
    app.assert_clean().await;
}

/// [B-46] A hold that is made afterwards does not keep expired credit alive.
#[tokio::test]
async fn holds_made_after_an_expiry_stand_on_other_credit() {
    let app = quiet().await;
    let (organization, client) = app.organization();
    app.give(organization, &expiring(&app, "k", 1200, 1000)).await;
    app.give(organization, &NewGrant::plain(Source::Purchase, "p", 1200)).await;
    app.turn.advance(Duration::from_secs(1));
    let hold = app.hold(organization, 0, 100).await;
    reserve(&app, organization, "sim-large", 1).await.expect(402);
    app.settle(&hold, &app.usage(0, 100)).await.expect(200);
    assert_eq!((app.house("breakage").await, app.lots(&client).await), (1200, vec![]));
    app.assert_clean().await;
}

/// Restricted credit pays for its models, before other credit does, and for nothing else.
#[tokio::test]
async fn credit_for_one_model_cannot_be_spent_on_another() {
    let app = quiet().await;
    let (organization, client) = app.organization();
    app.sell("special", true).await;
    let special = NewGrant { models: Some(vec!["special".into()]), ..NewGrant::plain(Source::Promotion, "k", 1200) };
    app.give(organization, &special).await;
    app.give(organization, &NewGrant::plain(Source::Purchase, "p", 600)).await;
    assert_eq!(app.balance(&client).await, (1800, 0));
    reserve(&app, organization, "sim-large", 51).await.expect(402);
    reserve(&app, organization, "special", 151).await.expect(402);
    let other = reserve(&app, organization, "sim-large", 50).await.expect(201).string("id");
    let own = reserve(&app, organization, "special", 100).await.expect(201).string("id");
    app.settle(&own, &app.usage(0, 100)).await.expect(200);
    app.settle(&other, &app.usage(0, 50)).await.expect(200);
    assert_eq!((app.balance(&client).await, app.debt(organization).await), ((0, 0), 0));
    app.assert_clean().await;
}

/// An empty list is what a form sends where nothing is chosen; a row of an earlier version may have one too.
#[tokio::test]
async fn credit_with_an_empty_list_of_models_or_features_is_not_restricted() {
    let app = quiet().await;
    let (organization, client) = app.organization();
    app.sell("special", true).await;
    let empty = || Some(Vec::new());
    let grant = NewGrant { models: empty(), features: empty(), ..NewGrant::plain(Source::Promotion, "k", 1200) };
    app.give(organization, &grant).await;
    app.give(organization, &NewGrant { features: empty(), ..NewGrant::plain(Source::Promotion, "f", 600) }).await;
    assert_eq!(app.count("select count(*) from grants where models is null and features is null and priority = 100").await, 2);
    let shown = client.get("/v1/balance").await.expect(200).json;
    assert!(shown["lots"].as_array().unwrap().iter().all(|lot| lot["models"].is_null() && lot["features"].is_null()), "{shown}");
    app.as_owner("alter table grants disable trigger user").await;
    app.as_owner("update grants set models = '[]', features = '[]'").await;
    app.as_owner("alter table grants enable trigger user").await;
    let held = reserve(&app, organization, "sim-large", 150).await.expect(201).string("id");
    app.settle(&held, &app.usage(0, 150)).await.expect(200);
    assert_eq!((app.balance(&client).await, app.debt(organization).await), ((0, 0), 0));
    let listed = client.get("/v1/grants").await.expect(200).json;
    assert!(listed["data"].as_array().unwrap().iter().all(|grant| grant["models"].is_null()), "{listed}");
    app.assert_clean().await;
}

/// [B-40] What goes beyond a hold is owed where only credit for something else is left.
#[tokio::test]
async fn usage_that_no_lot_may_pay_is_owed_and_the_restricted_credit_stays() {
    let app = quiet().await;
    let (organization, client) = app.organization();
    app.give(organization, &NewGrant { models: Some(vec!["special".into()]), ..NewGrant::plain(Source::Promotion, "k", 5000) }).await;
    app.give(organization, &NewGrant::plain(Source::Purchase, "p", 1200)).await;
    let hold = app.hold(organization, 0, 100).await;
    app.settle(&hold, &app.usage(0, 150)).await.expect(200);
    assert_eq!(app.lots(&client).await, [lot("promotion", 5000)]);
    assert_eq!((app.debt(organization).await, app.house("revenue").await), (600, 1800));
    // Credit that may pay for everything repays it.
    app.give(organization, &NewGrant::plain(Source::Adjustment, "a", 1000)).await;
    assert_eq!(app.lots(&client).await, [lot("promotion", 5000), lot("adjustment", 400)]);
    assert_eq!(app.debt(organization).await, 0);
    app.assert_clean().await;
}

/// [B-37]
#[tokio::test]
async fn an_overdraft_lets_holds_below_zero_and_becomes_debt_when_it_is_used() {
    let app = quiet().await;
    let (organization, client) = app.organization();
    app.give(organization, &NewGrant::plain(Source::Purchase, "p", 600)).await;
    app.as_owner("update wallets set overdraft_limit = 1200").await;
    reserve(&app, organization, "sim-large", 151).await.expect(402);
    let hold = reserve(&app, organization, "sim-large", 150).await.expect(201).string("id");
    assert_eq!((app.balance(&client).await, app.debt(organization).await), ((-1200, 1800), 0));
    app.settle(&hold, &app.usage(0, 100)).await.expect(200);
    assert_eq!((app.balance(&client).await, app.debt(organization).await), ((-600, 0), 600));
    reserve(&app, organization, "sim-large", 51).await.expect(402);
    let hold = reserve(&app, organization, "sim-large", 50).await.expect(201).string("id");
    app.void(&hold).await.expect(204);
    assert_eq!((app.balance(&client).await, app.debt(organization).await), ((-600, 0), 600));
    app.assert_clean().await;
}

/// [B-37] [B-38]
#[tokio::test]
async fn of_sixty_four_holds_at_once_exactly_those_are_made_that_lots_may_pay_for() {
    let app = quiet().await;
    let (organization, client) = app.organization();
    app.give(organization, &NewGrant::plain(Source::Purchase, "p", 120)).await;
    app.give(organization, &NewGrant { models: Some(vec!["special".into()]), ..NewGrant::plain(Source::Promotion, "k", 5000) }).await;
    app.give(organization, &expiring(&app, "gone", 5000, 0)).await;
    let holds = (0..64).map(|_| reserve(&app, organization, "sim-large", 1));
    let answers = futures::future::join_all(holds).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 10);
    assert!(answers.iter().all(|answer| [201, 402].contains(&answer.status.as_u16())));
    assert_eq!(app.balance(&client).await, (5000, 120));
    app.assert_clean().await;
}

/// [B-47]
#[tokio::test]
async fn a_paid_object_gives_its_credit_once_however_many_tell_of_it() {
    let app = quiet().await;
    let (organization, client) = app.organization();
    app.balance(&client).await;
    let sale = NewGrant { paid: Some(1000), ..NewGrant::plain(Source::Purchase, "cs_1", 1200) };
    let given = futures::future::join_all((0..64).map(|_| app.give(organization, &sale))).await;
    assert_eq!(given.iter().flatten().count(), 1);
    assert_eq!(app.lots(&client).await, [lot("purchase", 1200)]);
    assert_eq!((app.house("stripe_clearing").await, app.house("promotion").await), (-1000, -200));
    app.assert_clean().await;
}

/// [B-79] [I-78]
#[tokio::test]
async fn the_list_of_grants_goes_on_by_its_cursor_and_shows_only_the_organizations_own() {
    let app = quiet().await;
    let ((ada, client), (_, eve)) = (app.organization(), app.organization());
    app.public.get("/v1/grants").await.expect(401);
    for n in 0..101 {
        app.give(ada, &NewGrant::plain(Source::Promotion, format!("{n}"), 1)).await;
    }
    let keys = |page: &Answer| page.json["data"].as_array().unwrap().len();
    let page = client.get("/v1/grants").await.expect(200);
    let next = format!("/v1/grants?cursor={}", page.string("next_cursor"));
    let last = client.get(&next).await.expect(200);
    assert_eq!((keys(&page), keys(&last), &last.json["next_cursor"]), (100, 1, &json!(null)));
    assert_eq!(eve.get("/v1/grants").await.expect(200).json["data"], json!([]));
    assert_eq!(eve.get(&next).await.expect(200).json["data"], json!([]));
    client.get("/v1/grants?cursor=AAAA").await.expect(400);
    assert_eq!(app.lots(&eve).await, []);
}

/// [B-35] A lot is not changed, by nobody.
#[tokio::test]
async fn lots_and_their_movements_are_never_changed() {
    let app = quiet().await;
    let (organization, _): (_, TestClient) = app.organization();
    app.give(organization, &expiring(&app, "k", 1200, 1000)).await;
    for (statement, rule) in [
        ("update grants set expires_at = null", "grants_fixed"),
        ("update grants set amount_micros = 5000", "grants_fixed"),
        ("update grants set remaining_micros = 1201", "grants_remaining"),
        ("delete from grants", "grants_append_only"),
        ("update grant_movements set amount_micros = 1", "grant_movements_append_only"),
        ("delete from grant_movements", "grant_movements_append_only"),
    ] {
        let refused = sqlx::query(statement).execute(&app.database.pool).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("42501"), "{statement}");
        let refused = sqlx::query(statement).execute(&app.database.owner).await.unwrap_err();
        assert_eq!(chassis::postgres::constraint(&refused), Some(rule), "{statement}");
    }
    app.as_owner("update grants set remaining_micros = 1199").await;
    let found = billing_service::ledger::verify::differences(&app.database.pool).await.unwrap();
    assert!(found.len() == 2 && found[0].contains("movements sum to 1200") && found[1].contains("1199 in lots"), "{found:?}");
}

/// [B-46] Any number of replicas sweep while requests come: what expires does so once, and no hold stands on it.
#[tokio::test]
async fn sweeps_and_holds_at_once_let_each_lot_expire_once_and_hold_none_of_it() {
    let app = quiet().await;
    let (organization, client) = app.organization();
    for n in 0..4 {
        app.give(organization, &expiring(&app, &format!("{n}"), 1200, 1000)).await;
    }
    app.give(organization, &NewGrant::plain(Source::Purchase, "p", 120)).await;
    app.turn.advance(Duration::from_secs(1));
    let sweeps = (0..64).map(|_| {
        let state = app.state();
        async move { grants::sweep(&state).await.unwrap() }
    });
    let holds = (0..16).map(|_| reserve(&app, organization, "sim-large", 1));
    let (swept, held) = futures::future::join(futures::future::join_all(sweeps), futures::future::join_all(holds)).await;
    assert_eq!(held.iter().filter(|answer| answer.status == 201).count(), 10);
    assert!(swept.iter().sum::<i64>() <= 4800);
    assert_eq!((app.house("breakage").await, app.balance(&client).await), (4800, (0, 120)));
    app.assert_clean().await;
}

/// A hold for requests to come must not outlast the credit it stands on.
#[tokio::test]
async fn what_may_be_spent_says_until_when() {
    let app = quiet().await;
    let (organization, _) = app.organization();
    app.give(organization, &expiring(&app, "late", 100, 9000)).await;
    app.give(organization, &expiring(&app, "soon", 100, 5000)).await;
    app.give(organization, &NewGrant { models: Some(vec!["special".into()]), ..expiring(&app, "special", 100, 1000) }).await;
    let state = app.state();
    let (start, mut transaction) = (app.clock.now(), state.pool.begin().await.unwrap());
    for (wanted, micros, millis) in [(Use::model("sim-large"), 200, 5000), (Use::model("special"), 300, 1000), (Use::ANYTHING, 200, 5000)] {
        let there = grants::spendable(&state, &mut transaction, organization, wanted).await.unwrap();
        assert_eq!((there.micros, there.until), (micros, Some(start + TimeDelta::milliseconds(millis))), "{wanted:?}");
    }
}

/// [B-46] With more of them than are swept at once, so that some have not been begun when the first one fails.
#[tokio::test]
async fn one_organization_whose_credit_cannot_expire_keeps_no_other_from_it_and_is_told_of() {
    let app = quiet().await;
    for number in 0..12 {
        app.give(app.organization().0, &expiring(&app, &number.to_string(), 1200, 1000)).await;
    }
    app.as_owner(
        "create function refuse() returns trigger language plpgsql as $$
           begin
             if new.organization_id = (select min(organization_id::text)::uuid from grants) then raise exception 'it cannot expire'; end if;
             return new;
           end $$;
         create trigger refuse before update on grants for each row execute function refuse()",
    )
    .await;
    app.turn.advance(Duration::from_secs(1));
    let expired = "select count(*) from grants where state = 'expired'";
    for _ in 0..2 {
        let error = grants::sweep(&app.state()).await.unwrap_err();
        assert!(format!("{error:?}").contains("it cannot expire"), "{error:?}");
        assert_eq!((app.count(expired).await, app.house("breakage").await), (11, 11 * 1200));
    }
    app.as_owner("drop trigger refuse on grants").await;
    assert_eq!(grants::sweep(&app.state()).await.unwrap(), 1200);
    assert_eq!((app.count(expired).await, app.house("breakage").await), (12, 12 * 1200));
    app.assert_clean().await;
}
