//! Events: what happened, for 30 days.

use crate::call::{Answer, Call};
use crate::page;

pub(crate) fn retrieve(call: &mut Call) -> Answer {
    call.target("event")
}

/// Newest first; `type` may end in `*`, `types[]` is a list of exact ones.
pub(crate) fn list(call: &mut Call) -> Answer {
    let wanted = call.params.text("type").map(str::to_owned);
    let listed = call.params.texts("types");
    page::of(call, "event", |event| {
        let kind = event["type"].as_str().unwrap_or_default();
        let single =
            wanted.as_deref().is_none_or(|wanted| wanted.strip_suffix('*').map_or(wanted == kind, |start| kind.starts_with(start)));
        single && (listed.is_empty() || listed.iter().any(|name| name == kind))
    })
}
