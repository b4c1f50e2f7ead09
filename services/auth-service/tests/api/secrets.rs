//! Nothing that opens anything is in the database [I-54] or in a log line [I-79].

use std::collections::BTreeMap;

use super::app::{App, ISSUER, PASSWORD};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::AssertSqlSafe;
use testkit::logs::Logs;

/// Every secret of a run through everything.
async fn use_everything(app: &App) -> Vec<(&'static str, String)> {
    let (client, refresh) = app.session("ada@example.com").await;
    let token = app.log_in("ada@example.com", PASSWORD).await.expect(201).string("access_token");
    app.log_in("ada@example.com", "the wrong password of ada").await.expect(401);
    app.log_in("a\r\nb@example.com", PASSWORD).await.expect(401);
    let key = client.post("/v1/api-keys", &json!({"name": "ci"})).await.expect(201).string("key");
    let repeatable = client.header("idempotency-key", "k1").post("/v1/api-keys", &json!({"name": "ci"})).await.expect(201).string("key");
    app.public.bearer(&key).get("/v1/me").await.expect(200);
    let successor = app.refresh(&refresh).await.expect(200).string("refresh_token");
    let assertion = app.assertion("chat-service", ISSUER);
    let body = json!({"client_assertion": assertion, "audience": "auth-service", "scope": "api_keys:verify"});
    let service = app.private.post("/internal/v1/service-tokens", &body).await.expect(200).string("access_token");
    app.private.post("/internal/v1/service-tokens", &body).await.expect(401);
    let bootstrap = auth_service::administrators::bootstrap(&app.database.pool, &app.clock, &app.random).await.unwrap();
    let body = json!({"bootstrap_token": bootstrap, "email": "eve@example.com", "password": PASSWORD, "name": "Eve"});
    app.public.post("/v1/administrators", &body).await.expect(201);
    app.public.post("/v1/administrators", &body).await.expect(401);
    vec![
        ("a password", PASSWORD.to_owned()),
        ("a wrong password", "the wrong password of ada".to_owned()),
        ("an access token", token),
        ("a refresh token", refresh),
        ("its successor", successor),
        ("an API key", key),
        ("a repeatable API key", repeatable),
        ("an assertion", assertion),
        ("a service token", service),
        ("a bootstrap token", bootstrap),
    ]
}

/// Everything in every table there is; bytes as text and as hexadecimal digits.
async fn dump(app: &App) -> BTreeMap<String, String> {
    let columns: Vec<(String, String, String)> = sqlx::query_as(
        "select c.relname::text, a.attname::text, format_type(a.atttypid, null)
         from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
         where n.nspname = 'public' and c.relkind in ('r', 'p', 'm') and a.attnum > 0 and not a.attisdropped",
    )
    .fetch_all(&app.database.owner)
    .await
    .unwrap();
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (table, column, kind) in columns {
        let texts = match kind.as_str() {
            "bytea" => format!("encode({column}, 'escape'), encode({column}, 'hex')"),
            _ => format!("{column}::text"),
        };
        tables.entry(table).or_default().push(texts);
    }
    let mut dump = BTreeMap::new();
    for (table, texts) in tables {
        let query = format!("select coalesce(string_agg(concat_ws(' ', {}), ' '), '') from {table}", texts.join(", "));
        dump.insert(table, sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&app.database.owner).await.unwrap());
    }
    dump
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// The forms in which a secret would be one: its text, the text's bytes, the bytes that the text encodes.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned(), hex(secret.as_bytes())];
    let random = secret.strip_prefix("tvr_").or_else(|| secret.strip_prefix("tvb_"));
    let random = random.or_else(|| secret.strip_prefix("tvk_test_").map(|rest| &rest[..32]));
    if let Some(random) = random {
        forms.extend([random.to_owned(), hex(&URL_SAFE_NO_PAD.decode(random).unwrap())]);
    }
    if let Some((_, signature)) = secret.rsplit_once('.') {
        forms.push(signature.to_owned());
    }
    forms
}

/// [I-54]
#[tokio::test]
async fn nothing_that_opens_anything_is_in_any_table() {
    let app = App::start().await;
    let secrets = use_everything(&app).await;
    let dump = dump(&app).await;
    let refresh = &secrets.iter().find(|(name, _)| *name == "a refresh token").unwrap().1;
    // The dump sees what is there, in every kind of column.
    assert!(dump["refresh_tokens"].contains(&hex(&Sha256::digest(refresh))));
    assert!(dump["users"].contains("ada@example.com") && dump["_outbox"].contains("ada@example.com"));
    assert!(dump["_idempotency"].contains("last_four"), "recorded answers are not read as text");
    for table in ["api_keys", "audit_events", "bootstrap_tokens", "sessions", "signing_keys", "used_assertions"] {
        assert!(!dump[table].is_empty(), "{table} was not read");
    }
    for (table, text) in &dump {
        for (name, secret) in &secrets {
            assert!(forms(secret).iter().all(|form| !text.contains(form)), "{name} is in {table}");
        }
        // PKCS#8 of Ed25519 keys begins with this.
        assert!(!text.contains("302e0201003005"), "a private key is in {table}");
    }
}

/// [I-79] [I-80]
#[tokio::test]
async fn nothing_that_opens_anything_is_in_any_log_line() {
    let logs = Logs::capture();
    let app = App::start().await;
    let secrets = use_everything(&app).await;
    app.public.bearer(&secrets[2].1).delete("/v1/sessions/current").await.expect(204);
    let text = logs.text();
    for event in ["session.create", "session.refresh", "service_token.create", "administrator.bootstrap", "session.delete"] {
        assert!(text.contains(event), "{event} was not logged");
    }
    assert!(!text.contains("a\r\nb@"), "a line break is in the log");
    for (name, secret) in &secrets {
        assert!(forms(secret).iter().all(|form| !text.contains(form)), "{name} is in the log");
    }
}
