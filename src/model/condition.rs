//! What a model may depend on besides place and time: a covariate c of s(x, t, c), the same along
//! the path of a particle.
//!
//! To the network a condition is one or more inputs beside x and φ(t). For one condition these are
//! constants, so they are no more than a bias of the first layer, W [x, φ, c] + b = W′ [x, φ] + b′
//! with b′ = b + W_c c: [`Model::under`] is the model with that bias, which knows no conditions.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Architecture, Coordinates, MAX_MAGNITUDE, MIN_SCALE, Model};
use crate::error::{Error, InputKind, Origin, Result, check_len};

/// A condition: its name, and how its values become inputs of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum Condition {
    /// A number, such as a dose: one input, (value − mean) / scale.
    Number {
        /// Its name in the data.
        name: String,
        /// Subtracted from a value.
        mean: f64,
        /// Divides it, positive.
        scale: f64,
        /// The smallest and the largest value in training.
        range: [f64; 2],
    },
    /// A category, such as a treatment: an input for each one, 1 for that of the row and 0 for the
    /// others.
    Category {
        /// Its name in the data.
        name: String,
        /// The categories, in the order of their inputs.
        categories: Vec<String>,
    },
}

/// A value of a condition, data units.
#[derive(Clone, Debug, PartialEq)]
pub enum ConditionValue {
    /// Of [`Condition::Number`].
    Number(f64),
    /// Of [`Condition::Category`].
    Category(String),
}

impl From<f64> for ConditionValue {
    fn from(value: f64) -> Self {
        ConditionValue::Number(value)
    }
}

impl From<&str> for ConditionValue {
    fn from(value: &str) -> Self {
        ConditionValue::Category(value.into())
    }
}

impl fmt::Display for ConditionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConditionValue::Number(value) => value.fmt(f),
            ConditionValue::Category(value) => value.fmt(f),
        }
    }
}

impl Condition {
    /// Its name in the data.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Condition::Number { name, .. } | Condition::Category { name, .. } => name,
        }
    }

    /// Number of inputs of the network.
    #[must_use]
    pub fn width(&self) -> usize {
        match self {
            Condition::Number { .. } => 1,
            Condition::Category { categories, .. } => categories.len(),
        }
    }

    /// The value that `text` stands for.
    ///
    /// # Errors
    /// [`Error::Input`] for text that is no number, or no category that training knew.
    pub fn parse(&self, text: &str) -> Result<ConditionValue> {
        match self {
            Condition::Number { .. } => match text.trim().parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(value.into()),
                _ => self.refuse(format!("is {text:?}"), "give a finite number"),
            },
            Condition::Category { .. } => {
                let value = ConditionValue::from(text.trim());
                self.inputs(&value, &mut Vec::new())?;
                Ok(value)
            }
        }
    }

    /// Appends the inputs of `value` to `to`.
    ///
    /// # Errors
    /// [`Error::Input`] for a value of the other kind, a category that training did not know, and a
    /// number that is not finite as an input.
    pub fn inputs(&self, value: &ConditionValue, to: &mut Vec<f32>) -> Result<()> {
        match (self, value) {
            (Condition::Number { mean, scale, .. }, ConditionValue::Number(number)) => {
                let input = ((number - mean) / scale) as f32;
                to.push(input);
                if input.is_finite() {
                    return Ok(());
                }
                self.refuse(format!("is {number}"), "give a finite number of the size of those in training")
            }
            (Condition::Category { categories, .. }, ConditionValue::Category(category)) => {
                to.extend(categories.iter().map(|known| if known == category { 1.0 } else { 0.0 }));
                if categories.contains(category) {
                    return Ok(());
                }
                self.refuse(
                    format!("is {category:?}, which training did not know"),
                    &format!("use one of {}", quoted(categories)),
                )
            }
            (Condition::Number { .. }, ConditionValue::Category(category)) => {
                self.refuse(format!("is {category:?}"), "give a number")
            }
            (Condition::Category { categories, .. }, ConditionValue::Number(number)) => {
                self.refuse(format!("is the number {number}"), &format!("use one of {}", quoted(categories)))
            }
        }
    }

    /// True for a number outside of those that training knew, where the model is a guess.
    #[must_use]
    pub fn extrapolates(&self, value: &ConditionValue) -> bool {
        match (self, value) {
            (Condition::Number { range: [least, most], scale, .. }, ConditionValue::Number(value)) => {
                // Values this close to an end are the end, rounded differently.
                let slack = 1e-6 * scale;
                !(least - slack..=most + slack).contains(value)
            }
            _ => false,
        }
    }

    /// What training knew of it, in words.
    #[must_use]
    pub fn known(&self) -> String {
        match self {
            Condition::Number { name, range: [least, most], .. } => format!("{name}, {least} to {most}"),
            Condition::Category { name, categories } => format!("{name}, {}", quoted(categories)),
        }
    }

    fn refuse<T>(&self, problem: String, fix: &str) -> Result<T> {
        Err(Error::input("condition", self.name(), problem, fix))
    }

    /// Checks what a file promises its reader.
    fn check_storable(&self, origin: &Origin) -> Result<()> {
        let fail = |problem: String, fix: &str| {
            Err(Error::input(origin, format!("conditions: {}", self.name()), problem, fix))
        };
        match self {
            Condition::Number { mean, scale, range, .. } => {
                let held = (-MAX_MAGNITUDE..=MAX_MAGNITUDE).contains(mean)
                    && (MIN_SCALE..=MAX_MAGNITUDE).contains(scale)
                    && range.iter().all(|end| end.is_finite())
                    && range[0] <= range[1];
                if held {
                    return Ok(());
                }
                let fix = format!("store magnitudes of {MAX_MAGNITUDE:e} at most, scales from {MIN_SCALE:e} on");
                fail(format!("has mean {mean:e}, scale {scale:e}, range {range:?}"), &fix)
            }
            Condition::Category { categories, .. } => {
                let mut sorted = categories.clone();
                sorted.sort_unstable();
                if categories.is_empty() || sorted.windows(2).any(|pair| pair[0] == pair[1]) {
                    return fail(format!("has the categories {categories:?}"), "store each once, at least one");
                }
                Ok(())
            }
        }
    }
}

