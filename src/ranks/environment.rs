//! Rank, number of ranks and where they meet, from the variables that `torchrun`, `mpirun` or
//! `srun` sets for each process.

use std::fmt;

use super::hosts::expand;
use crate::error::{DeviceKind, Error, InputKind, Result};

/// What started the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// `torchrun --no-python`, or whatever sets its variables.
    Torchrun,
    /// `mpirun` of Open MPI.
    OpenMpi,
    /// `mpiexec` of MPICH, Intel MPI or Cray.
    Pmi,
    /// `srun`.
    Slurm,
    /// The program itself, which has started its other ranks.
    Program,
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Launcher::Torchrun => "torchrun",
            Launcher::OpenMpi => "mpirun of Open MPI",
            Launcher::Pmi => "mpiexec (PMI)",
            Launcher::Slurm => "srun",
            Launcher::Program => "the program itself",
        })
    }
}

/// The place of this process among those of a training.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// Number of this process, below `size`.
    pub rank: usize,
    /// Number of processes.
    pub size: usize,
    /// Number of this process among those of its machine: the GPU that it takes.
    pub local_rank: usize,
    /// Name or address of the machine of rank 0.
    pub host: String,
    /// The port at which rank 0 listens.
    pub port: u16,
    /// What started the processes.
    pub launcher: Launcher,
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let World { rank, size, local_rank, host, port, launcher } = self;
        write!(f, "rank {rank} of {size}, the {local_rank} of its machine, meeting at {host}:{port}, by {launcher}")
    }
}

/// Names of a launcher's variables.
struct Names {
    launcher: Launcher,
    rank: &'static [&'static str],
    size: &'static [&'static str],
    local_rank: &'static [&'static str],
}

/// In the order in which they are looked for. A job of SLURM sets its variables for what `mpirun`
/// starts in it too, with the rank of the step that `mpirun` is: so they come last.
const LAUNCHERS: [Names; 4] = [
    Names { launcher: Launcher::Torchrun, rank: &["RANK"], size: &["WORLD_SIZE"], local_rank: &["LOCAL_RANK"] },
    Names {
        launcher: Launcher::OpenMpi,
        rank: &["OMPI_COMM_WORLD_RANK"],
        size: &["OMPI_COMM_WORLD_SIZE"],
        local_rank: &["OMPI_COMM_WORLD_LOCAL_RANK"],
    },
    Names {
        launcher: Launcher::Pmi,
        rank: &["PMI_RANK"],
        size: &["PMI_SIZE"],
        local_rank: &["MPI_LOCALRANKID", "PMI_LOCAL_RANK"],
    },
    Names {
        launcher: Launcher::Slurm,
        rank: &["SLURM_PROCID"],
        // A step may have fewer tasks than its job.
        size: &["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"],
        local_rank: &["SLURM_LOCALID"],
    },
];

/// The number of a step of SLURM, under its two names.
const STEP: [&str; 2] = ["SLURM_STEP_ID", "SLURM_STEPID"];

/// Ports for jobs without `MASTER_PORT`: above those of services, below those of connections.
const PORTS: std::ops::Range<u64> = 20_000..32_000;

impl World {
    /// The GPU that this rank takes, of `n_devices` that its process sees: the one with its number
    /// on its machine; or the only one, where a launcher shows each rank its own.
    ///
    /// # Errors
    /// [`Error::Device`] if there are fewer.
    pub fn device(&self, n_devices: usize) -> Result<usize> {
        match self.local_rank {
            _ if n_devices == 1 => Ok(0),
            device if device < n_devices => Ok(device),
            device => Err(Error::Device {
                kind: DeviceKind::Unavailable,
                device: format!("cuda:{device}"),
                problem: format!("rank {} is the {device} of its machine, where it sees {n_devices} GPUs", self.rank),
                fix: "start as many ranks on a machine as it has GPUs".into(),
            }),
        }
    }

    /// The place that the variables of this process's environment state; `None` if no launcher has
    /// set its own.
    ///
    /// # Errors
    /// Those of [`World::from_variables`].
    pub fn from_environment() -> Result<Option<World>> {
        World::from_variables(|name| std::env::var(name).ok())
    }

