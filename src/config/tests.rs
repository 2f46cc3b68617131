//! Tests of reading, checking and writing configurations.

use std::path::{Path, PathBuf};

use super::*;
use crate::data::Standardization;
use crate::density_path::Knots;
use crate::model::{Head, TimeEmbedding};
use crate::objective::TimeWeight;
use crate::precision::Precision;

fn read(text: &str, overrides: &[&str]) -> Result<Config> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("run.toml");
    std::fs::write(&path, text).expect("written");
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    Config::read(&path, &overrides)
}

#[test]
fn defaults_complete_a_configuration_and_survive_the_round_trip() {
    let config = read("[data]\npath = \"a.npz\"", &[]).expect("reads");
    assert_eq!(config.training, TrainingConfig::default());
    assert!(config.data.path.is_absolute());
    assert_eq!(config.output.folder, Path::new("runs/run"));
    assert_eq!(read(&config.to_toml().expect("UTF-8"), &[]).expect("reads"), config);
    let every = Config {
        model: ModelConfig {
            time_embedding: Some(TimeEmbedding::Fourier { frequencies: vec![0.5, 2.0] }),
            ..ModelConfig::default()
        },
        objective: ObjectiveConfig {
            time_weight: TimeWeight::Polynomial { coefficients: vec![1.0, -0.5] },
            ..ObjectiveConfig::default()
        },
        ..config
    };
    assert_eq!(read(&every.to_toml().expect("UTF-8"), &[]).expect("reads"), every);
}

/// The configuration in `text` with `overrides`, and the lines about its keys.
fn read_noting(text: &str, overrides: &[&str]) -> (Result<Config>, Vec<String>) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("run.toml");
    std::fs::write(&path, text).expect("written");
    let mut lines = Vec::new();
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    let config = Config::read_noting(&path, &overrides, |line| lines.push(line.to_string()));
    (config, lines)
}

#[test]
fn old_names_of_keys_are_read_with_a_line_that_names_the_new_ones() {
    let text = "[data]\npath = \"a.npz\"\nstandardise = \"robust\"\n[objective]\ncentring = true\npath = \"nearest\"\n";
    let (config, lines) = read_noting(text, &[]);
    let config = config.expect("reads");
    assert_eq!(config.data.standardize, Standardization::Robust);
    assert_eq!(config.estimator(), Estimator::Action { centering: true });
    assert_eq!(lines.len(), 1);
    for part in [
        "run.toml: ",
        "data.standardise is now data.standardize",
        "objective.centring is now objective.estimator = { kind = \"action\", centering = true }",
    ] {
        assert!(lines[0].contains(part), "{part}: {lines:?}");
    }
    // Values of the command line replace those of the file under either name.
    for key in ["data.standardise", "data.standardize"] {
        let (config, lines) = read_noting(text, &[&format!("{key}=none")]);
        assert_eq!(config.expect("reads").data.standardize, Standardization::None);
        assert_eq!(lines.len(), 1, "{lines:?}");
    }
    let written = config.to_toml().expect("UTF-8");
    assert!(written.contains("\nstandardize = ") && written.contains("centering = true"), "{written}");
    assert!(!written.contains("standardise") && !written.contains("centring"), "{written}");
    for both in
        [format!("{text}centering = true\n"), text.replace("[objective]", "standardize = \"none\"\n[objective]")]
    {
        let error = read(&both, &[]).expect_err("both").to_string();
        let (old, new) =
            if both.contains("centering") { ("centring", "centering") } else { ("standardise", "standardize") };
        assert!(error.contains(old) && error.contains(new), "{error}");
    }
}

