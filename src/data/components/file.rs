//! `loadings.safetensors`: tensors `loadings [k, d]` f32, `mean [d]` and `variance [k]` f64; the
//! header's metadata key `components` holds the rest as JSON.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Components, MAX_COMPONENTS};
use crate::data::array::MAX_COLUMNS;
use crate::error::{Error, InputKind, Result};
use crate::tensor_writer::{NewTensor, write_tensors};
use crate::tensors::{COMPONENTS_KEY, TensorFile};

const VERSION: u32 = 1;

/// The JSON of the metadata.
#[derive(Serialize, Deserialize)]
struct Metadata {
    version: u32,
    total_variance: f64,
    /// Left out where the columns have no names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    columns: Option<Vec<String>>,
}

impl Components {
    /// Writes the components to `path`, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let Components { loadings, mean, variance, total_variance, columns } = self;
        let metadata = Metadata { version: VERSION, total_variance: *total_variance, columns: columns.clone() };
        let json = serde_json::to_string(&metadata).map_err(|error| Error::io(path, "write")(error.into()))?;
        let (k, d) = (variance.len(), mean.len());
        let tensors = vec![
            ("loadings".to_string(), NewTensor::f32(&[k, d], loadings)),
            ("mean".to_string(), NewTensor::f64(&[d], mean)),
            ("variance".to_string(), NewTensor::f64(&[k], variance)),
        ];
        write_tensors(&path.into(), tensors, HashMap::from([(COMPONENTS_KEY.to_string(), json)]))
    }

    /// Reads components. Tensors may be f16, bf16, f32 or f64.
    ///
    /// # Errors
    /// [`Error::Input`] names the metadata field or tensor that is missing, misshapen, out of range
    /// or not finite.
    pub fn load(path: &Path) -> Result<Components> {
        const DOCUMENTATION: &str = "give a loadings.safetensors of a run folder, or see docs/model-file.md";
        let mut file = TensorFile::open(path)?;
        let missing = ["is missing from the metadata: these are no loadings of components", DOCUMENTATION];
        let metadata: Metadata = file.described(COMPONENTS_KEY, &[VERSION], missing)?;
        const TENSORS: [&str; 3] = ["loadings", "mean", "variance"];
        if let Some(name) = file.names().iter().find(|name| !TENSORS.contains(&name.as_str())) {
            let fix = "store loadings, mean and variance";
            return Err(Error::input(path, name, "does not belong to components", fix).of_kind(InputKind::Unknown));
        }
        let [k, d] = match file.shape("loadings")?[..] {
            [k, d] if (1..=MAX_COMPONENTS.min(d)).contains(&k) && d <= MAX_COLUMNS => [k, d],
            ref other => {
                let fix = format!("store 1 to {MAX_COMPONENTS} components of at most {MAX_COLUMNS} columns");
                return Err(Error::input(path, "loadings", format!("has shape {other:?}"), fix));
            }
        };
        let loadings = file.f32s("loadings", &[k, d])?;
        let (mean, variance) = (file.f64s("mean", &[d])?, file.f64s("variance", &[k])?);
        Components::new(path, loadings, mean, variance, metadata.total_variance, metadata.columns)
    }
}
