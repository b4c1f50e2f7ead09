//! What an answer cost us: some providers tell it in their usage, and it is none of a client's business.

use serde_json::value::RawValue;

use crate::json;

/// What `OpenRouter` and xAI tell.
const COSTS: [&str; 4] = ["cost", "cost_details", "cost_in_usd_ticks", "is_byok"];

/// A whole answer, or an event of a stream, without it; none, when nothing of it is told and the answer can pass as it is.
#[must_use]
pub fn without_cost(data: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(data).ok()?.trim();
    // Nearly all events end here, and are not read once more.
    COSTS.iter().find(|name| text.contains(**name))?;
    let fields = json::entries::<String>(text)?;
    let usage = fields.iter().rev().find(|(name, _)| name == "usage")?.1;
    let shown = without_cost_fields(usage)?;
    let mut answer = Vec::with_capacity(data.len());
    answer.push(b'{');
    for (name, value) in &fields {
        json::push_field(&mut answer, name, if name == "usage" { &shown } else { value.get() });
    }
    answer.push(b'}');
    Some(answer)
}

fn without_cost_fields(usage: &RawValue) -> Option<String> {
    let fields = json::entries::<String>(usage.get())?;
    let is_cost = |name: &str| COSTS.contains(&name);
    fields.iter().find(|(name, _)| is_cost(name))?;
    let mut shown = vec![b'{'];
    for (name, value) in fields.iter().filter(|(name, _)| !is_cost(name)) {
        json::push_field(&mut shown, name, value.get());
    }
    shown.push(b'}');
    String::from_utf8(shown).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(answer: &str) -> Option<String> {
        without_cost(answer.as_bytes()).map(|answer| String::from_utf8(answer).expect("what the test gives is valid"))
    }

    #[test]
    fn what_an_answer_cost_us_is_taken_out_of_its_usage_and_everything_else_is_kept() {
        let answer = r#"{"id":"c\n","choices":[{"x":1.50}],"usage":{"prompt_tokens":9,"cost":0.1,"is_byok":false,"x":[1.0],
            "cost_details":{"upstream_inference_cost":null},"cost_in_usd_ticks":7},"cost":1}"#;
        let expected = r#"{"id":"c\n","choices":[{"x":1.50}],"usage":{"prompt_tokens":9,"x":[1.0]},"cost":1}"#;
        assert_eq!(shown(answer).as_deref(), Some(expected));
        assert_eq!(shown(r#"{"usage":{"cost":1}}"#).as_deref(), Some(r#"{"usage":{}}"#));
    }

    #[test]
    fn an_answer_that_tells_nothing_of_it_passes_as_it_is() {
        for answer in [
            r#"{"choices":[{"delta":{"content":"what does it cost?"}}],"usage":null}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":9}}"#,
            r#"{"cost":1,"usage":[]}"#,
            "cost",
        ] {
            assert_eq!(shown(answer), None, "{answer}");
        }
    }
}
