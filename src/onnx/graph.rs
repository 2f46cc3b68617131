//! A graph of ONNX that is being built: constants, nodes, and the values between them by name. The
//! numbers of fields are those of `onnx.proto3`.

use crate::model::Activation;
use crate::protobuf::Message;

/// Types of elements (`TensorProto.DataType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    F32 = 1,
    I64 = 7,
    F64 = 11,
}

/// The name of a value.
pub type Value = String;

/// Nodes and constants, in the order in which they are computed.
#[derive(Default)]
pub struct Graph {
    nodes: Vec<Message>,
    constants: Vec<Message>,
    inputs: Vec<Message>,
    outputs: Vec<Message>,
    /// Values without a name of their own so far.
    n_values: usize,
}

impl Graph {
    /// An input of the `shape`, in which `None` is the number of rows.
    pub fn input(&mut self, name: &str, element: Element, shape: &[Option<usize>], meaning: &str) -> Value {
        self.inputs.push(declared(name, element, shape, meaning));
        name.to_string()
    }

    /// Makes `value` the output `name`, f32.
    pub fn output(&mut self, name: &str, value: &Value, shape: &[Option<usize>], meaning: &str) {
        self.outputs.push(declared(name, Element::F32, shape, meaning));
        self.nodes.push(node("Identity", &[value], name, &[]));
    }

    /// The tensor `values` of the `shape`; without a dimension a number.
    pub fn constant(&mut self, shape: &[usize], values: &[f32]) -> Value {
        let name = self.fresh();
        self.named_constant(&name, shape, values)
    }

