//! What is wrong with a configuration is said before the start, all of it, and without the values.

use auth_service::config::AuthConfig;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chassis::config::{Environment, load};
use serde_json::{Value, json};

const KEY: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

fn jwk(kid: &str) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": KEY})
}

fn usable() -> Environment {
    Environment::from_pairs([
        ("TRIVET_HTTP_BIND", "127.0.0.1:0".to_owned()),
        ("TRIVET_PRIVATE_BIND", "127.0.0.1:0".to_owned()),
        ("TRIVET_DATABASE_URL", "postgres://auth_app@localhost/auth".to_owned()),
        ("TRIVET_REDIS_URL", "redis://localhost/0".to_owned()),
        ("TRIVET_ISSUER", "https://auth.example.com".to_owned()),
        ("AUTH_SECRET", STANDARD.encode([7; 32])),
        ("AUTH_SERVICE_JWKS", json!({"keys": [jwk("chat-service"), jwk("billing-service")]}).to_string()),
    ])
}

fn errors(environment: &Environment) -> Vec<String> {
    load::<AuthConfig>(environment).map_or_else(|errors| errors.0, |_| Vec::new())
}

#[test]
fn a_setting_that_would_not_work_is_refused_with_its_rule_and_without_its_value() {
    assert_eq!(errors(&usable()), Vec::<String>::new());
    let ours = jwk("chat-service");
    let with = |name: &str, value: Value| {
        let mut key = ours.clone();
        key[name] = value;
        json!({"keys": [key]}).to_string()
    };
    for (name, value) in [
        ("AUTH_SECRET", "not base64 of anything at all, canary".to_owned()),
        ("AUTH_SECRET", STANDARD.encode([7; 31])),
        ("AUTH_SECRET", format!("{}canary", STANDARD.encode([7; 32]))),
        ("AUTH_SERVICE_JWKS", "canary".to_owned()),
        ("AUTH_SERVICE_JWKS", "[]".to_owned()),
        ("AUTH_SERVICE_JWKS", json!({"keys": [{"kid": "canary"}]}).to_string()),
        ("AUTH_SERVICE_JWKS", json!({"keys": [ours, ours]}).to_string()),
        ("AUTH_SERVICE_JWKS", with("kid", json!(""))),
        ("AUTH_SERVICE_JWKS", with("x", json!("AAAA"))),
        ("AUTH_SERVICE_JWKS", with("alg", json!("HS256"))),
        ("AUTH_KEY_ENVIRONMENT", "Canary".to_owned()),
        ("AUTH_KEY_ENVIRONMENT", "live_canary".to_owned()),
        ("AUTH_KEY_ENVIRONMENT", "canarycanarycanar".to_owned()),
        ("AUTH_KEY_ENVIRONMENT", "canäry".to_owned()),
        ("AUTH_HASH_CONCURRENCY", "0".to_owned()),
        ("AUTH_HASH_CONCURRENCY", "canary".to_owned()),
        ("AUTH_AUDIT_RETENTION_DAYS", "canary".to_owned()),
    ] {
        let errors = errors(&usable().with(name, value.clone()));
        assert_eq!(errors.len(), 1, "{name}={value}: {errors:?}");
        assert!(errors[0].starts_with(&format!("{name} must ")), "{errors:?}");
        assert!(!errors[0].contains(&value) || value == "0", "the value is shown: {errors:?}");
        assert!(!errors[0].contains("canary"), "the value is shown: {errors:?}");
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let wrong = usable()
        .with("TRIVET_HTTP_BIND", "here")
        .with("AUTH_SECRET", "short")
        .with("AUTH_SERVICE_JWKS", "{}")
        .with("AUTH_KEY_ENVIRONMENT", "LIVE");
    let errors = errors(&wrong);
    let names: Vec<&str> = errors.iter().filter_map(|error| error.split(' ').next()).collect();
    assert_eq!(names, ["TRIVET_HTTP_BIND", "AUTH_SECRET", "AUTH_SERVICE_JWKS", "AUTH_KEY_ENVIRONMENT"]);
}
