//! The model card in a run folder: what it says, and that one that a person changed stays.

use std::fs;

use crate::cli::{SMALL, amatch, succeeds, text, trained};

#[test]
fn a_card_describes_the_run_and_stays_once_it_was_changed() {
    let (_guard, folder) = trained();
    let path = folder.join("runs/run/README.md");
    let card = fs::read_to_string(&path).expect("a card");
    let (front, body) = card.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---\n")).expect("front matter");
    for part in ["library_name: action-matching", "- optimal-transport", "model-index:", "type: energy-distance"] {
        assert!(front.contains(part), "{part:?} is not in: {front}");
    }
    let model = fs::read(folder.join("runs/run/model.safetensors")).expect("readable");
    use sha2::{Digest, Sha256};
    let digest: String = Sha256::digest(model).iter().map(|byte| format!("{byte:02x}")).collect();
    for part in ["# run\n", "`data.csv`, 2 dimensions, 3 snapshots: 0 (50 rows)", "model.sample(x, 0, 2) ", &digest] {
        assert!(body.contains(part), "{part:?} is not in: {body}");
    }
    for part in ["| motion |", "times 0 to 2", "    [training]\n    steps = 60"] {
        assert!(body.contains(part), "{part:?} is not in: {body}");
    }
    assert!(!card.contains(&*folder.to_string_lossy()), "a folder of the machine: {card}");

    // An untouched card follows the run.
    let train = |more: &[&str]| {
        let output = amatch(&folder, &[&["train", "run.toml"][..], &SMALL, more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    assert!(!train(&["--force", "--set", "training.seed=9"]).contains("README.md"));
    let other = fs::read_to_string(&path).expect("a card");
    assert!(other != card && other.contains("seed = 9"), "{other}");

    let changed = other.replace("# license: name one before you publish the model", "license: mit");
    assert_ne!(changed, other);
    fs::write(&path, &changed).expect("written");
    for more in [["--resume", "--set", "training.seed=9"], ["--force", "--set", "training.seed=8"]] {
        assert!(train(&more).contains("README.md: was changed, and is kept"), "{more:?}");
        assert_eq!(fs::read_to_string(&path).expect("a card"), changed, "{more:?}");
    }
    succeeds(&folder, &["inspect", "runs/run"]);
}

/// A README.md alone makes no run of a folder.
#[test]
fn a_readme_of_others_is_no_run() {
    let (_guard, folder) = crate::cli::workplace();
    fs::create_dir_all(folder.join("runs/run")).expect("made");
    fs::write(folder.join("runs/run/README.md"), "# Mine\n").expect("written");
    let train = [&["train", "run.toml", "--force"][..], &SMALL].concat();
    crate::cli::fails(&folder, &train, &["runs/run"]);
    assert_eq!(fs::read_to_string(folder.join("runs/run/README.md")).expect("there"), "# Mine\n");
}
