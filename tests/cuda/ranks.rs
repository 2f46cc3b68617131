//! One model trained by several ranks, each with a GPU: any number of them leaves the same bits.
//! With virtual GPUs and the virtual NCCL (tests/vnccl), in processes of their own that have
//! sixteen GPUs.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::{embeddings, model};
use crate::training::{run, training};
use action_matching::density_path::{Interpolant, TimeRule};
use action_matching::engine::cuda::{CudaEngine, devices, nccl_id, nccl_version};
use action_matching::engine::{Bend, Engine, Estimator, LossScale, NetworkState, StepRecord, TrainState, Training};
use action_matching::exchange::Exchange;
use action_matching::laplacian::{Laplacian, LaplacianRule};
use action_matching::model::{Activation, Head, initial_parameters};
use action_matching::objective::Objective;
use action_matching::precision::Precision;
use action_matching::ranks::environment::{Launcher, World};
use action_matching::ranks::rendezvous::{Patience, meet};
use action_matching::rng::{Purpose, words};

/// Environment of a process with sixteen virtual GPUs.
const SIXTEEN: (&str, &str) = ("VGPU_DEVICES", "16");

/// True if this machine has the virtual GPU, of which there can be any number.
fn is_virtual() -> bool {
    devices().expect("a GPU, or the virtual one")[0].model.contains("Virtual GPU")
}

/// Runs the ignored tests `names` of this file with sixteen GPUs.
fn with_sixteen(names: &[&str]) {
    if !is_virtual() {
        eprintln!("needs sixteen GPUs, or the virtual ones");
        return;
    }
    let output = Command::new(std::env::current_exe().expect("the test's own path"))
        .args(["--ignored", "--exact", "--nocapture"])
        .args(names.iter().map(|name| format!("ranks::{name}")))
        .envs([SIXTEEN])
        .output()
        .expect("runs");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains(&format!("ok. {} passed", names.len())), "{said}{complained}");
}

#[test]
fn ranks_take_the_steps_of_one_gpu() {
    with_sixteen(&[
        "ranks_leave_the_same_bits",
        "a_run_goes_on_with_other_ranks",
        "ranks_hand_on_what_they_have",
        "more_ranks_than_shards_are_refused",
    ]);
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port()
}

/// What `work` returns on each of `n` ranks, which are threads with a GPU each.
fn on_ranks<T: Send>(n: usize, precision: Precision, work: impl Fn(usize, &CudaEngine) -> T + Sync) -> Vec<T> {
    let port = free_port();
    let world =
        |rank| World { rank, size: n, local_rank: rank, host: "127.0.0.1".into(), port, launcher: Launcher::Torchrun };
    let as_rank = |rank| {
        let engine = CudaEngine::new(rank, precision).expect("a GPU for each rank");
        let id = || Ok(nccl_id().expect("NCCL").to_vec());
        let (id, liveness) = meet(&world(rank), &[], Patience::default(), &(), id).expect("meets");
        let liveness = Arc::new(liveness);
        let id = id.try_into().expect("an id");
        let engine = engine.among(&id, (rank, n), liveness.clone()).expect("joins");
        let result = work(rank, &engine);
        liveness.leave();
        result
    };
    std::thread::scope(|scope| {
        let as_rank = &as_rank;
        let threads: Vec<_> = (0..n).map(|rank| scope.spawn(move || as_rank(rank))).collect();
        threads.into_iter().map(|thread| thread.join().expect("ends well")).collect()
    })
}

/// A training, its start and its steps.
struct Case {
    name: &'static str,
    training: Training,
    start: TrainState,
    precision: Precision,
    steps: u64,
    ranks: &'static [usize],
}

