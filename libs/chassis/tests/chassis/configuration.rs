//! Configuration from the environment.

use chassis::SecretString;
use chassis::config::{CommaList, ConfigErrors, Environment, Millis, Settings, load, reference};

chassis::settings! {
    /// Mail.
    pub struct Mail {
        /// Address of the relay.
        pub relay: std::net::SocketAddr = required "TRIVET_MAIL_RELAY",
        /// Password of the relay.
        pub password: Option<SecretString> = optional "TRIVET_MAIL_PASSWORD",
        /// Mails per minute.
        pub rate: u32 = default "TRIVET_MAIL_RATE" "60",
        /// Milliseconds to wait.
        pub patience: Millis = default "TRIVET_MAIL_PATIENCE_MS" "500",
        /// Who gets copies.
        pub copies: CommaList<String> = default "TRIVET_MAIL_COPIES" "",
    }
}

fn errors<C: Settings + std::fmt::Debug>(pairs: &[(&str, &str)]) -> Vec<String> {
    let ConfigErrors(lines) = load::<C>(&Environment::from_pairs(pairs.iter().copied())).unwrap_err();
    lines
}

#[test]
fn all_mistakes_are_reported_at_once_with_the_variables_name_and_the_rule() {
    let lines = errors::<Mail>(&[("TRIVET_MAIL_RATE", "many"), ("TRIVET_MAIL_PATIENCE_MS", "-1"), ("TRIVET_MAIL_RELAI", "127.0.0.1:25")]);
    assert_eq!(lines.len(), 4, "{lines:?}");
    for (name, line) in
        ["TRIVET_MAIL_RELAY is required", "TRIVET_MAIL_RATE must", "TRIVET_MAIL_PATIENCE_MS must", "TRIVET_MAIL_RELAI is not"]
            .iter()
            .zip(&lines)
    {
        assert!(line.starts_with(name), "{line}");
    }
}

#[test]
fn a_value_may_come_from_a_file_and_never_from_two_places() {
    let folder = std::env::temp_dir().join(format!("trivet-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("password");
    std::fs::write(&file, "from the file\n").unwrap();
    let path = file.to_str().unwrap();
    let mail: Mail = load(&Environment::from_pairs([("TRIVET_MAIL_RELAY", "127.0.0.1:25"), ("TRIVET_MAIL_PASSWORD_FILE", path)])).unwrap();
    assert_eq!(chassis::ExposeSecret::expose_secret(&mail.password.unwrap()), "from the file");
    std::fs::write(&file, "\n").unwrap();
    let mail: Mail = load(&Environment::from_pairs([("TRIVET_MAIL_RELAY", "127.0.0.1:25"), ("TRIVET_MAIL_PASSWORD_FILE", path)])).unwrap();
    assert!(mail.password.is_none(), "an empty file is no value");
    let both = [("TRIVET_MAIL_RELAY", "127.0.0.1:25"), ("TRIVET_MAIL_PASSWORD", "x"), ("TRIVET_MAIL_PASSWORD_FILE", path)];
    assert_eq!(errors::<Mail>(&both), ["TRIVET_MAIL_PASSWORD and TRIVET_MAIL_PASSWORD_FILE are both set, set one"]);
    let missing = [("TRIVET_MAIL_RELAY", "127.0.0.1:25"), ("TRIVET_MAIL_PASSWORD_FILE", "/no/such/file")];
    assert!(errors::<Mail>(&missing)[0].starts_with("TRIVET_MAIL_PASSWORD_FILE: cannot read"));
}

#[test]
fn a_secret_is_neither_in_the_debug_form_nor_in_an_error() {
    let pairs = [("TRIVET_MAIL_RELAY", "127.0.0.1:25"), ("TRIVET_MAIL_PASSWORD", "canary")];
    let mail: Mail = load(&Environment::from_pairs(pairs)).unwrap();
    assert!(!format!("{mail:?}").contains("canary"));
    let lines = errors::<Mail>(&[("TRIVET_MAIL_RELAY", "canary"), ("TRIVET_MAIL_PASSWORD", "canary")]);
    assert!(!lines.concat().contains("canary"), "{lines:?}");
}

#[test]
fn an_empty_variable_counts_as_absent_and_defaults_hold() {
    let mail: Mail = load(&Environment::from_pairs([("TRIVET_MAIL_RELAY", "127.0.0.1:25"), ("TRIVET_MAIL_RATE", "")])).unwrap();
    assert_eq!((mail.rate, mail.patience.0.as_millis(), mail.copies.0.len()), (60, 500, 0));
}

#[test]
fn the_reference_names_every_variable_with_its_default_and_meaning() {
    let table = reference::<Mail>();
    for row in [
        "| `TRIVET_MAIL_RELAY` | required | Address of the relay. |",
        "| `TRIVET_MAIL_PASSWORD` | optional |",
        "| `TRIVET_MAIL_RATE` | `60` | Mails per minute. |",
    ] {
        assert!(table.contains(row), "{table}");
    }
}
