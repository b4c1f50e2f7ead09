//! Email addresses, in the one form in which they are stored and compared.

use chassis::Problem;
use unicode_normalization::UnicodeNormalization;

/// An address: NFC, lower case, one `@`, no control characters or spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email(String);

impl Email {
    /// Understands an address. Whether it exists only a mail can show; here only what could not be one is refused.
    ///
    /// # Errors
    /// 422 naming the field.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let email: String = text.trim().nfc().collect::<String>().to_lowercase();
        let plausible = email.split_once('@').is_some_and(|(local, domain)| {
            let domain_fits = domain.contains('.') && !domain.starts_with('.') && !domain.ends_with('.') && !domain.contains("..");
            !local.is_empty() && local.len() <= 64 && domain_fits && !domain.contains('@')
        });
        let clean = email.len() <= 254
            && !email.chars().any(|character| character.is_control() || character.is_whitespace() || "<>,;\"".contains(character));
        if plausible && clean { Ok(Self(email)) } else { Err(Problem::invalid_field("email", "must be an email address")) }
    }

    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_canonical_form() {
        for text in ["Ada@Example.COM", " ada@example.com ", "ada@example.com"] {
            assert_eq!(Email::parse(text).unwrap().as_str(), "ada@example.com");
        }
        assert_eq!(Email::parse("caf\u{e9}@example.com").unwrap(), Email::parse("cafe\u{301}@example.com").unwrap());
    }

    /// [I-80]
    #[test]
    fn line_breaks_lists_and_fragments_are_refused() {
        for text in [
            "",
            "ada",
            "ada@",
            "@example.com",
            "ada@example",
            "a@b@example.com",
            "ada@example.com\r\nbcc: eve@example.com",
            "ada@example.com,eve@example.com",
            "a da@example.com",
            "ada@.example.com",
            "ada@example..com",
        ] {
            assert!(Email::parse(text).is_err(), "{text:?} was accepted");
        }
    }
}
