//! What a request must keep to before anybody is asked.

use super::get;
use crate::json::{self, Fields};

const MAX_CHOICES: u64 = 128;
const MAX_MODEL_BYTES: usize = 200;
/// The fields that are read here.
const GOVERNED: [&str; 10] = [
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "modalities",
    "model",
    "n",
    "service_tier",
    "stream",
    "stream_options",
    "web_search_options",
];
/// Tiers that cost what the rate card says, or less.
const TIERS: [&str; 3] = ["auto", "default", "flex"];

/// A request that breaks a rule: the parameter and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{param}: {message}")]
pub struct InvalidRequest {
    /// The parameter at fault; `body` when the body is no JSON object at all.
    pub param: String,
    /// What it must be.
    pub message: String,
}

impl InvalidRequest {
    pub(super) fn new(param: &str, message: impl Into<String>) -> Self {
        Self { param: param.to_owned(), message: message.into() }
    }
}

/// Refuses names that another reader may take for one of ours: providers written in Go match names without case, and by Unicode's
/// folding, in which `ſ` is an `s` and the sign of Kelvin a `k`.
pub(super) fn check_names(fields: &Fields) -> Result<(), InvalidRequest> {
    let fold = |name: &str| name.to_lowercase().to_uppercase();
    for (name, _) in fields.iter().filter(|(name, _)| !GOVERNED.contains(name)) {
        let folded = fold(name);
        if let Some(meant) = GOVERNED.into_iter().find(|governed| fold(governed) == folded) {
            return Err(InvalidRequest::new(name, format!("must be written {meant}")));
        }
    }
    Ok(())
}

pub(super) fn model(fields: &Fields) -> Result<String, InvalidRequest> {
    let model: String = get(fields, "model", "a string")?.ok_or_else(|| InvalidRequest::new("model", "is required"))?;
    if model.is_empty() || model.len() > MAX_MODEL_BYTES {
        return Err(InvalidRequest::new("model", format!("must have 1 to {MAX_MODEL_BYTES} bytes")));
    }
    Ok(model)
}

pub(super) fn choices(fields: &Fields) -> Result<u64, InvalidRequest> {
    let choices = get(fields, "n", "a whole number")?.unwrap_or(1);
    if !(1..=MAX_CHOICES).contains(&choices) {
        return Err(InvalidRequest::new("n", format!("must be from 1 to {MAX_CHOICES}")));
    }
    Ok(choices)
}

/// The longest answer, by either name. Where both are given, which one a provider heeds is its affair: reserve for the larger.
pub(super) fn max_tokens(fields: &Fields) -> Result<Option<u64>, InvalidRequest> {
    let mut largest = None;
    for name in ["max_completion_tokens", "max_tokens"] {
        let value = get::<u64>(fields, name, "a positive whole number")?;
        if value == Some(0) {
            return Err(InvalidRequest::new(name, "must be a positive whole number"));
        }
        largest = largest.max(value);
    }
    Ok(largest)
}

/// Refuses what providers charge for beside tokens, or at other rates: there is no price for it here, so it would be ours to pay.
pub(super) fn check_paid_options(fields: &Fields) -> Result<(), InvalidRequest> {
    if let Some(tier) = fields.raw("service_tier")
        && !json::string(tier).is_some_and(|tier| TIERS.contains(&&*tier))
    {
        return Err(InvalidRequest::new("service_tier", format!("must be one of {}", TIERS.join(", "))));
    }
    match fields.raw("web_search_options") {
        Some(_) => Err(InvalidRequest::new("web_search_options", "is not offered here")),
        None => Ok(()),
    }
}

/// Whether the answer may be spoken.
pub(super) fn asks_for_audio(fields: &Fields) -> Result<bool, InvalidRequest> {
    let modalities: Option<Vec<String>> = get(fields, "modalities", "a list of strings")?;
    Ok(modalities.is_some_and(|modalities| modalities.iter().any(|modality| modality == "audio")))
}

#[cfg(test)]
mod tests {
    use crate::ChatRequest;

    fn refused(field: &str) -> Option<String> {
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"a"}}],{field}}}"#);
        ChatRequest::parse(body.as_bytes()).err().map(|error| error.param)
    }

    /// [trap 3]
    #[test]
    fn a_name_that_differs_from_a_governed_one_in_case_alone_is_refused() {
        for name in
            ["Model", "MESSAGES", "Stream", "Max_Tokens", "max_Completion_tokens", "N", "ſtream", "max_to\u{212a}ens", "Service_Tier"]
        {
            assert_eq!(refused(&format!(r#""{name}":1"#)).as_deref(), Some(name));
        }
        for name in ["Temperature", "models", "nn", "max-tokens"] {
            assert_eq!(refused(&format!(r#""{name}":1"#)), None, "{name}");
        }
    }

    /// [trap 8]
    #[test]
    fn options_that_are_paid_for_and_have_no_price_are_refused() {
        for field in [r#""service_tier":"priority""#, r#""service_tier":"scale""#, r#""service_tier":1"#] {
            assert_eq!(refused(field).as_deref(), Some("service_tier"), "{field}");
        }
        for field in [r#""service_tier":null"#, r#""service_tier":"auto""#, r#""service_tier":"default""#, r#""service_tier":"flex""#] {
            assert_eq!(refused(field), None, "{field}");
        }
        assert_eq!(refused(r#""web_search_options":{}"#).as_deref(), Some("web_search_options"));
        assert_eq!(refused(r#""web_search_options":null"#), None);
    }
}