    /// [`Graph::constant`] called `name`.
    pub fn named_constant(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Value {
        self.tensor(name.to_string(), Element::F32, shape, values.iter().flat_map(|value| value.to_le_bytes()))
    }

    /// A vector of f64.
    pub fn f64_constant(&mut self, values: &[f64]) -> Value {
        let name = self.fresh();
        self.tensor(name, Element::F64, &[values.len()], values.iter().flat_map(|value| value.to_le_bytes()))
    }

    /// A vector of integers, such as axes.
    pub fn integers(&mut self, values: &[i64]) -> Value {
        let name = self.fresh();
        self.tensor(name, Element::I64, &[values.len()], values.iter().flat_map(|value| value.to_le_bytes()))
    }

    /// The result of `operator` on `inputs`.
    pub fn node(&mut self, operator: &str, inputs: &[&Value]) -> Value {
        self.node_with(operator, inputs, &[])
    }

    /// [`Graph::node`] with attributes that are integers.
    pub fn node_with(&mut self, operator: &str, inputs: &[&Value], attributes: &[(&str, u64)]) -> Value {
        let output = self.fresh();
        self.nodes.push(node(operator, inputs, &output, attributes));
        output
    }

    /// `value` combined with a number.
    pub fn with_number(&mut self, operator: &str, value: &Value, number: f64) -> Value {
        let number = self.constant(&[], &[number as f32]);
        self.node(operator, &[value, &number])
    }

    /// Columns `from..to` of `value [n, _]`.
    pub fn columns(&mut self, value: &Value, from: usize, to: usize) -> Value {
        let [from, to, axis] = [from as i64, to as i64, 1].map(|number| self.integers(&[number]));
        self.node("Slice", &[value, &from, &to, &axis])
    }

    /// `value [n]` as a column `[n, 1]`.
    pub fn column(&mut self, value: &Value) -> Value {
        let axis = self.integers(&[1]);
        self.node("Unsqueeze", &[value, &axis])
    }

    /// The sums `[n]` over the columns of `value [n, _]`.
    pub fn row_sums(&mut self, value: &Value) -> Value {
        let axis = self.integers(&[1]);
        self.node_with("ReduceSum", &[value, &axis], &[("keepdims", 0)])
    }

    /// f(z) and f′(z).
    pub fn activation(&mut self, activation: Activation, z: &Value) -> [Value; 2] {
        match activation {
            Activation::Silu => {
                let sigma = self.node("Sigmoid", &[z]);
                let f = self.node("Mul", &[z, &sigma]);
                // σ + zσ(1 − σ)
                let rest = self.node("Mul", &[&f, &sigma]);
                let rest = self.node("Sub", &[&f, &rest]);
                let f1 = self.node("Add", &[&sigma, &rest]);
                [f, f1]
            }
            Activation::Tanh => {
                let f = self.node("Tanh", &[z]);
                let squared = self.node("Mul", &[&f, &f]);
                let one = self.constant(&[], &[1.0]);
                let f1 = self.node("Sub", &[&one, &squared]);
                [f, f1]
            }
            Activation::Softplus => [self.node("Softplus", &[z]), self.node("Sigmoid", &[z])],
            Activation::Gelu => {
                // Φ(z) = ½ + ½ erf(z / √2), φ(z) = exp(−½z²) / √(2π)
                let scaled = self.with_number("Mul", z, std::f64::consts::FRAC_1_SQRT_2);
                let erf = self.node("Erf", &[&scaled]);
                let half = self.with_number("Mul", &erf, 0.5);
                let distribution = self.with_number("Add", &half, 0.5);
                let squared = self.node("Mul", &[&scaled, &scaled]);
                let exponent = self.node("Neg", &[&squared]);
                let decay = self.node("Exp", &[&exponent]);
                let density = self.with_number("Mul", &decay, 1.0 / std::f64::consts::TAU.sqrt());
                let f = self.node("Mul", &[z, &distribution]);
                let rest = self.node("Mul", &[z, &density]);
                let f1 = self.node("Add", &[&distribution, &rest]);
                [f, f1]
            }
            Activation::Sin => [self.node("Sin", &[z]), self.node("Cos", &[z])],
        }
    }

    /// The graph as `GraphProto`.
    pub fn finish(self, name: &str, meaning: &str) -> Message {
        let graph = Message::default().messages(1, self.nodes).bytes(2, name).messages(5, self.constants);
        graph.bytes(10, meaning).messages(11, self.inputs).messages(12, self.outputs)
    }

    fn fresh(&mut self) -> Value {
        self.n_values += 1;
        format!("value_{}", self.n_values)
    }

    fn tensor(&mut self, name: Value, element: Element, shape: &[usize], bytes: impl Iterator<Item = u8>) -> Value {
        let dims = shape.iter().fold(Message::default(), |tensor, &size| tensor.integer(1, size as u64));
        let tensor = dims.integer(2, element as u64).bytes(8, &name).bytes(9, bytes.collect::<Vec<u8>>());
        self.constants.push(tensor);
        name
    }
}

/// A `NodeProto` whose attributes are integers.
fn node(operator: &str, inputs: &[&Value], output: &str, attributes: &[(&str, u64)]) -> Message {
    const INTEGER: u64 = 2;
    let node = inputs.iter().fold(Message::default(), |node, input| node.bytes(1, input));
    let node = node.bytes(2, output).bytes(4, operator);
    let attribute =
        |&(name, value): &(&str, u64)| Message::default().bytes(1, name).integer(3, value).integer(20, INTEGER);
    node.messages(5, attributes.iter().map(attribute))
}

/// A `ValueInfoProto` of a tensor.
fn declared(name: &str, element: Element, shape: &[Option<usize>], meaning: &str) -> Message {
    let size = |size: &Option<usize>| match size {
        Some(size) => Message::default().integer(1, *size as u64),
        None => Message::default().bytes(2, "n"),
    };
    let shape = Message::default().messages(1, shape.iter().map(size));
    let tensor = Message::default().integer(1, element as u64).message(2, shape);
    Message::default().bytes(1, name).message(2, Message::default().message(1, tensor)).bytes(3, meaning)
}
