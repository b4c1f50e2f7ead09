//! The models: all speak alike, they differ in name, price and the length of their longest answer.

use axum::Json;
use axum::extract::Path;
use serde::Serialize;

use crate::wire::{CREATED, Refusal};

/// A model.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) id: &'static str,
    /// Longest answer, in tokens.
    pub(crate) max_output_tokens: u64,
}

const MODELS: [Model; 2] = [Model { id: "sim-small", max_output_tokens: 4096 }, Model { id: "sim-large", max_output_tokens: 16384 }];

/// The model of this name.
pub(crate) fn by_id(id: &str) -> Result<&'static Model, Refusal> {
    MODELS.iter().find(|model| model.id == id).ok_or_else(|| Refusal::model_not_found(id))
}

#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    id: &'static str,
    object: &'static str,
    created: u32,
    owned_by: &'static str,
}

#[derive(Debug, Serialize)]
pub(crate) struct List {
    object: &'static str,
    data: Vec<Entry>,
}

fn entry(model: &Model) -> Entry {
    Entry { id: model.id, object: "model", created: CREATED, owned_by: "trivet" }
}

pub(crate) async fn list() -> Json<List> {
    Json(List { object: "list", data: MODELS.iter().map(entry).collect() })
}

pub(crate) async fn find(Path(id): Path<String>) -> Result<Json<Entry>, Refusal> {
    by_id(&id).map(|model| Json(entry(model)))
}