    /// The same of any variables; empty ones count as missing.
    ///
    /// | launcher | rank, number of ranks, rank on the machine |
    /// |---|---|
    /// | torchrun | `RANK`, `WORLD_SIZE`, `LOCAL_RANK` |
    /// | Open MPI | `OMPI_COMM_WORLD_RANK`, `OMPI_COMM_WORLD_SIZE`, `OMPI_COMM_WORLD_LOCAL_RANK` |
    /// | PMI | `PMI_RANK`, `PMI_SIZE`, `MPI_LOCALRANKID` or `PMI_LOCAL_RANK` |
    /// | SLURM | `SLURM_PROCID`, `SLURM_STEP_NUM_TASKS` or `SLURM_NTASKS`, `SLURM_LOCALID` |
    ///
    /// What a batch script of SLURM starts without `srun` is a process for itself.
    ///
    /// Rank 0 is at `MASTER_ADDR`; else on the first machine of `SLURM_STEP_NODELIST` or
    /// `SLURM_JOB_NODELIST`; else on this one, if all ranks of `mpirun` are. It listens at
    /// `MASTER_PORT`, or the next one, where `TORCHELASTIC_USE_AGENT_STORE` says that `torchrun` is
    /// there itself; else at a port that follows from the numbers of SLURM's job and step, or from
    /// Open MPI's name of the job.
    ///
    /// # Errors
    /// A variable that is missing, named with what could set it, or whose value cannot be.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Option<World>> {
        let found = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let is_set = |names: &[&str]| names.iter().any(|name| found(name).is_some());
        let chosen = LAUNCHERS.iter().find(|names| match names.launcher {
            Launcher::Torchrun => is_set(names.rank) || is_set(names.size),
            // `srun --mpi=pmi2` sets the first two as well.
            Launcher::Pmi => is_set(names.rank) && (is_set(names.local_rank) || !is_set(&["SLURM_PROCID"])),
            Launcher::OpenMpi => is_set(names.rank),
            // A batch script has the variables of its job, and rank 0; `srun` adds those of a step.
            Launcher::Slurm => is_set(names.rank) && is_set(&STEP),
            // Its children have the variables of torchrun.
            Launcher::Program => false,
        });
        let Some(Names { launcher, rank, size, local_rank }) = chosen else { return Ok(None) };
        let launcher = *launcher;
        let first = |names: &[&str]| names.iter().find_map(|name| found(name).map(|value| (name.to_string(), value)));
        let number = |names: &[&str]| -> Result<usize> {
            let (name, value) = first(names).ok_or_else(|| missing(launcher, &names.join(" or ")))?;
            value.trim().parse().map_err(|_| {
                Error::input("environment", name, format!("{value:?} is no number"), "expected 0, 1, 2, …")
            })
        };
        let (size_value, rank_value) = (number(size)?, number(rank)?);
        if rank_value >= size_value {
            let problem = format!("rank {rank_value} of {size_value} ranks");
            return Err(
                Error::input("environment", rank[0], problem, "ranks count from 0").of_kind(InputKind::Conflict)
            );
        }
        let local_rank = number(local_rank)?;
        Ok(Some(World {
            rank: rank_value,
            size: size_value,
            local_rank,
            host: host(launcher, size_value, &found)?,
            port: port(launcher, &found)?,
            launcher,
        }))
    }
}

fn missing(launcher: Launcher, names: &str) -> Error {
    let fix = match launcher {
        Launcher::Torchrun | Launcher::Program => "start the program with torchrun, which sets it".to_owned(),
        Launcher::OpenMpi => format!("let mpirun pass it on: mpirun -x {names}=…"),
        Launcher::Pmi => format!("let mpiexec pass it on: mpiexec -genv {names} …"),
        Launcher::Slurm => "start the program with srun, which sets it".to_owned(),
    };
    let problem = format!("missing, though variables of {launcher} are set");
    Error::input("environment", names, problem, fix).of_kind(InputKind::Missing)
}

/// Where rank 0 is.
fn host(launcher: Launcher, size: usize, found: &impl Fn(&str) -> Option<String>) -> Result<String> {
    if let Some(host) = found("MASTER_ADDR") {
        return Ok(host.trim().to_owned());
    }
    let all_here = |name: &str| found(name).is_some_and(|value| value.trim().parse() == Ok(size));
    let is_local = match launcher {
        Launcher::Torchrun | Launcher::Program => false,
        Launcher::OpenMpi => all_here("OMPI_COMM_WORLD_LOCAL_SIZE"),
        Launcher::Pmi => all_here("MPI_LOCALNRANKS") || all_here("PMI_LOCAL_SIZE"),
        Launcher::Slurm => {
            let list = found("SLURM_STEP_NODELIST").or_else(|| found("SLURM_JOB_NODELIST"));
            let list = list.ok_or_else(|| missing(launcher, "SLURM_JOB_NODELIST"))?;
            return Ok(expand(list.trim())?.swap_remove(0));
        }
    };
    if is_local { Ok("127.0.0.1".into()) } else { Err(missing(launcher, "MASTER_ADDR")) }
}

