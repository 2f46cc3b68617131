//! The sweep kernel on the virtual GPU against the f64 implementation: loss, derivatives and every parameter gradient.

mod common;

use action_matching::engine::reference::ReferenceEngine;
use action_matching::engine::{Batch, Differentiate};
use action_matching::model::{Activation, Architecture, Coordinates, Head, Model, TimeEmbedding, initial_parameters};
use action_matching::objective::Objective;
use action_matching::rng::{Purpose, unit_f32, words};
use common::{Bench, Bytes, compile, compile_with_fault};
use half::{bf16, f16};

const TILE_ROWS: usize = 64;
const MAX_LAYERS: usize = 17;
const SHARED_BYTES: usize = 3 * (64 + 64) * 64;
/// Three stages of two operands.
const GRAD_SHARED_BYTES: usize = 3 * 2 * 4096;

/// Bytes of one operand, and the way back.
#[derive(Clone, Copy)]
struct Element {
    bytes: usize,
    encode: fn(f32) -> Vec<u8>,
    decode: fn(&[u8]) -> f32,
}

const F32: Element = Element {
    bytes: 4,
    encode: |v| v.to_le_bytes().to_vec(),
    decode: |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
};
const TF32: Element =
    Element { encode: |v| (v.to_bits().wrapping_add(0x1000) & !0x1fff).to_le_bytes().to_vec(), ..F32 };
const BF16: Element = Element {
    bytes: 2,
    encode: |v| bf16::from_f32(v).to_le_bytes().to_vec(),
    decode: |b| bf16::from_le_bytes([b[0], b[1]]).to_f32(),
};
const F16: Element = Element {
    bytes: 2,
    encode: |v| f16::from_f32(v).to_le_bytes().to_vec(),
    decode: |b| f16::from_le_bytes([b[0], b[1]]).to_f32(),
};

fn padded(width: usize) -> usize {
    width.next_multiple_of(64)
}

/// Numbers in −1..1 that no permutation leaves alone.
fn numbers(stream: u64, n: usize) -> Vec<f64> {
    (0..n).map(|i| 2.0 * f64::from(unit_f32(words(stream, Purpose::Evaluation, 0, i as u32)[0])) - 1.0).collect()
}

/// What a run of the kernel leaves.
struct Swept {
    loss: f64,
    s: Vec<f64>,
    grad_s: Vec<f64>,
    ds_dt: Vec<f64>,
    gradient: Vec<f64>,
}

