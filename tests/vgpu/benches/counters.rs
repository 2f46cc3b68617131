//! Work of the kernels in a training step and an integration, counted on the virtual GPU, and a
//! lower bound of its time on real ones:
//!
//!     cargo bench -p vgpu --bench counters
//!
//! Counts are per interior row with its two boundary rows, per particle, or per step; bounds are
//! for 65,536 rows and particles.
//!
//! Times by the model of an H100 (`vgpu::model::time`):
//!
//!     cargo bench -p vgpu --bench counters -- errors
//!     cargo bench -p vgpu --bench counters -- count PROGRAM [PRECISION …] > counts.csv
//!     cargo bench -p vgpu --bench counters -- time counts.csv
//!
//! The first prints its error against every measured time. The second counts the workloads of these
//! with the kernels of a program `amatch`, the third prints what the model says of them.

#[path = "../tests/common/mod.rs"]
mod common;

use std::process::Command;

use common::folder_with_driver;
use common::work::{INTEGRATION_STEPS, Per, SHAPES, Shape, count, work_of_child};
use vgpu::counters::{Counters, Launches, Pipe, read_launches};
use vgpu::model::measured::{Count, Timed, milliseconds, read_counts, table, timed};
use vgpu::model::time::{H100_MEASURED, Time};
use vgpu::model::{ALL, Gpu, H100, Unit, bounds, busiest};

const SCALED_TO: usize = 65_536;

fn main() {
    if work_of_child() {
        return;
    }
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => kernels_of_now(),
        ["errors"] => print!("{}", table(&H100_MEASURED)),
        ["count", program, precisions @ ..] => count_workloads(program, precisions),
        ["time", path] => times(&std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))),
        _ => eprintln!("arguments: none, errors, count PROGRAM [PRECISION …], or time FILE"),
    }
}

/// Prints a table of counts of all measured workloads, with the kernels of `program`, on a device
/// of the size of an H100. No precisions stand for all of them.
fn count_workloads(program: &str, precisions: &[&str]) {
    println!("{}", Count::header());
    let mut counted = Vec::new();
    for Timed { workload, precision, counted_rows, .. } in timed() {
        let what = (workload, precision, counted_rows);
        let is_wanted = precisions.is_empty() || precisions.contains(&what.1.as_str());
        if is_wanted && !counted.contains(&what) {
            count_workload(program, &what.0, &what.1, what.2).iter().for_each(|count| println!("{count}"));
            counted.push(what);
        }
    }
}

fn count_workload(program: &str, workload: &str, precision: &str, rows: u64) -> Vec<Count> {
    let folder = folder_with_driver("libcuda.so");
    let report = folder.path().join("counters.json");
    let output = Command::new(program)
        .args(["bench", workload, "--device", "cuda", "--precision", precision])
        .args(["--rows", &rows.to_string(), "--seconds", "0.000001"])
        .env("LD_LIBRARY_PATH", folder.path())
        .env("VGPU_COUNTERS", &report)
        .env("VGPU_MEMORY", (16u64 << 30).to_string())
        .env("VGPU_MULTIPROCESSORS", H100.n_multiprocessors.to_string())
        .env("VGPU_SHARED", (227 << 10).to_string())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{workload}: {}", String::from_utf8_lossy(&output.stderr));
    let kernels = read_launches(&std::fs::read_to_string(report).expect("counters"));
    // Each step ends with one launch, as each integration of so few particles is one.
    let once = |kernel: &str| {
        ["finish_step", "judge"].contains(&kernel) || kernel.starts_with("integrate") // `judge` in d7d78ad
    };
    let n_steps = kernels.iter().find(|(kernel, ..)| once(kernel)).expect("a step or run").1.launches;
    let of_one = |(kernel, launches, counters): (String, Launches, Counters)| Count {
        workload: workload.into(),
        precision: precision.into(),
        rows,
        kernel,
        launches: Launches { launches: launches.launches / n_steps, blocks: launches.blocks / n_steps, ..launches },
        counters: counters.scaled(1.0 / n_steps as f64),
    };
    // Some kernels run before the first step alone.
    kernels.into_iter().filter(|(_, launches, _)| launches.launches >= n_steps).map(of_one).collect()
}

/// Prints the modelled time of each measured workload with other counts, and of its launches.
fn times(counts: &str) {
    let counts = read_counts(counts);
    for timed in timed() {
        let Some(launches) = timed.launches(&counts) else { continue };
        let seconds: f64 = launches.iter().map(|(n, _, launch)| *n as f64 * launch.time(&H100_MEASURED).seconds).sum();
        let Timed { workload, precision, rows, .. } = timed;
        println!("{workload}, {rows}, {precision}: {} ms, modelled", milliseconds(seconds));
        for (n, kernel, launch) in launches {
            let Time { unit, throughput, latency, dram_bytes, seconds } = launch.time(&H100_MEASURED);
            println!(
                "  {n:>3} x {kernel:<24}{:>9} ms: {unit:?} {}, latency {}, {:.1} MB of DRAM",
                milliseconds(seconds),
                milliseconds(throughput),
                milliseconds(latency),
                1e-6 * dram_bytes
            );
        }
    }
}

fn kernels_of_now() {
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