/// The first few of `categories`, in quotes.
fn quoted(categories: &[String]) -> String {
    const SHOWN: usize = 12;
    let shown: Vec<String> = categories.iter().take(SHOWN).map(|category| format!("{category:?}")).collect();
    let more = if categories.len() > SHOWN { format!(", … ({} in all)", categories.len()) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

impl Coordinates {
    /// Number of inputs of all conditions.
    #[must_use]
    pub fn condition_inputs(&self) -> usize {
        self.conditions.iter().map(Condition::width).sum()
    }

    /// The values of all conditions, in their order, from pairs of a name and a value in words.
    ///
    /// # Errors
    /// [`Error::Input`] for a name that is unknown, missing or given twice, and for values as
    /// [`Condition::parse`].
    pub fn parse_condition(&self, given: &[(String, String)]) -> Result<Vec<ConditionValue>> {
        let names = || self.conditions.iter().map(Condition::known).collect::<Vec<_>>().join("; ");
        let error = |name: &str, problem: &str, kind: InputKind| {
            let fix = match &self.conditions[..] {
                [] => "the model has no conditions: leave it out".to_string(),
                _ => format!("give each once: {}", names()),
            };
            Error::input("condition", name, problem, fix).of_kind(kind)
        };
        if let Some((name, _)) = given.iter().find(|(name, _)| self.conditions.iter().all(|known| known.name() != name))
        {
            return Err(error(name, "is no condition of the model", InputKind::Unknown));
        }
        let value = |condition: &Condition| {
            let mut of_name = given.iter().filter(|(name, _)| name == condition.name());
            match (of_name.next(), of_name.next()) {
                (Some((_, text)), None) => condition.parse(text),
                (None, _) => Err(error(condition.name(), "is missing", InputKind::Missing)),
                _ => Err(error(condition.name(), "is given twice", InputKind::Conflict)),
            }
        };
        self.conditions.iter().map(value).collect()
    }

    /// The inputs of the network for `values` of all conditions.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of values; [`Error::Input`] as [`Condition::inputs`].
    pub fn inputs_of(&self, values: &[ConditionValue]) -> Result<Vec<f32>> {
        check_len("condition (values)", self.conditions.len(), values.len())?;
        let mut inputs = Vec::with_capacity(self.condition_inputs());
        self.conditions.iter().zip(values).try_for_each(|(condition, value)| condition.inputs(value, &mut inputs))?;
        Ok(inputs)
    }

    /// `values` in words: `dose = 0.3, drug = "A"`.
    #[must_use]
    pub fn describe_condition(&self, values: &[ConditionValue]) -> String {
        let each =
            self.conditions.iter().zip(values).map(|(condition, value)| format!("{} = {value}", condition.name()));
        each.collect::<Vec<_>>().join(", ")
    }

    /// Checks what a file promises of its conditions, for a network with `n_inputs` of them.
    pub(super) fn check_conditions(&self, n_inputs: usize, origin: &Origin) -> Result<()> {
        self.conditions.iter().try_for_each(|condition| condition.check_storable(origin))?;
        let fail = |problem: String, fix: &str| Err(Error::input(origin, "conditions", problem, fix));
        let mut names: Vec<&str> = self.conditions.iter().map(Condition::name).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return fail(format!("holds two of the name {:?}", pair[0]), "rename one");
        }
        match self.condition_inputs() {
            n if n == n_inputs => Ok(()),
            n => fail(format!("make {n} inputs, but the network has {n_inputs}"), "store a condition for each input"),
        }
    }
}

/// The `parameters` of a network whose last inputs are the constants `inputs`.
fn parameters_under(architecture: &Architecture, parameters: &[f32], inputs: &[f32]) -> Vec<f32> {
    let mut under = Vec::with_capacity(parameters.len());
    for (index, layer) in architecture.layers().iter().enumerate() {
        let (weight, bias) = (&parameters[layer.weight..layer.bias], &parameters[layer.bias..][..layer.n_out]);
        if index > 0 {
            under.extend_from_slice(weight);
            under.extend_from_slice(bias);
            continue;
        }
        let n_kept = layer.n_in - inputs.len();
        let rows = || weight.chunks_exact(layer.n_in).map(|row| row.split_at(n_kept));
        rows().for_each(|(kept, _)| under.extend_from_slice(kept));
        under.extend(rows().zip(bias).map(|((_, of_inputs), &bias)| {
            let added = of_inputs.iter().zip(inputs).map(|(&weight, &c)| f64::from(weight) * f64::from(c));
            (f64::from(bias) + added.sum::<f64>()) as f32
        }));
    }
    under
}

impl Model {
    /// The model under one condition, given by the value of each of [`Coordinates::conditions`]:
    /// s(x, t, c) at this c. It has no conditions, so it does all that a model without them does.
    ///
    /// ```
    /// use action_matching::model::{Condition, Coordinates};
    /// use action_matching::prelude::*;
    ///
    /// let dose = Condition::Number { name: "dose".into(), mean: 1.0, scale: 0.5, range: [0.0, 2.0] };
    /// let mut model = Model::initial(Architecture { conditions: 1, ..Architecture::new(2, [16]) }, 0);
    /// model.coordinates = Coordinates { conditions: vec![dose], ..Coordinates::identity(2) };
    /// let engine = CpuEngine::new(1);
    /// let velocity = |dose: f64| model.under(&[dose.into()])?.velocity(&engine, &[0.3_f32, 0.5], 0.5);
    /// assert_ne!(velocity(0.5)?, velocity(0.7)?);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Coordinates::inputs_of`] and [`Model::under_inputs`].
    pub fn under(&self, condition: &[ConditionValue]) -> Result<Model> {
        self.under_inputs(&self.coordinates.inputs_of(condition)?)
    }

    /// [`Model::under`] for the inputs of the network: the biases of the first layer take up what
    /// the inputs add, rounded to f32 once.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of inputs; errors of [`Model::validate`].
    pub fn under_inputs(&self, inputs: &[f32]) -> Result<Model> {
        self.validate()?;
        check_len("condition (inputs)", self.architecture.conditions, inputs.len())?;
        let architecture = Architecture { conditions: 0, ..self.architecture.clone() };
        let coordinates = Coordinates { conditions: Vec::new(), ..self.coordinates.clone() };
        let parameters = parameters_under(&self.architecture, &self.parameters, inputs);
        let of_growth = |head: &Vec<f32>| parameters_under(&self.architecture.growth_head(), head, inputs);
        let growth_head = self.growth_head.as_ref().map(of_growth);
        Ok(Model { architecture, coordinates, objective: self.objective.clone(), parameters, growth_head })
    }

    /// Refuses a model with conditions where one condition must be chosen.
    ///
    /// # Errors
    /// [`Error::Input`] that names them.
    pub(crate) fn require_one_condition(&self) -> Result<()> {
        if self.architecture.conditions == 0 {
            return Ok(());
        }
        let names: Vec<&str> = self.coordinates.conditions.iter().map(Condition::name).collect();
        let problem = match &names[..] {
            [] => format!("has {} condition inputs", self.architecture.conditions),
            names => format!("depends on {}", names.join(", ")),
        };
        Err(Error::input("model", "conditions", problem, "choose their values first, with `Model::under`"))
    }
}
