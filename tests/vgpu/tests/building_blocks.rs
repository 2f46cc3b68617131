//! The building blocks of `kernels/`, compiled by nvcc and run on the virtual GPU, compared with
//! the host's results.

mod common;

use std::sync::OnceLock;

use action_matching::rng::{Purpose, unit_f32, words};
use common::{Bench, compile};
use half::{bf16, f16};
use vgpu::counters::Pipe;

/// A device with the kernels, compiled once.
fn bench(seed: u64) -> Bench {
    static PTX: OnceLock<String> = OnceLock::new();
    Bench::new(PTX.get_or_init(|| compile("building_blocks.cu")), seed)
}

#[test]
fn random_words_are_the_hosts_to_the_last_bit() {
    let (seed, step, n) = (0x0123_4567_89ab_cdef_u64, 0xfedc_ba98_7654_3210_u64, 1000u32);
    let mut bench = bench(0);
    let (drawn, units) = (bench.empty(16 * n as usize), bench.empty(4 * n as usize));
    let (seed_bytes, step_bytes, n_bytes) = (seed.to_le_bytes(), step.to_le_bytes(), n.to_le_bytes());
    bench.launch(
        "philox",
        [8, 1, 1],
        128,
        0,
        &[&seed_bytes, &step_bytes, &n_bytes, &drawn.to_le_bytes(), &units.to_le_bytes()],
    );
    let want: Vec<[u32; 4]> = (0..n).map(|row| words(seed, Purpose::Noise, step, row)).collect();
    assert_eq!(bench.words(drawn, 4 * n as usize), want.concat());
    let want: Vec<u32> = want.iter().map(|words| unit_f32(words[0]).to_bits()).collect();
    assert_eq!(bench.words(units, n as usize), want);
}

/// Each order is close to the function in f64, and to the slope of the order before.
#[test]
fn activations_and_their_derivatives_agree_with_f64() {
    fn sigmoid(z: f64) -> f64 {
        1.0 / (1.0 + (-z).exp())
    }
    type Function = fn(f64) -> f64;
    let functions: [(&str, Function); 5] = [
        ("silu", |z| z * sigmoid(z)),
        ("tanh", f64::tanh),
        ("softplus", |z| z.max(0.0) + (-z.abs()).exp().ln_1p()),
        ("gelu", |z| 0.5 * z * libm::erfc(-z / std::f64::consts::SQRT_2)),
        ("sin", f64::sin),
    ];
    let n = 501;
    let points: Vec<f32> = (0..n).map(|i| (i as f32 - 250.0) / 50.0 + 0.003).collect();
    let bytes: Vec<u8> = points.iter().flat_map(|z| z.to_le_bytes()).collect();
    for (name, function) in functions {
        let mut bench = bench(1);
        let (z, orders) = (bench.buffer(&bytes), bench.empty(16 * n));
        let n_bytes = (n as u32).to_le_bytes();
        bench.launch(
            &format!("orders_{name}"),
            [4, 1, 1],
            128,
            0,
            &[&z.to_le_bytes(), &orders.to_le_bytes(), &n_bytes],
        );
        let orders = bench.floats(orders, 4 * n);
        for (&z, got) in points.iter().zip(orders.chunks_exact(4)) {
            let z = f64::from(z);
            // Differences of the f64 function, with steps wide enough for the third derivative.
            let h = 1e-2;
            let at = |k: f64| function(z + k * h);
            let want = [
                function(z),
                (at(-2.0) - 8.0 * at(-1.0) + 8.0 * at(1.0) - at(2.0)) / (12.0 * h),
                (-at(-2.0) + 16.0 * at(-1.0) - 30.0 * at(0.0) + 16.0 * at(1.0) - at(2.0)) / (12.0 * h * h),
                (at(-3.0) - 8.0 * at(-2.0) + 13.0 * at(-1.0) - 13.0 * at(1.0) + 8.0 * at(2.0) - at(3.0))
                    / (8.0 * h * h * h),
            ];
            for (order, (&got, want)) in got.iter().zip(want).enumerate() {
                assert!(
                    (f64::from(got) - want).abs() < 2e-6 * (1.0 + want.abs()),
                    "{name}, order {order} at {z}: {got}, not {want}"
                );
            }
        }
    }
}

