//! Lists: newest first, cut by cursors.

use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::error::Failure;

/// Parameters of every list.
pub(crate) const PARAMS: &str = "limit starting_after ending_before created created.gt created.gte created.lt created.lte";
const DEFAULT_LIMIT: i64 = 10;
const MAX_LIMIT: i64 = 100;

/// A page of all objects of a kind that a filter keeps.
pub(crate) fn of(call: &Call, kind: &str, keep: impl Fn(&Value) -> bool) -> Answer {
    let instants = instants(call)?;
    let within = |object: &Value| instants.iter().all(|(holds, bound)| holds(object["created"].as_i64().unwrap_or_default(), *bound));
    let all: Vec<&Value> = call.world.all(kind).rev().filter(|object| within(object) && keep(object)).collect();
    cut(call, &all)
}

/// A page of objects that are in order already.
pub(crate) fn cut(call: &Call, all: &[&Value]) -> Answer {
    let limit = call.params.integer("limit")?.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Failure::invalid("Invalid limit: must be between 1 and 100").code("parameter_invalid_integer").param("limit"));
    }
    let limit = usize::try_from(limit).unwrap_or_default();
    let place = |param: &str| -> Result<Option<usize>, Failure> {
        let Some(id) = call.params.text(param) else { return Ok(None) };
        let found = all.iter().position(|object| object["id"] == id);
        found.map(Some).ok_or_else(|| Failure::no_such("object", id, param))
    };
    let (page, more) = match (place("starting_after")?, place("ending_before")?) {
        (Some(_), Some(_)) => return Err(Failure::invalid("You cannot use both starting_after and ending_before.").param("starting_after")),
        (_, Some(before)) => {
            let from = before.saturating_sub(limit);
            (&all[from..before], from > 0)
        }
        (after, None) => {
            let from = after.map_or(0, |place| place + 1);
            let to = (from + limit).min(all.len());
            (&all[from..to], to < all.len())
        }
    };
    Ok(json!({ "object": "list", "data": page, "has_more": more, "url": "" }))
}

/// A list inside of an object, whole: what is shown of it is cut by [`crate::shown`].
pub(crate) fn embedded(data: &[Value], url: &str) -> Value {
    json!({ "object": "list", "data": data, "has_more": false, "total_count": data.len(), "url": url })
}

/// A filter by equality with a parameter, if that was sent.
pub(crate) fn matches(call: &Call, object: &Value, fields: &str) -> bool {
    let mut sent = fields.split_ascii_whitespace().filter_map(|field| Some((field, call.params.text(field)?)));
    sent.all(|(field, text)| match &object[field] {
        Value::Bool(flag) => text == flag.to_string(),
        other => other == text,
    })
}

type Relation = fn(i64, i64) -> bool;
type Bound = (Relation, i64);

fn instants(call: &Call) -> Result<Vec<Bound>, Failure> {
    let relations: [(&str, Relation); 5] = [
        ("created", |at, bound| at == bound),
        ("created.gt", |at, bound| at > bound),
        ("created.gte", |at, bound| at >= bound),
        ("created.lt", |at, bound| at < bound),
        ("created.lte", |at, bound| at <= bound),
    ];
    let mut bounds = Vec::new();
    for (name, holds) in relations {
        if let Some(bound) = call.params.integer(name)? {
            bounds.push((holds, bound));
        }
    }
    Ok(bounds)
}
