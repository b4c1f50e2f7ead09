//! What a comparison with Stripe lists in the database while it runs, and how it is forgotten.

use std::time::Duration;

use super::reconcile_desk::with_a_pack;

const LISTED: &str = "select count(*) from reconciliation_listed";
const KEPT: &str = "select count(*) from reconciliation_runs";

/// [B-75]
#[tokio::test]
async fn a_comparison_is_kept_though_what_it_listed_cannot_be_forgotten_and_a_later_one_forgets_it() {
    let desk = with_a_pack().await;
    let app = &desk.shop.app;
    app.as_owner("revoke delete on reconciliation_listed from billing_app").await;
    desk.agrees().await;
    assert_eq!(app.count(KEPT).await, 1, "what was found is lost");
    let left = app.count(LISTED).await;
    assert!(left > 0, "it was forgotten");
    desk.shop.pass(Duration::from_hours(3 * 24));
    desk.agrees().await;
    assert_eq!(app.count(KEPT).await, 2, "what one has left keeps the next from being made");
    app.as_owner("grant delete on reconciliation_listed to billing_app").await;
    desk.agrees().await;
    assert_eq!((app.count(KEPT).await, app.count(LISTED).await), (3, left), "the second might still be at work, and the first cannot");
    desk.shop.pass(Duration::from_hours(3 * 24));
    desk.agrees().await;
    assert_eq!((app.count(KEPT).await, app.count(LISTED).await), (4, 0));
}

/// [B-75] What a comparison of a long history listed is more than one statement may take the time for.
#[tokio::test]
async fn what_a_killed_comparison_listed_is_forgotten_so_many_rows_at_a_time_that_no_statement_is_too_long() {
    let desk = with_a_pack().await;
    let app = &desk.shop.app;
    app.as_owner(
        "insert into reconciliation_listed select '00000000-0000-0000-0000-000000000001', 'payments', 'pi_' || n, '{}', '2029-01-01'
           from generate_series(1, 25000) n;
         create table forgotten (rows bigint not null);
         create function count_forgotten() returns trigger language plpgsql security definer as $$
           begin insert into forgotten select count(*) from gone; return null; end $$;
         create trigger count_forgotten after delete on reconciliation_listed referencing old table as gone
           for each statement execute function count_forgotten()",
    )
    .await;
    desk.agrees().await;
    assert_eq!(app.count(LISTED).await, 0);
    assert!(app.count("select sum(rows)::bigint from forgotten").await >= 25_000);
    assert_eq!(app.count("select max(rows) from forgotten").await, 10_000);
}