/// A key in its old form, and the same as a setting of the key that it belongs to.
const MOVED: [(&str, &str, &str); 11] = [
    (
        "sigma = 0.5\nsigma_schedule = \"one-minus-t\"",
        "sigma = { value = 0.5, schedule = \"one-minus-t\" }",
        "sigma_schedule",
    ),
    ("probes = 3", "laplacian = { kind = \"rademacher\", probes = 3 }", "probes"),
    ("laplacian = \"gaussian\"\nprobes = 3", "laplacian = { kind = \"gaussian\", probes = 3 }", "probes"),
    (
        "path = \"nearest\"\ncentering = true",
        "path = \"nearest\"\nestimator = { kind = \"action\", centering = true }",
        "objective.centering is now",
    ),
    ("estimator = \"action\"\ncentring = true", "estimator = { kind = \"action\", centering = true }", "centring"),
    ("estimator = \"weak\"\nweak_intervals = 3", "estimator = { kind = \"weak\", intervals = 3 }", "weak_intervals"),
    (
        "path = \"learned\"\nbend_rate = 0.7\nbend_hidden = [5]",
        "path = { kind = \"learned\", hidden = [5], rate = 0.7 }",
        "bend_rate",
    ),
    ("path = \"learned\"\nbend_hidden = [5]", "path = { kind = \"learned\", hidden = [5] }", "bend_hidden"),
    ("pairing = \"ot\"\npairing_rows = 7", "pairing = { kind = \"ot\", rows = 7 }", "pairing_rows"),
    (
        "growth = 1\npairing = \"unbalanced\"\npairing_rows = 7\npairing_relaxation = 0.5",
        "growth = 1\npairing = { kind = \"unbalanced\", relaxation = 0.5, rows = 7 }",
        "pairing_relaxation",
    ),
    ("[training]\nfinal_rate = 0.1", "[training]\nschedule = { kind = \"cosine\", final_rate = 0.1 }", "final_rate"),
];

#[test]
fn keys_that_became_settings_of_others_are_read_with_a_line_that_says_what_to_write() {
    for (old, new, key) in MOVED {
        let text = |keys: &str| format!("[data]\npath = \"/a.npz\"\n[objective]\n{keys}\n");
        let (now, lines) = read_noting(&text(new), &[]);
        let now = now.expect(new);
        assert!(lines.is_empty(), "{lines:?}");
        let (then, lines) = read_noting(&text(old), &[]);
        assert_eq!(then.expect(old), now, "{old}");
        assert_eq!(lines.len(), 1, "{old}: {lines:?}");
        assert!(lines[0].contains(key) && lines[0].contains(" is now ") && lines[0].contains('{'), "{lines:?}");
        assert_eq!(read(&now.to_toml().expect("UTF-8"), &[]).expect("reads"), now, "{new}");
    }
}

/// A key without effect, in the form of an earlier version, is named; the present form cannot hold
/// one.
#[test]
fn settings_of_another_kind_are_named() {
    let (config, lines) = read_noting("data.path = \"/a\"\nobjective.bend_rate = 0.5\nobjective.probes = 2", &[]);
    assert_eq!(config.expect("reads").objective.path, PathConfig::Auto);
    assert!(lines[0].contains("without effect: objective.bend_rate") && lines.len() == 1, "{lines:?}");
    for (text, parts) in [
        ("path = { kind = \"linear\", rate = 0.5 }", ["objective.path.rate", "belongs to learned"]),
        ("path = { kind = \"learned\", rat = 0.5 }", ["objective.path.rat", "objective.path.rate?"]),
        ("path = { kind = \"learned\", rate = \"x\" }", ["objective.path.rate: is \"x\"", "objective.path.rate = 0.3"]),
        ("path = { rate = 0.5 }", ["objective.path: is { rate = 0.5 }", "learned (hidden, rate)"]),
        ("pairing = { kind = \"ot\", relaxation = 1 }", ["objective.pairing.relaxation", "belongs to unbalanced"]),
        ("estimator = { kind = \"weak\", centering = true }", ["objective.estimator.centering", "belongs to action"]),
        ("laplacian = { kind = \"exact\", probes = 2 }", ["objective.laplacian.probes", "rademacher and gaussian"]),
        ("sigma = { value = 1, shedule = 2 }", ["objective.sigma.shedule", "objective.sigma.schedule?"]),
        ("estimator = \"regression\"\ncentring = true", ["objective.estimator.centering: is set", "only action"]),
        ("estimator = \"weak\"\ncentering = true", ["as objective.centering,", "set objective.estimator = action"]),
        ("path = 3\nbend_rate = 0.5", ["objective.path: is 3", "learned (hidden, rate)"]),
    ] {
        let error = read(&format!("[data]\npath = \"a\"\n[objective]\n{text}\n"), &[]).expect_err(text).to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
    }
}

