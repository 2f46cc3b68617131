//! `model.safetensors`: the EMA parameters under the names of a PyTorch `nn.Sequential`, and the
//! metadata.
//!
//! Tensors are f32, `net.0.weight [out, in]`, `net.0.bias [out]`, `net.2.weight`, …, and likewise
//! `growth_head.0.weight`, … of a growth head; the header's metadata key `action_matching` holds
//! the rest as JSON.

use std::collections::HashMap;
use std::fmt::Write;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{
    Activation, Architecture, Condition, Coordinates, Head, Layer, MAX_MAGNITUDE, MIN_SCALE, Model, TimeEmbedding,
};
use crate::display::significant;
use crate::error::{Error, InputKind, Origin, Result};
use crate::objective::{Objective, SigmaSchedule, TimeWeight};
use crate::tensor_writer::{NewTensor, write_tensors};
use crate::tensors::{MODEL_KEY, TensorFile};

/// Version of a model without conditions and growth head, which programs of every version read.
const VERSION: u32 = 1;

/// Version of a model with conditions or a growth head.
const LATER_VERSION: u32 = 2;

/// Names of the two networks.
const ACTION: &str = "net";
const GROWTH_HEAD: &str = "growth_head";

/// The JSON of the metadata.
#[derive(Serialize, Deserialize)]
struct Metadata {
    version: u32,
    dim: usize,
    hidden: Vec<usize>,
    activation: Activation,
    head: Head,
    time_embedding: TimeEmbedding,
    mean: Vec<f64>,
    scale: Vec<f64>,
    time_range: [f64; 2],
    /// Left out where the dimensions have no names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    columns: Option<Vec<String>>,
    sigma: f64,
    /// Left out where it is constant.
    #[serde(default, skip_serializing_if = "is_default")]
    sigma_schedule: SigmaSchedule,
    growth: f64,
    /// Left out where there is none; only in version 2.
    #[serde(default, skip_serializing_if = "is_default")]
    growth_head: bool,
    cost_exponent: f64,
    /// Left out where there are none; only in version 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    conditions: Vec<Condition>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Names and shapes of the two tensors of layer `index` of the action.
pub(crate) fn tensor_names(index: usize, layer: &Layer) -> [(String, Vec<usize>); 2] {
    names_in(ACTION, index, layer)
}

/// The same of the growth head.
pub(crate) fn growth_tensor_names(index: usize, layer: &Layer) -> [(String, Vec<usize>); 2] {
    names_in(GROWTH_HEAD, index, layer)
}

fn names_in(network: &str, index: usize, layer: &Layer) -> [(String, Vec<usize>); 2] {
    let position = 2 * index; // activations take the odd places of the nn.Sequential
    [
        (format!("{network}.{position}.weight"), vec![layer.n_out, layer.n_in]),
        (format!("{network}.{position}.bias"), vec![layer.n_out]),
    ]
}

/// Every tensor of a network of shape `architecture`: its name, shape and place in the parameters.
fn tensors_of(network: &str, architecture: &Architecture) -> Vec<(String, Vec<usize>, Range<usize>)> {
    let of_layer = |(index, layer): (usize, &Layer)| {
        let [(weight, weight_shape), (bias, bias_shape)] = names_in(network, index, layer);
        let places = [layer.weight..layer.bias, layer.bias..layer.bias + layer.n_out];
        let [of_weight, of_bias] = places;
        [(weight, weight_shape, of_weight), (bias, bias_shape, of_bias)]
    };
    architecture.layers().iter().enumerate().flat_map(of_layer).collect()
}

impl Model {
    /// Writes `model.safetensors` to `path`, whole or not at all. The time weight ω belongs to
    /// training and is not stored.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written; [`Error::Shape`] and [`Error::Input`] when
    /// [`Model::load`] would refuse it.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.check_storable(path)?;
        let json = self.metadata(path)?;
        let tensors = self.tensors().into_iter().map(|(name, shape, values)| (name, NewTensor::f32(&shape, values)));
        write_tensors(&path.into(), tensors.collect(), HashMap::from([(MODEL_KEY.to_string(), json)]))
    }

    /// Name, shape and values of every tensor.
    fn tensors(&self) -> Vec<(String, Vec<usize>, &[f32])> {
        let of_growth = self.architecture.growth_head();
        let head = self.growth_head.as_ref().map(|parameters| (GROWTH_HEAD, &of_growth, parameters));
        let networks = [(ACTION, &self.architecture, &self.parameters)].into_iter().chain(head);
        let tensors = networks.flat_map(|(network, architecture, parameters)| {
            let tensors = tensors_of(network, architecture).into_iter();
            tensors.map(|(name, shape, place)| (name, shape, &parameters[place]))
        });
        tensors.collect()
    }

