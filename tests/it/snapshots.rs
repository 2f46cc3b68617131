//! The texts that users read, whole, as `tests/it/snapshots` holds them: a change of one shows in
//! review.
//!
//!     INSTA_UPDATE=always cargo test --test it snapshots::
//!
//! writes them anew. What differs between machines is masked: folders, architecture, and digits of
//! numbers that training or evaluation computed.

use std::path::Path;

use action_matching::config::Config;

use super::cli::{amatch, succeeds, text, trained, workplace};
use super::data_support::{f32s, npy, npz};

/// Compares `text` with the snapshot `name`.
#[track_caller]
fn assert_text(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// `text` without the `folder` that it was made in, and without what a machine has of its own.
fn masked(text: &str, folder: &Path) -> String {
    let text = text.replace(&*folder.to_string_lossy(), "FOLDER").replace(env!("CARGO_PKG_VERSION"), "VERSION");
    let (before, after) = ("f32 × ", format!("cpu, {}, ", std::env::consts::ARCH));
    let lanes = |rest: &str| rest.trim_start_matches(|c: char| c.is_ascii_digit()).to_owned();
    let parts: Vec<String> = text.replace(&after, "cpu, ARCH, ").split(before).map(String::from).collect();
    let rest = parts[1..].iter().map(|part| format!("LANES{}", lanes(part)));
    [parts[0].clone()].into_iter().chain(rest).collect::<Vec<_>>().join(before)
}

/// `text` with `#` for each digit of a number that has a decimal point: such are results of sums,
/// whose order depends on the processor.
fn without_results(text: &str) -> String {
    let of_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | '-');
    let mut masked = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        masked.push_str(&rest[..start]);
        let end = rest[start..].find(|c| !of_number(c)).map_or(rest.len(), |length| start + length);
        let number = &rest[start..end];
        let is_result = number.trim_end_matches('.').contains('.');
        masked.extend(number.chars().map(|c| if is_result && c.is_ascii_digit() { '#' } else { c }));
        rest = &rest[end..];
    }
    masked + rest
}

#[test]
fn masks_leave_the_rest() {
    let text = "cells.npz at 0.25, -1.5e-3 of 60. Done\n";
    assert_eq!(without_results(text), "cells.npz at #.##, -#.#e-# of 60. Done\n");
    let described = format!("/tmp/a/run.toml: cpu, {}, f32 × 16\n", std::env::consts::ARCH);
    assert_eq!(masked(&described, "/tmp/a".as_ref()), "FOLDER/run.toml: cpu, ARCH, f32 × LANES\n");
}

#[test]
fn help() {
    let here = Path::new(".");
    let all = succeeds(here, &["--help"]);
    assert_text("help", &all);
    let (_, commands) = all.split_once("Commands:\n").expect("a list of commands");
    let names = commands.lines().take_while(|line| !line.is_empty()).filter_map(|line| {
        // Lines of a description begin further right.
        line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?.split(' ').next()
    });
    let names: Vec<&str> = names.filter(|name| *name != "help").collect();
    assert!(names.len() >= 8, "{names:?}");
    for name in names {
        assert_text(&format!("help_{name}"), &succeeds(here, &[name, "--help"]));
    }
}

/// Candidates and what they are compared with.
#[test]
fn validation() {
    assert_text("validation", &without_results(&super::validate::table()));
}

/// The answer of `Config::read` to `text` in a file with these values set.
fn refusal(text: &str, values: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("run.toml");
    std::fs::write(&path, text).expect("written");
    let values: Vec<String> = values.iter().map(|value| value.to_string()).collect();
    match Config::read(&path, &values) {
        Ok(_) => "taken".into(),
        Err(error) => masked(&error.to_string(), folder.path()),
    }
}

const DATA: &str = "[data]\npath = \"cells.npz\"\n";

/// Every key of the configuration with values that most of them cannot take.
#[test]
fn configuration_values() {
    let values = ["-1", "0", "2.5", "inf", "true", "\"unheard of\"", "[]", "[-1]", "{ kind = \"none\" }"];
    let defaults = Config { data: toml_data(), ..Config::default() }.to_toml().expect("text");
    let (mut section, mut text) = (String::new(), String::new());
    let mut keys = Vec::new();
    for line in defaults.lines() {
        if let Some(header) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = header.to_owned();
            if header.contains('.') {
                keys.push(header.to_owned()); // a key whose value is a table
            }
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !section.contains('.')) {
            keys.push(format!("{section}.{key}"));
        }
    }
    assert_eq!(keys.len(), 41, "{keys:?}");
    for key in keys {
        for value in values {
            text += &format!("{key} = {value}\n    {}\n", refusal(DATA, &[&format!("{key}={value}")]));
        }
    }
    assert_text("configuration_values", &text);
}

/// A source with every key.
fn toml_data() -> action_matching::config::DataConfig {
    let mut data = Config::default().data;
    data.path = "cells.npz".into();
    data.times_path = Some("times.npy".into());
    data
}

