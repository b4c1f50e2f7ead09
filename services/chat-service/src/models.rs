//! The models that are offered, and the routes that list them.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chassis::Problem;
use chassis::config::FromSetting;
use chassis::http::Path;
use identity::Scope;
use llm::{Allowances, ErrorBody};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::caller::Caller;
use crate::error::ApiError;
use crate::state::AppState;

/// What the name `builtin` stands for.
const BUILTIN: &str = include_str!("../models.json");
/// What an image counts at most where nothing is said.
const IMAGE_TOKENS: u64 = 2000;

/// A model that is offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The name for clients, and the key of the rate card.
    pub id: String,
    /// The provider's name of it, when that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_model: Option<String>,
    /// Prompt and answer together, in tokens.
    pub context_window: u64,
    /// Longest answer, in tokens.
    pub max_output_tokens: u64,
    /// The most that an image counts, in tokens.
    #[serde(default = "default_image_tokens")]
    pub image_tokens: u64,
    /// Who made it.
    #[serde(default)]
    pub owned_by: String,
    /// When it was made, in seconds since 1970.
    #[serde(default)]
    pub created: u32,
}

const fn default_image_tokens() -> u64 {
    IMAGE_TOKENS
}

impl Model {
    /// The provider's name of it.
    #[must_use]
    pub fn provider_model(&self) -> &str {
        self.provider_model.as_deref().unwrap_or(&self.id)
    }

    /// Its limits.
    #[must_use]
    pub const fn allowances(&self) -> Allowances {
        Allowances { context_window: self.context_window, max_output_tokens: self.max_output_tokens, image_tokens: self.image_tokens }
    }
}

/// The models that are offered; cheap to clone.
#[derive(Debug, Clone)]
pub struct ModelCatalog(Arc<[Arc<Model>]>);

impl ModelCatalog {
    /// The model of this name.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<Arc<Model>> {
        self.0.iter().find(|model| model.id == id).cloned()
    }

    /// All of them, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Model> {
        self.0.iter().map(|model| &**model)
    }
}

impl FromSetting for ModelCatalog {
    fn from_setting(text: &str) -> Result<Self, String> {
        let text = match text.trim() {
            "builtin" => BUILTIN.to_owned(),
            inline if inline.starts_with('[') => inline.to_owned(),
            path => std::fs::read_to_string(path).map_err(|error| format!("names a file that cannot be read: {error}"))?,
        };
        let models: Vec<Model> = serde_json::from_str(&text).map_err(|error| format!("must be a JSON list of models: {error}"))?;
        let mut ids = HashSet::new();
        let unusable = |model: &&Model| model.id.is_empty() || model.max_output_tokens == 0 || model.context_window == 0;
        if let Some(model) = models.iter().find(unusable) {
            return Err(format!("must give each model an id and limits above zero ({:?})", model.id));
        }
        if let Some(twice) = models.iter().find(|model| !ids.insert(&model.id)) {
            return Err(format!("must name each model once ({:?})", twice.id));
        }
        Ok(Self(models.into_iter().map(Arc::new).collect()))
    }
}

/// A model, as `OpenAI` describes one.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelObject {
    /// The name to use in requests.
    pub id: String,
    /// `model`
    pub object: &'static str,
    /// When it was made, in seconds since 1970.
    pub created: u32,
    /// Who made it.
    pub owned_by: String,
}

/// The models, as `OpenAI` lists them.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelList {
    /// `list`
    pub object: &'static str,
    /// The models.
    pub data: Vec<ModelObject>,
}

impl From<&Model> for ModelObject {
    fn from(model: &Model) -> Self {
        Self { id: model.id.clone(), object: "model", created: model.created, owned_by: model.owned_by.clone() }
    }
}

/// The models that are offered and that the organization's plan has.
#[utoipa::path(get, path = "/v1/models", tag = "models", security(("bearer" = [])),
    responses((status = 200, body = ModelList), (status = 401, body = ErrorBody),
        (status = 403, description = "`missing_scope`", body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn list(State(state): State<AppState>, Caller(principal): Caller) -> Result<Json<ModelList>, ApiError> {
    principal.require(Scope::ModelsRead)?;
    let entitlements = state.entitlements.get(principal.organization_id).await?;
    let models = state.models.iter().filter(|model| entitlements.allow_model(&model.id));
    Ok(Json(ModelList { object: "list", data: models.map(ModelObject::from).collect() }))
}

/// One model.
#[utoipa::path(get, path = "/v1/models/{id}", tag = "models", security(("bearer" = [])), params(("id" = String, Path, description = "Its name.")),
    responses((status = 200, body = ModelObject), (status = 401, body = ErrorBody),
        (status = 403, description = "`missing_scope`, or `model_not_in_plan`", body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 503, body = ErrorBody)))]
pub(crate) async fn get(
    State(state): State<AppState>,
    Caller(principal): Caller,
    path: Result<Path<String>, Problem>,
) -> Result<Json<ModelObject>, ApiError> {
    principal.require(Scope::ModelsRead)?;
    let Path(id) = path.map_err(|_| ApiError::ModelNotFound)?;
    let model = state.models.find(&id).ok_or(ApiError::ModelNotFound)?;
    if !state.entitlements.get(principal.organization_id).await?.allow_model(&model.id) {
        return Err(ApiError::ModelNotInPlan);
    }
    Ok(Json(ModelObject::from(&*model)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_models_are_usable_and_the_simulators_are_among_them() {
        let models = ModelCatalog::from_setting("builtin").expect("what the test gives is valid");
        assert!(models.find("sim-small").is_some() && models.find("sim-large").is_some());
    }

    #[test]
    fn a_list_that_cannot_be_used_stops_the_start() {
        let model = r#"{"id":"a","context_window":1,"max_output_tokens":1}"#;
        for wrong in [
            "/no/such/file",
            "[{}]",
            &format!("[{model},{model}]"),
            &format!("[{}]", model.replace("\"a\"", "\"\"")),
            &format!("[{}]", model.replace(":1}", ":0}")),
        ] {
            assert!(ModelCatalog::from_setting(wrong).is_err(), "{wrong}");
        }
        let aliased = format!("[{}]", model.replace('}', r#","provider_model":"b"}"#));
        assert_eq!(
            ModelCatalog::from_setting(&aliased)
                .expect("what the test gives is valid")
                .find("a")
                .expect("what the test gives is valid")
                .provider_model(),
            "b"
        );
    }
}