    /// All but the parameters, as the JSON that a file at `path` holds.
    pub(crate) fn metadata(&self, path: &Path) -> Result<String> {
        let Model { architecture, coordinates, objective, parameters: _, growth_head } = self;
        let is_plain = architecture.conditions == 0 && growth_head.is_none();
        let metadata = Metadata {
            version: if is_plain { VERSION } else { LATER_VERSION },
            dim: architecture.dim,
            hidden: architecture.hidden.clone(),
            activation: architecture.activation,
            head: architecture.head,
            time_embedding: architecture.time_embedding.clone(),
            mean: coordinates.mean.clone(),
            scale: coordinates.scale.clone(),
            time_range: coordinates.time_range,
            columns: coordinates.columns.clone(),
            sigma: objective.sigma,
            sigma_schedule: objective.sigma_schedule,
            growth: objective.growth,
            growth_head: growth_head.is_some(),
            cost_exponent: objective.cost_exponent,
            conditions: coordinates.conditions.clone(),
        };
        serde_json::to_string(&metadata).map_err(|error| Error::io(path, "write")(error.into()))
    }

    /// Reads a model file. Tensors may be f16, bf16, f32 or f64; the time weight is ω = 1.
    ///
    /// # Errors
    /// [`Error::Input`] names the metadata field or tensor that is missing, misshapen, out of range
    /// or not finite.
    pub fn load(path: &Path) -> Result<Model> {
        let mut file = TensorFile::open(path)?;
        let missing = [
            "is missing from the metadata: this is not a model of action-matching",
            "give a model.safetensors written by `amatch train`, or see docs/model-file.md",
        ];
        let metadata: Metadata = file.described(MODEL_KEY, &[VERSION, LATER_VERSION], missing)?;

        let architecture = Architecture {
            dim: metadata.dim,
            hidden: metadata.hidden,
            activation: metadata.activation,
            head: metadata.head,
            time_embedding: metadata.time_embedding,
            conditions: metadata.conditions.iter().map(Condition::width).sum(),
        };
        for (field, is_used) in [("conditions", architecture.conditions > 0), (GROWTH_HEAD, metadata.growth_head)] {
            if metadata.version == VERSION && is_used {
                let (field, fix) = (format!("{MODEL_KEY}: {field}"), "store it as version 2");
                return Err(Error::input(path, field, "stands in a model of version 1", fix));
            }
        }
        architecture.validate(path)?;
        let objective = Objective {
            sigma: metadata.sigma,
            sigma_schedule: metadata.sigma_schedule,
            growth: metadata.growth,
            cost_exponent: metadata.cost_exponent,
            time_weight: TimeWeight::Constant,
        };

        let action = tensors_of(ACTION, &architecture);
        let head = metadata.growth_head.then(|| tensors_of(GROWTH_HEAD, &architecture.growth_head()));
        let expected = || action.iter().chain(head.iter().flatten());
        if let Some(name) = file.names().iter().find(|name| expected().all(|(expected, ..)| expected != *name)) {
            let n_layers = architecture.layers().len();
            return Err(Error::input(
                path,
                name,
                "is not a tensor of this network",
                format!("store {n_layers} layers, net.0 to net.{}", 2 * (n_layers - 1)),
            )
            .of_kind(InputKind::Unknown));
        }
        let mut read = |tensors: &[(String, Vec<usize>, Range<usize>)]| -> Result<Vec<f32>> {
            let mut parameters = Vec::new();
            for (name, shape, _) in tensors {
                parameters.extend(file.f32s(name, shape)?);
            }
            Ok(parameters)
        };
        let parameters = read(&action)?;
        let growth_head = head.as_deref().map(read).transpose()?;
        let Metadata { mean, scale, time_range, columns, conditions, .. } = metadata;
        let coordinates = Coordinates { mean, scale, time_range, columns, conditions };
        let model = Model { architecture, coordinates, objective, parameters, growth_head };
        model.check_storable(path)?;
        Ok(model)
    }

