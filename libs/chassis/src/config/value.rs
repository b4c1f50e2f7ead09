//! The types a variable can have, and what is said when a text is not one of them.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;

/// A type that can be read from a variable's text.
pub trait FromSetting: Sized {
    /// Parses the text.
    ///
    /// # Errors
    /// The rule that the text breaks, fit to follow the variable's name. Never the text itself: it may be a secret.
    fn from_setting(text: &str) -> Result<Self, String>;
}

macro_rules! by_from_str {
    ($($ty:ty => $rule:literal),* $(,)?) => {
        $(impl FromSetting for $ty {
            fn from_setting(text: &str) -> Result<Self, String> {
                text.trim().parse().map_err(|_| $rule.to_owned())
            }
        })*
    };
}

by_from_str! {
    bool => "must be true or false",
    u16 => "must be a whole number from 0 to 65535",
    u32 => "must be a whole number from 0 to 4294967295",
    u64 => "must be a whole number from 0",
    usize => "must be a whole number from 0",
    i64 => "must be a whole number",
    f64 => "must be a number",
    SocketAddr => "must be an address and a port such as 0.0.0.0:3001",
    IpAddr => "must be an IP address",
}

impl FromSetting for String {
    fn from_setting(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl FromSetting for SecretString {
    fn from_setting(text: &str) -> Result<Self, String> {
        Ok(text.to_owned().into())
    }
}

/// A duration, given in whole milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Millis(pub Duration);

impl FromSetting for Millis {
    fn from_setting(text: &str) -> Result<Self, String> {
        let millis = u64::from_str(text.trim()).map_err(|_| "must be a whole number of milliseconds".to_owned())?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

/// Values separated by commas; an empty text is an empty list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommaList<T>(pub Vec<T>);

impl<T: FromSetting> FromSetting for CommaList<T> {
    fn from_setting(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(T::from_setting).collect::<Result<_, _>>().map(Self).map_err(|rule| format!("each entry {rule}"))
    }
}