/// Settings that are right alone and wrong together.
#[test]
fn configuration_conflicts() {
    let conflicts: [&[&str]; 11] = [
        &["objective.mass=counts"],
        &["objective.pairing=unbalanced"],
        &["objective.path=spline", "objective.pairing=independent"],
        &["objective.path=nearest", "objective.estimator=regression"],
        &["objective.path=learned", "objective.estimator=weak"],
        &["objective.path=learned", "objective.estimator=regression"],
        &["objective.centering=true", "objective.estimator=weak"],
        &["objective.centering=true"],
        &["objective.path=generative-vp", "objective.mass=counts", "objective.growth=1"],
        &["objective.path=generative-vp", "data.hold_out=[1]"],
        &["objective.sigma=0.1", "objective.growth=0.1", "objective.cost_exponent=3"],
    ];
    let lines = conflicts.map(|values| format!("{}\n    {}\n", values.join(", "), refusal(DATA, values)));
    assert_text("configuration_conflicts", &lines.concat());
}

/// Text that is no configuration.
#[test]
fn configuration_syntax() {
    let texts = [
        "",
        "[data]\n",
        "[data]\npath = cells.npz\n",
        "[data]\npath = \"cells.npz\n",
        "[data]\npath = \"C:\\cells.npz\"\n",
        "[data]\npath\n",
        "[data]\npath = \"a\"\npath = \"b\"\n",
        "[data]\npath = \"a\"\n[training]\nseed = 99999999999999999999\n",
        "[data]\npth = \"a\"\n",
        "[dta]\npath = \"a\"\n",
        "path = \"a\"\n",
        "data = 3\n",
        "[data]\npath = \"a\"\n[training]\nsigma = 1\n",
    ];
    let lines = texts.map(|text| format!("{text:?}\n    {}\n", refusal(text, &[])));
    let sets = ["training.steps", "=3", "a.b.c.d.e=1", "data.path.x=1", "training.stps=3", "training.steps="];
    let sets = sets.map(|set| format!("--set {set}\n    {}\n", refusal(DATA, &[set])));
    assert_text("configuration_syntax", &(lines.concat() + &sets.concat()));
}

#[test]
fn inspect_of_data() {
    let (_guard, folder) = workplace();
    let samples = npy("<f4", false, &[4, 2], &f32s(&[0.0, 1.0, 2.0, 4.0, 1.0, 1.0, 3.0, 5.0]));
    let times = npy("<f4", false, &[4], &f32s(&[0.0, 0.0, 1.0, 1.0]));
    let archive = npz(&[("samples", samples.clone()), ("times", times)], zip::CompressionMethod::Deflated);
    std::fs::write(folder.join("samples.npy"), &samples).expect("written");
    std::fs::write(folder.join("cells.npz"), &archive).expect("written");
    std::fs::write(folder.join("cut.npz"), &archive[..archive.len() / 2]).expect("written");
    std::fs::write(folder.join("points.csv"), "x;y\n1;2\n3;5\n").expect("written");
    std::fs::write(folder.join("bad.csv"), "times,x\n0,1\n1,two\n").expect("written");
    let files = ["data.csv", "points.csv", "bad.csv", "samples.npy", "cells.npz", "cut.npz", "run.toml", "absent.npz"];
    assert_text("inspect_data", &described(&folder, &files));
}

/// Output of `inspect` for each file, or its error.
fn described(folder: &Path, files: &[&str]) -> String {
    let described = files.iter().map(|file| {
        let output = amatch(folder, &["inspect", file]);
        format!("== {file}\n{}{}", text(&output.stdout), text(&output.stderr))
    });
    masked(&described.collect::<String>(), folder)
}

#[test]
fn inspect_and_evaluate_of_a_run() {
    let (_guard, folder) = trained();
    let files = ["runs/run", "runs/run/model.safetensors", "runs/run/checkpoints/step-0000000060.safetensors"];
    let described = without_results(&described(&folder, &files));
    let line = described.lines().find(|line| line.starts_with("fingerprint")).expect("a fingerprint");
    assert_text("inspect_run", &described.replace(line, "fingerprint      FINGERPRINT"));

    let evaluate = ["evaluate", "runs/run", "--threads", "2"];
    assert_text("evaluate", &without_results(&masked(&succeeds(&folder, &evaluate), &folder)));
    succeeds(&folder, &[&evaluate[..], &["--json", "scores.json"]].concat());
    let json = std::fs::read_to_string(folder.join("scores.json")).expect("read");
    let mut shape = without_results(&masked(&json, &folder));
    while shape.contains("##") {
        shape = shape.replace("##", "#");
    }
    assert_text("evaluate_json", &shape);

    let mut problem = String::new();
    for name in ["translation", "growth"] {
        let arguments = [&["evaluate", "runs/run", "--problem", name], &evaluate[2..]].concat();
        let output = amatch(&folder, &arguments);
        problem += &format!("== {name}\n{}{}", text(&output.stdout), text(&output.stderr));
    }
    assert_text("evaluate_problem", &without_results(&masked(&problem, &folder)));
}