    /// Checks all that a file promises its reader: sizes, ranges, and that every number is finite.
    pub(crate) fn check_storable(&self, path: &Path) -> Result<()> {
        let fail = |field: &str, problem: String, fix: &str| Err(Error::input(path, field, problem, fix));
        let Architecture { dim, .. } = self.architecture;
        self.coordinates.check_storable(dim, &path.into())?;
        self.coordinates.check_conditions(self.architecture.conditions, &path.into())?;
        self.objective.validate(path)?;
        self.validate()?;
        if self.growth_head.is_some() && self.objective.growth == 0.0 {
            return fail(GROWTH_HEAD, "stands in a model without growth".into(), "store its growth, or leave it out");
        }
        for (name, _, values) in self.tensors() {
            if let Some(i) = values.iter().position(|value| !value.is_finite()) {
                return fail(&name, format!("holds {} at element {i}", values[i]), "store finite f32 numbers");
            }
        }
        Ok(())
    }

    /// Description of a model as `amatch inspect` prints it, over several lines.
    #[must_use]
    pub fn describe(&self) -> String {
        let Model { architecture, coordinates, objective, parameters, growth_head } = self;
        let mut text = String::new();
        let mut line = |label: &str, value: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{label:<16} {value}");
        };
        let names = |value: serde_json::Result<String>| value.unwrap_or_default().replace('"', "");
        line("dimension", architecture.dim.to_string());
        line("hidden layers", format!("{:?}", architecture.hidden));
        line("activation", names(serde_json::to_string(&architecture.activation)));
        line("head", names(serde_json::to_string(&architecture.head)));
        line(
            "time embedding",
            match &architecture.time_embedding {
                TimeEmbedding::Raw => "raw".to_string(),
                TimeEmbedding::Fourier { frequencies } => format!("fourier, frequencies {frequencies:?}"),
            },
        );
        line("parameters", parameters.len().to_string());
        line("sigma", objective.sigma.to_string());
        line("growth", objective.growth.to_string());
        if growth_head.is_some() {
            line("growth head", "a network of its own, of the same shape".into());
        }
        line("cost exponent", objective.cost_exponent.to_string());
        line("time range", format!("{} to {}", coordinates.time_range[0], coordinates.time_range[1]));
        if let Some(names) = &coordinates.columns {
            line("columns", shown_names(names));
        }
        coordinates.conditions.iter().for_each(|condition| line("condition", condition.known()));
        line("mean", abbreviated(&coordinates.mean));
        line("scale", abbreviated(&coordinates.scale));
        for (name, shape, values) in self.tensors() {
            let square = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>() / values.len() as f64;
            line(&name, format!("{shape:?}, root mean square {}", significant(square.sqrt(), 4)));
        }
        text
    }
}

impl Coordinates {
    /// Checks what a file promises: one value for each of `dim` dimensions, sizes that f32
    /// particles can have, times that increase.
    pub(crate) fn check_storable(&self, dim: usize, origin: &Origin) -> Result<()> {
        let fail = |field: &str, problem: String, fix: &str| Err(Error::input(origin, field, problem, fix));
        let Coordinates { mean, scale, time_range: [start, end], columns, conditions: _ } = self;
        for (field, n) in [("mean", mean.len()), ("scale", scale.len())]
            .into_iter()
            .chain(columns.iter().map(|names| ("columns", names.len())))
        {
            if n != dim {
                return fail(
                    field,
                    format!("has {n} values for {dim} dimensions"),
                    "store one value for each dimension",
                );
            }
        }
        if let Some(value) = mean.iter().find(|value| !(-MAX_MAGNITUDE..=MAX_MAGNITUDE).contains(*value)) {
            let fix = format!("store numbers of magnitude {MAX_MAGNITUDE:e} at most, in other units");
            return fail("mean", format!("contains {value:e}"), &fix);
        }
        if let Some(value) = scale.iter().find(|value| !(MIN_SCALE..=MAX_MAGNITUDE).contains(*value)) {
            let fix = format!("store positive numbers, {MIN_SCALE:e} to {MAX_MAGNITUDE:e}, in other units");
            return fail("scale", format!("contains {value:e}"), &fix);
        }
        if !(start.is_finite() && end.is_finite() && start < end) {
            return fail("time_range", format!("is [{start}, {end}]"), "store an increasing pair");
        }
        if !(end - start).is_finite() {
            let problem = format!("is [{start:e}, {end:e}], whose length overflows");
            return fail("time_range", problem, "store times in other units");
        }
        Ok(())
    }
}

/// The first few of `values`.
fn abbreviated(values: &[f64]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = values.iter().take(SHOWN).map(|value| significant(*value, 6)).collect();
    let more = if values.len() > SHOWN { format!(", … ({} in all)", values.len()) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

/// The first few of `names`.
fn shown_names(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let more = if names.len() > SHOWN { format!(", … ({} in all)", names.len()) } else { String::new() };
    format!("{}{more}", names[..names.len().min(SHOWN)].join(", "))
}
