//! What is refused because there is no price for it here: it would be ours to pay. That is whatever leads a request away from the model
//! that it is charged for, and what providers charge for beside tokens, or at other rates.

use super::get;
use super::rules::{GOVERNED, InvalidRequest, fold};
use crate::json::{self, Fields};

/// Fields that choose another model, provider or account, that carry what is not looked at here, or that order paid extras: those of
/// `OpenAI`, `OpenRouter`, `LiteLLM`, xAI, Anthropic, Alibaba and Vercel.
const REFUSED: [&str; 30] = [
    "api_base",
    "api_key",
    "api_version",
    "base_url",
    "content_policy_fallbacks",
    "context_window_fallback_dict",
    "context_window_fallbacks",
    "custom_llm_provider",
    "default_fallbacks",
    "deployment_id",
    "enable_search",
    "extra_headers",
    "fallbacks",
    "headers",
    "litellm_credential_name",
    "litellm_params",
    "model_list",
    "models",
    "plugins",
    "preset",
    "prompt_id",
    "provider",
    "provider_options",
    "providerOptions",
    "route",
    "router_settings_override",
    "search_parameters",
    "specific_deployment",
    "speed",
    "web_search_options",
];
/// `LiteLLM`'s answers that no model gave, and the failures that send a request to another.
const REFUSED_PREFIX: &str = "mock_";
/// What `LiteLLM` and others lay over the request that they send on.
const OVERLAY: &str = "extra_body";
/// Tiers that cost what the rate card says, or less.
const TIERS: [&str; 3] = ["auto", "default", "flex"];
/// Tools that the client runs itself; what a provider runs costs extra.
const TOOLS: [&str; 2] = ["function", "custom"];
/// What an answer may be of; a picture has no price here.
const MODALITIES: [&str; 2] = ["text", "audio"];

/// Refuses all of it.
pub(super) fn check(fields: &Fields) -> Result<(), InvalidRequest> {
    if let Some((name, _)) = fields.iter().find(|(name, value)| is_refused(name) && !json::is_null(value)) {
        return Err(not_offered(name));
    }
    check_overlay(fields)?;
    check_tier(fields)?;
    check_list(fields, "tools", "type", "must be function or custom", is_run_by_client)?;
    // Some translators read both lists alike, and take what has no name for a tool of the provider's.
    check_list(fields, "functions", "name", "must be a string", |function| function.raw("name").and_then(json::string).is_some())
}

fn not_offered(name: &str) -> InvalidRequest {
    InvalidRequest::new(name, "is not offered here")
}

/// As other readers may take the name: see [`super::rules::check_names`].
fn is_refused(name: &str) -> bool {
    let folded = fold(name);
    folded.starts_with(&fold(REFUSED_PREFIX)) || REFUSED.iter().any(|refused| folded.eq_ignore_ascii_case(refused))
}

/// What is checked or refused in the request must not come back by what is laid over it.
fn check_overlay(fields: &Fields) -> Result<(), InvalidRequest> {
    let Some(overlay) = get::<Fields>(fields, OVERLAY, "an object")? else { return Ok(()) };
    let is_governed = |name: &str| GOVERNED.iter().any(|governed| fold(name).eq_ignore_ascii_case(governed));
    match overlay.iter().find(|(name, _)| is_refused(name) || is_governed(name)) {
        Some((name, _)) => Err(not_offered(&format!("{OVERLAY}.{name}"))),
        None => Ok(()),
    }
}

fn check_tier(fields: &Fields) -> Result<(), InvalidRequest> {
    let Some(tier) = fields.raw("service_tier") else { return Ok(()) };
    if json::string(tier).is_some_and(|tier| TIERS.contains(&&*tier)) {
        return Ok(());
    }
    Err(InvalidRequest::new("service_tier", format!("must be one of {}", TIERS.join(", "))))
}

/// Refuses the first object of a list that is none of those that are fine.
fn check_list(fields: &Fields, list: &str, field: &str, rule: &str, is_fine: fn(&Fields) -> bool) -> Result<(), InvalidRequest> {
    let Some(raw) = fields.raw(list) else { return Ok(()) };
    let (mut index, mut wrong) = (0_u64, None);
    let each = |object: Fields| {
        if !is_fine(&object) {
            wrong.get_or_insert(index);
        }
        index += 1;
    };
    json::for_each(raw, each).map_err(|error| InvalidRequest::new(list, format!("must be a list of objects: {error}")))?;
    wrong.map_or(Ok(()), |index| Err(InvalidRequest::new(&format!("{list}[{index}].{field}"), rule)))
}

fn is_run_by_client(tool: &Fields) -> bool {
    let is_spelled_once = tool.iter().filter(|(name, _)| fold(name) == fold("type")).count() == 1;
    is_spelled_once && tool.raw("type").and_then(json::string).is_some_and(|kind| TOOLS.contains(&&*kind))
}

