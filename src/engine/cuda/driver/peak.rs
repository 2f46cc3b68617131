//! Peak rates of GPUs: multiply-adds per multiprocessor and clock, multiprocessors, highest clock.
//! `amatch bench --device cuda` is compared with them.
//!
//! Rates are of dense products with sums in f32, from NVIDIA's white papers (A100 Tensor Core GPU
//! Architecture, Ampere GA102 GPU Architecture, Ada GPU Architecture, H100 Tensor Core GPU
//! Architecture, RTX Blackwell GPU Architecture) and the data sheet of HGX B200: operations a
//! second divided by 2 × multiprocessors × boost clock. f32: CUDA C++ Programming Guide, throughput
//! of arithmetic instructions.
//!
//! sm_90 and sm_100 reach their tensor peak only with wgmma and tcgen05; the kernels' portable
//! mma.sync stays below.

use super::DeviceInfo;
use crate::precision::Precision;

/// Multiply-adds per multiprocessor and clock.
struct Rates {
    compute_capability: (u32, u32),
    f32: u32,
    tf32: u32,
    /// bf16 and f16.
    half: u32,
    /// Tensor cores of GeForce cards halve their rate where sums are f32.
    geforce_halves: bool,
}

const fn rates(compute_capability: (u32, u32), f32: u32, tf32: u32, half: u32, geforce_halves: bool) -> Rates {
    Rates { compute_capability, f32, tf32, half, geforce_halves }
}

const RATES: [Rates; 6] = [
    rates((8, 0), 64, 512, 1024, false),
    rates((8, 6), 128, 256, 512, true),
    rates((8, 9), 128, 256, 512, true),
    rates((9, 0), 128, 1024, 2048, false),
    rates((10, 0), 128, 2048, 4096, false),
    rates((12, 0), 128, 256, 512, true),
];

/// Floating-point operations a second that `device` does at most in products of `precision`; `None`
/// for a card that is not in the table.
pub fn peak_flops(device: &DeviceInfo, precision: Precision) -> Option<f64> {
    let rates = RATES.iter().find(|rates| rates.compute_capability == device.compute_capability)?;
    let whole = match precision {
        Precision::F32 => rates.f32,
        Precision::Tf32 => rates.tf32,
        Precision::Bf16 | Precision::F16 => rates.half,
    };
    let halved = rates.geforce_halves && precision != Precision::F32 && device.model.contains("GeForce");
    let multiply_adds = whole / if halved { 2 } else { 1 };
    Some(2.0 * f64::from(multiply_adds) * device.n_multiprocessors as f64 * device.clock)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dense operations a second that the maker states, at the boost clock that belongs to them.
    #[test]
    fn peaks_are_those_that_the_maker_states() {
        let (a100, h100) = ("NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3");
        for (model, compute_capability, n_multiprocessors, clock, precision, stated) in [
            (a100, (8, 0), 108, 1.410e9, Precision::Bf16, 312e12),
            (a100, (8, 0), 108, 1.410e9, Precision::Tf32, 156e12),
            (a100, (8, 0), 108, 1.410e9, Precision::F32, 19.5e12),
            ("NVIDIA GeForce RTX 3090", (8, 6), 82, 1.695e9, Precision::F16, 71e12),
            ("NVIDIA RTX A6000", (8, 6), 84, 1.800e9, Precision::F16, 154.8e12),
            ("NVIDIA GeForce RTX 4090", (8, 9), 128, 2.520e9, Precision::Bf16, 165.2e12),
            ("NVIDIA GeForce RTX 4090", (8, 9), 128, 2.520e9, Precision::Tf32, 82.6e12),
            ("NVIDIA GeForce RTX 4090", (8, 9), 128, 2.520e9, Precision::F32, 82.6e12),
            (h100, (9, 0), 132, 1.830e9, Precision::Bf16, 989.4e12),
            (h100, (9, 0), 132, 1.830e9, Precision::Tf32, 494.7e12),
            (h100, (9, 0), 132, 1.980e9, Precision::F32, 66.9e12),
            ("NVIDIA GeForce RTX 5090", (12, 0), 170, 2.407e9, Precision::F16, 209.5e12),
        ] {
            let device = DeviceInfo { compute_capability, n_multiprocessors, clock, ..card(model) };
            let peak = peak_flops(&device, precision).expect("in the table");
            assert!((peak - stated).abs() < 5e-3 * stated, "{model}, {}: {peak}, not {stated}", precision.name());
        }
    }

    #[test]
    fn a_card_that_is_not_in_the_table_has_no_peak() {
        let device = DeviceInfo { compute_capability: (7, 0), ..card("Tesla V100") };
        assert_eq!(peak_flops(&device, Precision::F32), None);
    }

    fn card(model: &str) -> DeviceInfo {
        DeviceInfo {
            ordinal: 0,
            model: model.into(),
            compute_capability: (8, 0),
            n_multiprocessors: 1,
            clock: 1e9,
            total_memory: 0,
            free_memory: None,
        }
    }
}
