//! Work of the kernels in a training step and an integration, counted on the virtual GPU, and a
//! lower bound of its time on real ones:
//!
//!     cargo bench -p vgpu --bench counters
//!
//! Counts are per interior row with its two boundary rows, per particle, or per step; bounds are
//! for 65,536 rows and particles.

#[path = "../tests/common/mod.rs"]
mod common;

use common::work::{INTEGRATION_STEPS, Per, SHAPES, Shape, count, work_of_child};
use vgpu::counters::{Counters, Pipe};
use vgpu::model::{ALL, Gpu, H100, Unit, bounds, busiest};

const SCALED_TO: usize = 65_536;

fn main() {
    if work_of_child() {
        return;
    }
    for (index, shape) in SHAPES.iter().enumerate() {
        let Shape { dim, width, layers, .. } = shape;
        let counted = count(index, &[]);
        println!("\ndimension {dim}, {layers} layers of {width}, bf16");
        counts(shape, &counted);
        println!("\nleast ms on an H100 for {SCALED_TO} rows or particles, by unit");
        units(shape, &counted);
        println!();
        for gpu in ALL {
            for (what, is_of_it) in [("a training step", false), ("an integration", true)] {
                let of_it = counted.iter().filter(|(kernel, _)| (Per::of(kernel) == Per::Particle) == is_of_it);
                summary(what, shape, of_it, &gpu);
            }
        }
    }
    println!("\nintegrations are {INTEGRATION_STEPS} steps of RK4");
}

fn counts(shape: &Shape, counted: &[(String, Counters)]) {
    print!("{:<20}{:>10}{:>10}{:>10}{:>10}{:>12}", "kernel", "per", "f32", "integer", "special", "mma");
    println!("{:>10}{:>10}{:>12}{:>12}", "waves", "barriers", "bytes read", "written");
    for (kernel, counters) in counted {
        let per = Per::of(kernel);
        let one = |n: u64| n as f64 / per.counted(shape) as f64;
        let pipe = |pipe: Pipe| one(counters.thread_instructions[pipe as usize]);
        let name = match per {
            Per::Row => "row",
            Per::Particle => "particle",
            Per::Step => "step",
        };
        print!("{kernel:<20}{name:>10}");
        print!("{:>10.0}{:>10.0}{:>10.0}", pipe(Pipe::Float32), pipe(Pipe::Integer), pipe(Pipe::Special));
        let multiply_adds = one(counters.multiply_adds.iter().sum());
        print!("{multiply_adds:>12.0}{:>10.0}{:>10.1}", one(counters.shared_wavefronts), one(counters.barriers));
        println!("{:>12.0}{:>12.0}", one(32 * counters.read_sectors), one(32 * counters.written_sectors));
    }
}

fn scaled(shape: &Shape, kernel: &str, counters: &Counters) -> Counters {
    match Per::of(kernel) {
        Per::Step => counters.clone(),
        per => counters.scaled(SCALED_TO as f64 / per.counted(shape) as f64),
    }
}

fn units(shape: &Shape, counted: &[(String, Counters)]) {
    print!("{:<20}", "kernel");
    for (unit, _) in bounds(&Counters::default(), &H100) {
        print!("{:>9}", format!("{unit:?}"));
    }
    println!("{:>22}", "tensor / busiest");
    for (kernel, counters) in counted {
        let bounds = bounds(&scaled(shape, kernel, counters), &H100);
        print!("{kernel:<20}{}", bounds.map(|(_, seconds)| format!("{:>9.3}", 1e3 * seconds)).concat());
        let tensor = bounds.iter().find(|&&(unit, _)| unit == Unit::Tensor).map_or(0.0, |bound| bound.1);
        match busiest(&bounds) {
            Some((unit, seconds)) if tensor > 0.0 => {
                println!("{:>22}", format!("{:.0} % of {unit:?}", 100.0 * tensor / seconds));
            }
            _ => println!(),
        }
    }
}

/// Kernels run one after the other, so their bounds are summed.
fn summary<'a>(what: &str, shape: &Shape, counted: impl Iterator<Item = &'a (String, Counters)>, gpu: &Gpu) {
    let (mut least, mut tensor) = (0.0, 0.0);
    for (kernel, counters) in counted {
        let bounds = bounds(&scaled(shape, kernel, counters), gpu);
        least += busiest(&bounds).map_or(0.0, |(_, seconds)| seconds);
        tensor += bounds.iter().filter(|bound| bound.0 == Unit::Tensor).map(|bound| bound.1).sum::<f64>();
    }
    println!(
        "{:<10}{what:<16}at least {:>7.3} ms, tensor cores busy for {:>3.0} %",
        gpu.name,
        1e3 * least,
        100.0 * tensor / least
    );
}
