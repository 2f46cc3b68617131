//! A model as a graph of ONNX, for programs that have no part of this one. ONNX does not
//! differentiate, so the graph holds the primal sweep and the reverse sweep, which makes ∇s and
//! ∂ₜs of it, in data units on both sides.

mod graph;

use self::graph::{Element, Graph, Value};
use crate::destination::Destination;
use crate::error::{Error, Result};
use crate::model::{Architecture, Condition, Head, Model, growth_tensor_names, is_coarse, tensor_names};
use crate::protobuf::Message;

/// Version of the operators: it has all that are needed in f32 with axes as inputs, and runtimes
/// have known it since 2022.
const OPSET: u64 = 17;

/// Version of the file format that came with [`OPSET`].
const IR_VERSION: u64 = 8;

impl Model {
    /// Writes the model as a graph of ONNX (opset 17, arithmetic in f32), all in data units.
    ///
    /// | inputs | |
    /// |---|---|
    /// | `x [n, dim]`, `t [n]` | points, and the time of each |
    /// | `condition_NAME [n]` | for each condition: the number, or the index of the category, i64 |
    ///
    /// Inputs are f32; f64 are those that f32 would round by more than 10⁻⁵ of their spread in the
    /// data. Outputs are f32:
    ///
    /// | outputs | |
    /// |---|---|
    /// | `action [n]` | s: see [`Model::potential`] |
    /// | `velocity [n, dim]` | see [`Model::velocity`] |
    /// | `time_derivative [n]` | ∂s/∂t, per unit of time |
    /// | `growth_rate [n]` | of a model with growth: see [`Model::growth_rate`] |
    ///
    /// The metadata `action_matching` is that of the model file. A model under one condition
    /// ([`Model::under`]) has no inputs for it.
    ///
    /// # Errors
    /// Those of [`Model::save`]; [`Error::Input`] if the units of velocities exceed f32.
    pub fn export_onnx(&self, to: impl Into<Destination>) -> Result<()> {
        let to = to.into();
        self.check_storable(to.path())?;
        let metadata = self.metadata(to.path())?;
        let graph = self.graph(&to)?;
        let entry = Message::default().bytes(1, "action_matching").bytes(2, metadata);
        let operators = Message::default().bytes(1, "").integer(2, OPSET);
        let file = Message::default()
            .integer(1, IR_VERSION)
            .bytes(2, "action-matching")
            .bytes(3, env!("CARGO_PKG_VERSION"))
            .message(7, graph)
            .message(8, operators)
            .message(14, entry)
            .into_bytes();
        to.write(|out| out.write_all(&file))
    }