fn cases() -> Vec<Case> {
    let action = Estimator::Action { centering: false };
    let of = |hidden: &[usize], objective| {
        model(2, hidden, Activation::Silu, Head::Scalar, embeddings()[1].clone(), objective)
    };
    let narrow = of(&[19], Objective::default());
    let wide = of(&[70, 30], Objective { growth: 0.3, ..Objective::default() });
    let diffusive = of(&[21], Objective { sigma: 0.7, ..Objective::default() });
    let start = |model: &action_matching::model::Model| TrainState::initial(model.parameters.clone());
    let bend = Bend::new(&narrow.architecture, vec![66], 0.3);
    let bent = NetworkState::initial(initial_parameters(&bend.architecture, 8));
    let mut learned = Training { bend: Some(bend), n_interior: 500, ..training(&narrow, action) };
    learned.path.interpolant = Interpolant::Learned;
    let many_shards = Training { n_shards: 32, n_interior: 2200, ..learned.clone() };
    let mut weighed = Training { n_interior: 1300, n_boundary: 400, ..training(&wide, action) };
    weighed.path.masses = Some(vec![1.0, 0.7, 1.4]);
    vec![
        // Four tiles: some of eight ranks have none.
        Case {
            name: "importance, centering",
            training: Training {
                time_rule: TimeRule::Importance,
                ..training(&narrow, Estimator::Action { centering: true })
            },
            start: start(&narrow),
            precision: Precision::Bf16,
            steps: 100,
            ranks: &[2, 4, 8],
        },
        Case {
            name: "wide, growth, a loss scale that falls",
            training: weighed.clone(),
            start: TrainState { loss_scale: LossScale { scale: LossScale::LARGEST, good_steps: 0 }, ..start(&wide) },
            precision: Precision::F16,
            steps: 4,
            ranks: &[2, 8],
        },
        Case {
            name: "probes",
            training: Training {
                laplacian: Laplacian { rule: LaplacianRule::Rademacher, n_probes: 2 },
                n_interior: 300,
                ..training(&diffusive, action)
            },
            start: start(&diffusive),
            precision: Precision::F32,
            steps: 5,
            ranks: &[4],
        },
        Case {
            name: "a learned path",
            training: learned,
            start: TrainState { bend: Some(bent.clone()), ..start(&narrow) },
            precision: Precision::Tf32,
            steps: 5,
            ranks: &[2, 4],
        },
        Case {
            name: "sixteen shards, importance",
            training: Training {
                time_rule: TimeRule::Importance,
                n_shards: 16,
                n_interior: 1700,
                ..training(&narrow, action)
            },
            start: start(&narrow),
            precision: Precision::Bf16,
            steps: 5,
            ranks: &[4, 16],
        },
        Case {
            name: "a learned path, 32 shards",
            training: many_shards,
            start: TrainState { bend: Some(bent), ..start(&narrow) },
            precision: Precision::Bf16,
            steps: 2,
            ranks: &[8],
        },
    ]
}

type Taken = (TrainState, Vec<StepRecord>);

/// Weights, moments and records of any number of ranks are those of one GPU, on all of them.
fn check_bits(Case { name, training, start, precision, steps, ranks }: Case) {
    let engine = CudaEngine::new(0, precision).expect("a GPU");
    let alone = run(&engine, &training, start.clone(), &[steps]);
    assert_ne!(alone.0.action, start.action);
    for &n in ranks {
        // Ranks ask for their steps in numbers of their own.
        let all: Vec<Taken> = on_ranks(n, precision, |rank, engine| {
            let first = (1 + rank as u64).min(steps);
            run(engine, &training, start.clone(), &[first, steps - first])
        });
        for (rank, taken) in all.into_iter().enumerate() {
            assert!(taken == alone, "{name}, {}: rank {rank} of {n} has other bits", precision.name());
        }
    }
}

#[test]
#[ignore = "ranks_take_the_steps_of_one_gpu runs it with sixteen GPUs"]
fn ranks_leave_the_same_bits() {
    cases().into_iter().for_each(check_bits);
}