/// One type of operands: its size, and its rounding.
struct Operand {
    name: &'static str,
    bytes: usize,
    encode: fn(f32) -> Vec<u8>,
    round: fn(f32) -> f32,
}

fn tf32_bits(value: f32) -> u32 {
    value.to_bits().wrapping_add(0x1000) & !0x1fff
}

const OPERANDS: [Operand; 4] = [
    Operand { name: "f32", bytes: 4, encode: |v| v.to_le_bytes().to_vec(), round: |v| v },
    Operand {
        name: "tf32",
        bytes: 4,
        encode: |v| tf32_bits(v).to_le_bytes().to_vec(),
        round: |v| f32::from_bits(tf32_bits(v)),
    },
    Operand {
        name: "bf16",
        bytes: 2,
        encode: |v| bf16::from_f32(v).to_le_bytes().to_vec(),
        round: |v| bf16::from_f32(v).to_f32(),
    },
    Operand {
        name: "f16",
        bytes: 2,
        encode: |v| f16::from_f32(v).to_le_bytes().to_vec(),
        round: |v| f16::from_f32(v).to_f32(),
    },
];

/// C = A Bᵀ for a product of several tiles and chunks, with operands for which every transposition
/// or swap changes the result.
#[test]
fn products_agree_with_f64_and_touch_no_bank_twice() {
    let (rows, columns, depth) = (256usize, 192usize, 192usize);
    let c_pitch = columns + 4;
    let value = |i: usize, k: usize, stream: u64| {
        2.0 * unit_f32(words(stream, Purpose::Evaluation, i as u64, k as u32)[0]) - 1.0
    };
    for Operand { name, bytes, encode, round } in OPERANDS {
        let mut bench = bench(2);
        let a: Vec<u8> = (0..rows).flat_map(|i| (0..depth).flat_map(move |k| encode(value(i, k, 1)))).collect();
        // Chunks of 64 bytes of all lines, one after the other: `packed_index`.
        let chunk = 64 / bytes;
        let line = |first: usize, i: usize| (first..first + chunk).flat_map(move |k| encode(value(i, k, 2)));
        let b: Vec<u8> =
            (0..depth).step_by(chunk).flat_map(|first| (0..columns).flat_map(move |i| line(first, i))).collect();
        let (a, b) = (bench.buffer(&a), bench.buffer(&b));
        let c = bench.empty(4 * rows * c_pitch);
        // The gap between rows of C must not be written.
        let sizes = [c_pitch, depth].map(|n| (n as u32).to_le_bytes());
        let shared = 2 * (128 + 64) * 64;
        let grid = [(columns / 64) as u32, (rows / 128) as u32, 1];
        let kernel = format!("product_{name}");
        let counters = bench.launch(
            &kernel,
            grid,
            256,
            shared,
            &[&a.to_le_bytes(), &b.to_le_bytes(), &c.to_le_bytes(), &sizes[0], &sizes[1]],
        );
        for row in 0..rows {
            let got = bench.floats(c + (4 * row * c_pitch) as u64, columns);
            for (column, got) in got.into_iter().enumerate() {
                let product = |k: usize| f64::from(round(value(row, k, 1))) * f64::from(round(value(column, k, 2)));
                let want: f64 = (0..depth).map(product).sum();
                assert!((f64::from(got) - want).abs() < 2e-5, "{name} ({row}, {column}): {got}, not {want}");
            }
        }
        let products = (rows * columns * depth) as u64;
        if name == "f32" {
            assert!(counters.thread_instructions[Pipe::Float32 as usize] >= products);
            continue;
        }
        assert_eq!(counters.multiply_adds.iter().sum::<u64>(), products, "{name}");
        // Copies bring 16 bytes per lane, 8 lanes per wavefront; each matrix of a fragment is one
        // wavefront.
        let copied = (rows * (columns / 64) + columns * (rows / 128)) * depth * bytes;
        let per_chunk_step = 8 * (4 + 4 * 4); // of a warp: 16 rows of A, and 64 columns of B
        let matrices = grid.iter().product::<u32>() as usize * depth * bytes / 32 * per_chunk_step;
        assert_eq!(counters.shared_wavefronts, (copied / 128 + matrices) as u64, "{name}: bank conflicts");
    }
}