    fn graph(&self, to: &Destination) -> Result<Message> {
        let Model { architecture, coordinates, objective, parameters, growth_head } = self;
        let (dim, [start, end]) = (architecture.dim, coordinates.time_range);
        let duration = end - start;
        let units: Vec<f32> = coordinates.scale.iter().map(|scale| (scale / duration) as f32).collect();
        if units.iter().chain([&((1.0 / duration) as f32)]).any(|unit| !unit.is_normal()) {
            let problem = "velocities in units of the data exceed the numbers of 32 bits, which ONNX computes with";
            return Err(Error::input(to.path(), "scale and time_range", problem, "train on data in other units"));
        }

        let mut graph = Graph::default();
        let x =
            network_input(&mut graph, "x", Some(dim), (&coordinates.mean, &coordinates.scale), "points, data units");
        let tau = network_input(&mut graph, "t", None, (&[start], &[duration]), "time of each point, data units");
        let (features, slopes) = time_features(&mut graph, &tau, architecture.time_embedding.frequencies());
        let conditions: Vec<Value> =
            coordinates.conditions.iter().map(|condition| condition_inputs(&mut graph, condition)).collect();
        let parts: Vec<&Value> = [&x, &features].into_iter().chain(&conditions).collect();
        let inputs = graph.node_with("Concat", &parts, &[("axis", 1)]);
        let mut inner = inputs.clone();

        // Primal sweep: z = W a + b, a = f(z).
        let mut layers = Vec::new();
        for (index, layer) in architecture.layers().iter().enumerate() {
            let [(weight, weight_shape), (bias, bias_shape)] = tensor_names(index, layer);
            let weight = graph.named_constant(&weight, &weight_shape, &parameters[layer.weight..layer.bias]);
            let bias = graph.named_constant(&bias, &bias_shape, &parameters[layer.bias..layer.bias + layer.n_out]);
            let z = graph.node_with("Gemm", &[&inner, &weight, &bias], &[("transB", 1)]);
            let (a, slope) = if index == architecture.hidden.len() {
                (z, None)
            } else {
                let [f, f1] = graph.activation(architecture.activation, &z);
                (f, Some(f1))
            };
            layers.push((weight, slope));
            inner = a;
        }
        let output = inner;

        // s, ∂s/∂o and what x adds to ∇s by itself.
        let (s, d_output, direct) = match architecture.head {
            Head::Scalar => (graph.row_sums(&output), None, None),
            Head::Quadratic => {
                let difference = graph.node("Sub", &[&x, &output]);
                let squared = graph.node("Mul", &[&difference, &difference]);
                let sum = graph.row_sums(&squared);
                let d_output = graph.node("Neg", &[&difference]);
                (graph.with_number("Mul", &sum, 0.5), Some(d_output), Some(difference))
            }
            Head::Dot => {
                let product = graph.node("Mul", &[&x, &output]);
                (graph.row_sums(&product), Some(x), Some(output))
            }
        };

        // Reverse sweep: δ = ∂s/∂a from the last layer to the first.
        let mut bar = String::new();
        for (weight, slope) in layers.iter().rev() {
            let delta = match slope {
                Some(slope) => Some(graph.node("Mul", &[&bar, slope])),
                None => d_output.clone(),
            };
            bar = match delta {
                Some(delta) => graph.node("MatMul", &[&delta, weight]),
                // One output, whose slope is 1: the row of its weights, the same for all points.
                None => weight.clone(),
            };
        }
        let mut grad_s = graph.columns(&bar, 0, dim);
        if let Some(direct) = direct {
            grad_s = graph.node("Add", &[&grad_s, &direct]);
        }
        let of_features = graph.columns(&bar, dim, dim + architecture.time_embedding.width());
        let ds_dtau = match slopes {
            None => graph.row_sums(&of_features),
            Some(slopes) => {
                let products = graph.node("Mul", &[&of_features, &slopes]);
                graph.row_sums(&products)
            }
        };

        // dx/dt = scale / T · ∇H(∇s).
        let slope = if objective.cost_exponent == 2.0 {
            grad_s
        } else {
            let (size, sign) = (graph.node("Abs", &[&grad_s]), graph.node("Sign", &[&grad_s]));
            let power = graph.with_number("Pow", &size, objective.cost_exponent - 1.0);
            graph.node("Mul", &[&power, &sign])
        };
        let units = graph.constant(&[dim], &units);
        let velocity = graph.node("Mul", &[&slope, &units]);
        let ds_dt = graph.with_number("Mul", &ds_dtau, 1.0 / duration);
        graph.output("action", &s, &[None], "the potential s, which has no unit");
        graph.output("velocity", &velocity, &[None, Some(dim)], "of particles, data units per unit of time");
        graph.output("time_derivative", &ds_dt, &[None], "slope of s in time, per unit of time");
        if objective.growth > 0.0 {
            let rate = match growth_head {
                None => graph.with_number("Mul", &s, objective.growth / duration),
                Some(parameters) => {
                    let rate = growth_rate(&mut graph, &architecture.growth_head(), parameters, inputs);
                    graph.with_number("Mul", &rate, 1.0 / duration)
                }
            };
            graph.output("growth_rate", &rate, &[None], "growth rate of the mass of a particle, per unit of time");
        }
        Ok(graph.finish("action", "The action s(x, t) of Action Matching, its slopes and the velocity of particles"))
    }
}

