//! Server-sent events (WHATWG HTML section 9.2), as far as model providers use them: the `data` of each event.

use bytes::Bytes;

/// The event that ends an `OpenAI` stream.
pub const DONE: &[u8] = b"[DONE]";
/// A comment: keeps proxies from closing a silent connection, and clients ignore it.
pub const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// An event was larger than the decoder takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is larger than {limit} bytes")]
pub struct TooLarge {
    /// The limit, in bytes.
    pub limit: usize,
}

/// Takes bytes as they come, cut anywhere, and gives whole events.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    after_cr: bool,
    first_line: bool,
}

impl Decoder {
    /// A decoder whose lines and events may have up to `limit` bytes [trap 14].
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { limit, line: Vec::new(), data: Vec::new(), has_data: false, after_cr: false, first_line: true }
    }

    /// Takes the next bytes; the data of each event that they complete is passed to `event`.
    ///
    /// # Errors
    /// [`TooLarge`]; the decoder must not be used afterwards.
    pub fn feed(&mut self, mut bytes: &[u8], mut event: impl FnMut(Bytes)) -> Result<(), TooLarge> {
        while let Some((&first, rest)) = bytes.split_first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                bytes = rest;
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let part = &bytes[..end.unwrap_or(bytes.len())];
            if self.line.len() + self.data.len() + part.len() > self.limit {
                return Err(TooLarge { limit: self.limit });
            }
            self.line.extend_from_slice(part);
            let Some(end) = end else { return Ok(()) };
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if let Some(data) = self.end_line() {
                event(data);
            }
        }
        Ok(())
    }

    /// The bytes are at their end: gives the event that lacks nothing but the end of its line or the blank line behind it. The standard
    /// drops it; some providers end so after `[DONE]`. Whether it is whole is for the caller to judge.
    pub fn finish(&mut self) -> Option<Bytes> {
        let line = if self.line.is_empty() { None } else { self.end_line() };
        line.or_else(|| self.end_line())
    }

    /// Interprets the line; an empty one ends the event.
    fn end_line(&mut self) -> Option<Bytes> {
        let line = std::mem::take(&mut self.line);
        let text = if std::mem::take(&mut self.first_line) { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
        if text.is_empty() {
            let data = std::mem::take(&mut self.data);
            return std::mem::take(&mut self.has_data).then(|| data.into());
        }
        let value = match text.strip_prefix(b"data") {
            Some([]) => &[][..],
            Some([b':', value @ ..]) => value.strip_prefix(b" ").unwrap_or(value),
            // Comments, and fields that say nothing here: `event`, `id`, `retry`.
            _ => return None,
        };
        if self.has_data {
            self.data.push(b'\n');
        }
        self.has_data = true;
        self.data.extend_from_slice(value);
        None
    }
}

/// Appends an event with this data.
pub fn encode(data: &[u8], out: &mut Vec<u8>) {
    for line in data.split(|byte| *byte == b'\n') {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(chunks: &[&[u8]]) -> Vec<String> {
        let mut decoder = Decoder::new(1 << 20);
        let mut events = Vec::new();
        for chunk in chunks {
            decoder
                .feed(chunk, |data| events.push(String::from_utf8(data.to_vec()).expect("what the test gives is valid")))
                .expect("what the test gives is valid");
        }
        events
    }

    #[test]
    fn comments_other_fields_and_line_ends_of_all_kinds_are_understood() {
        let text = "\u{feff}: hello\r\ndata: one\r\n\r\nevent: x\nid: 3\ndata:two\ndata: three\n\ndata\r\rdata: [DONE]\n\nretry: 5\n\n";
        assert_eq!(decode(&[text.as_bytes()]), ["one", "two\nthree", "", "[DONE]"]);
    }

    /// [trap 14]
    #[test]
    fn an_event_without_its_blank_line_is_given_at_the_end_and_no_sooner() {
        for (text, last) in [
            ("data: [DONE]\n", Some("[DONE]")),
            ("data: [DONE]", Some("[DONE]")),
            ("data: one\ndata: two\r", Some("one\ntwo")),
            ("data: one\n\n", None),
            (": comment", None),
            ("\u{feff}", None),
            ("", None),
        ] {
            let (mut decoder, mut events) = (Decoder::new(100), 0);
            decoder.feed(text.as_bytes(), |_| events += 1).expect("what the test gives is valid");
            assert_eq!(events, usize::from(text.ends_with("\n\n")), "{text:?}");
            assert_eq!(decoder.finish().as_deref(), last.map(str::as_bytes), "{text:?}");
            assert_eq!(decoder.finish(), None, "{text:?}");
        }
    }

    /// [trap 14]
    #[test]
    fn an_event_beyond_the_limit_is_refused_also_when_it_has_no_line_end() {
        let mut decoder = Decoder::new(10);
        assert_eq!(decoder.feed(b"data: 12345678901", |_| {}), Err(TooLarge { limit: 10 }));
        let mut decoder = Decoder::new(16);
        assert_eq!(decoder.feed(b"data: 1234567\ndata: 1234567\n", |_| {}), Err(TooLarge { limit: 16 }));
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_events(
            events in proptest::collection::vec("[a-z{}\"é: ]{0,12}(\n[a-z]{0,4})?", 0..6),
            cuts in proptest::collection::vec(0usize..200, 0..8),
            ending in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
        ) {
            let mut encoded = Vec::new();
            for event in &events {
                encode(event.as_bytes(), &mut encoded);
            }
            let text = String::from_utf8(encoded).expect("what the test gives is valid").replace('\n', ending);
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(decode(&chunks), events);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic_or_grow_beyond_its_limit(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..16)) {
            let mut decoder = Decoder::new(128);
            for chunk in &chunks {
                if decoder.feed(chunk, |_| {}).is_err() {
                    break;
                }
                prop_assert!(decoder.line.len() + decoder.data.len() <= 129);
            }
        }
    }
}