#[test]
fn both_forms_at_once_are_an_error_that_names_both() {
    for (text, parts) in [
        ("path = { kind = \"learned\", rate = 0.5 }\nbend_rate = 0.5", ["objective.bend_rate", "objective.path"]),
        ("pairing = { kind = \"ot\" }\npairing_rows = 5", ["objective.pairing_rows", "objective.pairing"]),
        ("estimator = { kind = \"action\" }\ncentring = true", ["objective.centring", "objective.estimator"]),
        ("sigma = { value = 1 }\nsigma_schedule = \"constant\"", ["objective.sigma_schedule", "objective.sigma"]),
    ] {
        let error = read(&format!("[data]\npath = \"a\"\n[objective]\n{text}\n"), &[]).expect_err(text).to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
    }
}

/// The command line decides, in either form, in any order, over either form in the file.
#[test]
fn overrides_reach_the_settings_of_a_kind() {
    let learned = |hidden: &[usize], rate: f64| PathConfig::Learned { hidden: hidden.to_vec(), rate };
    let spline = |limit, knots| PathConfig::Spline { limit, knots };
    let ot = "pairing = \"ot\"";
    for (file, overrides, expected) in [
        ("", &["objective.path=learned", "objective.path.rate=0.1"][..], learned(&[64, 64], 0.1)),
        ("", &["objective.path.rate=0.1", "objective.path=learned"], learned(&[64, 64], 0.1)),
        ("", &["objective.bend_rate=0.1", "objective.path=learned"], learned(&[64, 64], 0.1)),
        ("", &["objective.path={ kind = \"learned\", rate = 0.1 }"], learned(&[64, 64], 0.1)),
        ("path = \"learned\"", &["objective.path.rate=0.1"], learned(&[64, 64], 0.1)),
        ("path = \"learned\"\nbend_rate = 9\nbend_hidden = [3]", &["objective.path.rate=0.1"], learned(&[3], 0.1)),
        ("path = \"learned\"\nbend_rate = 9", &["objective.bend_rate=0.1"], learned(&[64, 64], 0.1)),
        ("path = { kind = \"learned\", rate = 9, hidden = [3] }", &["objective.path.rate=0.1"], learned(&[3], 0.1)),
        ("path = { kind = \"learned\", rate = 9, hidden = [3] }", &["objective.bend_rate=0.1"], learned(&[3], 0.1)),
        ("bend_rate = 0.1", &["objective.path=learned"], learned(&[64, 64], 0.1)),
        ("bend_rate = 9", &["objective.path={ kind = \"learned\" }"], learned(&[64, 64], 0.3)),
        ("path = { kind = \"learned\", rate = 9 }", &["objective.path=linear"], PathConfig::Linear),
        (ot, &["objective.path=spline"], spline(2.0, Knots::Distance)),
        (ot, &["objective.path=spline", "objective.path.limit=3"], spline(3.0, Knots::Distance)),
        (ot, &["objective.path={ kind = \"spline\", knots = \"rank\" }"], spline(2.0, Knots::Rank)),
        (
            "path = { kind = \"spline\", limit = 1.5, knots = \"rank\" }\npairing = \"ot\"",
            &["objective.path.knots=clock"],
            spline(1.5, Knots::Clock),
        ),
    ] {
        let config = read(&format!("[data]\npath = \"a\"\n[objective]\n{file}\n"), overrides).expect("reads");
        assert_eq!(config.objective.path, expected, "{file} {overrides:?}");
    }
    let config =
        read("data.path = \"a\"\nobjective.sigma = 0.5", &["objective.sigma.schedule=one-minus-t"]).expect("reads");
    assert_eq!((config.objective().sigma, config.objective().sigma_at(0.5)), (0.5, 0.25));
}

