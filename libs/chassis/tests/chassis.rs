//! What every service stands on, on real Postgres and Redis and over real sockets.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "chassis/configuration.rs"]
mod configuration;
#[path = "chassis/edge.rs"]
mod edge;
#[path = "chassis/host.rs"]
mod host;
#[path = "chassis/idempotency.rs"]
mod idempotency;
#[path = "chassis/outbox_and_inbox.rs"]
mod outbox_and_inbox;
#[path = "chassis/postgres.rs"]
mod postgres;
#[path = "chassis/redis_connection.rs"]
mod redis_connection;
#[path = "chassis/streams.rs"]
mod streams;

use chassis::postgres::Migrations;

/// A database with the chassis' own tables and one of the tests'.
const MIGRATIONS: Migrations = Migrations {
    app_role: "auth_app",
    files: &[(
        "0001_notes",
        "create table notes (id bigint primary key, text text not null constraint notes_text_key unique);
         grant select, insert, update on notes to auth_app;",
    )],
};
