//! The rate of the product kernel alone, the upper limit for training and sampling.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use pulp::{Simd, WithSimd};

use super::epilogue::Plain;
use super::panel::{Aligned, Tile, panel_width};
use super::product::{Operand, Product};
use crate::stage::on_threads;

/// Order of a square product that suits the kernel best: operands and result fit in one core's
/// cache.
const SIZE: usize = 192;

/// Measures the product on `threads` threads for about `duration`; gives 10⁹ floating-point
/// operations per second.
pub struct ProductRate {
    /// Threads, each with matrices of its own.
    pub threads: usize,
    /// Duration of the measurement.
    pub duration: Duration,
}

impl WithSimd for ProductRate {
    type Output = f64;

    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let total = Mutex::new(0.0);
        on_threads(self.threads, || {
            let width = panel_width::<S>();
            let a = Tile::zeros(SIZE, SIZE, width);
            let mut out = Tile::zeros(SIZE, SIZE, width);
            let weight = Aligned::zeros(SIZE.next_multiple_of(width) * SIZE);
            let mut parked = Aligned::zeros(SIZE * width);
            let (started, mut products) = (Instant::now(), 0_u64);
            while started.elapsed() < self.duration {
                let operand = Operand {
                    weight: weight.as_slice().as_ptr(),
                    start: std::ptr::null(),
                    inner: SIZE,
                    n_panels: SIZE.div_ceil(width),
                };
                let epilogue = Plain { out: out.as_mut_ptr() };
                // SAFETY: the matrices above, of this thread alone, are as large.
                let product = unsafe { Product::new(&a, SIZE, operand, parked.as_mut_slice(), epilogue) };
                simd.vectorize(product);
                products += 1;
            }
            let flop = 2.0 * (SIZE * SIZE * SIZE) as f64 * products as f64;
            *total.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) +=
                flop / started.elapsed().as_secs_f64() / 1e9;
        });
        total.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
