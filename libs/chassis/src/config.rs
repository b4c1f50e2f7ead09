//! Configuration from the environment: one struct per concern, all mistakes reported at once, secrets redacted, and the
//! documentation of every variable taken from the struct itself.
//!
//! A variable `NAME` may be given as `NAME_FILE`, the path of a file with the value (a trailing newline is dropped). An empty value
//! counts as none, also in a file.
//! Unknown `TRIVET_*` names stop the start: a misspelled limit must not silently be the default.

mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub use value::{CommaList, FromSetting, Millis};

/// The variables that a configuration is read from.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables of this process.
    #[must_use]
    pub fn from_process() -> Self {
        Self(std::env::vars().collect())
    }

    /// Given variables, for tests.
    pub fn from_pairs<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// The same with one more variable, or another value for it.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }
}

/// Everything that is wrong with an environment, one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration is not usable:\n  {}", .0.join("\n  "))]
pub struct ConfigErrors(pub Vec<String>);

/// Whether a variable must be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The start stops without it.
    Required,
    /// May be absent.
    Optional,
    /// Has this value when absent.
    Default(&'static str),
}

/// What is known about one variable: the material of the reference in the documents.
#[derive(Debug, Clone)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Whether it must be set.
    pub presence: Presence,
    /// Its meaning and unit, from the field's documentation.
    pub doc: &'static str,
}

/// A struct that [`settings!`](crate::settings) defined.
pub trait Settings: Sized {
    /// Reads the struct; `None` when something was wrong, which the reader has noted.
    fn read(reader: &mut Reader<'_>) -> Option<Self>;
    /// Adds the struct's variables, in order.
    fn describe(variables: &mut Vec<Variable>);
}

/// Reads a whole configuration.
///
/// # Errors
/// All missing, malformed, doubly given and unknown variables, together.
pub fn load<C: Settings>(environment: &Environment) -> Result<C, ConfigErrors> {
    let mut reader = Reader { environment, known: BTreeSet::new(), errors: Vec::new() };
    let config = C::read(&mut reader);
    let unknown = environment.0.keys().filter(|name| name.starts_with("TRIVET_") && !reader.known.contains(*name));
    let mut errors: Vec<_> = unknown.map(|name| format!("{name} is not a variable of this program")).collect();
    errors.splice(0..0, reader.errors);
    match config {
        Some(config) if errors.is_empty() => Ok(config),
        _ => Err(ConfigErrors(errors)),
    }
}

/// The reference of a configuration as a Markdown table.
#[must_use]
pub fn reference<C: Settings>() -> String {
    let mut variables = Vec::new();
    C::describe(&mut variables);
    let rows = variables.iter().map(|variable| {
        let presence = match variable.presence {
            Presence::Required => "required".to_owned(),
            Presence::Optional => "optional".to_owned(),
            Presence::Default(value) => format!("`{value}`"),
        };
        format!("| `{}` | {presence} | {} |\n", variable.name, variable.doc.trim())
    });
    format!("| variable | default | meaning |\n|---|---|---|\n{}", rows.collect::<String>())
}

/// Reads variables and notes what is wrong with them.
#[derive(Debug)]
pub struct Reader<'e> {
    environment: &'e Environment,
    known: BTreeSet<String>,
    errors: Vec<String>,
}

