//! One TOML file describes one run. Defaults are those of the types it makes; every value is
//! checked with its key named.
//!
//! ```
//! use action_matching::prelude::*;
//!
//! let folder = tempfile::tempdir().expect("a folder");
//! let file = folder.path().join("run.toml");
//! std::fs::write(&file, "[data]\npath = \"cells.npz\"\n[training]\nsteps = 100\n").expect("written");
//!
//! let config = Config::read(&file, &["training.seed=7".into()])?;
//! assert_eq!((config.training.steps, config.training.seed), (100, 7));
//! assert_eq!(config.training.beta1, Optimizer::default().beta1);
//! let error = Config::read(&file, &["training.stepz=7".into()]).unwrap_err().to_string();
//! assert!(error.contains("training.stepz") && error.contains("steps"));
//! # Ok::<(), Error>(())
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `data`, `model`, `objective`, `training`, `output` | the sections with their defaults |
//! | `kind` | values with settings of their own: `{ kind = "learned", rate = 0.3 }` |
//! | `path` | from a configuration and snapshots to a path and a training |
//! | `read` | from file and overrides to a table of known keys |
//! | `legacy` | keys of earlier versions |
//! | `keys` | what each key takes, in words |
//! | `manual` | what each key means, and its page of the documentation |
//! | `check` | ranges and settings that contradict each other |
//! | `fingerprint` | the digest that a resumed run must match |

mod check;
mod data;
mod fingerprint;
mod keys;
mod kind;
mod legacy;
mod manual;
mod model;
mod objective;
mod output;
mod path;
mod read;
#[cfg(test)]
mod tests;
mod training;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::data::DataConfig;
pub(crate) use self::fingerprint::{Settings, digest_of_file, hexadecimal};
#[doc(hidden)]
pub use self::keys::accepted_values;
pub(crate) use self::keys::inline;
#[doc(hidden)]
pub use self::manual::manual;
pub use self::model::ModelConfig;
pub use self::objective::{Mass, ObjectiveConfig, Pairing, PathConfig, Sigma};
pub use self::output::OutputConfig;
pub use self::training::{Schedule, Stop, TrainingConfig};
use crate::data::{DataSource, Reduction, Snapshots};
use crate::error::{Error, Result};
use crate::laplacian::Laplacian;
use crate::model::Architecture;
use crate::objective::Objective;
use crate::training::{Bend, Cosine, Estimator, LearningRate, Optimizer};

/// A run: what to learn from, what to learn, how, and where to put it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[data]`
    pub data: DataConfig,
    /// `[model]`
    pub model: ModelConfig,
    /// `[objective]`
    pub objective: ObjectiveConfig,
    /// `[training]`
    pub training: TrainingConfig,
    /// `[output]`
    pub output: OutputConfig,
}

