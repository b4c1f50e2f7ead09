//! What the provider is sent: the client's own fields in their order, but for the few that are governed.

use std::borrow::Cow;

use serde_json::Value;

use super::{Allowances, ChatRequest};
use crate::json::push_field;

/// The field by which a provider is told the longest answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitField {
    /// The newer name.
    MaxCompletionTokens,
    /// The older name.
    MaxTokens,
}

impl LimitField {
    /// Both.
    pub const ALL: [Self; 2] = [Self::MaxCompletionTokens, Self::MaxTokens];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::MaxTokens => "max_tokens",
        }
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }
}

impl ChatRequest {
    /// The body for the provider: the same fields in the same order, with the provider's name of the model, with the usage asked for
    /// in a stream whether the client did or not [trap 5], and with no longer answer than was reserved [trap 3]. The limit stands
    /// where and as the client wrote it; with `limit_field` it is always sent, and under that name alone.
    #[must_use]
    pub fn to_provider(&self, model: &str, allowances: &Allowances, limit_field: Option<LimitField>) -> Vec<u8> {
        let model = Value::from(model).to_string();
        let options = self.options();
        let mut limit = limit_field.map(|field| (field.name(), self.limit(field, allowances)));
        let size = self.fields.iter().map(|(name, raw)| name.len() + raw.get().len() + 4).sum::<usize>();
        let mut body = Vec::with_capacity(size + 128);
        body.push(b'{');
        for (name, raw) in self.fields.iter() {
            match (LimitField::of(name), &options) {
                // The first of both stands for the one; another is left out.
                (Some(_), _) if limit_field.is_some() => limit.take().iter().for_each(|(name, value)| push_field(&mut body, name, value)),
                (Some(_), _) => push_field(&mut body, name, &self.clamped(raw.get(), allowances)),
                (None, _) if name == "model" => push_field(&mut body, name, &model),
                (None, Some(options)) if name == "stream_options" => push_field(&mut body, name, options),
                (None, _) => push_field(&mut body, name, raw.get()),
            }
        }
        if let (Some(options), false) = (&options, self.fields.iter().any(|(name, _)| name == "stream_options")) {
            push_field(&mut body, "stream_options", options);
        }
        if let Some((name, value)) = limit {
            push_field(&mut body, name, &value);
        }
        body.push(b'}');
        body
    }

    fn options(&self) -> Option<String> {
        self.stream.then(|| {
            let mut options = self.stream_options.clone();
            options.insert("include_usage".to_owned(), true.into());
            Value::Object(options).to_string()
        })
    }

    /// The one limit: by the name that the provider heeds, or else by the other, or else the model's.
    fn limit(&self, field: LimitField, allowances: &Allowances) -> Cow<'_, str> {
        let others = LimitField::ALL.into_iter().filter(|other| *other != field);
        let given = std::iter::once(field).chain(others).find_map(|field| self.fields.raw(field.name()));
        given.map_or_else(|| self.longest_answer(allowances).to_string().into(), |raw| self.clamped(raw.get(), allowances))
    }

    /// A limit as it came, unless it is beyond what was reserved. Null stays null: it is no limit.
    fn clamped<'r>(&self, raw: &'r str, allowances: &Allowances) -> Cow<'r, str> {
        let most = self.longest_answer(allowances);
        match raw.parse::<u64>() {
            Ok(limit) if limit > most => most.to_string().into(),
            _ => raw.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWANCES: Allowances = Allowances { context_window: 100_000, max_output_tokens: 4_000, image_tokens: 1_000 };
    const MESSAGES: &str = r#""messages":[{"role":"user","content":"a"}]"#;

    fn sent(body: &str, field: Option<LimitField>) -> String {
        let request = ChatRequest::parse(body.as_bytes()).expect("what the test gives is valid");
        String::from_utf8(request.to_provider("real", &ALLOWANCES, field)).expect("what the test gives is valid")
    }

    #[test]
    fn unknown_fields_numbers_and_order_reach_the_provider_as_they_came() {
        let fields = |model: &str| {
            format!(
                r#"{{"zeta":1e400,"messages":[{{"role":"user","content":"\u0041","x":[1.0,2]}}],"model":"{model}","é\n":{{"b":1,"a":18446744073709551616}}}}"#
            )
        };
        assert_eq!(sent(&fields("alias"), None), fields("real"));
    }

    /// [trap 5]
    #[test]
    fn usage_is_asked_for_in_every_stream_and_the_clients_own_options_are_kept() {
        for (given, expected) in [
            ("", r#","stream_options":{"include_usage":true}"#),
            (r#","stream_options":null"#, r#","stream_options":{"include_usage":true}"#),
            (r#","stream_options":{"include_usage":false,"x":1}"#, r#","stream_options":{"include_usage":true,"x":1}"#),
        ] {
            let body = format!(r#"{{"model":"m",{MESSAGES},"stream":true{given}}}"#);
            assert_eq!(sent(&body, None), format!(r#"{{"model":"real",{MESSAGES},"stream":true{expected}}}"#));
            assert!(!ChatRequest::parse(body.as_bytes()).expect("what the test gives is valid").wants_usage());
        }
        let whole = format!(r#"{{"model":"m",{MESSAGES}}}"#);
        assert_eq!(sent(&whole, None), whole.replace(r#""m""#, r#""real""#));
    }

    /// [trap 3]
    #[test]
    fn no_limit_beyond_the_reserved_one_reaches_the_provider_and_others_stay_as_they_were_written() {
        for (given, expected) in [
            (r#""max_tokens":7,"x":1"#, r#""max_tokens":7,"x":1"#),
            (r#""max_tokens":99999,"x":1"#, r#""max_tokens":4000,"x":1"#),
            (r#""max_completion_tokens":99999,"max_tokens":5"#, r#""max_completion_tokens":4000,"max_tokens":5"#),
            (r#""max_tokens":null"#, r#""max_tokens":null"#),
            (r#""x":1"#, r#""x":1"#),
        ] {
            let body = format!(r#"{{"model":"m",{given},{MESSAGES}}}"#);
            assert_eq!(sent(&body, None), format!(r#"{{"model":"real",{expected},{MESSAGES}}}"#));
        }
    }

    /// [trap 3]
    #[test]
    fn with_a_field_that_the_provider_heeds_the_limit_is_always_sent_and_under_that_name_alone() {
        let field = Some(LimitField::MaxCompletionTokens);
        for (given, expected) in [
            (r#""max_tokens":7,"x":1,"#, r#""max_completion_tokens":7,"x":1,"#),
            (r#""max_tokens":99999,"#, r#""max_completion_tokens":4000,"#),
            (r#""max_tokens":9,"max_completion_tokens":5,"x":1,"#, r#""max_completion_tokens":5,"x":1,"#),
            (r#""max_tokens":null,"#, r#""max_completion_tokens":4000,"#),
        ] {
            let body = format!(r#"{{"model":"m",{given}{MESSAGES}}}"#);
            assert_eq!(sent(&body, field), format!(r#"{{"model":"real",{expected}{MESSAGES}}}"#));
        }
        let none = format!(r#"{{"model":"m",{MESSAGES}}}"#);
        assert_eq!(sent(&none, Some(LimitField::MaxTokens)), format!(r#"{{"model":"real",{MESSAGES},"max_tokens":4000}}"#));
    }
}