/// Runs `kernel` of `ptx` on `batch`, and forms the weight gradient from its operands here.
fn sweep(ptx: &str, kernel: &str, element: Element, model: &Model, batch: &Batch) -> Result<Swept, String> {
    let mut bench = Bench::new(ptx, 5);
    let architecture = &model.architecture;
    let (dim, n, layers) = (architecture.dim, batch.t.len(), architecture.layers());
    let (n_rows, n_layers) = (n.next_multiple_of(TILE_ROWS), layers.len());
    let features = architecture.time_embedding.width();
    let floats = |values: &[f64]| -> Vec<u8> { values.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect() };
    let elements = |values: &[f64]| -> Vec<u8> { values.iter().flat_map(|&v| (element.encode)(v as f32)).collect() };

    // Weights both ways and biases, padded with zeros.
    let (mut weights, mut biases, mut maps) = (Vec::new(), Vec::new(), Bytes::default());
    for layer in &layers {
        let (n_in, n_out) = (padded(layer.n_in), padded(layer.n_out));
        let weight = |o: usize, i: usize| {
            let inside = o < layer.n_out && i < layer.n_in;
            if inside { f64::from(model.parameters[layer.weight + o * layer.n_in + i]) } else { 0.0 }
        };
        let forward = weights.len();
        weights.extend((0..n_out * n_in).map(|k| weight(k / n_in, k % n_in)));
        let reverse = weights.len();
        weights.extend((0..n_in * n_out).map(|k| weight(k % n_out, k / n_out)));
        maps.u32(n_in).u32(n_out).u32(layer.n_in).u32(layer.n_out).u32(forward).u32(reverse).u32(biases.len()).u32(0);
        biases.extend(
            (0..n_out).map(|o| if o < layer.n_out { f64::from(model.parameters[layer.bias + o]) } else { 0.0 }),
        );
    }
    maps.0.resize(MAX_LAYERS * 32, 0);

    // Rows, the last ones padding of weight 0.
    let in_width = padded(layers[0].n_in);
    let (mut x, mut d_phi, mut a0) =
        (vec![0.0; n_rows * dim], vec![0.0; n_rows * features], vec![0.0; n_rows * in_width]);
    for row in 0..n {
        let point = &batch.x[row * dim..][..dim];
        x[row * dim..][..dim].copy_from_slice(point);
        a0[row * in_width..][..dim].copy_from_slice(point);
        architecture.time_embedding.for_each(batch.t[row], |i, phi, slope| {
            a0[row * in_width + dim + i] = phi;
            d_phi[row * features + i] = slope;
        });
    }
    let share = |values: &[f64]| -> Vec<f64> {
        (0..n_rows).map(|row| values.get(row).map_or(0.0, |value| value / n as f64)).collect()
    };
    let widths: Vec<usize> = std::iter::once(in_width).chain(layers.iter().map(|layer| padded(layer.n_out))).collect();
    let mut buffers = |from: usize, bytes: usize| -> Vec<u64> {
        (0..=n_layers).map(|l| if l < from { 0 } else { bench.empty(n_rows * widths[l] * bytes) }).collect()
    };
    let (mut a, c, delta, z_bar) =
        (buffers(1, element.bytes), buffers(0, element.bytes), buffers(1, element.bytes), buffers(1, element.bytes));
    let (f1, g) = (buffers(1, 4), buffers(1, 4));
    a[0] = bench.buffer(&elements(&a0));
    let out_width = widths[n_layers];
    let [output, output_c, input_grad] = [out_width, out_width, in_width].map(|width| bench.empty(4 * n_rows * width));
    let (s, grad_s, ds_dt) = (bench.empty(4 * n_rows), bench.empty(4 * n_rows * dim), bench.empty(4 * n_rows));
    let loss = bench.empty(4 * n_rows / TILE_ROWS);

    let has_weight_grad = bench.has("weight_grad_f32");
    let mut params = Bytes::default();
    params.u32(n_layers).u32(dim).u32(features).u32(architecture.n_outputs());
    params.0.extend(&maps.0);
    for content in
        [floats(&x), floats(&d_phi), floats(&x), floats(&share(&batch.omega)), floats(&share(&batch.d_omega))]
    {
        params.pointer(bench.buffer(&content));
    }
    for list in [&a, &c, &delta, &z_bar, &f1, &g] {
        // One pointer for each activation, 0 where there is none.
        (0..=MAX_LAYERS).for_each(|l| {
            params.pointer(list.get(l).copied().unwrap_or(0));
        });
    }
    [output, output_c, input_grad, s, grad_s, ds_dt, loss].into_iter().for_each(|pointer| {
        params.pointer(pointer);
    });
    params.pointer(bench.buffer(&elements(&weights))).pointer(bench.buffer(&floats(&biases)));
    params.f32(model.objective.growth).f32(model.objective.cost_exponent).u32(1).u32(0);
    bench.try_launch(kernel, [(n_rows / TILE_ROWS) as u32, 1, 1], 128, SHARED_BYTES, &[&params.0])?;

    let operand = |bench: &Bench, address: u64, width: usize| -> Vec<f64> {
        let (region, offset) = bench.device.memory.find(address, n_rows * width * element.bytes).expect("allocated");
        let mut bytes = vec![0; n_rows * width * element.bytes];
        region.copy_out(offset, &mut bytes);
        bytes.chunks_exact(element.bytes).map(|b| f64::from((element.decode)(b))).collect()
    };
    // Formed here from the operands, and by the kernel, which must agree: f32 sums of the same products.
    let (mut gradient, mut wavefronts) = (vec![0.0; model.parameters.len()], 0);
    for (index, layer) in layers.iter().enumerate() {
        let (n_in, n_out) = (widths[index], widths[index + 1]);
        let pairs = [
            (operand(&bench, z_bar[index + 1], n_out), operand(&bench, a[index], n_in)),
            (operand(&bench, delta[index + 1], n_out), operand(&bench, c[index], n_in)),
        ];
        let own = &mut gradient[layer.weight..layer.bias + layer.n_out];
        let (own_weight, own_bias) = own.split_at_mut(layer.n_in * layer.n_out);
        for row in 0..n {
            for o in 0..layer.n_out {
                for (left, right) in &pairs {
                    let factor = left[row * n_out + o];
                    for i in 0..layer.n_in {
                        own_weight[o * layer.n_in + i] += factor * right[row * n_in + i];
                    }
                }
                own_bias[o] += pairs[0].0[row * n_out + o];
            }
        }
        if has_weight_grad {
            // Parts of one tile each, added up in their order.
            let n_parts = n_rows / TILE_ROWS;
            let (weight, bias) = (bench.empty(4 * n_parts * n_out * n_in), bench.empty(4 * n_parts * n_out));
            let mut params = Bytes::default();
            for pointer in [z_bar[index + 1], a[index], delta[index + 1], c[index]] {
                params.pointer(pointer);
            }
            params.u32(n_out).u32(n_in).u32(n_rows).u32(2).u32(1).pointer(weight).pointer(bias);
            let name = kernel.split('_').nth(1).unwrap_or_default();
            let grid = [(n_in / 64) as u32, (n_out / 64) as u32, n_parts as u32];
            // Copies and fragments of a chunk, each access in as few wavefronts as its bytes allow.
            let chunks = grid.iter().product::<u32>() as usize * 2 * TILE_ROWS * element.bytes / 64;
            wavefronts += (chunks * (2 * 4096 / 128 + 4 * 32)) as u64;
            let counters =
                bench.try_launch(&format!("weight_grad_{name}"), grid, 128, GRAD_SHARED_BYTES, &[&params.0])?;
            assert!(name == "f32" || counters.shared_wavefronts == wavefronts, "weight_grad_{name}: bank conflicts");
            let (weight, bias) = (bench.floats(weight, n_parts * n_out * n_in), bench.floats(bias, n_parts * n_out));
            let added = |values: &[f32], size: usize, at: usize| -> f64 {
                f64::from((0..n_parts).fold(0.0f32, |sum, part| sum + values[part * size + at]))
            };
            let by_kernel: Vec<f64> = (0..layer.n_out * layer.n_in)
                .map(|k| added(&weight, n_out * n_in, k / layer.n_in * n_in + k % layer.n_in))
                .collect();
            let biases: Vec<f64> = (0..layer.n_out).map(|o| added(&bias, n_out, o)).collect();
            for (what, got, want) in [("weights", &by_kernel, &*own_weight), ("biases", &biases, &*own_bias)] {
                let size = want.iter().fold(1e-6f64, |largest, g| largest.max(g.abs()));
                let off = got.iter().zip(want).map(|(got, want)| (got - want).abs()).fold(0.0, f64::max);
                assert!(
                    off < 2e-6 * size,
                    "{kernel}: the kernel's gradient of {what} of layer {index} is off by {off:.1e}"
                );
            }
        }
    }
    let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<f64>>();
    Ok(Swept {
        loss: wide(bench.floats(loss, n_rows / TILE_ROWS)).iter().sum(),
        s: wide(bench.floats(s, n)),
        grad_s: wide(bench.floats(grad_s, n * dim)),
        ds_dt: wide(bench.floats(ds_dt, n)),
        gradient,
    })
}

