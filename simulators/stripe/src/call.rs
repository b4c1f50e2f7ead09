//! One request as the resources see it.

use serde_json::Value;

use crate::error::Failure;
use crate::params::Params;
use crate::world::World;

/// What a resource gets: the account, what the path names, and the parameters.
pub(crate) struct Call<'a> {
    pub(crate) world: &'a mut World,
    pub(crate) path: &'a [String],
    pub(crate) params: &'a Params,
}

/// The object that is answered.
pub(crate) type Answer = Result<Value, Failure>;

impl Call<'_> {
    /// The id in the path.
    pub(crate) fn id(&self) -> &str {
        self.path.first().map_or("", String::as_str)
    }

    /// The object that the path names.
    pub(crate) fn target(&self, kind: &str) -> Answer {
        self.world.get(kind, self.id(), "id")
    }

    /// The object that a parameter must name.
    pub(crate) fn named(&self, kind: &str, param: &str) -> Answer {
        self.world.get(kind, self.params.required(param)?, param)
    }

    /// The object that a parameter may name.
    pub(crate) fn maybe_named(&self, kind: &str, param: &str) -> Result<Option<Value>, Failure> {
        self.params.text(param).map(|id| self.world.get(kind, id, param)).transpose()
    }
}
