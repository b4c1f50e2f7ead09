//! `expand[]`: ids in an answer become the objects that they name.

use serde_json::Value;

use crate::error::Failure;
use crate::shown::hide;
use crate::world::World;

const MAX_DEPTH: usize = 4;

/// Replaces ids by objects along each path, then removes what is the simulator's own.
pub(crate) fn expand(world: &World, mut answer: Value, paths: &[String]) -> Result<Value, Failure> {
    for path in paths {
        let names: Vec<&str> =
            path.split('.').filter(|name| *name != "data" || answer["object"] != "list" || !path.starts_with("data")).collect();
        if names.len() > MAX_DEPTH {
            let message = format!("You cannot expand more than {MAX_DEPTH} levels of a property. Property: {path}");
            return Err(Failure::invalid(message).param("expand"));
        }
        let targets = if answer["object"] == "list" && path.starts_with("data") { answer["data"].as_array_mut() } else { None };
        let found = match targets {
            Some(entries) => entries.iter_mut().all(|entry| follow(world, entry, &names)),
            None => follow(world, &mut answer, &names),
        };
        if !found {
            let message = format!("This property cannot be expanded ({path}).");
            return Err(Failure::invalid(message).param("expand"));
        }
    }
    hide(&mut answer);
    Ok(answer)
}

fn follow(world: &World, object: &mut Value, names: &[&str]) -> bool {
    let Some((first, rest)) = names.split_first() else { return true };
    if let Value::Array(entries) = object {
        return entries.iter_mut().all(|entry| follow(world, entry, names));
    }
    if *first == "data" && object["object"] == "list" {
        return follow(world, &mut object["data"], rest);
    }
    // Fields that are only shown when asked for are kept under a hidden name.
    if object.get(first).is_none()
        && let Some(hidden) = object.get(format!("__{first}")).cloned()
    {
        object[*first] = hidden;
    }
    let Some(field) = object.get_mut(first) else { return false };
    replace(world, field);
    field.is_null() || follow(world, field, rest)
}

fn replace(world: &World, field: &mut Value) {
    match field {
        Value::String(id) => {
            if let Some(object) = world.find(id) {
                *field = object.clone();
            }
        }
        Value::Array(entries) => entries.iter_mut().for_each(|entry| replace(world, entry)),
        _ => {}
    }
}
