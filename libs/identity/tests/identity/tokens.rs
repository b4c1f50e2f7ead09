//! Which tokens are believed. Everything wrong here is signed by the right key: only the check in question can refuse it.

use chassis::Clock;
use chrono::TimeDelta;
use identity::AccessClaims;
use identity::jwt::{ACCESS_TOKEN, CLIENT_ASSERTION, InvalidToken, key_id, verify};
use serde_json::{Value, json};

use crate::forge::{AUDIENCE, ISSUER, Key, claims, header};

struct Case {
    key: Key,
    clock: Clock,
}

impl Case {
    fn new() -> Self {
        Self { key: Key::new(), clock: testkit::clock().0 }
    }

    fn claims(&self) -> Value {
        serde_json::to_value(claims(&self.clock)).unwrap()
    }

    /// As a service does it, with one key.
    fn check(&self, token: &str) -> Result<AccessClaims, InvalidToken> {
        let kid = key_id(token, ACCESS_TOKEN)?;
        assert_eq!(kid, "k1", "an unknown key was asked for");
        verify(token, &self.key.public(), ISSUER, AUDIENCE, self.clock.now())
    }
}

#[test]
fn a_token_of_ours_is_believed() {
    let case = Case::new();
    let claims = case.check(&case.key.sign(&header(), &case.claims())).unwrap();
    assert_eq!((claims.iss.as_str(), claims.client_id.as_str()), (ISSUER, "trivet"));
    let ours = case.key.signing("k1").sign(ACCESS_TOKEN, &case.claims()).unwrap();
    assert_eq!(case.check(&ours).unwrap().sid, claims_of(&ours).sid);
}