/// The output of a growth head, per unit of network time.
fn growth_rate(graph: &mut Graph, architecture: &Architecture, parameters: &[f32], inputs: Value) -> Value {
    let mut inner = inputs;
    for (index, layer) in architecture.layers().iter().enumerate() {
        let [(weight, weight_shape), (bias, bias_shape)] = growth_tensor_names(index, layer);
        let weight = graph.named_constant(&weight, &weight_shape, &parameters[layer.weight..layer.bias]);
        let bias = graph.named_constant(&bias, &bias_shape, &parameters[layer.bias..layer.bias + layer.n_out]);
        let z = graph.node_with("Gemm", &[&inner, &weight, &bias], &[("transB", 1)]);
        let is_output = index == architecture.hidden.len();
        inner = if is_output { z } else { graph.activation(architecture.activation, &z)[0].clone() };
    }
    graph.row_sums(&inner)
}

/// The input `name [n, width]`, or `[n]` as one column, in network coordinates: (value − mean) /
/// scale.
fn network_input(
    graph: &mut Graph,
    name: &str,
    width: Option<usize>,
    (mean, scale): (&[f64], &[f64]),
    meaning: &str,
) -> Value {
    let needs_f64 = mean.iter().zip(scale).any(|(&mean, &scale)| is_coarse(mean, scale));
    let element = if needs_f64 { Element::F64 } else { Element::F32 };
    let shape: Vec<Option<usize>> = [None].into_iter().chain(width.map(Some)).collect();
    let mut value = graph.input(name, element, &shape, meaning);
    if width.is_none() {
        value = graph.column(&value);
    }
    let difference = if needs_f64 {
        let mean = graph.f64_constant(mean);
        let difference = graph.node("Sub", &[&value, &mean]);
        graph.node_with("Cast", &[&difference], &[("to", Element::F32 as u64)])
    } else {
        // The mean as a sum of two f32: near it the first difference is exact.
        let high: Vec<f32> = mean.iter().map(|&mean| mean as f32).collect();
        let low: Vec<f32> = mean.iter().zip(&high).map(|(mean, &high)| (mean - f64::from(high)) as f32).collect();
        [high, low].iter().fold(value, |value, part| {
            let part = graph.constant(&[part.len()], part);
            graph.node("Sub", &[&value, &part])
        })
    };
    let scale: Vec<f32> = scale.iter().map(|&scale| scale as f32).collect();
    let scale = graph.constant(&[scale.len()], &scale);
    graph.node("Div", &[&difference, &scale])
}

/// φ(τ) of τ `[n, 1]`, and φ′(τ) unless φ = τ.
fn time_features(graph: &mut Graph, tau: &Value, frequencies: &[f64]) -> (Value, Option<Value>) {
    if frequencies.is_empty() {
        return (tau.clone(), None);
    }
    let angular: Vec<f32> = frequencies.iter().map(|f| (std::f64::consts::TAU * f) as f32).collect();
    let angular = graph.constant(&[1, angular.len()], &angular);
    let phase = graph.node("Mul", &[tau, &angular]);
    let (sin, cos) = (graph.node("Sin", &[&phase]), graph.node("Cos", &[&phase]));
    let features = graph.node_with("Concat", &[tau, &sin, &cos], &[("axis", 1)]);
    // φ₀′ = 1 has the shape of τ.
    let zero = graph.with_number("Mul", tau, 0.0);
    let one = graph.with_number("Add", &zero, 1.0);
    let of_sin = graph.node("Mul", &[&cos, &angular]);
    let negative = graph.node("Neg", &[&angular]);
    let of_cos = graph.node("Mul", &[&sin, &negative]);
    let slopes = graph.node_with("Concat", &[&one, &of_sin, &of_cos], &[("axis", 1)]);
    (features, Some(slopes))
}

/// The inputs of the network `[n, width]` for `condition`.
fn condition_inputs(graph: &mut Graph, condition: &Condition) -> Value {
    let name = format!("condition_{}", condition.name());
    let meaning = condition.known();
    match condition {
        Condition::Number { mean, scale, .. } => network_input(graph, &name, None, (&[*mean], &[*scale]), &meaning),
        Condition::Category { categories, .. } => {
            let n = categories.len();
            let index = graph.input(&name, Element::I64, &[None], &format!("index of the category, from 0: {meaning}"));
            let identity: Vec<f32> = (0..n * n).map(|at| if at % (n + 1) == 0 { 1.0 } else { 0.0 }).collect();
            let identity = graph.constant(&[n, n], &identity);
            // An index out of range is an error of the runtime.
            graph.node("Gather", &[&identity, &index])
        }
    }
}
