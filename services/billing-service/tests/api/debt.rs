//! What was used beyond the wallet: it is owed, and repaid first by what returns.

use billing_service::usage::Overage;

use super::app::App;

/// [B-40]
#[tokio::test]
async fn usage_above_the_hold_is_posted_whole_first_from_the_wallet_then_as_debt() {
    let app = App::with(|config| config.signup_grant = 1500).await;
    let (organization, client) = app.organization();
    let reservation = app.reserve(&app.reservation(organization, app.request(), 0, 100)).await.expect(201);
    app.settle(&reservation.string("id"), &app.usage(0, 200)).await.expect(200);
    assert_eq!(app.balance(&client).await, (1500 - 2400, 0));
    app.reserve(&app.reservation(organization, app.request(), 0, 0)).await.expect(402);
    app.assert_clean().await;
}

/// [B-40]
#[tokio::test]
async fn what_returns_to_the_wallet_repays_the_debt_first() {
    let app = App::with(|config| config.signup_grant = 3600).await;
    let (organization, client) = app.organization();
    let holds = [app.hold(organization, 0, 100).await, app.hold(organization, 0, 100).await, app.hold(organization, 0, 100).await];
    let debt = "select balance_micros from accounts where kind = 'debt'";
    app.settle(&holds[0], &app.usage(0, 200)).await.expect(200);
    assert_eq!((app.count(debt).await, app.balance(&client).await), (-1200, (-1200, 2400)));
    // The rest of a settlement: half of the hold.
    app.settle(&holds[1], &app.usage(0, 50)).await.expect(200);
    assert_eq!((app.count(debt).await, app.balance(&client).await), (-600, (-600, 1200)));
    app.reserve(&app.reservation(organization, app.request(), 0, 0)).await.expect(402);
    app.void(&holds[2]).await.expect(204);
    assert_eq!((app.count(debt).await, app.balance(&client).await), (0, (600, 0)));
    app.reserve(&app.reservation(organization, app.request(), 0, 50)).await.expect(201);
    app.assert_clean().await;
}

/// [B-39] [B-42]
#[tokio::test]
async fn a_hold_that_ends_at_its_deadline_repays_the_debt_first() {
    let app = App::with(|config| config.signup_grant = 2400).await;
    let (organization, client) = app.organization();
    let (used, _dead) = (app.hold(organization, 0, 100).await, app.hold(organization, 0, 100).await);
    app.settle(&used, &app.usage(0, 150)).await.expect(200);
    assert_eq!(app.balance(&client).await, (-600, 1200));
    app.turn.advance(std::time::Duration::from_mins(10));
    billing_service::reservations::sweep(&app.state()).await.unwrap();
    assert_eq!(app.balance(&client).await, (600, 0));
    assert_eq!(app.count("select balance_micros from accounts where kind = 'debt'").await, 0);
    app.assert_clean().await;
}

/// [B-37] [B-39]
#[tokio::test]
async fn what_is_owed_is_no_part_of_what_may_be_spent_and_refuses_no_more_than_itself() {
    let app = App::with(|config| config.signup_grant = 1200).await;
    let (organization, client) = app.organization();
    app.balance(&client).await;
    // A loan: what no request can do today, and what a wallet and a debt at once must mean all the same.
    app.as_owner(
        "begin;
         insert into ledger_transactions (id, kind, external_key, occurred_at) values (gen_random_uuid(), 'loan', 'x', now());
         insert into ledger_entries (transaction_id, account_id, amount_micros)
         select t.id, a.id, case a.kind when 'debt' then -600 else 600 end from ledger_transactions t, accounts a
         where t.external_key = 'x' and a.organization_id is not null and a.kind in ('wallet', 'debt');
         insert into grants (id, organization_id, source, external_key, amount_micros, currency, priority, created_at)
         select gen_random_uuid(), organization_id, 'adjustment', 'loan', 600, 'USD', 100, now() from wallets;
         insert into grant_movements (grant_id, kind, external_key, amount_micros, occurred_at)
         select id, 'grant', 'loan', 600, now() from grants where external_key = 'loan';
         commit;",
    )
    .await;
    assert_eq!(app.balance(&client).await, (1200, 0));
    app.reserve(&app.reservation(organization, app.request(), 1, 100)).await.expect(402);
    app.reserve(&app.reservation(organization, app.request(), 0, 100)).await.expect(201);
    app.assert_clean().await;
}

/// [B-40] Two tests above are of the policy `debt`.
#[tokio::test]
async fn what_goes_beyond_a_hold_is_charged_by_the_policy_that_is_set_and_what_is_not_charged_stands_in_the_row() {
    // 1,200 are held and 2,400 used; the wallet has 300 beside, and may be overdrawn by 500.
    for (overage, charged, left) in [(Overage::Cap, 1200, 300), (Overage::Overdraft, 2000, -500), (Overage::Debt, 2400, -900)] {
        let app = App::with(|config| (config.signup_grant, config.overage) = (1500, overage)).await;
        let (organization, client) = app.organization();
        app.balance(&client).await;
        app.as_owner("update wallets set overdraft_limit = 500").await;
        let hold = app.hold(organization, 0, 100).await;
        for _ in 0..2 {
            let settled = app.settle(&hold, &app.usage(0, 200)).await.expect(200).json;
            assert_eq!(settled["price_micros"], charged, "{overage:?}");
        }
        assert_eq!((app.balance(&client).await, app.house("revenue").await), ((left, 0), charged), "{overage:?}");
        let row = "select price_micros + written_off_micros from usage_events where output_tokens = 200";
        assert_eq!(app.count(row).await, 2400, "{overage:?}");
        app.assert_clean().await;
    }
}

/// [B-40] The same from a lease, of which Redis took all that it cost.
#[tokio::test]
async fn what_a_chat_costs_beyond_its_estimate_goes_back_to_the_wallet_when_the_house_pays_for_it() {
    let app = App::with(|config| (config.signup_grant, config.overage) = (10_000, Overage::Cap)).await;
    let (organization, client) = app.organization();
    let mut event = app.used(organization).await;
    event.usage = money::TokenUsage::text(0, 200);
    assert_eq!(app.settled(&event, 2400).await, 2400);
    let is_there = || async { (app.count("select count(*) from usage_events").await == 1).then_some(()) };
    testkit::eventually("the posting", is_there).await;
    assert_eq!(app.balance(&client).await, (10_000 - crate::gateway::RESERVED, 0));
    assert_eq!(app.count("select written_off_micros from usage_events").await, 2400 - crate::gateway::RESERVED);
    app.assert_clean().await;
}
