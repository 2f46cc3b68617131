//! The program with a GPU from the user's side: commands end to end, resumed runs, and messages if
//! memory or a kernel fails.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::ranks;
use action_matching::data::{DataSource, PointArray, draw_gaussian, read_points, write_points};
use action_matching::rng::Stream;
use action_matching::train::{Metrics, read_metrics};

/// A folder for runs.
struct Place(tempfile::TempDir);

/// A run small enough for the virtual GPU, with a checkpoint every four steps and metrics for every
/// step.
const RUN: &str = "
[data]
path = \"data.npz\"
[model]
hidden = [24, 17]
[training]
steps = 24
interior_rows = 101
boundary_rows = 53
[output]
checkpoint_every = 4
metrics_every = 1
";

impl Place {
    /// With `n` rows of `dim` values at each of two times.
    fn new(n: usize, dim: usize) -> Place {
        let place = Place(tempfile::tempdir().expect("a folder"));
        let mut samples = draw_gaussian(2 * n, dim, &mut Stream::of_normals(1, dim));
        samples[n * dim..].iter_mut().for_each(|x| *x += 1.0);
        let times: Vec<f32> = (0..2 * n).map(|row| (row / n) as f32).collect();
        let arrays = [PointArray::new("samples", Some(dim), &samples[..]), PointArray::new("times", None, &times[..])];
        write_points(&place.path("data.npz"), &arrays).expect("written");
        std::fs::write(place.path("run.toml"), RUN).expect("written");
        place
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amatch"));
        command.args(arguments).current_dir(self.0.path());
        command
    }

    /// Standard output and error of a command that succeeds.
    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> (String, String) {
        succeeds(self.command(arguments))
    }

    /// Trains run.toml into `out`; returns the messages.
    #[track_caller]
    fn trains(&self, out: &str, more: &[&str]) -> String {
        self.succeeds(&[&["train", "run.toml", "--out", out], more].concat()).1
    }

