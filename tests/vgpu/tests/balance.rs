//! Work of the kernels, counted on the virtual GPU: it does not rise unnoticed, and by the model of
//! an H100 matrix products dominate it.

mod common;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::LazyLock;

use common::work::{SHAPES, count, work_of_child};
use vgpu::counters::Counters;
use vgpu::model::{H100, Unit, bounds, busiest};

/// Kernels and their counts, for each of `SHAPES`; counted once.
static COUNTED: LazyLock<Vec<Vec<(String, Counters)>>> = LazyLock::new(|| {
    let arguments = ["tensor_cores_are_busy_half_of_the_time", "--exact"];
    (0..SHAPES.len()).map(|index| count(index, &arguments)).collect()
});

/// In a wide network's kernels, the bound of the tensor cores is at least half of that of the
/// busiest unit, in training and in integration.
#[test]
fn tensor_cores_are_busy_half_of_the_time() {
    if work_of_child() {
        return;
    }
    for (shape, counted) in SHAPES.iter().zip(&*COUNTED).filter(|(shape, _)| shape.width > 64) {
        for family in ["sweep", "weight_grad", "integrate"] {
            let (name, counters) = counted.iter().find(|(kernel, _)| kernel.starts_with(family)).expect("counted");
            let bounds = bounds(counters, &H100);
            let tensor = bounds.iter().find(|bound| bound.0 == Unit::Tensor).expect("every unit").1;
            let (unit, seconds) = busiest(&bounds).expect("units");
            let width = shape.width;
            assert!(tensor >= 0.5 * seconds, "{name}, width {width}: {:.2} of {unit:?}", tensor / seconds);
        }
    }
}

/// Change of a count that is allowed without a new table: releases of the compiler differ a little.
const ALLOWED: f64 = 0.01;

/// The counts of `tests/vgpu/counters.csv`: all that a kernel does in a step or an integration of a
/// shape. A commit that changes them changes the table too, and says why they rise.
#[test]
fn counts_are_those_of_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("counters.csv");
    let listed = std::fs::read_to_string(&path).expect("tests/vgpu/counters.csv");
    let table = table(&COUNTED);
    let problems = changes(&listed, &table);
    assert!(problems.is_empty(), "{}\nThe table is now\n{table}", problems.join("\n"));
}

fn table(counted: &[Vec<(String, Counters)>]) -> String {
    let names: Vec<String> = Counters::default().named().into_iter().map(|(name, _)| name).collect();
    let mut table = format!("dimension,layers,width,kernel,{}\n", names.join(","));
    for (shape, kernels) in SHAPES.iter().zip(counted) {
        for (kernel, counters) in kernels {
            write!(table, "{},{},{},{kernel}", shape.dim, shape.layers, shape.width).expect("a string");
            for (_, count) in counters.named() {
                write!(table, ",{count}").expect("a string");
            }
            table += "\n";
        }
    }
    table
}

/// Counts that differ by more than [`ALLOWED`] between two tables, and lines that one of them lacks.
fn changes(listed: &str, now: &str) -> Vec<String> {
    let lines = |text: &str| -> Vec<(String, Vec<String>)> {
        let fields = text.lines().map(|line| line.split(',').map(String::from).collect::<Vec<_>>());
        fields.map(|fields| (fields[..fields.len().min(4)].join(","), fields)).collect()
    };
    let (listed, now) = (lines(listed), lines(now));
    let mut problems = Vec::new();
    for (of, fields) in &now {
        let Some((_, before)) = listed.iter().find(|(other, _)| other == of) else {
            problems.push(format!("{of}: not in the table"));
            continue;
        };
        for ((name, before), count) in now[0].1.iter().zip(before).zip(fields).skip(4) {
            let [old, new] = [before, count].map(|text| text.parse().unwrap_or(f64::NAN));
            let is_same = before == count || (new - old).abs() <= ALLOWED * old;
            if !is_same {
                problems.push(format!("{of}: {name} was {before}, is {count}"));
            }
        }
    }
    let missing = listed.iter().filter(|(of, _)| now.iter().all(|(other, _)| other != of));
    problems.extend(missing.map(|(of, _)| format!("{of}: not launched")));
    problems
}

#[test]
fn changed_counts_are_named() {
    let table = "dimension,layers,width,kernel,mma,barriers\n3,4,256,a,1000,7\n";
    let with = |old: &str, new: &str| changes(table, &table.replace(old, new));
    assert!(with("1000", "1009").is_empty());
    assert_eq!(with("1000", "1011"), ["3,4,256,a: mma was 1000, is 1011"]);
    assert_eq!(with("1000", "900"), ["3,4,256,a: mma was 1000, is 900"]);
    assert_eq!(with("7", "8"), ["3,4,256,a: barriers was 7, is 8"]);
    assert_eq!(with(",a,", ",b,"), ["3,4,256,b: not in the table", "3,4,256,a: not launched"]);
    assert_eq!(with("barriers", "steps"), ["dimension,layers,width,kernel: steps was barriers, is steps"]);
}