/// Sixteen shards, of as many ranks as divide them.
#[test]
#[ignore = "takes minutes; run it by name, with VGPU_DEVICES=16"]
fn sixteen_shards_leave_the_same_bits_for_a_hundred_steps() {
    let sixteen = cases().into_iter().find(|case| case.training.n_shards == 16).expect("is there");
    check_bits(Case { steps: 100, ranks: &[2, 4, 8, 16], ..sixteen });
}

/// From four ranks to two, and to one.
#[test]
#[ignore = "ranks_take_the_steps_of_one_gpu runs it with sixteen GPUs"]
fn a_run_goes_on_with_other_ranks() {
    let Case { training, start, precision, .. } = cases().remove(1);
    let engine = CudaEngine::new(0, precision).expect("a GPU");
    for n_shards in [8, 64] {
        let training = Training { n_shards, ..training.clone() };
        let whole = run(&engine, &training, start.clone(), &[3]).0;
        let take = |n: usize, state: &TrainState| {
            on_ranks(n, precision, |_, engine| run(engine, &training, state.clone(), &[1]).0).swap_remove(0)
        };
        let two = take(2, &take(4, &start));
        assert!(run(&engine, &training, two, &[1]).0 == whole, "{n_shards} shards");
    }
}

/// Whoever asks: the engine before it takes memory.
#[test]
#[ignore = "ranks_take_the_steps_of_one_gpu runs it with sixteen GPUs"]
fn more_ranks_than_shards_are_refused() {
    let Case { training, start, precision, .. } = cases().remove(0);
    let training = Training { n_shards: 1, ..training };
    let errors = on_ranks(2, precision, |_, engine| {
        engine.trainer(training.clone(), start.clone()).err().expect("is refused").to_string()
    });
    let expected = "training.shards: is 1, and 2 ranks cannot share so many equally";
    assert!(errors.iter().all(|error| error.contains(expected)), "{errors:?}");
}

/// The number of shards changes the order of sums, and so the last bits, and nothing else.
#[test]
fn shards_change_the_order_of_sums_alone() {
    let Case { training, start, .. } = cases().remove(1);
    let engine = CudaEngine::new(0, Precision::F32).expect("a GPU");
    let start = TrainState { loss_scale: LossScale::default(), ..start };
    // A tenth of the gradient.
    let moment = |n_shards| {
        let training = Training { n_shards, ..training.clone() };
        run(&engine, &training, start.clone(), &[1]).0.action.moment1
    };
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|value| value * value).sum::<f32>().sqrt();
    let eight = moment(8);
    for n_shards in [1, 64] {
        let other = moment(n_shards);
        assert!(other != eight, "{n_shards} shards");
        let apart = norm(&mut other.iter().zip(&eight).map(|(a, b)| a - b)) / norm(&mut eight.iter().copied());
        assert!(apart < 1e-5, "{n_shards} shards: {apart}");
    }
}

#[test]
#[ignore = "ranks_take_the_steps_of_one_gpu runs it with sixteen GPUs"]
fn ranks_hand_on_what_they_have() {
    let list = |rank: usize| (0..rank * 1000).map(|i| (i % 251) as u8).collect::<Vec<u8>>();
    for shared in on_ranks(4, Precision::F32, |rank, engine| engine.share(&list(rank)).expect("shared")) {
        assert!(shared == (0..4).map(list).collect::<Vec<_>>());
    }
    let errors = on_ranks(2, Precision::F32, |rank, engine| {
        engine.check_equal("the data", &format!("{rank}")).expect_err("differ").to_string()
    });
    assert!(errors.iter().all(|error| error.contains("the data: rank 1 has another")), "{errors:?}");
}

/// A rank alone has its place, and NCCL that of this machine: on a real GPU where there is one.
#[test]
fn one_rank_trains_as_a_gpu_does() {
    if let Err(error) = nccl_version() {
        assert!(!is_virtual(), "{error}");
        return eprintln!("{error}");
    }
    let Case { training, start, precision, .. } = cases().remove(0);
    let alone = run(&CudaEngine::new(0, precision).expect("a GPU"), &training, start.clone(), &[40]);
    let ranked = on_ranks(1, precision, |_, engine| run(engine, &training, start.clone(), &[3, 37]));
    assert!(ranked[0] == alone);
}