fn claims_of(token: &str) -> AccessClaims {
    use base64::Engine;
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// [I-46] [I-47]
#[test]
fn a_header_that_we_do_not_write_is_refused() {
    let case = Case::new();
    let with = |name: &str, value: Value| {
        let mut header = header();
        header[name] = value;
        header.to_string()
    };
    let without = |name: &str| {
        let mut header = header();
        header.as_object_mut().unwrap().remove(name);
        header.to_string()
    };
    let mut wrong: Vec<String> =
        ["none", "None", "HS256", "HS512", "RS256", "PS256", "ES256", "Ed25519", "eddsa", ""].map(|alg| with("alg", json!(alg))).into();
    wrong.extend(["JWT", "jwt", "AT+JWT", "application/at+jwt", "logout+jwt", CLIENT_ASSERTION, ""].map(|typ| with("typ", json!(typ))));
    wrong.extend(["alg", "typ", "kid"].map(without));
    for value in [Value::Null, json!(1), json!(["k1"]), json!({"k1": 1}), json!(true)] {
        wrong.extend(["alg", "typ", "kid"].map(|name| with(name, value.clone())));
    }
    for (name, value) in [
        ("jku", json!("https://evil.example.com/jwks.json")),
        ("jwk", json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"})),
        ("x5u", json!("https://evil.example.com/cert.pem")),
        ("x5c", json!(["AAAA"])),
        ("x5t", json!("AAAA")),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("enc", json!("A128GCM")),
        ("cty", json!("JWT")),
        ("other", json!("thing")),
    ] {
        wrong.push(with(name, value));
    }
    wrong.push(r#"{"typ":"at+jwt","alg":"none","alg":"EdDSA","kid":"k1"}"#.to_owned());
    wrong.extend(["", "null", "[]", "\"at+jwt\"", "{"].map(ToOwned::to_owned));
    for header in wrong {
        assert!(case.check(&case.key.sign_texts(&header, &case.claims().to_string())).is_err(), "{header}");
    }
}

/// [I-48]
#[test]
fn every_claim_is_required_and_has_its_type() {
    let case = Case::new();
    let whole = case.claims();
    let names: Vec<String> = whole.as_object().unwrap().keys().cloned().collect();
    assert_eq!(names.len(), 11);
    for name in names {
        let mut missing = whole.clone();
        missing.as_object_mut().unwrap().remove(&name);
        assert!(case.check(&case.key.sign(&header(), &missing)).is_err(), "without {name}");
        let other = if whole[&name].is_string() { json!(1_893_456_300) } else { json!(whole[&name].to_string()) };
        for value in [other, Value::Null, json!(true), json!(1.5), json!([whole[&name]]), json!({"0": whole[&name]})] {
            let mut wrong = whole.clone();
            wrong[&name] = value.clone();
            assert!(case.check(&case.key.sign(&header(), &wrong)).is_err(), "{name} is {value}");
        }
        let twice = format!("{},\"{name}\":{}}}", whole.to_string().trim_end_matches('}'), whole[&name]);
        assert!(case.check(&case.key.sign_texts(&header().to_string(), &twice)).is_err(), "{name} twice");
    }
}

/// [I-48]
#[test]
fn another_issuer_audience_or_time_is_refused() {
    let case = Case::new();
    let now = case.clock.now().timestamp();
    for (name, value) in [
        ("iss", json!("https://auth.example.com/")),
        ("iss", json!("https://AUTH.example.com")),
        ("iss", json!("")),
        ("aud", json!("trivet2")),
        ("aud", json!("auth-service")),
        ("exp", json!(now)),
        ("exp", json!(-1)),
        ("nbf", json!(now + 31)),
        ("iat", json!(now + 31)),
        ("sub", json!("org_0197f0a0000070008000000000000001")),
        ("sid", json!("usr_0197f0a0000070008000000000000001")),
    ] {
        let mut wrong = case.claims();
        wrong[name] = value.clone();
        assert!(case.check(&case.key.sign(&header(), &wrong)).is_err(), "{name} is {value}");
    }
}

#[test]
fn clocks_may_differ_by_half_a_minute_but_an_end_is_an_end() {
    let case = Case::new();
    let token = case.key.sign(&header(), &case.claims());
    let at = |seconds: i64| {
        verify::<AccessClaims>(&token, &case.key.public(), ISSUER, AUDIENCE, case.clock.now() + TimeDelta::seconds(seconds)).is_ok()
    };
    assert_eq!([-31, -30, 0, 599, 600].map(at), [false, true, true, true, false]);
}

/// [I-46]
#[test]
fn a_signature_of_another_key_is_refused() {
    let case = Case::new();
    assert!(case.check(&Key::new().sign(&header(), &case.claims())).is_err());
}

/// [I-49]
#[test]
fn a_token_that_was_changed_at_any_position_is_refused() {
    let case = Case::new();
    let token = case.key.sign(&header(), &case.claims());
    let wrong = |changed: &str| changed == token || case.check_any(changed).is_err();
    for position in 0..token.len() {
        let (before, character, after) = (&token[..position], &token[position..=position], &token[position + 1..]);
        let swapped = if character.chars().all(char::is_lowercase) { character.to_uppercase() } else { character.to_lowercase() };
        for other in ["A", "B", "_", "=", ".", " ", "", "é", &swapped] {
            assert!(wrong(&format!("{before}{other}{after}")), "{character} became {other} at {position}");
            assert!(other.is_empty() || wrong(&format!("{before}{other}{character}{after}")), "{other} came in at {position}");
        }
        assert!(wrong(before), "cut at {position}");
    }
    for other in [format!("{token}="), format!("{token}."), format!("{token}.{token}"), format!(" {token}"), "x".repeat(5000)] {
        assert!(wrong(&other), "{other}");
    }
}

impl Case {
    /// Like `check`, for headers that may name any key.
    fn check_any(&self, token: &str) -> Result<AccessClaims, InvalidToken> {
        key_id(token, ACCESS_TOKEN)?;
        verify(token, &self.key.public(), ISSUER, AUDIENCE, self.clock.now())
    }
}