impl Reader<'_> {
    /// The text of a variable, directly or from its file; `Err` when it was noted as wrong.
    fn text(&mut self, name: &str) -> Result<Option<String>, ()> {
        let file_name = format!("{name}_FILE");
        let direct = self.environment.0.get(name).filter(|value| !value.is_empty());
        let file = self.environment.0.get(&file_name).filter(|value| !value.is_empty());
        self.known.extend([name.to_owned(), file_name.clone()]);
        match (direct, file) {
            (Some(_), Some(_)) => {
                self.errors.push(format!("{name} and {file_name} are both set, set one"));
                Err(())
            }
            (Some(value), None) => Ok(Some(value.clone())),
            (None, Some(path)) => match std::fs::read_to_string(Path::new(path)) {
                Ok(value) => Ok(Some(value.trim_end_matches(['\r', '\n']).to_owned()).filter(|value| !value.is_empty())),
                Err(error) => {
                    self.errors.push(format!("{file_name}: cannot read {path}: {error}"));
                    Err(())
                }
            },
            (None, None) => Ok(None),
        }
    }

    fn parse<T: FromSetting>(&mut self, name: &str, text: &str) -> Option<T> {
        match T::from_setting(text) {
            Ok(value) => Some(value),
            Err(rule) => {
                self.errors.push(format!("{name} {rule}"));
                None
            }
        }
    }

    /// A variable that must be set.
    pub fn required<T: FromSetting>(&mut self, name: &str) -> Option<T> {
        match self.text(name) {
            Ok(Some(text)) => self.parse(name, &text),
            Ok(None) => {
                self.errors.push(format!("{name} is required (or {name}_FILE)"));
                None
            }
            Err(()) => None,
        }
    }

    /// A variable that may be absent.
    pub fn optional<T: FromSetting>(&mut self, name: &str) -> Option<Option<T>> {
        match self.text(name) {
            Ok(Some(text)) => self.parse(name, &text).map(Some),
            Ok(None) => Some(None),
            Err(()) => None,
        }
    }

    /// A variable with a default.
    pub fn default<T: FromSetting>(&mut self, name: &str, default: &str) -> Option<T> {
        let text = self.text(name).ok()?.unwrap_or_else(|| default.to_owned());
        self.parse(name, &text)
    }
}

/// Defines a configuration struct: each field names its variable, and its documentation is the variable's.
///
/// ```
/// chassis::settings! {
///     /// How mail leaves.
///     pub struct MailConfig {
///         /// Address of the relay.
///         pub relay: String = required "TRIVET_MAIL_RELAY",
///         /// Mails per minute.
///         pub rate: u32 = default "TRIVET_MAIL_RATE" "60",
///         /// Reply address.
///         pub reply_to: Option<String> = optional "TRIVET_MAIL_REPLY_TO",
///     }
/// }
/// let environment = chassis::config::Environment::from_pairs([("TRIVET_MAIL_RELAY", "mx.example.com")]);
/// assert_eq!(chassis::config::load::<MailConfig>(&environment).unwrap().rate, 60);
/// ```
#[macro_export]
macro_rules! settings {
    ($(#[$attr:meta])* pub struct $name:ident {
        $($(#[doc = $doc:literal])+ pub $field:ident: $ty:ty = $kind:ident $($arg:literal)*),* $(,)?
    }) => {
        $(#[$attr])*
        #[derive(Debug, Clone)]
        pub struct $name { $($(#[doc = $doc])+ pub $field: $ty,)* }

        impl $crate::config::Settings for $name {
            fn read(reader: &mut $crate::config::Reader<'_>) -> Option<Self> {
                $(let $field: Option<$ty> = $crate::settings!(@read reader $kind $ty; $($arg)*);)*
                Some(Self { $($field: $field?,)* })
            }

            fn describe(variables: &mut Vec<$crate::config::Variable>) {
                $($crate::settings!(@describe variables $kind $ty; concat!($($doc),+); $($arg)*);)*
            }
        }
    };
    (@read $reader:ident nested $ty:ty;) => { <$ty as $crate::config::Settings>::read($reader) };
    (@read $reader:ident required $ty:ty; $name:literal) => { $reader.required($name) };
    (@read $reader:ident optional $ty:ty; $name:literal) => { $reader.optional($name) };
    (@read $reader:ident default $ty:ty; $name:literal $default:literal) => { $reader.default($name, $default) };
    (@describe $out:ident nested $ty:ty; $doc:expr;) => { <$ty as $crate::config::Settings>::describe($out) };
    (@describe $out:ident required $ty:ty; $doc:expr; $name:literal) => {
        $out.push($crate::config::Variable { name: $name, presence: $crate::config::Presence::Required, doc: $doc })
    };
    (@describe $out:ident optional $ty:ty; $doc:expr; $name:literal) => {
        $out.push($crate::config::Variable { name: $name, presence: $crate::config::Presence::Optional, doc: $doc })
    };
    (@describe $out:ident default $ty:ty; $doc:expr; $name:literal $default:literal) => {
        $out.push($crate::config::Variable { name: $name, presence: $crate::config::Presence::Default($default), doc: $doc })
    };
}
