//! Prefixed identifiers: `org_`, `usr_`, `key_` and so on, each its own type.
//!
//! An id is a `UUIDv7` (RFC 9562 section 5.7) in memory and in Postgres, and `<prefix>_<32 hex digits>` everywhere a
//! person or a client sees it, so that one kind can never be passed for another.

use uuid::Uuid;

/// Why a text is not an id of the wanted kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an id of the form {prefix}_ followed by 32 hexadecimal digits")]
pub struct InvalidId {
    /// The prefix that was wanted, without the underscore.
    pub prefix: &'static str,
}

/// Parses `<prefix>_<32 lowercase hex digits>`; any other spelling is refused, so that an id has exactly one text.
///
/// # Errors
/// [`InvalidId`] when the prefix, the length or a digit is wrong.
pub fn parse(text: &str, prefix: &'static str) -> Result<Uuid, InvalidId> {
    let digits = text
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('_'))
        .filter(|digits| digits.len() == 32 && !digits.bytes().any(|byte| byte.is_ascii_uppercase()))
        .ok_or(InvalidId { prefix })?;
    Uuid::try_parse(digits).map_err(|_| InvalidId { prefix })
}

/// Defines a newtype over [`Uuid`] with a prefix: text form, serde and `OpenAPI`; rows hold the bare `UUID`.
///
/// ```
/// chassis::define_id!(
///     /// One invoice.
///     InvoiceId, "inv"
/// );
/// let id: InvoiceId = "inv_0197f0a0000070008000000000000001".parse().unwrap();
/// assert_eq!(id.to_string(), "inv_0197f0a0000070008000000000000001");
/// ```
#[macro_export]
macro_rules! define_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($crate::id::reexport::Uuid);

        impl $name {
            /// What the text form starts with, without the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// A new id: time-ordered, from the injected clock and random source.
            #[must_use]
            pub fn new(clock: &$crate::clock::Clock, random: &$crate::random::Random) -> Self {
                Self(random.uuid_v7(clock))
            }

            /// The id of a row that already exists.
            #[must_use]
            pub const fn from_uuid(uuid: $crate::id::reexport::Uuid) -> Self {
                Self(uuid)
            }

            /// The bare UUID, as Postgres stores it.
            #[must_use]
            pub const fn uuid(self) -> $crate::id::reexport::Uuid {
                self.0
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0.simple())
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::id::InvalidId;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $crate::id::parse(text, $prefix).map(Self)
            }
        }

        impl $crate::id::reexport::Serialize for $name {
            fn serialize<S: $crate::id::reexport::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> $crate::id::reexport::Deserialize<'de> for $name {
            fn deserialize<D: $crate::id::reexport::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <::std::borrow::Cow<'de, str> as $crate::id::reexport::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err($crate::id::reexport::custom_error)
            }
        }

        impl $crate::id::reexport::PartialSchema for $name {
            fn schema() -> $crate::id::reexport::RefOr<$crate::id::reexport::Schema> {
                $crate::id::schema($prefix)
            }
        }

        impl $crate::id::reexport::ToSchema for $name {}
    };
}

/// The `OpenAPI` schema of an id with this prefix.
#[must_use]
pub fn schema(prefix: &str) -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
    utoipa::openapi::ObjectBuilder::new()
        .schema_type(utoipa::openapi::schema::Type::String)
        .pattern(Some(format!("^{prefix}_[0-9a-f]{{32}}$")))
        .examples([serde_json::json!(format!("{prefix}_0197f0a0000070008000000000000001"))])
        .build()
        .into()
}

/// What [`define_id!`](crate::define_id) expands to; not for direct use.
#[doc(hidden)]
pub mod reexport {
    pub use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    pub use utoipa::openapi::{RefOr, Schema};
    pub use utoipa::{PartialSchema, ToSchema};
    pub use uuid::Uuid;

    /// A deserialization error with the message of `error`.
    #[must_use]
    pub fn custom_error<E: Error>(error: super::InvalidId) -> E {
        E::custom(error)
    }
}

#[cfg(test)]
mod tests {
    crate::define_id!(
        /// An id for these tests.
        TestId, "tst"
    );

    const TEXT: &str = "tst_0197f0a0000070008000000000000001";

    #[test]
    fn an_id_survives_text_and_json() {
        let (clock, random) = (crate::Clock::system(), crate::Random::seeded(1));
        assert_eq!(TestId::new(&clock, &random).to_string().len(), TestId::PREFIX.len() + 33);
        let id: TestId = TEXT.parse().unwrap();
        assert_eq!(TestId::from_uuid(id.uuid()), id);
        assert_eq!(id.to_string(), TEXT);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{TEXT}\""));
        assert_eq!(serde_json::from_str::<TestId>(&json).unwrap(), id);
    }

    #[test]
    fn another_prefix_spelling_or_length_is_refused() {
        for wrong in [
            "org_0197f0a0000070008000000000000001",
            "tst0197f0a0000070008000000000000001",
            "tst_0197F0A0000070008000000000000001",
            "tst_0197f0a0-0000-7000-8000-000000000001",
            "tst_0197f0a000007000800000000000000",
            "tst_",
            "",
        ] {
            assert!(wrong.parse::<TestId>().is_err(), "{wrong} was accepted");
        }
    }
}