/// `amatch` with `arguments`.
fn amatch(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amatch"));
    command.args(arguments);
    command
}

/// Starts the commands of `n` ranks.
pub fn started(n: usize, of: impl Fn(usize) -> Command) -> Vec<Child> {
    let port = free_port().to_string();
    (0..n)
        .map(|rank| {
            let mut command = of(rank);
            command.envs([SIXTEEN, ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", &port)]);
            let variables = [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", n)];
            command.envs(variables.map(|(name, value)| (name, value.to_string())));
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs")
        })
        .collect()
}

pub fn ended(children: Vec<Child>) -> Vec<Output> {
    children.into_iter().map(|child| child.wait_with_output().expect("ends")).collect()
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The bytes of the newest checkpoint of a run.
fn checkpoint(run: &Path) -> Vec<u8> {
    let entries = std::fs::read_dir(run.join("checkpoints")).expect("a run");
    let newest = entries.flatten().map(|entry| entry.path()).max().expect("a checkpoint");
    std::fs::read(newest).expect("reads")
}

/// The program: what two ranks leave is what one process leaves, byte for byte, and a rank that was
/// started with another setting is named.
#[test]
fn the_program_trains_with_ranks() {
    if !is_virtual() {
        return eprintln!("needs several GPUs, or the virtual ones");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let config = &configuration(folder.path());
    let place = |name: &str| folder.path().join(name).to_str().expect("a name").to_owned();
    let [alone, two, started_here, other] = ["alone", "two", "started-here", "other"].map(place);
    let train = ["train", config, "--device", "cuda", "--no-report", "--out"];
    let into = |out, more: &[&'static str]| [&train[..], &[out], more].concat();
    let output = amatch(&into(&alone, &[])).envs([SIXTEEN]).output().expect("runs");
    assert!(output.status.success(), "{}", said(&output));

    let outputs = ended(started(2, |_| amatch(&into(&two, &[]))));
    let all: String = outputs.iter().map(said).collect();
    assert!(outputs.iter().all(|output| output.status.success()), "{all}");
    assert!(said(&outputs[0]).contains("2 ranks on 1 machine by torchrun"), "{all}");
    assert!(said(&outputs[0]).contains("should be faster with training.shards = 16"), "{all}");
    assert_eq!(said(&outputs[1]), "", "others say nothing");
    assert!(checkpoint(Path::new(&two)) == checkpoint(Path::new(&alone)), "other bits");
    let model = |run: &str| std::fs::read(Path::new(run).join("model.safetensors")).expect("a model");
    assert!(model(&two) == model(&alone), "another model");

    // The same from one command, which starts the other ranks itself.
    let four = ["train", config, "--devices", "0-3", "--no-report", "--out", &started_here];
    let output = amatch(&four).envs([SIXTEEN]).output().expect("runs");
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("4 ranks on 1 machine by") && text.contains("(GPU 0, 1, 2, 3); NCCL 2."), "{text}");
    assert!(checkpoint(Path::new(&started_here)) == checkpoint(Path::new(&alone)), "other bits");

    // Another setting on one of them: each says so, and no folder is made.
    let seeds = ["training.seed=3", "training.seed=4"];
    let outputs = ended(started(2, |rank| amatch(&into(&other, &["--set", seeds[rank]]))));
    for output in &outputs {
        let text = said(output);
        assert!(output.status.code() == Some(1) && text.contains("training.seed") && text.contains("rank 1"), "{text}");
    }
    assert!(!Path::new(&other).exists());

    // More of them than shards.
    let outputs = ended(started(4, |_| amatch(&into(&other, &["--set", "training.shards=2"]))));
    for output in &outputs {
        let (text, expected) = (said(output), "training.shards: is 2, and 4 ranks cannot share so many equally");
        assert!(output.status.code() == Some(1) && text.contains(expected) && text.contains("(1, 2)"), "{text}");
    }
    assert!(!Path::new(&other).exists());
}

/// A configuration of 60 steps with its data in `folder`.
fn configuration(folder: &Path) -> String {
    let rows: String = (0..120).map(|i| format!("{},{},{}\n", i % 3, (i * 7) % 13, i % 5 + 2 * (i % 3))).collect();
    std::fs::write(folder.join("cells.csv"), format!("times,x,y\n{rows}")).expect("written");
    let text = "[data]\npath = \"cells.csv\"\n[model]\nhidden = [16]\n[objective]\npath = \"linear\"\npairing = \"ot\"\n\
                [training]\nsteps = 60\ninterior_rows = 150\nboundary_rows = 70\n[output]\ncheckpoint_every = 10\n";
    let config = folder.join("run.toml");
    std::fs::write(&config, text).expect("written");
    config.to_str().expect("a name").to_owned()
}

/// A rank dies while it trains with others: all others notice, whatever it was doing, and name it;
/// what is in the folder is whole, and other ranks go on from it, to the bits of a run that nothing
/// has happened to.
fn lose(folder: &Path, config: &str, alone: &Path, number: u32) {
    let [which, when, more, _] = words(1, Purpose::Evaluation, 18, number);
    let n = [2, 4][which as usize % 2];
    let dead = (which / 2) as usize % n;
    let run = folder.join(format!("lost-{number}"));
    let name = run.to_str().expect("a name");
    let train = ["train", config, "--device", "cuda", "--no-report", "--out", name];
    let mut children = started(n, |_| amatch(&train));
    let began = Instant::now();
    while !run.join("config.toml").exists() {
        assert!(began.elapsed() < Duration::from_secs(120), "{number}: the run does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(u64::from(when % 1000)));
    children[dead].kill().expect("killed");
    let killed_at = Instant::now();
    let outputs = ended(children);
    assert!(killed_at.elapsed() < Duration::from_secs(30), "{number}: {:?}", killed_at.elapsed());
    for (rank, output) in outputs.iter().enumerate().filter(|(rank, _)| *rank != dead) {
        let text = said(output);
        // It may have been late: then all is done.
        let is_over = output.status.success() && checkpoint(&run) == checkpoint(alone);
        let is_named = text.contains(&format!("rank {dead} on ")) && text.contains("is gone");
        assert!(is_over || output.status.code() == Some(75) && is_named, "{number}: rank {rank} of {n}: {text}");
    }
    let resumed = [&train[..], &["--resume"]].concat();
    let outputs = ended(started([1, 2, 4][more as usize % 3], |_| amatch(&resumed)));
    let all: String = outputs.iter().map(said).collect();
    assert!(outputs.iter().all(|output| output.status.success()), "{number}: {all}");
    assert!(checkpoint(&run) == checkpoint(alone), "{number}: other bits after the loss of rank {dead} of {n}");
}

fn lose_some(numbers: std::ops::Range<u32>) {
    if !is_virtual() {
        return eprintln!("needs several GPUs, or the virtual ones");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (config, alone) = (configuration(folder.path()), folder.path().join("alone"));
    let name = alone.to_str().expect("a name");
    let outputs = ended(started(1, |_| amatch(&["train", &config, "--device", "cuda", "--no-report", "--out", name])));
    assert!(outputs[0].status.success(), "{}", said(&outputs[0]));
    numbers.for_each(|number| lose(folder.path(), &config, &alone, number));
}

#[test]
fn a_lost_rank_is_named_and_nothing_is_lost_with_it() {
    lose_some(0..4);
}

/// A hundred deaths at random moments.
#[test]
#[ignore = "takes half an hour; run it by name"]
fn a_hundred_lost_ranks_leave_whole_runs() {
    lose_some(4..104);
}