fn relative_error(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let error = norm(&mut got.iter().zip(want).map(|(got, want)| got - want)) / norm(&mut want.iter().copied());
    assert!(error.is_finite());
    error
}

/// A model whose parameters and a batch whose points are exact in `element`: what is off afterwards is the kernel's arithmetic.
fn problem(architecture: Architecture, objective: Objective, element: Element) -> (Model, Batch) {
    let rounded = |v: f64| f64::from((element.decode)(&(element.encode)(v as f32)));
    let mut parameters = initial_parameters(&architecture, 3);
    for layer in architecture.layers() {
        let drawn = numbers(layer.bias as u64, layer.n_out);
        let biases = parameters[layer.bias..layer.bias + layer.n_out].iter_mut();
        biases.zip(drawn).for_each(|(bias, v)| *bias = 0.3 * v as f32);
    }
    parameters.iter_mut().for_each(|p| *p = rounded(f64::from(*p)) as f32);
    let (n, dim) = (101, architecture.dim);
    let batch = Batch {
        x: numbers(1, dim * n).into_iter().map(rounded).collect(),
        t: numbers(2, n).into_iter().map(|t| rounded(0.5 + 0.5 * t)).collect(),
        omega: numbers(3, n).into_iter().map(|v| f64::from((1.0 + 0.5 * v) as f32)).collect(),
        d_omega: numbers(4, n).into_iter().map(|v| f64::from(0.6 * v as f32)).collect(),
        ..Batch::default()
    };
    (Model { coordinates: Coordinates::identity(dim), objective, parameters, architecture }, batch)
}

