//! Leases that ended long ago: gone, and still answered for.

use std::time::Duration;

use billing_service::leases::sweep_leases;
use contracts::Shard;
use futures::future::join_all;
use testkit::eventually;

use crate::app::{App, GRANT};
use crate::gateway::RESERVED;
use crate::leases::{rows, without_sweeper};

/// Ends all leases, ten minutes later, when nothing is in flight on them any more.
async fn end_all(app: &App) {
    app.turn.advance(Duration::from_mins(10));
    eventually("the end of all leases", || async {
        sweep_leases(&app.state()).await.unwrap();
        (app.count("select count(*) from leases where state <> 'closed'").await == 0).then_some(())
    })
    .await;
}

/// Takes out leases that ended long ago, as the service does each hour.
async fn retire(app: &App) {
    billing_service::leases::retention::keep(&app.state(), &tokio_util::sync::CancellationToken::new()).await.unwrap();
}

const LEASES: &str = "select count(*) from leases";

/// An epoch never comes again: Redis would take the lease for one that is over.
#[tokio::test]
async fn leases_that_ended_a_week_ago_go_and_each_organization_keeps_its_last_one_from_which_its_epochs_go_on() {
    let app = without_sweeper(GRANT).await;
    let ((ada, client), (eve, _)) = (app.organization(), app.organization());
    for (organization, posted) in [(ada, 1), (eve, 2), (ada, 3), (ada, 4)] {
        app.settled(&app.used(organization).await, 150).await;
        eventually("the posting", || async { (app.count("select count(*) from usage_events").await == posted).then_some(()) }).await;
        end_all(&app).await;
    }
    // One that cannot end.
    let insert = "insert into leases (id, organization_id, currency, epoch, instance, state, funded_micros, held_micros, fundings, low_micros,
          opened_at, funded_at, deadline, drained_at) values (lpad('1', 32, '0')::uuid, $1, 'USD', 0, 'gone', 'lost', 1, 0, 1, 0, $2, $2, $2, $2)";
    sqlx::query(insert).bind(ada.uuid()).bind(app.clock.now()).execute(&app.database.owner).await.unwrap();
    retire(&app).await;
    assert_eq!(app.count(LEASES).await, 5, "none is so old");
    app.turn.advance(Duration::from_hours(7 * 24) - Duration::from_mins(10));
    retire(&app).await;
    assert_eq!(app.count(LEASES).await, 4, "Ada's first ended more than a week ago, and Eve's, which is her last one");
    app.turn.advance(Duration::from_hours(30 * 24));
    retire(&app).await;
    let left = "select string_agg(epoch::text, ' ' order by epoch) from leases where organization_id = $1";
    let left = sqlx::query_scalar::<_, String>(left).bind(ada.uuid());
    assert_eq!((app.count(LEASES).await, left.fetch_one(&app.database.owner).await.unwrap().as_str()), (3, "0 3"));
    assert_eq!(
        app.count("select count(*) from usage_events where lease_id is not null").await,
        4,
        "what was used still says of which it was"
    );
    app.used(ada).await;
    assert_eq!(app.count("select max(epoch) from leases").await, 4);
    assert_eq!(app.balance(&client).await, (GRANT - 450 - RESERVED, RESERVED));
    app.assert_clean().await;
}

#[tokio::test]
async fn many_leases_that_ended_long_ago_go_in_one_turn_of_several_replicas() {
    let app = without_sweeper(GRANT).await;
    let (organization, _) = app.organization();
    let insert = "insert into leases (id, organization_id, currency, epoch, instance, state, funded_micros, held_micros, fundings, low_micros,
          opened_at, funded_at, deadline, drained_at, closed_at)
        select lpad(n::text, 32, '0')::uuid, $1, 'USD', n, 'gone', 'closed', 1, 0, 1, 0, $2, $2, $2, $2, $2 from generate_series(1, 2500) n";
    let ended = app.clock.now() - chrono::TimeDelta::days(8);
    sqlx::query(insert).bind(organization.uuid()).bind(ended).execute(&app.database.owner).await.unwrap();
    join_all((0..4).map(|_| retire(&app))).await;
    assert_eq!((app.count(LEASES).await, app.count("select max(epoch) from leases").await), (1, 2500));
}

/// [B-41] It had been set aside until somebody mended why.
#[tokio::test]
async fn what_is_told_when_its_lease_is_long_gone_is_posted_once_and_the_wallet_pays() {
    let app = without_sweeper(GRANT).await;
    let (organization, client) = app.organization();
    let event = app.used(organization).await;
    // As the settling script leaves it; the message is somewhere else.
    let shard = Shard::of(organization);
    let mut settled = redis::pipe();
    settled.del(shard.key(&format!("flight:{}", event.request_id))).zrem(shard.key("flights"), event.request_id.to_string());
    let () = settled.query_async(&mut app.redis.redis.connection()).await.unwrap();
    end_all(&app).await;
    app.settled(&app.used(organization).await, 150).await;
    eventually("the posting", || async { (rows(&client).await.len() == 1).then_some(()) }).await;
    end_all(&app).await;
    app.turn.advance(Duration::from_hours(8 * 24));
    retire(&app).await;
    assert_eq!(app.count(LEASES).await, 1, "the one after it is the last one");
    for _ in 0..2 {
        app.publish(organization, &serde_json::to_string(&event).unwrap()).await;
    }
    eventually("the posting", || async { (rows(&client).await.len() == 2).then_some(()) }).await;
    eventually("an empty stream", || async { (app.length(&shard.usage_stream()).await == 0).then_some(()) }).await;
    assert_eq!(app.balance(&client).await, (GRANT - 300, 0));
    app.assert_clean().await;
}