/// Fingerprints that an earlier version of the program gave to these settings and data.
#[test]
fn fingerprints_of_earlier_versions_stay() {
    for (objective, training, expected) in [
        (
            "sigma = 0.5\nsigma_schedule = \"one-minus-t\"\nlaplacian = \"gaussian\"\nprobes = 2\npairing = \"independent\"",
            "final_rate = 0.1",
            "6f76dac903bbe1fcc5ceb0eeebfbcc1b5582f81514865b8c3f04e5d879d2fe7f",
        ),
        (
            "path = \"learned\"\nbend_hidden = [4]\nbend_rate = 0.5\nestimator = \"action\"\ncentring = true\n\
             pairing = \"independent\"",
            "schedule = \"constant\"",
            "e7251dc1889c53e434aed9413ae4eec780ee37450618ed2df61e8539deeb1897",
        ),
        (
            "growth = 1.0\npairing = \"unbalanced\"\npairing_rows = 10\npairing_relaxation = 0.5\nmass = \"counts\"",
            "seed = 3",
            "01860e73e9667c28454f106af971b1ab4a2cea8dd2564e5383a8e391e1e36990",
        ),
        (
            "pairing = \"ot\"\nestimator = \"weak\"\nweak_intervals = 3\ntime_weight = { kind = \"one-minus-t\" }",
            "",
            "09a7cac2d9a807e181fe9b17424c231d181e76a52382cb2d9166af6cf112bb50",
        ),
    ] {
        let text = format!(
            "[data]\npath = \"a.npz\"\n[model]\nhidden = [8]\n[objective]\n{objective}\n\
             [training]\ninterior_rows = 8\nboundary_rows = 8\n{training}\n"
        );
        let config = read(&text, &[]).expect("reads");
        let samples = vec![-1.0, 0.0, 0.0, 1.0];
        let snapshots =
            Snapshots { dim: 1, times: vec![0.0, 1.0], offsets: vec![0, 2, 4], samples, mass: Default::default() };
        let fingerprint = config.fingerprint(&snapshots).expect("a fingerprint");
        assert_eq!(fingerprint, expected, "{objective}");
    }
}

/// A run of the first form goes on with the same path. Splines had other slopes then.
#[test]
fn splines_of_the_first_form_are_other_paths() {
    let config = read("[data]\npath = \"a.npz\"", &[]).expect("reads");
    let text = toml::to_string(&Settings::of(&config)).expect("text");
    assert!(text.contains("path = \"linear\"") && !text.contains("spline"), "{text}");
    assert!(Settings::of_first_form(&text).is_some());
    assert!(Settings::of_first_form(&text.replace("path = \"linear\"", "path = \"nearest\"")).is_some());
    assert!(Settings::of_first_form(&text.replace("path = \"linear\"", "path = \"spline\"")).is_none());
}

#[test]
fn overrides_replace_values_of_every_kind() {
    let overrides = ["training.steps=7", "model.hidden=[3, 4]", "model.head=dot", "data.hold_out=[1.5]"];
    let config = read("[data]\npath = \"a.npz\"\n[training]\nsteps = 5", &overrides).expect("reads");
    assert_eq!((config.training.steps, config.model.hidden, config.model.head), (7, Some(vec![3, 4]), Head::Dot));
    assert_eq!(config.data.hold_out, vec![1.5].into());
}

