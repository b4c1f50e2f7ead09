//! What a client says a request is for, so that a budget can be for it, and its usage is recorded with it.

use std::collections::BTreeSet;

use http::HeaderMap;
use llm::InvalidRequest;

/// The header, as clients write it.
const HEADER: &str = "X-Trivet-Tags";
const MOST: usize = 8;
const LONGEST: usize = 100;

/// The tags of a request; each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags(BTreeSet<String>);

impl Tags {
    /// Reads them from the headers: separated by commas, in one header or several.
    ///
    /// # Errors
    /// [`InvalidRequest`] when there are more than eight, or one is longer than a hundred characters, or none that can be read: a request
    /// whose tags are not known could spend what one of them may not.
    pub fn read(headers: &HeaderMap) -> Result<Self, InvalidRequest> {
        let mut tags = BTreeSet::new();
        for value in headers.get_all(HEADER) {
            let text = std::str::from_utf8(value.as_bytes()).map_err(|_| invalid("must be UTF-8"))?;
            tags.extend(text.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned));
        }
        if tags.len() > MOST || tags.iter().any(|tag| tag.chars().count() > LONGEST) {
            return Err(invalid("must be at most eight tags of at most a hundred characters each, separated by commas"));
        }
        Ok(Self(tags))
    }

    /// Their texts.
    #[must_use]
    pub const fn names(&self) -> &BTreeSet<String> {
        &self.0
    }
}

fn invalid(message: &str) -> InvalidRequest {
    InvalidRequest { param: HEADER.to_owned(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(values: &[&str]) -> Result<Vec<String>, InvalidRequest> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-trivet-tags", HeaderValue::from_bytes(value.as_bytes()).expect("a header"));
        }
        Tags::read(&headers).map(|tags| tags.0.into_iter().collect())
    }

    #[test]
    fn tags_are_read_from_all_headers_and_each_counts_once() {
        assert_eq!(read(&[]), Ok(Vec::new()));
        assert_eq!(read(&["b, a ,,b", "ä"]), Ok(vec!["a".to_owned(), "b".to_owned(), "ä".to_owned()]));
    }

    #[test]
    fn too_many_tags_or_one_too_long_are_refused_and_not_dropped() {
        assert_eq!(read(&[&"ä".repeat(100)]).map(|tags| tags.len()), Ok(1));
        for wrong in [vec!["1,2,3,4", "5,6,7,8,9"], vec![&*"x".repeat(101)]] {
            assert_eq!(read(&wrong).expect_err("it is refused").param, HEADER);
        }
    }
}