impl Config {
    /// Reads `path`, replaces the values of `overrides` (`key=value` with a dotted key; what is not
    /// TOML is text), and checks everything. Paths of the data become absolute.
    ///
    /// # Errors
    /// [`Error::Input`] names the file, the key and the fix; an unknown key comes with the nearest
    /// known one.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Config> {
        Config::read_noting(path, overrides, |_| ())
    }

    /// Like [`Config::read`]; `notice` receives a line about keys in an old form, with what to
    /// write instead.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn read_noting(path: &Path, overrides: &[String], mut notice: impl FnMut(&str)) -> Result<Config> {
        let (config, line) = Config::parsed(path, &read::text(path)?, overrides)?;
        if let Some(line) = line {
            notice(&line);
        }
        Ok(config)
    }

    /// Like [`Config::read`], of a `text` that no file holds: errors call it `path`, and relative
    /// paths start from the folder of that.
    ///
    /// ```
    /// use action_matching::prelude::*;
    ///
    /// let config = Config::parse("settings".as_ref(), "training.steps = 100\ndata.path = '/cells.npz'", &[])?;
    /// assert_eq!(config.training.steps, 100);
    /// let error = Config::parse("settings".as_ref(), "training.stepz = 100", &[]).unwrap_err();
    /// assert!(error.to_string().starts_with("settings: training.stepz: is not a key"));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(path: &Path, text: &str, overrides: &[String]) -> Result<Config> {
        Ok(Config::parsed(path, text, overrides)?.0)
    }

    /// The configuration of `text`, and a line about keys in an old form.
    fn parsed(path: &Path, text: &str, overrides: &[String]) -> Result<(Config, Option<String>)> {
        let (table, line) = read::table(path, text, overrides)?;
        let mut config: Config = serde_path_to_error::deserialize(table.clone())
            .map_err(|error| keys::unfit_value(path, &error.path().to_string(), &table))?;
        config.validate(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let absolute = |data: &Path| std::path::absolute(folder.join(data)).map_err(Error::io(data, "find"));
        config.data.path = absolute(&config.data.path)?;
        if let Some(times) = &config.data.times_path {
            config.data.times_path = Some(absolute(times)?);
        }
        if config.output.folder.as_os_str().is_empty() {
            config.output.folder = Path::new("runs").join(path.file_stem().unwrap_or("run".as_ref()));
        }
        Ok((config, line))
    }

    /// The keys of files and folders with their values. They affect no result, and may differ from
    /// machine to machine.
    pub(crate) fn paths(&self) -> [(&'static str, Option<&PathBuf>); 3] {
        [
            ("data.path", Some(&self.data.path)),
            ("data.times_path", self.data.times_path.as_ref()),
            ("output.folder", Some(&self.output.folder)),
        ]
    }

    /// This configuration with the [paths](Config::paths) of `other`.
    pub(crate) fn with_paths_of(mut self, other: &Config) -> Config {
        self.data.path.clone_from(&other.data.path);
        self.data.times_path.clone_from(&other.data.times_path);
        self.output.folder.clone_from(&other.output.folder);
        self
    }

    /// The file that reproduces the run: every key with its value.
    ///
    /// # Errors
    /// [`Error::Input`] names the key whose value no text holds: a path that is not UTF-8.
    pub fn to_toml(&self) -> Result<String> {
        for (key, path) in self.paths() {
            if let Some(path) = path.filter(|path| path.to_str().is_none()) {
                let problem = format!("{path:?} is not UTF-8, as the text of a configuration must be");
                return Err(Error::input("configuration", key, problem, "rename the folder or file, or use another"));
            }
        }
        let table = toml::Table::try_from(self).map_err(|error| {
            Error::input("configuration", "values", error.to_string(), "use values that a TOML file can hold")
        })?;
        Ok(keys::text(&table))
    }

    /// The source of the data. Components are to be fitted: a reader for a trained model gets those
    /// of its run ([`Reduction::Given`]) instead.
    #[must_use]
    pub fn source(&self) -> DataSource {
        let DataConfig {
            path,
            times_path,
            samples,
            times,
            only,
            conditions,
            weights,
            growth,
            hold_out,
            standardize,
            components,
        } = self.data.clone();
        let components = components.map(|count| Reduction::of(&path, &samples, count));
        DataSource {
            beside: Vec::new(),
            path,
            times_path,
            samples,
            times,
            only,
            conditions,
            weights,
            growth,
            hold_out,
            standardize,
            components,
        }
    }

    /// The network for data of dimension `dim`, as [`Config::settled`] has it.
    #[must_use]
    pub fn architecture(&self, dim: usize) -> Architecture {
        let ModelConfig { hidden, activation, head, time_embedding } = self.model.clone();
        let hidden = hidden.unwrap_or_else(|| Architecture::HIDDEN.to_vec());
        let time_embedding = time_embedding.unwrap_or_default();
        Architecture { dim, hidden, activation, head, time_embedding, conditions: 0 }
    }

    /// The dynamics and the time weight.
    #[must_use]
    pub fn objective(&self) -> Objective {
        let ObjectiveConfig { sigma: Sigma { value, schedule }, cost_exponent, .. } = self.objective;
        let growth = self.objective.lambda();
        let time_weight = self.objective.time_weight.clone();
        Objective { sigma: value, sigma_schedule: schedule, growth, cost_exponent, time_weight }
    }

    /// The form of the loss.
    #[must_use]
    pub fn estimator(&self) -> Estimator {
        self.objective.estimator.unwrap_or_else(|| Estimator::best_for(self.objective.path.interpolant()))
    }

    /// The network that bends a learned path.
    #[must_use]
    pub fn bend(&self, dim: usize) -> Option<Bend> {
        match &self.objective.path {
            PathConfig::Learned { hidden, rate } => Some(Bend::new(&self.architecture(dim), hidden.clone(), *rate)),
            _ => None,
        }
    }

    /// The same run with everything that is left to the program (`auto`) at the value that needs no
    /// comparison of candidates: no growth, the path linear, pairs by optimal transport if the path
    /// has pairs, a raw time embedding, and hidden layers of [`Architecture::HIDDEN`].
    #[must_use]
    pub fn settled(&self) -> Config {
        let mut config = self.clone();
        let objective = &mut config.objective;
        if objective.growth.is_none() {
            (objective.growth, objective.mass) = (Some(0.0), Mass::Ignored);
        }
        if objective.path == PathConfig::Auto {
            objective.path = PathConfig::Linear;
        }
        if objective.pairing == Pairing::Auto {
            let has_pairs = objective.path.interpolant().has_pairs();
            objective.pairing = if has_pairs { Pairing::ot() } else { Pairing::Independent };
        }
        config.model.hidden.get_or_insert_with(|| Architecture::HIDDEN.to_vec());
        config.model.time_embedding.get_or_insert_default();
        config
    }

    /// How the Laplacian is formed.
    #[must_use]
    pub fn laplacian(&self) -> Laplacian {
        self.objective.laplacian
    }

    /// The optimizer's settings.
    #[must_use]
    pub fn optimizer(&self) -> Optimizer {
        let training = &self.training;
        let cosine = match training.schedule {
            Schedule::Constant => None,
            Schedule::Cosine { final_rate } => Some(Cosine { end: training.steps, floor: final_rate }),
        };
        let warmup_steps = training.warmup_steps.min(training.longest_warmup());
        Optimizer {
            learning_rate: LearningRate { peak: training.learning_rate, warmup_steps, cosine },
            beta1: training.beta1,
            beta2: training.beta2,
            epsilon: training.epsilon,
            weight_decay: training.weight_decay,
            clip_norm: (training.clip_norm > 0.0).then_some(training.clip_norm),
            ema_decay: training.ema_decay,
        }
    }

    /// How a run of so few steps changes settings that are made for a longer one, in words.
    #[must_use]
    pub fn short_run(&self) -> Option<String> {
        let TrainingConfig { steps, warmup_steps, ema_decay, .. } = self.training;
        let mut shortened = Vec::new();
        let warmup = self.training.longest_warmup();
        if warmup_steps > warmup {
            let what = "the learning rate rises over the first";
            shortened.push(format!("{what} {warmup}, not {warmup_steps} (training.warmup_steps)"));
        }
        // 1 / rate is about how many of the newest steps an average is made of.
        let last_rate = self.optimizer().ema_rate(steps.saturating_sub(1));
        if last_rate > 1.0 - ema_decay {
            let [averaged, asked] = [last_rate, 1.0 - ema_decay].map(|rate| (1.0 / rate).round());
            let what = "the model averages about the last";
            shortened.push(format!("{what} {averaged}, not {asked} (training.ema_decay)"));
        }
        let few = if steps == 1 { "1 step is".into() } else { format!("{steps} steps are") };
        (!shortened.is_empty()).then(|| format!("{few} few for these settings: {}", shortened.join("; ")))
    }

    /// SHA-256 of everything that decides the result of a step: settings and the training snapshots
    /// themselves. Where files lie does not count, nor the number of steps, so that a run can be
    /// made longer, nor the precision: checkpoints go from device to device.
    ///
    /// # Errors
    /// As [`Config::to_toml`], but for paths.
    pub fn fingerprint(&self, snapshots: &Snapshots) -> Result<String> {
        Settings::of(self).digest(snapshots)
    }
}