#[test]
fn bad_configurations_name_key_and_fix() {
    for (text, overrides, parts) in [
        ("[data]\npath = \"a\"\n[training]\nstep = 5", vec![], vec!["training.step:", "training.steps?"]),
        ("[data]\npath = \"a\"\n[train]\nsteps = 5", vec![], vec!["train:", "did you mean training?"]),
        ("steps = 5", vec![], vec!["steps:", "training.steps?"]),
        ("[data]\npath = \"a\"\nlearning_rate = 5", vec![], vec!["data.learning_rate", "training.learning_rate?"]),
        ("[data]\npath = \"a\"\n[model]\nhiden = [3]", vec![], vec!["model.hiden", "model.hidden?"]),
        ("[data]\npath = ", vec![], vec!["line 2"]),
        ("data = 3", vec![], vec!["data: is a value"]),
        ("", vec![], vec!["data.path", "is missing"]),
        ("[data]\npath = \"a\"", vec!["training.steps=0"], vec!["training.steps: is 0"]),
        ("[data]\npath = \"a\"", vec!["training.steps=-3"], vec!["training.steps", "-3"]),
        ("[data]\npath = \"a\"", vec!["training.steps=many"], vec!["training.steps", "many"]),
        ("[data]\npath = \"a\"", vec!["training.interior_rows=0"], vec!["training.interior_rows: is 0"]),
        ("[data]\npath = \"a\"", vec!["training.learning_rate=-1.0"], vec!["training.learning_rate: is -1"]),
        ("[data]\npath = \"a\"", vec!["training.learning_rate=nan"], vec!["training.learning_rate: is NaN"]),
        ("[data]\npath = \"a\"", vec!["training.ema_decay=1.0"], vec!["training.ema_decay: is 1"]),
        ("[data]\npath = \"a\"", vec!["model.hidden=[]"], vec!["hidden", "is 0"]),
        ("[data]\npath = \"a\"", vec!["model.hidden=[4, 0]"], vec!["hidden[1]: is 0", "1 to 1024"]),
        ("[data]\npath = \"a\"", vec!["model.hidden=[4, 2000]"], vec!["hidden[1]: is 2000"]),
        ("[data]\npath = \"a\"", vec!["training.precision=f64"], vec!["training.precision", "f64", "tf32"]),
        ("[data]\npath = \"a\"", vec!["model.head=cubic"], vec!["model.head", "cubic", "quadratic"]),
        ("[data]\npath = \"a\"", vec!["objective.cost_exponent=1.0"], vec!["cost_exponent: is 1"]),
        ("[data]\npath = \"a\"", vec!["objective.sigma=-1.0"], vec!["sigma: is -1"]),
        (
            "[data]\npath = \"a\"",
            vec!["objective.growth_head=true"],
            vec!["objective.growth_head", "does not grow", "objective.growth to a number above 0"],
        ),
        (
            "[data]\npath = \"a\"\n[objective]\ngrowth = 1",
            vec!["objective.growth_head=true", "objective.estimator=weak"],
            vec!["objective.growth_head", "regression alone", "objective.estimator = regression"],
        ),
        (
            "[data]\npath = \"a\"\n[objective]\ngrowth = 1\ngrowth_head = true",
            vec!["training.stop=held-out"],
            vec!["training.stop", "objective.growth_head", "set training.stop = never"],
        ),
        (
            "[data]\npath = \"a\"",
            vec!["objective.path=nearest", "objective.estimator=regression"],
            vec!["objective.estimator", "no velocity", "weak"],
        ),
        (
            "[data]\npath = \"a\"",
            vec!["objective.path=spline", "objective.pairing=independent"],
            vec!["objective.pairing", "spline", "pairing = ot"],
        ),
        (
            "[data]\npath = \"a\"\n[objective]\npairing = \"ot\"",
            vec!["objective.path=spline", "objective.path.limit=0.5"],
            vec!["objective.path.limit: is 0.5", "from 1 to 1e6"],
        ),
        (
            "[data]\npath = \"a\"\n[objective]\npairing = \"ot\"",
            vec!["objective.path=spline", "objective.path.limit=nan"],
            vec!["objective.path.limit: is NaN", "from 1 to 1e6"],
        ),
        (
            "[data]\npath = \"a\"\n[objective]\npairing = \"ot\"",
            vec!["objective.path=spline", "objective.path.knots=years"],
            vec!["objective.path.knots", "years", "clock, rank, distance"],
        ),
        (
            "[data]\npath = \"a\"",
            vec!["objective.path=learned", "objective.estimator=weak"],
            vec!["objective.estimator", "learned", "action"],
        ),
        (
            "[data]\npath = \"a\"",
            vec!["objective.pairing=unbalanced"],
            vec!["objective.pairing", "without growth", "objective.growth"],
        ),
        (
            "[data]\npath = \"a\"",
            vec!["objective.pairing=wfr", "objective.mass=counts"],
            vec!["objective.mass", "without growth", "objective.growth > 0"],
        ),
        ("[data]\npath = \"a\"", vec!["objective.pairing=wfr"], vec!["objective.pairing", "wfr without growth", "ot"]),
        (
            "[data]\npath = \"a\"",
            vec!["objective.pairing=wfr", "objective.growth=1"],
            vec!["objective.pairing", "mass is ignored", "totals"],
        ),
        (
            "[data]\npath = \"a\"",
            vec!["objective.mass={ kind = \"totals\", values = [1, 2] }"],
            vec!["objective.mass", "totals without growth"],
        ),
        (
            "[data]\npath = \"a\"\n[objective]\ngrowth = 1",
            vec!["objective.mass={ kind = \"totals\", values = [1, 0] }"],
            vec!["objective.mass.values: is 0"],
        ),
        (
            "[data]\npath = \"a\"",
            vec!["objective.centering=true", "objective.estimator=weak"],
            vec!["objective.estimator.centering", "objective.centering", "set objective.estimator = action"],
        ),
        (
            "[data]\npath = \"a\"\nhold_out = [1]",
            vec!["objective.path=generative-vp"],
            vec!["objective.path", "generative", "hold_out"],
        ),
        (
            "[data]\npath = \"a\"",
            vec!["objective.estimator=weak", "objective.weak_intervals=0"],
            vec!["objective.estimator.intervals: is 0"],
        ),
        (
            "[data]\npath = \"a\"\n[objective]\ngrowth = 1",
            vec!["objective.pairing=unbalanced", "objective.pairing.relaxation=0"],
            vec!["pairing.relaxation: is 0"],
        ),
        (
            "[data]\npath = \"a\"",
            vec!["objective.pairing=ot", "objective.pairing.rows=0"],
            vec!["objective.pairing.rows: is 0"],
        ),
        ("[data]\npath = \"a\"", vec!["training.schedule.final_rate=2"], vec!["training.schedule.final_rate: is 2"]),
        (
            "[data]\npath = \"a\"",
            vec!["objective.path=learned", "objective.path.rate=-1"],
            vec!["objective.path.rate: is -1"],
        ),
        (
            "[data]\npath = \"a\"",
            vec!["objective.path=learned", "objective.path.hidden=[0]"],
            vec!["objective.path", "hidden[0]: is 0"],
        ),
        ("[data]\npath = \"a\"", vec!["objective.time_rule=monthly"], vec!["objective.time_rule", "simpson"]),
        ("[data]\npath = \"a\"", vec!["training"], vec!["`overrides`", "has no ="]),
        ("[data]\npath = \"a\"", vec!["data.path.x=3"], vec!["`overrides`", "no section"]),
        ("[data]\npath = \"a\"", vec!["=3"], vec!["`overrides`", "no key"]),
    ] {
        let error = read(text, &overrides).expect_err("an error").to_string();
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
    }
}

