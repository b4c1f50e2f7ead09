//! What a request must keep to before anybody is asked.

use super::get;
use crate::json::Fields;

const MAX_CHOICES: u64 = 128;
const MAX_MODEL_BYTES: usize = 200;
/// The fields that are read here.
pub(super) const GOVERNED: [&str; 12] = [
    "extra_body",
    "functions",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "modalities",
    "model",
    "n",
    "service_tier",
    "stream",
    "stream_options",
    "tools",
];

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
/// folding.
pub(super) fn check_names(fields: &Fields) -> Result<(), InvalidRequest> {
    for (name, _) in fields.iter().filter(|(name, _)| !GOVERNED.contains(name)) {
        let folded = fold(name);
        if let Some(meant) = GOVERNED.into_iter().find(|governed| fold(governed) == folded) {
            return Err(InvalidRequest::new(name, format!("must be written {meant}")));
        }
    }
    Ok(())
}

/// A name without case, by Unicode's folding, in which `ſ` is an `s` and the sign of Kelvin a `k`.
pub(super) fn fold(name: &str) -> String {
    name.to_lowercase().to_uppercase()
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

#[cfg(test)]
mod tests {
    use crate::request::refused;

    /// [trap 3]
    #[test]
    fn a_name_that_differs_from_a_governed_one_in_case_alone_is_refused() {
        for name in
            ["Model", "MESSAGES", "Stream", "Max_Tokens", "max_Completion_tokens", "N", "ſtream", "max_to\u{212a}ens", "Service_Tier"]
        {
            assert_eq!(refused(&format!(r#""{name}":1"#)).as_deref(), Some(name));
        }
        for name in ["Temperature", "modelsx", "nn", "max-tokens"] {
            assert_eq!(refused(&format!(r#""{name}":1"#)), None, "{name}");
        }
    }
}
