//! The optimiser's kernels on the virtual GPU, over several steps, against AdamW written out in f64.

mod common;

use action_matching::rng::{Purpose, unit_f32, words};
use common::{Bench, Bytes, compile};
use half::bf16;

const THREADS: u32 = 256;
const PER_BLOCK: usize = 1024;
const N_PARTS: usize = 3;

fn number(stream: usize, index: usize) -> f32 {
    2.0 * unit_f32(words(stream as u64, Purpose::Evaluation, 1, index as u32)[0]) - 1.0
}

/// A layer, padded: (n_in, n_out, in_size, out_size, forward, reverse, bias, parameters).
type Layer = [usize; 8];

#[test]
fn steps_agree_with_adamw_in_f64() {
    let ptx = compile("optimizer.cu");
    let mut layers: Vec<Layer> = Vec::new();
    let (mut packed, mut biases, mut n) = (0, 0, 0);
    for (in_size, out_size) in [(4usize, 37usize), (37, 70), (70, 1)] {
        let (n_in, n_out) = (in_size.next_multiple_of(64), out_size.next_multiple_of(64));
        layers.push([n_in, n_out, in_size, out_size, packed, packed + n_in * n_out, biases, n]);
        packed += 2 * n_in * n_out;
        biases += n_out;
        n += n_in * n_out + n_out;
    }
    // (layer, row, column), the column of a bias behind the weights'; none for padding.
    let place = |index: usize| -> Option<(&Layer, usize, usize)> {
        let layer = layers.iter().rev().find(|layer| index >= layer[7])?;
        let [n_in, n_out, in_size, out_size, ..] = *layer;
        let inside = index - layer[7];
        let (row, column) =
            if inside < n_in * n_out { (inside / n_in, inside % n_in) } else { (inside - n_in * n_out, n_in) };
        (row < out_size && (column < in_size || column == n_in)).then_some((layer, row, column))
    };
    let n_blocks = n.div_ceil(PER_BLOCK);
    for (kernel, bytes) in [("update_f32", 4), ("update_bf16", 2)] {
        let mut bench = Bench::new(&ptx, 7);
        let floats = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
        let start: Vec<f32> = (0..n).map(|i| if place(i).is_some() { number(1, i) } else { 0.0 }).collect();
        let [parameters, ema] = [(); 2].map(|()| bench.buffer(&floats(&start)));
        let [moment1, moment2] = [(); 2].map(|()| bench.buffer(&floats(&vec![0.0; n])));
        let (gradient, squares, norm) = (bench.empty(4 * n), bench.empty(8 * n_blocks), bench.empty(4));
        let (weights, bias_values) = (bench.empty(bytes * packed), bench.empty(4 * biases));
        let mut exact: Vec<[f64; 4]> = start.iter().map(|&p| [f64::from(p), f64::from(p), 0.0, 0.0]).collect();
        let (beta1, beta2, epsilon, decay, clip, ema_decay) = (0.8f64, 0.95f64, 1e-8f64, 0.3f64, 0.7f64, 0.9f64);
        for step in 0..4usize {
            let lost = step == 2;
            let part = |part: usize, i: usize| {
                if lost && part == 1 && i == 2 { f32::NAN } else { number(10 * step + part + 2, i) }
            };
            let parts: Vec<f32> = (0..N_PARTS * n).map(|k| part(k / n, k % n)).collect();
            let rate = 0.01 * (step + 1) as f64;
            let taken = (step + 1) as f64;
            let mut params = Bytes::default();
            params.u32(layers.len()).u32(3).u32(1).u32(1);
            (0..17).for_each(|l| {
                layers.get(l).unwrap_or(&[0; 8]).iter().for_each(|&field| {
                    params.u32(field);
                })
            });
            params.pointer(bench.buffer(&floats(&parts))).u32(N_PARTS).u32(n).u32(n_blocks).f32(clip);
            let root = 1.0 / (1.0 - beta2.powf(taken)).sqrt();
            for value in [
                1.0 - beta1,
                1.0 - beta2,
                rate / (1.0 - beta1.powf(taken)),
                root,
                epsilon,
                1.0 - rate * decay,
                1.0 - ema_decay,
            ] {
                params.f32(value);
            }
            for pointer in [gradient, parameters, ema, moment1, moment2, squares, norm, weights, bias_values] {
                params.pointer(pointer);
            }
            params.0.resize(params.0.len().next_multiple_of(8), 0);
            let grid = [n_blocks as u32, 1, 1];
            bench.launch("gather", grid, THREADS, 0, &[&params.0]);
            bench.launch(kernel, grid, THREADS, 0, &[&params.0]);

            let sum = |i: usize| {
                if place(i).is_some() { (0..N_PARTS).map(|k| f64::from(part(k, i))).sum::<f64>() } else { 0.0 }
            };
            let exact_norm = (0..n).map(|i| sum(i).powi(2)).sum::<f64>().sqrt();
            let got_norm = f64::from(bench.floats(norm, 1)[0]);
            assert_eq!(got_norm.is_finite(), !lost);
            if lost {
                continue; // the step changes nothing
            }
            assert!((got_norm / exact_norm - 1.0).abs() < 1e-6, "{got_norm}, not {exact_norm}");
            for (i, [p, e, m, v]) in exact.iter_mut().enumerate() {
                if place(i).is_none() {
                    continue;
                }
                let g = sum(i) * (clip / exact_norm).min(1.0);
                *m = beta1 * *m + (1.0 - beta1) * g;
                *v = beta2 * *v + (1.0 - beta2) * g * g;
                let (m_hat, v_hat) = (*m / (1.0 - beta1.powf(taken)), *v / (1.0 - beta2.powf(taken)));
                *p -= rate * (m_hat / (v_hat.sqrt() + epsilon) + decay * *p);
                *e = ema_decay * *e + (1.0 - ema_decay) * *p;
            }
        }
        for (what, buffer, column) in
            [("parameters", parameters, 0), ("ema", ema, 1), ("moment1", moment1, 2), ("moment2", moment2, 3)]
        {
            for (i, got) in bench.floats(buffer, n).into_iter().enumerate() {
                let want = exact[i][column];
                assert!(
                    (f64::from(got) - want).abs() < 2e-6 * (1.0 + want.abs()),
                    "{kernel}: {what} {i}: {got}, not {want}"
                );
            }
        }
        // The packed copies are the parameters, rounded, both ways; padding is 0.
        let parameters = bench.floats(parameters, n);
        let stored: Vec<f32> = if bytes == 4 {
            bench.floats(weights, packed)
        } else {
            let words = bench.words(weights, packed / 2);
            words.iter().flat_map(|w| [*w as u16, (*w >> 16) as u16]).map(|h| bf16::from_bits(h).to_f32()).collect()
        };
        let rounded = |v: f32| if bytes == 4 { v } else { bf16::from_f32(v).to_f32() };
        let bias_values = bench.floats(bias_values, biases);
        let mut seen = 0;
        for [n_in, n_out, _, _, forward, reverse, bias, first] in &layers {
            for row in 0..*n_out {
                for column in 0..*n_in {
                    let want = rounded(parameters[first + row * n_in + column]);
                    assert_eq!(stored[forward + row * n_in + column], want);
                    assert_eq!(stored[reverse + column * n_out + row], want);
                    seen += usize::from(want != 0.0);
                }
                assert_eq!(bias_values[bias + row], parameters[first + n_in * n_out + row]);
            }
        }
        assert_eq!(seen, 4 * 37 + 37 * 70 + 70);
    }
}