#[test]
fn text_that_is_no_toml_is_shown_with_what_is_wrong() {
    for (line, problem) in [
        ("a = ", "`a =`: has no value in quotes (write text in quotes"),
        ("a = x", "`a = x`: has no value in quotes"),
        ("a = \"x", "has no closing quote"),
        ("a = 'x", "has no closing quote"),
        ("a", "has no = after the key"),
        ("a: 3", "has no = after the key"),
        ("path = 1", "is there twice"),
        ("a = 99999999999999999999999", "holds too large an integer"),
        ("a = \"C:\\xells\\a.npz\"", "has a backslash in double quotes (write paths with /"),
        ("a = \"C:\\cells\\a.npz\"", "has a backslash in double quotes (write paths with /"),
        ("a = [1, 2", "unclosed array, expected `]`"),
        ("a = 01", "unexpected leading zero (write key = value"),
    ] {
        let error = read(&format!("[data]\npath = \"x\"\n{line}\n"), &[]).expect_err("an error").to_string();
        assert!(error.contains("run.toml: line 3: ") && error.contains(problem), "{line}: {error}");
        assert!(!error.contains("literal") && !error.contains("TOML value"), "{error}");
    }
}

/// No text at all would be a configuration of defaults: what cannot be written is an error.
#[cfg(unix)]
#[test]
fn what_no_text_can_hold_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let foreign = PathBuf::from(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    let data = DataConfig { path: foreign.clone(), ..DataConfig::default() };
    let times = DataConfig { times_path: Some(foreign.clone()), ..DataConfig::default() };
    let output = OutputConfig { folder: foreign, ..OutputConfig::default() };
    for (config, parts) in [
        (Config { data, ..Config::default() }, ["data.path", "is not UTF-8"]),
        (Config { data: times, ..Config::default() }, ["data.times_path", "is not UTF-8"]),
        (Config { output, ..Config::default() }, ["output.folder", "is not UTF-8"]),
    ] {
        let error = config.to_toml().expect_err("no text").to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn the_fingerprint_follows_what_decides_the_result() {
    let config = read("[data]\npath = \"a.npz\"", &[]).expect("reads");
    let snapshots = Snapshots {
        dim: 1,
        times: vec![0.0, 1.0],
        offsets: vec![0, 1, 2],
        samples: vec![0.5, 1.5],
        mass: Default::default(),
    };
    let fingerprint = config.fingerprint(&snapshots).expect("a fingerprint");
    let changed = |change: &dyn Fn(&mut Config)| {
        let mut config = config.clone();
        change(&mut config);
        config.fingerprint(&snapshots).expect("a fingerprint")
    };
    assert_eq!(changed(&|config| config.output.checkpoint_every = 7), fingerprint);
    assert_eq!(changed(&|config| config.data.path = "moved.npz".into()), fingerprint);
    assert_eq!(changed(&|config| config.training.precision = Some(Precision::F16)), fingerprint);
    assert_eq!(changed(&|config| config.training.steps += 1), fingerprint);
    assert_ne!(changed(&|config| config.training.seed += 1), fingerprint);
    assert_ne!(changed(&|config| config.training.shards = 16), fingerprint);
    assert_eq!(changed(&|config| config.training.shards = 8), fingerprint);
    let spline = |limit, knots| changed(&move |config| config.objective.path = PathConfig::Spline { limit, knots });
    let splines = [spline(2.0, Knots::Rank), spline(3.0, Knots::Rank), spline(2.0, Knots::Clock), fingerprint.clone()];
    assert!((0..4).all(|i| !splines[..i].contains(&splines[i])), "{splines:?}");
    let others = Snapshots { samples: vec![0.5, 1.25], ..snapshots.clone() };
    assert_ne!(config.fingerprint(&others).expect("a fingerprint"), fingerprint);
    let constant = |steps| {
        changed(&|config| {
            config.training.schedule = Schedule::Constant;
            config.training.steps = steps;
        })
    };
    assert_eq!(constant(5), constant(9));
}

#[test]
fn a_short_run_reaches_its_rate_and_says_what_it_shortens() {
    let config = |overrides: &[&str]| read("[data]\npath = \"a.npz\"", overrides).expect("reads");
    for (overrides, warmup, said) in [
        (&[][..], 500, vec![]),
        (&["training.warmup_steps=1000"], 1000, vec![]),
        (&["training.warmup_steps=1001"], 1000, vec!["first 1000, not 1001 (training.warmup_steps)"]),
        (&["training.steps=2000"], 200, vec!["2000 steps are few", "first 200, not 500", "last 223, not 1000 (t"]),
        (&["training.steps=2000", "training.warmup_steps=0"], 0, vec!["the model averages"]),
        (&["training.steps=2000", "training.ema_decay=0.99"], 200, vec!["the learning rate rises"]),
        (&["training.steps=1"], 0, vec!["1 step is few", "first 0, not 500", "last 1, not 1000"]),
        (&["training.steps=300", "training.warmup_steps=300", "training.schedule=constant"], 30, vec!["first 30,"]),
    ] {
        let config = config(overrides);
        let rate = config.optimizer().learning_rate;
        assert_eq!(rate.warmup_steps, warmup, "{overrides:?}");
        assert_eq!(rate.at(warmup), rate.peak, "{overrides:?}");
        let message = config.short_run().unwrap_or_default();
        assert_eq!(message.is_empty(), said.is_empty(), "{overrides:?}: {message}");
        for part in said {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    }
}

/// What is left to the program is written so, and has a value without a comparison.
#[test]
fn settings_left_to_the_program_are_settled() {
    let config = read("[data]\npath = \"a.npz\"", &[]).expect("reads");
    let text = config.to_toml().expect("UTF-8");
    for line in ["hidden = \"auto\"", "time_embedding = \"auto\"", "path = \"auto\"", "pairing = \"auto\""] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let settled = config.settled();
    assert_eq!((&settled.objective.path, settled.objective.pairing), (&PathConfig::Linear, Pairing::ot()));
    assert_eq!(settled.model.hidden, Some(Architecture::HIDDEN.to_vec()));
    assert_eq!(settled.model.time_embedding, Some(TimeEmbedding::Raw));
    assert_eq!(settled.settled(), settled);
    assert_eq!(read(&settled.to_toml().expect("UTF-8"), &[]).expect("reads"), settled);
    for (path, pairing) in [
        ("spline", Pairing::ot()),
        ("learned", Pairing::ot()),
        ("nearest", Pairing::Independent),
        ("generative-vp", Pairing::Independent),
    ] {
        let given = read("[data]\npath = \"a.npz\"", &[&format!("objective.path={path}")]).expect("reads");
        let settled = given.settled();
        assert_eq!((settled.objective.path, settled.objective.pairing), (given.objective.path, pairing));
    }
}
