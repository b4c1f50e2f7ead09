//! billing-service as its callers see it, on real Postgres and Redis.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "api/admin_api.rs"]
mod admin_api;
#[path = "api/admin_subscriptions.rs"]
mod admin_subscriptions;
#[path = "api/admin_tables.rs"]
mod admin_tables;
#[path = "api/app.rs"]
mod app;
#[path = "api/bent_stripe.rs"]
mod bent_stripe;
#[path = "api/budget_alerts.rs"]
mod budget_alerts;
#[path = "api/budget_webhooks.rs"]
mod budget_webhooks;
#[path = "api/budgets.rs"]
mod budgets;
#[path = "api/catalog.rs"]
mod catalog;
#[path = "api/coupons.rs"]
mod coupons;
#[path = "api/currencies.rs"]
mod currencies;
#[path = "api/customer_balances.rs"]
mod customer_balances;
#[path = "api/customer_turns.rs"]
mod customer_turns;
#[path = "api/debt.rs"]
mod debt;
#[path = "api/documents.rs"]
mod documents;
#[path = "api/earlier_events.rs"]
mod earlier_events;
#[path = "api/edge.rs"]
mod edge;
#[path = "api/entitlements.rs"]
mod entitlements;
#[path = "api/event_faults.rs"]
mod event_faults;
#[path = "api/event_orders.rs"]
mod event_orders;
#[path = "api/expiry.rs"]
mod expiry;
#[path = "api/fair_shares.rs"]
mod fair_shares;
#[path = "api/flights.rs"]
mod flights;
#[path = "api/gateway.rs"]
mod gateway;
#[path = "api/grants.rs"]
mod grants;
#[path = "api/invoices.rs"]
mod invoices;
#[path = "api/lease_retention.rs"]
mod lease_retention;
#[path = "api/leases.rs"]
mod leases;
#[path = "api/ledger.rs"]
mod ledger;
#[path = "api/ledger_checks.rs"]
mod ledger_checks;
#[path = "api/limits.rs"]
mod limits;
#[path = "api/lots_migration.rs"]
mod lots_migration;
#[path = "api/margins.rs"]
mod margins;
#[path = "api/metering.rs"]
mod metering;
#[path = "api/migrations.rs"]
mod migrations;
#[path = "api/model_leases.rs"]
mod model_leases;
#[path = "api/money_back.rs"]
mod money_back;
#[path = "api/months.rs"]
mod months;
#[path = "api/operations.rs"]
mod operations;
#[path = "api/payments.rs"]
mod payments;
#[path = "api/queues.rs"]
mod queues;
#[path = "api/races.rs"]
mod races;
#[path = "api/rate_terms.rs"]
mod rate_terms;
#[path = "api/rates.rs"]
mod rates;
#[path = "api/reconcile_balances.rs"]
mod reconcile_balances;
#[path = "api/reconcile_desk.rs"]
mod reconcile_desk;
#[path = "api/reconcile_documents.rs"]
mod reconcile_documents;
#[path = "api/reconcile_listing.rs"]
mod reconcile_listing;
#[path = "api/reconcile_money.rs"]
mod reconcile_money;
#[path = "api/refused_intents.rs"]
mod refused_intents;
#[path = "api/replaced_customers.rs"]
mod replaced_customers;
#[path = "api/replicas.rs"]
mod replicas;
#[path = "api/reservations.rs"]
mod reservations;
#[path = "api/restore.rs"]
mod restore;
#[path = "api/retention.rs"]
mod retention;
#[path = "api/rollup_verify.rs"]
mod rollup_verify;
#[path = "api/rollups.rs"]
mod rollups;
#[path = "api/scopes.rs"]
mod scopes;
#[path = "api/seals.rs"]
mod seals;
#[path = "api/selling.rs"]
mod selling;
#[path = "api/shop.rs"]
mod shop;
#[path = "api/statements.rs"]
mod statements;
#[path = "api/stream_failures.rs"]
mod stream_failures;
#[path = "api/stripe.rs"]
mod stripe;
#[path = "api/stripe_contract.rs"]
mod stripe_contract;
#[path = "api/stripe_faults.rs"]
mod stripe_faults;
#[path = "api/stripe_gaps.rs"]
mod stripe_gaps;
#[path = "api/stripe_meter_decisions.rs"]
mod stripe_meter_decisions;
#[path = "api/stripe_meter_desk.rs"]
mod stripe_meter_desk;
#[path = "api/stripe_meter_faults.rs"]
mod stripe_meter_faults;
#[path = "api/stripe_meter_losses.rs"]
mod stripe_meter_losses;
#[path = "api/stripe_meters.rs"]
mod stripe_meters;
#[path = "api/stripe_reconcile.rs"]
mod stripe_reconcile;
#[path = "api/stripe_retries.rs"]
mod stripe_retries;
#[path = "api/subscription_gifts.rs"]
mod subscription_gifts;
#[path = "api/subscription_payments.rs"]
mod subscription_payments;
#[path = "api/subscriptions.rs"]
mod subscriptions;
#[path = "api/top_up_failures.rs"]
mod top_up_failures;
#[path = "api/top_ups.rs"]
mod top_ups;
#[path = "api/unpaid_changes.rs"]
mod unpaid_changes;
#[path = "api/usage_events.rs"]
mod usage_events;
#[path = "api/usage_migration.rs"]
mod usage_migration;
#[path = "api/wallet.rs"]
mod wallet;