/// Where rank 0 listens.
fn port(launcher: Launcher, found: &impl Fn(&str) -> Option<String>) -> Result<u16> {
    if let Some(port) = found("MASTER_PORT") {
        let port: u16 = port.trim().parse().ok().filter(|&port| port > 0).ok_or_else(|| {
            Error::input("environment", "MASTER_PORT", format!("{port:?} is no port"), "expected 1 to 65535")
        })?;
        // There torchrun itself listens, for ranks that take part in its store.
        let is_taken = found("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value.trim() == "True");
        return Ok(if is_taken { port.checked_add(1).unwrap_or(port - 1) } else { port });
    }
    let job = match launcher {
        Launcher::Torchrun | Launcher::Program | Launcher::Pmi => None,
        Launcher::OpenMpi => found("PMIX_NAMESPACE"),
        Launcher::Slurm => found("SLURM_JOB_ID").map(|job| {
            let step = STEP.iter().find_map(|name| found(name)).unwrap_or_default();
            format!("{job}.{step}")
        }),
    };
    let job = job.ok_or_else(|| missing(launcher, "MASTER_PORT"))?;
    // FNV-1a: the same number in every process.
    let hash = job
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    Ok((PORTS.start + hash % (PORTS.end - PORTS.start)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(variables: &str) -> Result<Option<World>> {
        World::from_variables(|name| {
            let mut pairs = variables.split(' ').filter_map(|pair| pair.split_once('='));
            pairs.find(|(other, _)| *other == name).map(|(_, value)| value.to_owned())
        })
    }

    #[test]
    fn every_launcher_is_understood() {
        use Launcher::*;
        for (variables, expected) in [
            (
                "RANK=3 WORLD_SIZE=8 LOCAL_RANK=1 MASTER_ADDR=node1 MASTER_PORT=29500",
                (3, 8, 1, "node1", Some(29500), Torchrun),
            ),
            // As real ones set it, without and with a rendezvous of their own.
            (
                "RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 \
                 TORCHELASTIC_USE_AGENT_STORE=True",
                (1, 2, 1, "127.0.0.1", Some(29501), Torchrun),
            ),
            (
                "RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 MASTER_ADDR=localhost MASTER_PORT=42229 \
                 TORCHELASTIC_USE_AGENT_STORE=False",
                (1, 2, 1, "localhost", Some(42229), Torchrun),
            ),
            (
                "RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 MASTER_ADDR=a MASTER_PORT=65535 TORCHELASTIC_USE_AGENT_STORE=True",
                (0, 1, 0, "a", Some(65534), Torchrun),
            ),
            (
                "SLURM_PROCID=5 SLURM_NTASKS=8 SLURM_LOCALID=1 SLURM_JOB_NODELIST=gpu[01-04,7] SLURM_JOB_ID=77 \
                 SLURM_STEPID=0",
                (5, 8, 1, "gpu01", None, Slurm),
            ),
            // A step with fewer tasks than its job, on other machines.
            (
                "SLURM_PROCID=1 SLURM_NTASKS=8 SLURM_STEP_NUM_TASKS=2 SLURM_LOCALID=0 SLURM_JOB_NODELIST=a,b,c \
                 SLURM_STEP_NODELIST=b,c SLURM_JOB_ID=77 SLURM_STEP_ID=3",
                (1, 2, 0, "b", None, Slurm),
            ),
            // `srun --mpi=pmi2`.
            (
                "PMI_RANK=1 PMI_SIZE=2 SLURM_PROCID=1 SLURM_NTASKS=2 SLURM_LOCALID=0 SLURM_JOB_NODELIST=n[1-2] \
                 SLURM_JOB_ID=77 SLURM_STEP_ID=0",
                (1, 2, 0, "n1", None, Slurm),
            ),
            (
                "OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=2 \
                 OMPI_COMM_WORLD_LOCAL_SIZE=4 PMIX_NAMESPACE=prterun-n1-9@1",
                (2, 4, 2, "127.0.0.1", None, OpenMpi),
            ),
            // `mpirun` in a job of SLURM, whose batch script is the only task of its step.
            (
                "OMPI_COMM_WORLD_RANK=3 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=1 MASTER_ADDR=n1 \
                 MASTER_PORT=1234 SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_LOCALID=0 SLURM_JOB_NODELIST=n[1-2]",
                (3, 4, 1, "n1", Some(1234), OpenMpi),
            ),
            (
                "PMI_RANK=1 PMI_SIZE=2 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=2 MASTER_PORT=1234",
                (1, 2, 1, "127.0.0.1", Some(1234), Pmi),
            ),
            (
                "PMI_RANK=1 PMI_SIZE=4 PMI_LOCAL_RANK=0 MASTER_ADDR=n1 MASTER_PORT=1234 SLURM_PROCID=0",
                (1, 4, 0, "n1", Some(1234), Pmi),
            ),
        ] {
            let found = world(variables).expect(variables).expect(variables);
            let (rank, size, local_rank, host, port, launcher) = expected;
            assert_eq!((found.rank, found.size, found.local_rank), (rank, size, local_rank), "{variables}");
            assert_eq!((found.host.as_str(), found.launcher), (host, launcher), "{variables}");
            match port {
                Some(port) => assert_eq!(found.port, port, "{variables}"),
                None => assert!(PORTS.contains(&u64::from(found.port)), "{variables}: {found}"),
            }
        }
        assert_eq!(world("").expect("nothing"), None);
        let script = "SLURM_PROCID=0 SLURM_NTASKS=8 SLURM_LOCALID=0 SLURM_JOB_NODELIST=n[1-2] SLURM_JOB_ID=7";
        assert_eq!(world(script).expect("a batch script"), None);
        assert_eq!(world("MASTER_ADDR=n1 MASTER_PORT=29500 SLURM_JOB_ID=7").expect("no launcher"), None);
    }

    #[test]
    fn a_rank_takes_the_gpu_of_its_number_or_its_only_one() {
        let variables = "RANK=3 WORLD_SIZE=8 LOCAL_RANK=3 MASTER_ADDR=n1 MASTER_PORT=1";
        let world = world(variables).expect("variables").expect("a launcher's");
        assert_eq!((world.device(4).expect("is there"), world.device(1).expect("its own")), (3, 0));
        for (n_devices, words) in
            [(0, "sees 0 GPUs"), (3, "cuda:3: rank 3 is the 3 of its machine, where it sees 3 GPUs")]
        {
            let message = world.device(n_devices).expect_err("is not there").to_string();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn ports_belong_to_jobs_and_steps() {
        let port = |job: &str| {
            let rest = "SLURM_PROCID=0 SLURM_NTASKS=2 SLURM_LOCALID=0 SLURM_JOB_NODELIST=n1";
            world(&format!("{rest} {job}")).expect(job).expect(job).port
        };
        assert_eq!(port("SLURM_JOB_ID=1 SLURM_STEP_ID=2"), port("SLURM_JOB_ID=1 SLURM_STEP_ID=2"));
        assert_ne!(port("SLURM_JOB_ID=1 SLURM_STEP_ID=2"), port("SLURM_JOB_ID=1 SLURM_STEP_ID=3"));
        assert_ne!(port("SLURM_JOB_ID=1 SLURM_STEP_ID=2"), port("SLURM_JOB_ID=2 SLURM_STEP_ID=2"));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (variables, words) in [
            ("WORLD_SIZE=2", ["RANK: missing, though variables of torchrun are set", "with torchrun, which sets it"]),
            ("RANK=0", ["WORLD_SIZE: missing", "torchrun"]),
            ("RANK=0 WORLD_SIZE=2", ["LOCAL_RANK: missing", "torchrun"]),
            ("RANK=0 WORLD_SIZE=2 LOCAL_RANK=0", ["MASTER_ADDR: missing", "torchrun"]),
            ("RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=n1", ["MASTER_PORT: missing", "torchrun"]),
            ("RANK=2 WORLD_SIZE=2", ["RANK: rank 2 of 2 ranks", "count from 0"]),
            ("RANK=-1 WORLD_SIZE=2", ["RANK: \"-1\" is no number", "expected 0, 1, 2"]),
            ("RANK=0 WORLD_SIZE=0", ["rank 0 of 0 ranks", "count from 0"]),
            (
                "RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 MASTER_ADDR=n1 MASTER_PORT=70000",
                ["MASTER_PORT: \"70000\" is no port", "1 to 65535"],
            ),
            (
                "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=0 \
                 OMPI_COMM_WORLD_LOCAL_SIZE=2",
                ["MASTER_ADDR: missing, though variables of mpirun of Open MPI are set", "mpirun -x MASTER_ADDR=…"],
            ),
            (
                "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=0 \
                 OMPI_COMM_WORLD_LOCAL_SIZE=2",
                ["MASTER_PORT: missing", "mpirun -x MASTER_PORT=…"],
            ),
            ("PMI_RANK=0 PMI_SIZE=2", ["MPI_LOCALRANKID or PMI_LOCAL_RANK: missing", "mpiexec -genv"]),
            ("SLURM_PROCID=0 SLURM_STEP_ID=0", ["SLURM_STEP_NUM_TASKS or SLURM_NTASKS: missing", "srun"]),
            ("SLURM_PROCID=0 SLURM_NTASKS=2 SLURM_LOCALID=0 SLURM_STEP_ID=0", ["SLURM_JOB_NODELIST: missing", "srun"]),
            (
                "SLURM_PROCID=0 SLURM_NTASKS=2 SLURM_LOCALID=0 SLURM_JOB_NODELIST=gpu[1-2 SLURM_STEP_ID=0",
                ["gpu[1-2: a [ without its ]", "gpu[01-04,7]"],
            ),
        ] {
            let message = world(variables).expect_err(variables).to_string();
            assert!(words.iter().all(|word| message.contains(word)), "{variables}: {message}");
        }
    }
}