/// Whether the answer may be spoken.
pub(super) fn asks_for_audio(fields: &Fields) -> Result<bool, InvalidRequest> {
    let modalities: Vec<String> = get(fields, "modalities", "a list of strings")?.unwrap_or_default();
    if modalities.iter().any(|modality| !MODALITIES.contains(&modality.as_str())) {
        return Err(InvalidRequest::new("modalities", format!("must be of {}", MODALITIES.join(" and "))));
    }
    Ok(modalities.iter().any(|modality| modality == "audio"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::refused;

    /// [trap 8]
    #[test]
    fn tiers_that_have_no_price_are_refused() {
        for field in [r#""service_tier":"priority""#, r#""service_tier":"scale""#, r#""service_tier":1"#] {
            assert_eq!(refused(field).as_deref(), Some("service_tier"), "{field}");
        }
        for field in [r#""service_tier":null"#, r#""service_tier":"auto""#, r#""service_tier":"default""#, r#""service_tier":"flex""#] {
            assert_eq!(refused(field), None, "{field}");
        }
    }

    /// [trap 8]
    #[test]
    fn fields_that_choose_another_model_or_paid_extras_are_refused_however_they_are_written() {
        for name in REFUSED.into_iter().chain(["mock_response", "mock_testing_fallbacks"]) {
            let upper = name.to_uppercase();
            for name in [name, upper.as_str(), &name.replace('s', "ſ").replace('k', "\u{212a}")] {
                assert_eq!(refused(&format!(r#""{name}":["x"]"#)).as_deref(), Some(name));
                assert_eq!(refused(&format!(r#""{name}":null"#)), None, "{name}");
            }
        }
        for name in ["transforms", "guardrails", "reasoning", "metadata", "prompt_cache_key", "modelsx"] {
            assert_eq!(refused(&format!(r#""{name}":["x"]"#)), None, "{name}");
        }
    }

    /// [trap 8]
    #[test]
    fn what_is_laid_over_a_request_holds_nothing_that_is_checked_or_refused_in_it() {
        for (name, value) in
            [("model", r#""x""#), ("Models", "[]"), ("mock_response", "1"), ("max_tokens", "9"), ("tools", "[]"), ("extra_body", "{}")]
        {
            assert_eq!(refused(&format!(r#""extra_body":{{"a":1,"{name}":{value}}}"#)), Some(format!("extra_body.{name}")));
        }
        for (extra, param) in
            [(r#""extra_body":[]"#, "extra_body"), (r#""Extra_Body":{}"#, "Extra_Body"), (r#""extra_body":{"a":1,"a":2}"#, "extra_body")]
        {
            assert_eq!(refused(extra).as_deref(), Some(param));
        }
        assert_eq!(refused(r#""extra_body":{"google":{"thinking_config":{"thinking_budget":9}}}"#), None);
        assert_eq!(refused(r#""extra_body":null"#), None);
    }

    /// [trap 8]
    #[test]
    fn only_tools_that_the_client_runs_are_let_through() {
        let fine = r#"{"type":"function","function":{"name":"f"}}"#;
        for tool in [
            r#"{"type":"web_search_20250305","name":"web_search"}"#,
            r#"{"type":"openrouter:web_search"}"#,
            r#"{"type":"Function"}"#,
            r#"{"type":"function","Type":"web_search"}"#,
            r#"{"type":null}"#,
            r#"{"googleSearch":{}}"#,
        ] {
            assert_eq!(refused(&format!(r#""tools":[{fine},{tool}]"#)).as_deref(), Some("tools[1].type"), "{tool}");
        }
        assert_eq!(refused(r#""functions":[{"name":"f"},{"googleSearch":{}}]"#).as_deref(), Some("functions[1].name"));
        for (field, param) in [
            (r#""tools":["web_search"]"#, "tools"),
            (r#""tools":{"type":"web_search"}"#, "tools"),
            (r#""tools":[{"type":"function","type":"web_search"}]"#, "tools"),
            (r#""Tools":[]"#, "Tools"),
            (r#""functions":["f"]"#, "functions"),
        ] {
            assert_eq!(refused(field).as_deref(), Some(param), "{field}");
        }
        for field in [r#""tools":[]"#, r#""tools":null"#, r#""functions":[{"name":"f","parameters":{}}]"#] {
            assert_eq!(refused(field), None, "{field}");
        }
        assert_eq!(refused(&format!(r#""tools":[{fine},{{"type":"custom","custom":{{"name":"g"}}}}]"#)), None);
    }

    /// [trap 8]
    #[test]
    fn an_answer_that_is_neither_text_nor_sound_is_refused() {
        for modalities in [r#"["text","image"]"#, r#"["Audio"]"#, r#"["video"]"#] {
            assert_eq!(refused(&format!(r#""modalities":{modalities}"#)).as_deref(), Some("modalities"), "{modalities}");
        }
        assert_eq!(refused(r#""modalities":["text","audio"]"#), None);
    }
}