    fn checkpoints(&self, out: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path(out).join("checkpoints")).into_iter().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        paths
    }

    /// Returns a run to its state at its third-last checkpoint.
    fn forget_the_end(&self, out: &str) {
        for path in self.checkpoints(out).iter().rev().take(2) {
            std::fs::remove_file(path).expect("removed");
        }
        assert_eq!(self.checkpoints(out).len(), 1);
    }

    fn metrics(&self, out: &str) -> Vec<Metrics> {
        let metrics =
            read_metrics(&self.path(out).join("metrics.jsonl"), |warning| panic!("{warning}")).expect("readable");
        // Rows/s differ between any two runs.
        metrics.into_iter().map(|line| Metrics { rows_per_s: 0.0, unix_time: 0.0, ..line }).collect()
    }

    /// Two runs have equal checkpoints, models and metrics, bit for bit.
    #[track_caller]
    fn same_run(&self, a: &str, b: &str) {
        let read = |run: &str| {
            let checkpoint = std::fs::read(self.checkpoints(run).pop().expect("a checkpoint")).expect("readable");
            (checkpoint, std::fs::read(self.path(run).join("model.safetensors")).expect("readable"))
        };
        assert!(read(a) == read(b), "the final states of {a} and {b} differ");
        assert_eq!(self.metrics(a), self.metrics(b));
    }

    /// Two runs have the same losses within 1e-4 of the size of their terms.
    #[track_caller]
    fn same_losses(&self, a: &str, b: &str) {
        let (got, want) = (self.metrics(a), self.metrics(b));
        assert_eq!((got.len(), want.len()), (24, 24));
        for (got, want) in got.iter().zip(&want) {
            let size = want.boundary0.abs().max(want.boundary1.abs()).max(want.interior.abs()).max(0.1);
            assert!((got.loss - want.loss).abs() < 1e-4 * size, "{got:?}, not {want:?}");
            assert!((got.gradient_norm / want.gradient_norm - 1.0).abs() < 1e-3, "{got:?}, not {want:?}");
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn succeeds(mut command: Command) -> (String, String) {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

/// The message of a command that fails with exit code 1, with each of `parts` and no panic.
#[track_caller]
fn fails(mut command: Command, parts: &[&str]) -> String {
    let output = command.output().expect("the program starts");
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{command:?}: {message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    assert!(message.contains("error: ") && !message.contains("panicked"), "{message}");
    message
}

/// True if the GPU is the virtual one, whose memory and faults tests choose.
fn is_virtual(place: &Place) -> bool {
    place.succeeds(&["devices"]).0.contains("Virtual GPU")
}

/// The number of MiB in "taking N MiB of".
fn stated(said: &str) -> usize {
    let number = said.split("taking ").nth(1).and_then(|rest| rest.split(" MiB of cuda:0 (").next());
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no memory is stated: {said}"))
}

/// All numbers in `value`, in their order.
fn gather_numbers(value: &serde_json::Value, numbers: &mut Vec<f64>) {
    match value {
        serde_json::Value::Number(number) => numbers.extend(number.as_f64()),
        serde_json::Value::Array(list) => list.iter().for_each(|item| gather_numbers(item, numbers)),
        serde_json::Value::Object(map) => map.values().for_each(|item| gather_numbers(item, numbers)),
        _ => {}
    }
}

#[test]
fn the_example_goes_from_training_to_evaluation() {
    let place = Place::new(50, 2);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hematopoiesis.toml").display().to_string();
    let mut arguments = vec!["train", &example[..], "--out", "run", "--device", "cuda"];
    for set in
        ["training.steps=12", "training.interior_rows=128", "training.boundary_rows=64", "objective.pairing.rows=256"]
    {
        arguments.extend(["--set", set]);
    }
    let said = place.succeeds(&arguments).1;
    let (memory, steps) =
        (said.find("taking ").expect("memory"), said.find("run: steps 0 to 12 on cuda:0 (").expect("steps"));
    assert!(memory < steps && stated(&said) >= 1, "{said}");
    assert!(said.contains("), bf16\n") && said.contains("12 steps, loss "), "{said}");
    let config = std::fs::read_to_string(place.path("run/config.toml")).expect("written");
    assert!(config.contains("precision = \"bf16\""), "{config}");

    let sampled = |out: &str, more: &[&str]| {
        let arguments = ["sample", "run", "--from", "snapshot:0", "-n", "70", "--save-at", "1", "2", "--out", out];
        let said = place.succeeds(&[&arguments[..], more].concat()).1;
        (said, read_points(&DataSource::new(place.path(out)), &()).expect("points").rows)
    };
    let (said, of_gpu) = sampled("gpu.npz", &["--device", "cuda", "--precision", "f32"]);
    assert!(stated(&said) >= 1 && said.contains("70 particles from 0 to 2"), "{said}");
    let (said, of_cpu) = sampled("cpu.npz", &["--device", "cpu"]);
    assert!(!said.contains("taking"), "{said}");
    assert_eq!(of_gpu.len(), 2 * 2 * 70);
    let largest = of_cpu.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    for (gpu, cpu) in of_gpu.iter().zip(&of_cpu) {
        assert!((gpu - cpu).abs() < 1e-3 * largest, "{gpu}, not {cpu}");
    }
    let bf16 = sampled("bf16.npz", &["--device", "cuda"]).1;
    assert!(bf16 != of_gpu && bf16.iter().zip(&of_cpu).all(|(a, b)| (a - b).abs() < 0.1 * largest));

    // The same subsets and, in f32, the same flow.
    let evaluated = |more: &[&str]| {
        let arguments = ["evaluate", "run", "--points", "100", "--steps", "4", "--json", "scores.json"];
        place.succeeds(&[&arguments[..], more].concat());
        let report = std::fs::read_to_string(place.path("scores.json")).expect("written");
        let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
        let mut numbers = Vec::new();
        gather_numbers(&report, &mut numbers);
        numbers
    };
    let (gpu, cpu) = (evaluated(&["--device", "cuda", "--precision", "f32"]), evaluated(&["--device", "cpu"]));
    assert!(gpu.len() == cpu.len() && gpu.len() > 8, "{gpu:?}");
    assert!(
        gpu.iter().zip(&cpu).all(|(gpu, cpu)| (gpu - cpu).abs() < 1e-3 * cpu.abs().max(0.1)),
        "{gpu:?}, not {cpu:?}"
    );
    assert!(place.succeeds(&["inspect", "run"]).0.contains("[64, 64, 64]"));
}

/// In f32 a run on the GPU equals the run on the CPU, and each device resumes the other's run.
#[test]
fn runs_go_on_from_gpu_to_cpu_and_back() {
    let place = Place::new(60, 3);
    const GPU: [&str; 4] = ["--device", "cuda", "--precision", "f32"];
    const CPU: [&str; 2] = ["--device", "cpu"];
    place.trains("gpu", &GPU);
    place.trains("cpu", &CPU);
    place.same_losses("gpu", "cpu");
    place.forget_the_end("gpu");
    let said = place.trains("gpu", &[&CPU[..], &["--resume"]].concat());
    assert!(said.contains("steps 16 to 24 on cpu"), "{said}");
    // The instruction of the products is part of what checkpoints record.
    assert!(said.contains("the run so far was computed on cuda, ") && said.contains(", f32 by fma, the rest on cpu, "));
    place.same_losses("gpu", "cpu");
    place.trains("back", &CPU);
    place.forget_the_end("back");
    let said = place.trains("back", &[&GPU[..], &["--resume"]].concat());
    assert!(said.contains("steps 16 to 24 on cuda:0 ("), "{said}");
    place.same_losses("back", "cpu");
    place.trains("bf16", &["--device", "cuda", "--precision", "bf16"]);
    let newest = place.checkpoints("bf16").pop().expect("a checkpoint").display().to_string();
    assert!(place.succeeds(&["inspect", &newest]).0.contains(", bf16 by mma.sync\n"));
    place.forget_the_end("bf16");
    let same = place.trains("bf16", &["--device", "cuda", "--precision", "bf16", "--resume"]);
    assert!(!same.contains("the run so far"), "{same}");
    place.forget_the_end("bf16");
    let said = place.trains("bf16", &[&GPU[..], &["--resume"]].concat());
    assert!(said.contains(", bf16 by mma.sync, the rest on cuda, ") && said.contains(", f32 by fma: "), "{said}");
}

#[test]
fn a_stopped_run_ends_like_one_that_ran_through() {
    let place = Place::new(60, 3);
    let cuda = ["--device", "cuda", "--set", "objective.time_rule=\"importance\""];
    place.trains("whole", &cuda);
    let mut child = place
        .command(&[&["train", "run.toml", "--out", "stopped"], &cuda[..]].concat())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let deadline = Instant::now() + Duration::from_secs(120);
    while place.checkpoints("stopped").is_empty() {
        assert!(Instant::now() < deadline, "no checkpoint came");
        assert!(child.try_wait().expect("a child").is_none(), "the run ended before the signal");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs").success());
    let Output { status, stderr, .. } = child.wait_with_output().expect("the program ends");
    let said = text(&stderr);
    // A fast machine ends the run before the signal.
    if status.code() != Some(0) {
        assert_eq!(status.code(), Some(130), "{said}");
        assert!(said.contains("stopped after") && said.contains("--device cuda --resume"), "{said}");
    }
    let said = place.trains("stopped", &[&cuda[..], &["--resume"]].concat());
    assert!(said.contains(" to 24 on cuda:0 ("), "{said}");
    place.same_run("whole", "stopped");
}

#[test]
fn a_gpu_that_is_not_there_leaves_no_folder() {
    let place = Place::new(10, 2);
    fails(
        place.command(&["train", "run.toml", "--out", "none", "--device", "cuda:1"]),
        &["device cuda:1", "invalid device ordinal", "nvidia-smi", "--device cpu"],
    );
    assert!(!place.path("none").exists());
}

fn with_memory(mut command: Command, bytes: usize) -> Command {
    command.env("VGPU_MEMORY", bytes.to_string());
    command
}

#[test]
fn want_of_memory_is_said_before_anything_is_touched() {
    let place = Place::new(60, 3);
    if !is_virtual(&place) {
        return;
    }
    // Pairs by optimal transport, the default, keep all samples on the device.
    let settings = ["--device", "cuda", "--set", "objective.pairing=independent"];
    let arguments = [&["train", "run.toml", "--out", "run"][..], &settings].concat();
    let needed = stated(&place.trains("enough", &settings));
    let free = (needed << 20) / 2;
    let parts = [
        "error: device cuda:0",
        &format!("training takes {needed} MiB of its memory, and {} MiB are free", free >> 20),
        "lower training.interior_rows",
        "model.hidden",
    ];
    fails(with_memory(place.command(&arguments), free), &parts);
    assert!(!place.path("run").exists(), "a run folder without a run");
    // An existing run stays unchanged, and can be resumed.
    place.forget_the_end("enough");
    let listing = |folder: &str| {
        let folder = place.path(folder);
        ["config.toml", "metrics.jsonl", "model.safetensors"]
            .map(|file| std::fs::read(folder.join(file)).expect("there"))
    };
    let before = (listing("enough"), place.checkpoints("enough"));
    for how in ["--resume", "--force"] {
        let command = place.command(&[&["train", "run.toml", "--out", "enough", how][..], &settings].concat());
        fails(with_memory(command, free), &parts);
        assert!((listing("enough"), place.checkpoints("enough")) == before, "{how} touched the run");
    }
    let sample = ["sample", "enough", "--from", "gaussian", "-n", "1000", "--out", "p.npz", "--device", "cuda"];
    fails(
        with_memory(place.command(&sample), 100_000),
        &["error: device cuda:0", "bytes are free", "free memory on the GPU"],
    );
    assert!(!place.path("p.npz").exists());
}

/// The members of an ensemble work at once, or one after another where the memory holds one: the
/// models are the same, and the first is that of a run without others.
#[test]
fn members_are_trained_at_once_or_one_after_another() {
    let place = Place::new(60, 3);
    let (independent, seeds) = ("objective.pairing=independent", "training.seeds=3");
    let settings = ["--device", "cuda", "--set", independent];
    let needed = stated(&place.trains("single", &settings));
    let all = [&settings[..], &["--set", seeds]].concat();
    let said = place.trains("at-once", &all);
    assert!(stated(&said) >= 3 * needed - 2 && !said.contains("one after another"), "{said}");
    let models = |out: &str, numbers: &[&str]| -> Vec<Vec<u8>> {
        let file = |number: &&str| place.path(out).join(format!("model{number}.safetensors"));
        numbers.iter().map(|number| std::fs::read(file(number)).expect("a model")).collect()
    };
    let members = ["", "-2", "-3"];
    assert!(models("at-once", &members[..1]) == models("single", &members[..1]));
    let third = ["--set", "training.seed=2"];
    place.trains("third", &[&settings[..], &third].concat());
    assert!(models("at-once", &members[2..]) == models("third", &members[..1]));
    if is_virtual(&place) {
        let arguments = [&["train", "run.toml", "--out", "in-turn"][..], &all].concat();
        let (_, said) = succeeds(with_memory(place.command(&arguments), (stated(&said) << 20) / 2));
        assert!(said.contains(" of 3 members: they are trained one after another"), "{said}");
        assert!(models("in-turn", &members) == models("at-once", &members));
    }
}

/// Data of more bytes than the device has: they stream in shards, which depend only on the step.
#[test]
fn data_larger_than_the_memory_stream_and_resume_to_the_same_bits() {
    let place = Place::new(60_000, 16);
    if !is_virtual(&place) {
        return;
    }
    let memory = 6_000_000; // of 7 680 000 bytes of samples
    let arguments = |out: &'static str| {
        let independent = ["--set", "objective.pairing=independent"];
        [
            &["train", "run.toml", "--out", out, "--device", "cuda"][..],
            &independent,
            &["--set", "training.interior_rows=512"],
        ]
        .concat()
    };
    let train = |out: &'static str, more: &[&str]| {
        succeeds(with_memory(place.command(&[&arguments(out)[..], more].concat()), memory)).1
    };
    let said = train("whole", &[]);
    assert!(stated(&said) <= memory.div_ceil(1 << 20), "{said}");
    train("again", &[]);
    place.same_run("whole", "again");
    place.forget_the_end("again");
    assert!(train("again", &["--resume"]).contains("steps 16 to 24"));
    place.same_run("whole", "again");
    let losses = place.metrics("whole");
    assert!(losses.len() == 24 && losses.iter().all(|line| line.loss.is_finite()));
    // Ranks have the shards of one GPU, though each of them takes less memory for its work.
    let both = ranks::ended(ranks::started(2, |_| with_memory(place.command(&arguments("ranks")), memory)));
    assert!(both.iter().all(|rank| rank.status.success()), "{}", both.iter().map(ranks::said).collect::<String>());
    place.same_run("whole", "ranks");
    // With all samples resident there are other batches, of the same data.
    succeeds(place.command(&arguments("resident")));
    assert_ne!(losses, place.metrics("resident"));

    let pairing = ["--set", "objective.pairing=ot", "--set", "objective.pairing.rows=64"];
    let paired = with_memory(place.command(&[&arguments("paired")[..], &pairing].concat()), memory);
    let said = fails(
        paired,
        &["objective.pairing", "couples more samples than the memory of the device holds", "pair independently"],
    );
    assert!(!said.contains("pairing snapshots"), "it paired what it then refused: {said}");
    assert!(!place.path("paired").exists());
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        let target = to.join(entry.file_name().expect("a name"));
        if entry.is_dir() {
            copy_folder(&entry, &target);
        } else {
            std::fs::copy(&entry, &target).expect("copied");
        }
    }
}

/// A kernel that writes to unallocated memory: the error names the launches since the last
/// successful sync.
#[test]
fn a_fault_of_a_kernel_names_the_launches_before() {
    let place = Place::new(60, 3);
    if !is_virtual(&place) {
        return;
    }
    let kernels = place.path("kernels");
    copy_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels"), &kernels);
    let finish_step = kernels.join("optimizer/finish_step.cuh");
    let text = std::fs::read_to_string(&finish_step).expect("a kernel");
    let sound = "params.history[state.n_records++] = record;";
    assert!(text.contains(sound));
    std::fs::write(&finish_step, text.replace(sound, "params.history[1u << 20] = record;")).expect("written");
    let mut nvcc = Command::new(std::env::var_os("AMATCH_NVCC").expect("tests/run names the compiler in AMATCH_NVCC"));
    crate::build::write_header(&kernels).expect("written");
    nvcc.arg("-I").arg(&kernels).args(["-ptx", "-std=c++17", "-arch=compute_80", "-o"]);
    succeeds({
        nvcc.args([place.path("optimizer.ptx"), kernels.join("optimizer.cu")]);
        nvcc
    });
    let mut command = place.command(&["train", "run.toml", "--out", "run", "--device", "cuda"]);
    command.env("VGPU_OVERRIDE", place.path("optimizer.ptx"));
    let said = fails(
        command,
        &["error: device cuda:0", "CUDA_ERROR_LAUNCH_FAILED", "launched since all was well: ", "--device cpu"],
    );
    let launched = said.split("launched since all was well: ").nth(1).unwrap_or_default();
    for kernel in ["draw_bf16", "sweep_narrow_bf16", "gather_gradient", "finish_step", "update_bf16"] {
        assert!(launched.contains(kernel), "{kernel:?} is not in: {launched}");
    }
    assert!(said.contains("vgpu: finish_step: out of bounds"), "{said}");
    // The run can be resumed once the fault is gone.
    assert!(place.trains("run", &["--device", "cuda", "--resume"]).contains("steps 0 to 24"));
}

#[test]
fn bench_prints_the_figures_of_a_gpu() {
    let place = Place::new(10, 2);
    let bench = |workload: &str| {
        place.succeeds(&["bench", workload, "--rows", "64", "--seconds", "0.05", "--device", "cuda"]).0
    };
    for (workload, unit) in [("toy2d", "step"), ("sampling-toy2d", "run")] {
        let line = bench(workload);
        let parts = [
            &format!("{workload}: ")[..],
            &format!(" ms a {unit}, "),
            &format!(" {unit}s/s, "),
            " TFLOP/s",
            " rows/s, cuda:0 (",
        ];
        for part in parts {
            assert!(line.contains(part), "{part:?} is not in: {line}");
        }
    }
}
