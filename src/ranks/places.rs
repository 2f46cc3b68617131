//! On which machines and GPUs the ranks of a training are, in words.

use std::collections::HashSet;

use super::environment::Launcher;
use super::message::Hello;

/// Where a rank is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number.
    pub rank: usize,
    /// Its machine.
    pub host: String,
    /// Its GPU, of those of the machine.
    pub device: usize,
}

impl Place {
    /// Where a rank says that it is.
    pub(super) fn of(hello: &Hello) -> Place {
        Place { rank: hello.rank, host: hello.host.clone(), device: hello.local_rank }
    }
}

/// The ranks at `places`, which `launcher` has started, and the version of the `nccl` by which they
/// are connected: a line for the user.
///
/// ```
/// use action_matching::ranks::environment::Launcher;
/// use action_matching::ranks::places::{Place, describe};
///
/// let place = |rank| Place { rank, host: format!("node{}", rank / 2), device: rank % 2 };
/// assert_eq!(
///     describe(Launcher::Slurm, &[place(0), place(1), place(2)], "2.28.3"),
///     "3 ranks on 2 machines by srun: node0 (GPU 0, 1), node1 (GPU 0); NCCL 2.28.3"
/// );
/// ```
#[must_use]
pub fn describe(launcher: Launcher, places: &[Place], nccl: &str) -> String {
    let mut seen = HashSet::new();
    // In the order of their first ranks.
    let hosts: Vec<&str> = places.iter().map(|place| place.host.as_str()).filter(|host| seen.insert(*host)).collect();
    let of_host = |host: &&str| {
        let devices = places.iter().filter(|place| place.host == **host).map(|place| place.device.to_string());
        format!("{host} (GPU {})", devices.collect::<Vec<_>>().join(", "))
    };
    let count = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    format!(
        "{} on {} by {launcher}: {}; NCCL {nccl}",
        count(places.len(), "rank"),
        count(hosts.len(), "machine"),
        hosts.iter().map(of_host).collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_listed_with_their_gpus() {
        let place = |rank, host: &str, device| Place { rank, host: host.into(), device };
        let one = describe(Launcher::Program, &[place(0, "n1", 2), place(1, "n1", 0)], "2.28.3");
        assert_eq!(one, "2 ranks on 1 machine by the program itself: n1 (GPU 2, 0); NCCL 2.28.3");
        // Ranks that do not follow each other on their machine, as mpirun --map-by node gives.
        let ranks = [place(0, "b", 0), place(1, "a", 0), place(2, "b", 1), place(3, "a", 1)];
        let two = describe(Launcher::Torchrun, &ranks, "2.19.4");
        assert_eq!(two, "4 ranks on 2 machines by torchrun: b (GPU 0, 1), a (GPU 0, 1); NCCL 2.19.4");
        assert_eq!(
            describe(Launcher::OpenMpi, &[place(0, "n", 0)], "2"),
            "1 rank on 1 machine by mpirun of Open MPI: n (GPU 0); NCCL 2"
        );
    }
}
