//! The names of the files of a run folder; `train` reads and writes them.

use std::path::{Path, PathBuf};

/// Name of the claim in the run folder.
pub(crate) const CLAIM: &str = ".amatch-claim";
/// Name of the claim on the claim, held briefly by a process that takes over.
pub(crate) const TAKEOVER: &str = ".amatch-takeover";

/// The files of a run folder.
#[derive(Clone, Debug)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// The run folder at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        RunFolder(path.into())
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The complete configuration: reproduces the run.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// The model: moving-average parameters of the newest checkpoint. Of an ensemble, that of its
    /// first member.
    #[must_use]
    pub fn model(&self) -> PathBuf {
        self.member(1).model()
    }

    /// The loadings of the components that the model was trained on, if it was: beside the model.
    #[must_use]
    pub fn loadings(&self) -> PathBuf {
        self.0.join("loadings.safetensors")
    }

    /// The folder of checkpoints; of an ensemble, of its first member.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.member(1).checkpoints()
    }

    /// Loss and other metrics over the steps; of an ensemble, of its first member.
    #[must_use]
    pub fn metrics(&self) -> PathBuf {
        self.member(1).metrics()
    }

    /// The folder of TensorBoard's event file; of an ensemble, of its first member.
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.member(1).events()
    }

    /// The files of member `number` of an ensemble, counted from 1. Those of the first one are
    /// called as those of a single model.
    #[must_use]
    pub fn member(&self, number: usize) -> MemberFiles {
        MemberFiles { folder: self.0.clone(), number }
    }

    /// The plot of [`RunFolder::metrics`].
    #[must_use]
    pub fn plot(&self) -> PathBuf {
        self.0.join("loss.svg")
    }

    /// The test that the run ends with.
    #[must_use]
    pub fn self_test(&self) -> PathBuf {
        self.0.join("selftest.json")
    }

    /// The model card.
    #[must_use]
    pub fn card(&self) -> PathBuf {
        self.0.join("README.md")
    }

    /// The report of the run, a page.
    #[must_use]
    pub fn report(&self) -> PathBuf {
        self.0.join("report.html")
    }

    /// The claim of the process that writes to the folder.
    pub(crate) fn claim(&self) -> PathBuf {
        self.0.join(CLAIM)
    }

    /// The claim of a process that takes over [`RunFolder::claim`].
    pub(crate) fn takeover(&self) -> PathBuf {
        self.0.join(TAKEOVER)
    }
}

/// The files of a member of an ensemble in the folder of its run.
#[derive(Clone, Debug)]
pub struct MemberFiles {
    folder: PathBuf,
    number: usize,
}

impl MemberFiles {
    /// The model: moving-average parameters of the newest checkpoint.
    #[must_use]
    pub fn model(&self) -> PathBuf {
        self.file(MODEL)
    }

    /// The folder of checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.file(CHECKPOINTS)
    }

    /// Loss and other metrics over the steps.
    #[must_use]
    pub fn metrics(&self) -> PathBuf {
        self.file(METRICS)
    }

    /// The folder of TensorBoard's event file, which has the numbers of [`MemberFiles::metrics`].
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.file(EVENTS)
    }

    fn file(&self, (stem, suffix): (&str, &str)) -> PathBuf {
        let name = match self.number {
            0 | 1 => format!("{stem}{suffix}"),
            number => format!("{stem}-{number}{suffix}"),
        };
        self.folder.join(name)
    }
}

/// Stem and suffix of the files that each member has; its number is between them, but for the first
/// member.
const MODEL: (&str, &str) = ("model", ".safetensors");
const METRICS: (&str, &str) = ("metrics", ".jsonl");
const CHECKPOINTS: (&str, &str) = ("checkpoints", "");
const EVENTS: (&str, &str) = ("tensorboard", "");

/// The number of the member, other than the first, that has a file called `name` in the folder of
/// its run: 2 of `model-2.safetensors`.
pub(crate) fn later_member(name: &str) -> Option<usize> {
    [MODEL, METRICS, CHECKPOINTS, EVENTS].into_iter().find_map(|(stem, suffix)| {
        let digits = name.strip_prefix(stem)?.strip_prefix('-')?.strip_suffix(suffix)?;
        let number: usize = digits.parse().ok()?;
        (number > 1 && number.to_string() == digits).then_some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_member_is_read_from_the_names_of_its_files() {
        let folder = RunFolder::new("run");
        let name = |path: PathBuf| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_string();
        for number in [2, 10] {
            let member = folder.member(number);
            for path in [member.model(), member.checkpoints(), member.metrics(), member.events()] {
                assert_eq!(later_member(&name(path)), Some(number));
            }
        }
        assert_eq!(name(folder.member(2).model()), "model-2.safetensors");
        for path in [folder.model(), folder.checkpoints(), folder.metrics(), folder.events()] {
            assert_eq!(later_member(&name(path)), None);
        }
        for foreign in
            ["model-1.safetensors", "model-02.safetensors", "model-2.npz", "model--2.safetensors", "loss-2.svg"]
        {
            assert_eq!(later_member(foreign), None, "{foreign}");
        }
    }
}
