//! What shells take of the program: completions, manual pages, batch scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::cli::{amatch, fails, succeeds, text, workplace};

#[test]
fn completions_know_every_command() {
    let here = Path::new(".");
    let scripts = ["bash", "zsh", "fish", "powershell", "elvish"].map(|shell| succeeds(here, &["completions", shell]));
    for script in &scripts {
        assert!(script.contains("evaluate") && script.contains("--save-at"), "{script}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (program, file) = (folder.path().join("try.sh"), folder.path().join("amatch.bash"));
    fs::write(&file, &scripts[0]).expect("written");
    // What bash offers after `amatch tr`.
    let attempt =
        "source amatch.bash; COMP_WORDS=(amatch tr); COMP_CWORD=1; _amatch amatch tr amatch; echo \"${COMPREPLY[*]}\"";
    fs::write(&program, attempt).expect("written");
    let answer = Command::new("bash").arg(&program).current_dir(folder.path()).output().expect("bash runs");
    assert_eq!(text(&answer.stdout).trim(), "train", "{answer:?}");
}

#[test]
fn there_is_a_manual_page_for_every_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = amatch(folder.path(), &["man", "."]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let page = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_else(|_| panic!("no page {name}"));
    assert!(page("amatch.1").contains(".TH amatch 1"));
    let train = page("amatch-train.1");
    assert!(train.contains("resume") && train.contains("runs/small"), "{train}");
    fails(folder.path(), &["man", "."], &["amatch.1", "already exists"]);
    succeeds(folder.path(), &["man", ".", "--force"]);
    fails(folder.path(), &["man", "missing"], &["missing", "does not exist"]);
}

/// The batch scripts with a scheduler that runs what it is given: they train, go on, and ask to be
/// queued again.
#[test]
fn batch_scripts_train_and_are_queued_again() {
    let (_guard, folder) = workplace();
    let config = "[data]\npath = \"data.csv\"\n[model]\nhidden = [8]\n[objective]\npath = \"linear\"\n[training]\n\
                  steps = 20\ninterior_rows = 20\nboundary_rows = 20\n";
    fs::write(folder.join("run.toml"), config).expect("written");
    let tool = |name: &str, script: &str| {
        let path = folder.join("bin").join(name);
        fs::write(&path, format!("#!/usr/bin/env bash\n{script}\n")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program");
    };
    fs::create_dir(folder.join("bin")).expect("made");
    tool("srun", "while [[ $1 == --* ]]; do shift; done; exec \"$@\"");
    tool("scontrol", "echo \"$@\" >> queued");
    tool("amatch", &format!("exec '{}' \"$@\"", env!("CARGO_BIN_EXE_amatch")));
    let submit = |script: &str, out: &str| -> Output {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/slurm").join(script);
        let path_variable = format!("{}:{}", folder.join("bin").display(), std::env::var("PATH").unwrap_or_default());
        let mut bash = Command::new("bash");
        bash.args([path.to_str().expect("UTF-8"), "run.toml", out]).current_dir(&folder).env("PATH", path_variable);
        bash.envs([("SLURM_JOB_ID", "7"), ("SLURM_ARRAY_JOB_ID", "6"), ("SLURM_ARRAY_TASK_ID", "3")]);
        bash.output().expect("bash runs")
    };
    for (script, out, made) in
        [("train.sbatch", "a", "a"), ("array.sbatch", "b", "b/seed-3"), ("ranks.sbatch", "c", "c")]
    {
        let output = submit(script, out);
        assert!(output.status.success(), "{script}: {}", text(&output.stderr));
        assert!(folder.join(made).join("model.safetensors").exists(), "{script}");
        assert!(submit(script, out).status.success(), "{script} again");
    }
    let seeded = fs::read_to_string(folder.join("b/seed-3/config.toml")).expect("readable");
    assert!(seeded.contains("seed = 3"), "{seeded}");
    assert!(!folder.join("queued").exists());
    tool("amatch", "exit 75");
    for script in ["train.sbatch", "array.sbatch", "ranks.sbatch"] {
        assert!(submit(script, "a").status.success(), "{script}");
    }
    let queued = || fs::read_to_string(folder.join("queued")).expect("queued");
    assert_eq!(queued(), "requeue 7\nrequeue 6_3\nrequeue 7\n");
    // A rank that is killed has the highest code of a step.
    tool("amatch", "exit 137");
    assert!(submit("ranks.sbatch", "c").status.success());
    assert!(queued().ends_with("requeue 7\nrequeue 7\n"));
    tool("amatch", "exit 1");
    for script in ["train.sbatch", "ranks.sbatch"] {
        assert_eq!(submit(script, "a").status.code(), Some(1));
    }
}