/// Sizes that are no multiples of a tile, two of them over one panel; growth and cost alone and together.
#[test]
fn sweeps_agree_with_f64() {
    let ptx = compile("sweep.cu");
    let cases: [(&str, Element, Activation, Head, f64); 6] = [
        ("sweep_f32_silu_scalar", F32, Activation::Silu, Head::Scalar, 2e-5),
        ("sweep_f32_silu_quadratic", F32, Activation::Silu, Head::Quadratic, 2e-5),
        ("sweep_f32_tanh_dot", F32, Activation::Tanh, Head::Dot, 2e-5),
        ("sweep_tf32_gelu_dot", TF32, Activation::Gelu, Head::Dot, 2e-3),
        ("sweep_f16_silu_quadratic", F16, Activation::Silu, Head::Quadratic, 2e-3),
        ("sweep_bf16_silu_scalar", BF16, Activation::Silu, Head::Scalar, 2e-2),
    ];
    for (index, (kernel, element, activation, head, tolerance)) in cases.into_iter().enumerate() {
        let hidden = [vec![37, 70], vec![20], vec![70, 9, 33]][index % 3].clone();
        let time_embedding =
            if index % 2 == 0 { TimeEmbedding::Raw } else { TimeEmbedding::Fourier { frequencies: vec![0.5, 1.25] } };
        let architecture = Architecture { dim: 3, hidden, activation, head, time_embedding };
        let objective = Objective {
            growth: if index % 2 == 0 { 0.4 } else { 0.0 },
            cost_exponent: if index % 3 == 1 { 2.5 } else { 2.0 },
            ..Objective::default()
        };
        let (model, batch) = problem(architecture, objective, element);
        let want = ReferenceEngine.loss_gradient(&model, &batch).expect("evaluates");
        let got = sweep(&ptx, kernel, element, &model, &batch).unwrap_or_else(|message| panic!("{message}"));
        for (what, got, want) in [
            ("s", &got.s, &want.interior.s),
            ("∇s", &got.grad_s, &want.interior.grad_s),
            ("∂ₜs", &got.ds_dt, &want.interior.ds_dt),
            ("loss", &vec![got.loss], &vec![want.loss]),
        ] {
            let error = relative_error(got, want);
            assert!(error < tolerance, "{kernel}: {what} is off by {error:.1e}");
        }
        for layer in model.architecture.layers() {
            for (part, range) in [("weight", layer.weight..layer.bias), ("bias", layer.bias..layer.bias + layer.n_out)]
            {
                let (got, want) = (&got.gradient[range.clone()], &want.gradient[range]);
                if want.iter().all(|g| g.abs() < 1e-12) {
                    continue; // the last bias of a scalar head without a weight of s
                }
                let error = relative_error(got, want);
                assert!(
                    error < 2.0 * tolerance,
                    "{kernel}: gradient of {part} [{}, {}] is off by {error:.1e}",
                    layer.n_out,
                    layer.n_in
                );
            }
        }
    }
}

