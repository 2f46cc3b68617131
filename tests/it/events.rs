//! TensorBoard's event file of a run: what `interop/events.py`, which shares nothing with the
//! program, reads in it.

use crate::cli::{SMALL, succeeds, trained};
use crate::interop::run_python;

/// `unix_time` of each line of metrics.
fn times(folder: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("runs/run/metrics.jsonl")).expect("readable");
    text.lines().map(|line| line.split("\"unix_time\":").nth(1).expect("a time").to_string()).collect()
}

/// After a resumption each step is there once, with the time at which it was taken.
#[test]
fn event_files_have_the_numbers_of_the_metrics() {
    let (_guard, folder) = trained();
    let check = || run_python("events.py", &folder, ["runs/run".to_string()].into_iter());
    check();
    let before = times(&folder);
    let more = ["--resume", "--set", "training.steps=90"];
    succeeds(&folder, &[&["train", "run.toml"][..], &SMALL, &more].concat());
    check();
    let after = times(&folder);
    assert!(after.len() > before.len() && after.starts_with(&before), "{before:?} {after:?}");
}
