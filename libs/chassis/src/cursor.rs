//! Opaque, authenticated pagination cursors [I-78]: a client can only present what the same route gave out.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use crate::problem::Problem;

const TAG_BYTES: usize = 16;

/// One page of a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Page<T> {
    /// The rows, in the order of the list.
    pub data: Vec<T>,
    /// Pass as `cursor` for the next page; null at the end.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// The same page of what each row becomes.
    #[must_use]
    pub fn map<U>(self, row: impl FnMut(T) -> U) -> Page<U> {
        Page { data: self.data.into_iter().map(row).collect(), next_cursor: self.next_cursor }
    }
}

/// Seals and opens the cursors of one list.
#[derive(Debug, Clone)]
pub struct CursorKey(hmac::Key);

impl CursorKey {
    /// The key of one list: `purpose` keeps a cursor of one route from being used on another.
    #[must_use]
    pub fn derive(secret: &SecretString, purpose: &str) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
        let derived = hmac::sign(&root, format!("trivet cursor v1 {purpose}").as_bytes());
        Self(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()))
    }

    /// Seals a position.
    #[must_use]
    pub fn encode<T: Serialize>(&self, position: &T) -> String {
        let json = serde_json::to_vec(position).unwrap_or_default();
        let tag = hmac::sign(&self.0, &json);
        URL_SAFE_NO_PAD.encode([&tag.as_ref()[..TAG_BYTES], &json].concat())
    }

    /// A page of `size` rows, where one more was asked for than is shown: if it is there, the list goes on after the last that is shown.
    #[must_use]
    pub fn page<T, P: Serialize>(&self, mut rows: Vec<T>, size: usize, position: impl Fn(&T) -> P) -> Page<T> {
        let more = rows.len() > size;
        rows.truncate(size);
        let next_cursor = rows.last().filter(|_| more).map(|last| self.encode(&position(last)));
        Page { data: rows, next_cursor }
    }

    /// Opens a cursor.
    ///
    /// # Errors
    /// 400 `invalid_cursor` for anything this key did not seal.
    pub fn decode<T: DeserializeOwned>(&self, cursor: &str) -> Result<T, Problem> {
        let open = || {
            let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
            let (tag, json) = bytes.split_at_checked(TAG_BYTES)?;
            let expected = hmac::sign(&self.0, json);
            let equal = subtle::ConstantTimeEq::ct_eq(&expected.as_ref()[..TAG_BYTES], tag);
            bool::from(equal).then(|| serde_json::from_slice(json).ok()).flatten()
        };
        open().ok_or_else(|| {
            Problem::bad_request("invalid_cursor", "The cursor is not one this list gave out").field("cursor", "must come from next_cursor")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(purpose: &str) -> CursorKey {
        CursorKey::derive(&SecretString::from("a root secret"), purpose)
    }

    #[test]
    fn a_page_goes_on_after_its_last_row_only_where_there_is_one_more() {
        let key = key("usage");
        let page = |rows: usize| key.page((0..rows).collect(), 3, |row| *row).map(|row| row * 10);
        for (rows, shown) in [(0, vec![]), (3, vec![0, 10, 20])] {
            assert_eq!((page(rows).data, page(rows).next_cursor), (shown, None), "{rows}");
        }
        let first = page(4);
        assert_eq!((first.data, key.decode::<usize>(&first.next_cursor.unwrap()).unwrap()), (vec![0, 10, 20], 2));
    }

    #[test]
    fn a_cursor_opens_only_unchanged_and_on_its_own_list() {
        let cursor = key("usage").encode(&(17, "x"));
        assert_eq!(key("usage").decode::<(i32, String)>(&cursor).unwrap(), (17, "x".to_owned()));
        assert!(key("ledger").decode::<(i32, String)>(&cursor).is_err(), "another list opened it");
        for position in 0..cursor.len() {
            let mut bytes = cursor.clone().into_bytes();
            bytes[position] = if bytes[position] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(key("usage").decode::<(i32, String)>(&changed).is_err(), "{changed} was accepted");
        }
        for random in ["", "AAAA", "%%%", "e30"] {
            assert!(key("usage").decode::<(i32, String)>(random).is_err(), "{random} was accepted");
        }
    }
}