/// Faults put into the kernels on purpose, one at a time: each is noticed for what it is. Where one fault shows in several ways, the order of
/// warps and blocks decides which one comes first.
#[test]
fn faults_are_noticed() {
    let faults = [
        ("sweep.cuh", "__syncthreads();  // the output is written", "", "data race|uninitialised"),
        ("sweep.cuh", "__syncthreads();  // the gradient at the input is written", "", "data race|uninitialised"),
        ("sweep.cuh", "__syncthreads();  // the last stage of the last product is read", "//", "data race"),
        ("sweep.cuh", "__syncthreads();  // the terms are written", "", "data race|uninitialised"),
        ("tile/product.cuh", "__syncthreads();  // the operands are written", "//", "data race|uninitialised"),
        ("tile/product.cuh", "wait_copies<kStages - 2>();", "", "asynchronous copy|data race|uninitialised"),
        (
            "tile/product.cuh",
            "__syncthreads();  // all threads' copies",
            "__syncwarp();  //",
            "asynchronous copy|data race|uninitialised",
        ),
        // A row too far: the last tile reads or writes behind its buffers.
        ("net/sweeps.cuh", "first_row * depth", "(first_row + 1) * depth", "out of bounds|uninitialised|data race"),
        (
            "sweep.cuh",
            "const size_t row = first_row + threadIdx.x;",
            "const size_t row = first_row + threadIdx.x + 1;",
            "out of bounds|uninitialised|data race",
        ),
        // A pitch of the other side of the map.
        (
            "net/sweeps.cuh",
            "product.row(m, k)) * width",
            "product.row(m, k)) * (width + 16)",
            "out of bounds|data race|uninitialised",
        ),
        ("tile/product.cuh", "constexpr int kStages = 3;", "constexpr int kStages = 4;", "out of bounds"),
        ("tile/product.cuh", "16 * piece;", "8 * piece;", "misaligned"),
        ("sweep.cuh", "if (has_row) {\n    T* z_bar", "if (threadIdx.x < 63) {\n    T* z_bar", "uninitialised"),
    ];
    let architecture = Architecture {
        dim: 3,
        // The last product has four chunks, so that it ends in the stage that the terms take.
        hidden: vec![20, 100],
        activation: Activation::Silu,
        head: Head::Scalar,
        time_embedding: TimeEmbedding::Raw,
    };
    let (model, batch) = problem(architecture, Objective { growth: 0.4, ..Objective::default() }, BF16);
    for (file, old, new, parts) in faults {
        let ptx = compile_with_fault("faults.cu", file, old, new);
        match sweep(&ptx, "sweep_bf16_silu_scalar", BF16, &model, &batch) {
            Ok(_) => panic!("nobody noticed {new:?} for {old:?} in {file}"),
            Err(message) => {
                assert!(
                    parts.split('|').any(|part| message.contains(part)),
                    "{file}: {old:?}: {parts:?} is not in: {message}"
                );
                assert!(message.contains(".cuh:") && message.contains("block "), "{message}");
            }
        }
    }
}
