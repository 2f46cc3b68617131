//! One TOML file describes one run. Every default lives here; every value is checked with its key named.

mod keys;
mod legacy;

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::data::{DataSource, Snapshots, Standardization};
use crate::density_path::{Interpolant, TimeRule};
use crate::engine::{Bend, Cosine, Estimator, LearningRate, Optimizer};
use crate::error::{Error, Result};
use crate::files::open_file;
use crate::laplacian::{Laplacian, LaplacianRule, MAX_PROBES};
use crate::model::{Activation, Architecture, Head, TimeEmbedding};
use crate::objective::{Objective, SigmaSchedule, TimeWeight};
use crate::precision::Precision;
use crate::transport::MAX_POINTS;

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

/// `[data]`: the snapshots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// `.npz`, `.csv`, `.tsv` (either also `.gz`), `.safetensors`, or the `.npy` of the samples;
    /// relative to the configuration file.
    pub path: PathBuf,
    /// The `.npy` of the times, beside a `.npy` of samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times_path: Option<PathBuf>,
    /// Name of the samples `[N, d]` (in a table: columns, separated by commas; `*` and `?` stand
    /// for any characters and any one).
    pub samples: String,
    /// Name of the times `[N]`.
    pub times: String,
    /// Times that are not trained on, for `evaluate` to predict.
    pub hold_out: Vec<f64>,
    /// `isotropic`, `per-dimension`, `robust` or `none`.
    pub standardize: Standardization,
}

/// `[model]`: the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// `silu`, `tanh`, `softplus`, `gelu` or `sin`.
    pub activation: Activation,
    /// `scalar`, `quadratic` or `dot`.
    pub head: Head,
    /// `{ kind = "raw" }` or `{ kind = "fourier", frequencies = [0.5, 1] }`.
    pub time_embedding: TimeEmbedding,
}

/// `[objective]`: the loss, and how its rows are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectiveConfig {
    /// Diffusion σ₀, network units.
    pub sigma: f64,
    /// `constant`, or `one-minus-t`: σ(t) = σ₀ (1 − t).
    pub sigma_schedule: SigmaSchedule,
    /// `rademacher` or `gaussian` probes, or `exact`: how Δs is formed where σ > 0.
    pub laplacian: LaplacianRule,
    /// Probes of a row.
    pub probes: usize,
    /// Growth rate λ.
    pub growth: f64,
    /// Exponent q of the cost.
    pub cost_exponent: f64,
    /// `{ kind = "constant" }`, `{ kind = "one-minus-t" }` or `{ kind = "polynomial", coefficients = […] }`.
    pub time_weight: TimeWeight,
    /// `action`, `weak` or `regression`: the form of the loss; `auto` takes regression where the path has a velocity, else action.
    pub estimator: EstimatorName,
    /// Whether `action` is made exactly invariant to offsets c(t) of s, at the cost of as many rows again.
    pub centering: bool,
    /// Parts of each interval between snapshots for `weak`.
    pub weak_intervals: u32,
    /// What lies between snapshots: `linear` or `spline` curves, `learned` ones, the `nearest` frame of a dense recording, or from noise to one
    /// snapshot
    /// `generative-linear`, `generative-vp`, `generative-sqrt`.
    pub path: Interpolant,
    /// Widths of the hidden layers of the network that bends the path `learned`.
    pub bend_hidden: Vec<usize>,
    /// Learning rate of that network, in units of the action's.
    pub bend_rate: f64,
    /// How `linear`, `spline` and `learned` pair samples of neighboring snapshots: `independent`, `ot` or `unbalanced`.
    pub pairing: Pairing,
    /// Rows that one optimal-transport problem pairs at most; larger snapshots are divided into random blocks.
    pub pairing_rows: usize,
    /// Squared distance, network units, beyond which `unbalanced` pairing lets rows appear and vanish rather than move.
    pub pairing_relaxation: f64,
    /// `ignored`, or `counts`: the mass of a snapshot is its number of rows, for populations that grow.
    pub mass: Mass,
    /// `low-discrepancy`, `uniform`, `stratified`, `importance`, or the fixed nodes of `trapezoid`, `simpson`, `gauss-legendre`.
    pub time_rule: TimeRule,
}

/// Which form of the loss is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EstimatorName {
    /// The one of least variance that the path allows.
    Auto,
    /// [`Estimator::Action`].
    Action,
    /// [`Estimator::Weak`].
    Weak,
    /// [`Estimator::Regression`].
    Regression,
}

/// How samples of neighboring snapshots are paired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pairing {
    /// Independently.
    Independent,
    /// By exact optimal transport of squared distances in network coordinates, solved once before training.
    Ot,
    /// Likewise by partial optimal transport: pairs may gain and lose mass, for populations that grow.
    Unbalanced,
}

/// What the numbers of rows of snapshots mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mass {
    /// Nothing: all snapshots have the same mass.
    Ignored,
    /// The mass of the population.
    Counts,
}

/// How the learning rate goes on after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Stays.
    Constant,
    /// Falls along a cosine to `final_rate` times itself at the last step.
    Cosine,
}

/// `[training]`: steps and optimizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainingConfig {
    /// Optimizer steps.
    pub steps: u64,
    /// Interior rows of a step.
    pub interior_rows: usize,
    /// Boundary rows of a step, at each of the two end times.
    pub boundary_rows: usize,
    /// Learning rate after warm-up.
    pub learning_rate: f64,
    /// Steps of linear warm-up. A run of fewer than ten times as many steps warms up over a tenth of its steps: it would spend much
    /// of them below its rate, or never reach it.
    pub warmup_steps: u64,
    /// `constant` or `cosine`.
    pub schedule: Schedule,
    /// Share of the learning rate that a cosine ends with.
    pub final_rate: f64,
    /// β₁ of AdamW.
    pub beta1: f64,
    /// β₂ of AdamW.
    pub beta2: f64,
    /// ε of AdamW.
    pub epsilon: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest global gradient norm; 0 does not clip.
    pub clip_norm: f64,
    /// β of the moving average that becomes the model; early on it averages over fewer steps: see [`Optimizer::ema_rate`].
    pub ema_decay: f64,
    /// Seed of initial parameters and batches.
    pub seed: u64,
    /// Operands of matrix products on a GPU: `f32`, `tf32`, `bf16` or `f16`; `auto` is bf16. A CPU computes in f32 whatever this says.
    pub precision: PrecisionName,
}

impl TrainingConfig {
    /// Steps of warm-up that a run is given at most.
    fn longest_warmup(&self) -> u64 {
        self.steps / 10
    }
}

/// Operands of matrix products on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionName {
    /// The default of the device.
    Auto,
    /// [`Precision::F32`].
    F32,
    /// [`Precision::Tf32`].
    Tf32,
    /// [`Precision::Bf16`].
    Bf16,
    /// [`Precision::F16`].
    F16,
}

impl PrecisionName {
    /// The precision that is named, if one is.
    pub fn named(self) -> Option<Precision> {
        match self {
            PrecisionName::Auto => None,
            PrecisionName::F32 => Some(Precision::F32),
            PrecisionName::Tf32 => Some(Precision::Tf32),
            PrecisionName::Bf16 => Some(Precision::Bf16),
            PrecisionName::F16 => Some(Precision::F16),
        }
    }
}

impl From<Precision> for PrecisionName {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => PrecisionName::F32,
            Precision::Tf32 => PrecisionName::Tf32,
            Precision::Bf16 => PrecisionName::Bf16,
            Precision::F16 => PrecisionName::F16,
        }
    }
}

/// `[output]`: where results go. Nothing here changes them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputConfig {
    /// Run folder, relative to where the program is started; empty: `runs/` and the configuration's name.
    pub folder: PathBuf,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Steps between lines of `metrics.jsonl`.
    pub metrics_every: u64,
}

impl Default for DataConfig {
    fn default() -> Self {
        let DataSource { path, times_path, samples, times, hold_out, standardize } = DataSource::new("");
        DataConfig { path, times_path, samples, times, hold_out, standardize }
    }
}

impl Default for ModelConfig {
    fn default() -> Self {
        ModelConfig {
            hidden: vec![128; 3],
            activation: Activation::Silu,
            head: Head::Scalar,
            time_embedding: TimeEmbedding::Raw,
        }
    }
}

impl Default for ObjectiveConfig {
    fn default() -> Self {
        let Objective { sigma, sigma_schedule, growth, cost_exponent, time_weight } = Objective::default();
        let Laplacian { rule, n_probes } = Laplacian::default();
        ObjectiveConfig {
            sigma,
            sigma_schedule,
            laplacian: rule,
            probes: n_probes,
            growth,
            cost_exponent,
            time_weight,
            estimator: EstimatorName::Auto,
            centering: false,
            weak_intervals: 16,
            path: Interpolant::Linear,
            bend_hidden: vec![64; 2],
            bend_rate: 0.3,
            pairing: Pairing::Independent,
            pairing_rows: 2048,
            pairing_relaxation: 1.0,
            mass: Mass::Ignored,
            time_rule: TimeRule::LowDiscrepancy,
        }
    }
}

impl Default for TrainingConfig {
    fn default() -> Self {
        TrainingConfig {
            steps: 10_000,
            interior_rows: 1024,
            boundary_rows: 1024,
            learning_rate: 1e-3,
            warmup_steps: 500,
            schedule: Schedule::Cosine,
            final_rate: 0.01,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            clip_norm: 1.0,
            ema_decay: 0.999,
            seed: 0,
            precision: PrecisionName::Auto,
        }
    }
}

impl Default for OutputConfig {
    fn default() -> Self {
        OutputConfig { folder: PathBuf::new(), checkpoint_every: 1000, metrics_every: 10 }
    }
}

impl Config {
    /// Reads `path`, replaces the values of `overrides` (`key=value`, as `--set` takes them), and checks everything.
    /// Paths of the data become absolute.
    ///
    /// # Errors
    /// [`Error::Input`] names the file, the key and the fix; an unknown key comes with the nearest known one.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Config> {
        Config::read_noting(path, overrides, |_| ())
    }

    /// Like [`Config::read`]; `notice` receives a line about keys in an old form, with what to write instead.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn read_noting(path: &Path, overrides: &[String], mut notice: impl FnMut(&str)) -> Result<Config> {
        let text = read_text(path)?;
        let mut table: toml::Table = text.parse().map_err(|error| syntax_error(path, &text, &error))?;
        if let Some(line) = legacy::renew(path, &mut table)? {
            notice(&line);
        }
        for assignment in overrides {
            let renewed = legacy::renew_assignment(assignment);
            if let Some((_, line)) = &renewed {
                notice(line);
            }
            set(&mut table, renewed.as_ref().map_or(assignment, |(renewed, _)| renewed))?;
        }
        check_keys(path, &table)?;
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
        Ok(config)
    }

    /// The file that reproduces the run: every key with its value.
    ///
    /// # Errors
    /// [`Error::Input`] names the key whose value no text holds: a path that is not UTF-8.
    pub fn to_toml(&self) -> Result<String> {
        let paths = [
            ("data.path", Some(&self.data.path)),
            ("data.times_path", self.data.times_path.as_ref()),
            ("output.folder", Some(&self.output.folder)),
        ];
        for (key, path) in paths {
            if let Some(path) = path.filter(|path| path.to_str().is_none()) {
                let problem = format!("{path:?} is not UTF-8, as the text of a configuration must be");
                return Err(Error::input("configuration", key, problem, "rename the folder or file, or use another"));
            }
        }
        toml::to_string(self).map_err(|error| {
            Error::input("configuration", "values", error.to_string(), "use values that a TOML file can hold")
        })
    }

    /// Where the data lies.
    pub fn source(&self) -> DataSource {
        let DataConfig { path, times_path, samples, times, hold_out, standardize } = self.data.clone();
        DataSource { path, times_path, samples, times, hold_out, standardize }
    }

    /// The network for data of dimension `dim`.
    pub fn architecture(&self, dim: usize) -> Architecture {
        let ModelConfig { hidden, activation, head, time_embedding } = self.model.clone();
        Architecture { dim, hidden, activation, head, time_embedding }
    }

    /// The dynamics and the time weight.
    pub fn objective(&self) -> Objective {
        let ObjectiveConfig { sigma, sigma_schedule, growth, cost_exponent, ref time_weight, .. } = self.objective;
        Objective { sigma, sigma_schedule, growth, cost_exponent, time_weight: time_weight.clone() }
    }

    /// The form of the loss.
    pub fn estimator(&self) -> Estimator {
        let ObjectiveConfig { estimator, centering, weak_intervals, path, .. } = self.objective;
        match estimator {
            EstimatorName::Auto if path.has_velocity() => Estimator::Regression,
            EstimatorName::Auto | EstimatorName::Action => Estimator::Action { centering },
            EstimatorName::Weak => Estimator::Weak { intervals: weak_intervals },
            EstimatorName::Regression => Estimator::Regression,
        }
    }

    /// The network that bends a learned path.
    pub fn bend(&self, dim: usize) -> Option<Bend> {
        let ObjectiveConfig { path, bend_hidden, bend_rate, .. } = &self.objective;
        (*path == Interpolant::Learned).then(|| Bend::new(&self.architecture(dim), bend_hidden.clone(), *bend_rate))
    }

    /// How the Laplacian is formed.
    pub fn laplacian(&self) -> Laplacian {
        Laplacian { rule: self.objective.laplacian, n_probes: self.objective.probes }
    }

    /// The optimizer's settings.
    pub fn optimizer(&self) -> Optimizer {
        let training = &self.training;
        let cosine = match training.schedule {
            Schedule::Constant => None,
            Schedule::Cosine => Some(Cosine { end: training.steps, floor: training.final_rate }),
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

    /// What a run of so few steps does with settings that are made for a longer one, in words.
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

    /// SHA-256 of everything that decides the result of a step: settings and the training snapshots themselves. Where files
    /// lie does not count, nor the number of steps, so that a run can be made longer, nor the precision: checkpoints go from
    /// device to device.
    ///
    /// # Errors
    /// As [`Config::to_toml`], but for paths.
    pub fn fingerprint(&self, snapshots: &Snapshots) -> Result<String> {
        let mut settings = self.clone();
        settings.output = OutputConfig::default();
        settings.data = DataConfig::default();
        settings.training.steps = 0;
        // Neither the precision nor that there is such a key.
        settings.training.precision = PrecisionName::Auto;
        let mut hash = Sha256::new();
        let text = settings.to_toml()?.replace("precision = \"auto\"\n", "");
        hash.update(legacy::old_names(&text));
        hash.update((snapshots.dim as u64).to_le_bytes());
        for (time, offset) in snapshots.times.iter().zip(&snapshots.offsets[1..]) {
            hash.update(time.to_le_bytes());
            hash.update((*offset as u64).to_le_bytes());
        }
        hash.update(bytemuck::cast_slice::<f32, u8>(&snapshots.samples));
        Ok(hexadecimal(&hash.finalize()))
    }

    fn validate(&self, path: &Path) -> Result<()> {
        let fail = |key: &str, value: String, fix: &str| Err(Error::input(path, key, format!("is {value}"), fix));
        if self.data.path.as_os_str().is_empty() {
            return Err(Error::input(path, "data.path", "is missing", "name the file of the snapshots"));
        }
        if let Some(time) = self.data.hold_out.iter().find(|time| !time.is_finite()) {
            return fail("data.hold_out", time.to_string(), "use finite times");
        }
        let training = &self.training;
        for (key, rows) in
            [("training.interior_rows", training.interior_rows), ("training.boundary_rows", training.boundary_rows)]
        {
            if rows == 0 || u32::try_from(rows).is_err() {
                return fail(key, rows.to_string(), "use 1 to 2³² − 1 rows");
            }
        }
        for (key, count) in [
            ("training.steps", training.steps),
            ("output.checkpoint_every", self.output.checkpoint_every),
            ("output.metrics_every", self.output.metrics_every),
        ] {
            if count == 0 {
                return fail(key, "0".into(), "use at least 1");
            }
        }
        for (key, value) in [("training.learning_rate", training.learning_rate), ("training.epsilon", training.epsilon)]
        {
            if !(value.is_finite() && value > 0.0) {
                return fail(key, value.to_string(), "use a number > 0");
            }
        }
        for (key, value) in
            [("training.weight_decay", training.weight_decay), ("training.clip_norm", training.clip_norm)]
        {
            if !(value.is_finite() && value >= 0.0) {
                return fail(key, value.to_string(), "use a number ≥ 0");
            }
        }
        for (key, value) in [
            ("training.beta1", training.beta1),
            ("training.beta2", training.beta2),
            ("training.ema_decay", training.ema_decay),
        ] {
            if !(0.0..1.0).contains(&value) {
                return fail(key, value.to_string(), "use a number from 0 up to, not including, 1");
            }
        }
        if !(0.0..=1.0).contains(&training.final_rate) {
            return fail("training.final_rate", training.final_rate.to_string(), "use a share from 0 to 1");
        }
        if !(1..=MAX_POINTS).contains(&self.objective.pairing_rows) {
            return fail("objective.pairing_rows", self.objective.pairing_rows.to_string(), "use 1 to 5000 rows");
        }
        let objective = &self.objective;
        let conflicts = [
            (
                objective.mass == Mass::Counts && objective.growth == 0.0,
                ("objective.mass", "is counts without growth", "set objective.growth > 0"),
            ),
            (
                objective.pairing == Pairing::Unbalanced && objective.growth == 0.0,
                ("objective.pairing", "is unbalanced without growth", "set objective.growth > 0, or pair by ot"),
            ),
            (
                objective.pairing == Pairing::Independent && objective.path == Interpolant::Spline,
                ("objective.pairing", "is independent on a spline", "pair by ot: a spline follows chains of pairs"),
            ),
            (
                objective.estimator == EstimatorName::Regression && !objective.path.has_velocity(),
                ("objective.estimator", "is regression, but frames have no velocity", "use action or weak"),
            ),
            (
                objective.path == Interpolant::Learned && !matches!(self.estimator(), Estimator::Action { .. }),
                ("objective.estimator", "does not suit a learned path", "use action"),
            ),
            (
                objective.centering && !matches!(self.estimator(), Estimator::Action { .. }),
                ("objective.centering", "is set, but only action has need of it", "set objective.estimator = action"),
            ),
            (
                objective.path.is_generative() && (objective.mass == Mass::Counts || !self.data.hold_out.is_empty()),
                ("objective.path", "is generative: it knows one time, of mass 1", "remove mass and hold_out"),
            ),
        ];
        if let Some((_, (key, problem, fix))) = conflicts.into_iter().find(|(conflict, _)| *conflict) {
            return Err(Error::input(path, key, problem, fix));
        }
        if let Some(bend) = self.bend(1) {
            bend.architecture.validate(&format!("{} (objective.bend_hidden)", path.display()))?;
        }
        if !(objective.bend_rate.is_finite() && objective.bend_rate > 0.0) {
            return fail("objective.bend_rate", objective.bend_rate.to_string(), "use a number > 0");
        }
        if objective.weak_intervals == 0 {
            return fail("objective.weak_intervals", "0".into(), "use at least 1");
        }
        if !(objective.pairing_relaxation.is_finite() && objective.pairing_relaxation > 0.0) {
            return fail("objective.pairing_relaxation", objective.pairing_relaxation.to_string(), "use a number > 0");
        }
        if self.objective.probes == 0 || self.objective.probes > MAX_PROBES {
            return fail("objective.probes", self.objective.probes.to_string(), "use 1 to 1024 probes");
        }
        self.architecture(1).validate(&path.display().to_string())?;
        self.objective().validate(path)
    }
}

/// The text of the configuration `path`.
fn read_text(path: &Path) -> Result<String> {
    let (file, size) = open_file(path)?;
    let too_large = |size: u64| {
        let problem = format!("has {size} bytes, more than the {MAX_BYTES} of any configuration");
        Err(Error::input(path, "path", problem, "name a configuration: a text file of a few lines"))
    };
    if size > MAX_BYTES {
        return too_large(size);
    }
    let mut bytes = Vec::with_capacity(size as usize);
    // It may have grown since, and files of some systems have no size.
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(Error::io(path, "read"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return too_large(bytes.len() as u64);
    }
    String::from_utf8(bytes).map_err(|error| {
        let is_utf16 = matches!(error.as_bytes(), [0xff, 0xfe, ..] | [0xfe, 0xff, ..]);
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        let problem = if is_utf16 { "is UTF-16 text" } else { "is not UTF-8 text" };
        Error::input(path, format!("line {line}"), problem, "save the file as UTF-8")
    })
}

/// What is wrong with text that is no TOML, in the line where it is.
fn syntax_error(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let number = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
    let line = text.lines().nth(number - 1).unwrap_or_default().trim();
    let message = error.message();
    // What the parser would have liked next helps where it is a character.
    let (what, wanted) = message.split_once(", expected ").unwrap_or((message, ""));
    let (problem, fix) = match what {
        _ if line.contains('"') && line.contains('\\') && what.contains("unicode") || what.contains("escape") => {
            ("has a backslash in double quotes".into(), "write paths with /, or in single quotes: 'C:\\cells.npz'")
        }
        "string values must be quoted" => ("has no value in quotes".into(), "write text in quotes: key = \"text\""),
        "invalid basic string" | "invalid literal string" => {
            ("has no closing quote".into(), "write text in quotes: key = \"text\"")
        }
        "key with no value" => ("has no = after the key".into(), "write key = value"),
        "duplicate key" => ("is there twice".into(), "keep one of the two"),
        _ if what.starts_with("invalid type: integer") => {
            ("holds too large an integer".into(), "use integers up to 18446744073709551615")
        }
        _ if what.contains("recurs") => ("is nested too deeply".into(), "write key = value under [section]"),
        _ if wanted.contains('`') => (format!("{what}, expected {wanted}"), "write key = value under [section]"),
        _ => (what.to_string(), "write key = value under [section]"),
    };
    let problem = if line.is_empty() { problem } else { format!("`{}`: {problem}", keys::shortened(line)) };
    Error::input(path, format!("line {number}"), problem, fix)
}

/// Largest configuration file.
const MAX_BYTES: u64 = 16 << 20;

/// Parts of the longest key there is: section, key, and the parts of an inline table.
const MAX_KEY_PARTS: usize = 4;

/// Replaces one value: `key=value` with a dotted key. What is not TOML is taken as a string.
fn set(table: &mut toml::Table, assignment: &str) -> Result<()> {
    let fail = |problem: &str| {
        Err(Error::input(
            "--set",
            keys::shortened(assignment),
            problem,
            "write --set section.key=value, as in training.steps=2000",
        ))
    };
    let Some((key, value)) = assignment.split_once('=') else { return fail("has no =") };
    let value = format!("value = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| toml::Value::String(value.trim().to_string()));
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    if parts.len() > MAX_KEY_PARTS {
        return fail("has a key of too many parts");
    }
    let Some(last) = parts.pop().filter(|key| !key.is_empty()) else { return fail("has no key") };
    let mut section = table;
    for key in parts {
        let next = section.entry(key).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let Some(next) = next.as_table_mut() else { return fail("goes through a value that is no section") };
        section = next;
    }
    section.insert(last.to_string(), value);
    Ok(())
}

/// Every key must be known; the nearest known one is suggested.
fn check_keys(path: &Path, table: &toml::Table) -> Result<()> {
    let mut known = toml::Table::try_from(Config::default()).unwrap_or_default();
    if let Some(data) = known.get_mut("data").and_then(toml::Value::as_table_mut) {
        data.insert("times_path".to_string(), toml::Value::String(String::new()));
    }
    let unknown = |key: String, candidates: Vec<String>| {
        // Compared by their last parts, so that a key in the wrong section finds the right one.
        let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_string();
        let nearest = candidates.iter().max_by(|a, b| {
            let likeness = |candidate: &str| strsim::jaro_winkler(&last(&key), &last(candidate));
            likeness(a).total_cmp(&likeness(b))
        });
        let nearest = nearest.map(String::as_str).unwrap_or_default();
        Err(Error::input(
            path,
            keys::shortened(&key),
            "is not a key of the configuration",
            format!("did you mean {nearest}?"),
        ))
    };
    let all_keys = || -> Vec<String> {
        let keys = |(section, values): (&String, &toml::Value)| -> Vec<String> {
            let table = values.as_table();
            table.map_or_else(Vec::new, |table| table.keys().map(|key| format!("{section}.{key}")).collect())
        };
        known.iter().flat_map(keys).collect()
    };
    for (section, values) in table {
        let Some(known_values) = known.get(section).and_then(toml::Value::as_table) else {
            let sections = known.keys().cloned();
            return unknown(section.clone(), if values.is_table() { sections.collect() } else { all_keys() });
        };
        let Some(values) = values.as_table() else {
            return Err(Error::input(path, section, "is a value", format!("write [{section}] and its keys below")));
        };
        if let Some(key) = values.keys().find(|key| !known_values.contains_key(*key)) {
            return unknown(format!("{section}.{key}"), all_keys());
        }
    }
    Ok(())
}

/// Bytes as hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
                time_embedding: TimeEmbedding::Fourier { frequencies: vec![0.5, 2.0] },
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

    #[test]
    fn old_names_of_keys_are_read_with_a_line_that_names_the_new_ones() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run.toml");
        let text =
            "[data]\npath = \"a.npz\"\nstandardise = \"robust\"\n[objective]\ncentring = true\npath = \"nearest\"\n";
        std::fs::write(&path, text).expect("written");
        let read = |overrides: &[&str]| {
            let mut lines = Vec::new();
            let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
            let config = Config::read_noting(&path, &overrides, |line| lines.push(line.to_string())).expect("reads");
            (config, lines)
        };
        let (config, lines) = read(&[]);
        assert_eq!(config.data.standardize, Standardization::Robust);
        assert_eq!(config.estimator(), Estimator::Action { centering: true });
        assert_eq!(lines.len(), 1);
        for name in ["run.toml", "data.standardise", "data.standardize", "objective.centring", "objective.centering"] {
            assert!(lines[0].contains(name), "{name}: {lines:?}");
        }
        // Values of the command line replace those of the file under either name.
        for key in ["data.standardise", "data.standardize"] {
            let (config, lines) = read(&[&format!("{key}=none")]);
            assert_eq!(config.data.standardize, Standardization::None);
            assert_eq!(lines.len(), if key.contains("ise") { 2 } else { 1 }, "{lines:?}");
        }
        let written = config.to_toml().expect("UTF-8");
        assert!(written.contains("\nstandardize = ") && written.contains("\ncentering = "), "{written}");
        assert!(!written.contains("standardise") && !written.contains("centring"), "{written}");
        std::fs::write(&path, format!("{text}centering = true\n")).expect("written");
        let error = Config::read(&path, &[]).expect_err("both").to_string();
        assert!(error.contains("objective.centring") && error.contains("objective.centering"), "{error}");
    }

    /// The fingerprint that an earlier version of the program gave to these settings and data.
    #[test]
    fn fingerprints_of_earlier_versions_stay() {
        let text = "[data]\npath = \"a.npz\"\n[model]\nhidden = [8]\n[objective]\npath = \"nearest\"\ncentering = true\n\
                    [training]\ninterior_rows = 8\nboundary_rows = 8\n";
        let config = read(text, &[]).expect("reads");
        let samples = vec![-1.0, 0.0, 0.0, 1.0];
        let snapshots = Snapshots { dim: 1, times: vec![0.0, 1.0], offsets: vec![0, 2, 4], samples };
        let fingerprint = config.fingerprint(&snapshots).expect("a fingerprint");
        assert_eq!(fingerprint, "6ee94b11d99142d4406ddf8a23fdad9b0f9d9b166849bbe6cb1a873bdfaf0061");
    }

    #[test]
    fn overrides_replace_values_of_every_kind() {
        let overrides = ["training.steps=7", "model.hidden=[3, 4]", "model.head=dot", "data.hold_out=[1.5]"];
        let config = read("[data]\npath = \"a.npz\"\n[training]\nsteps = 5", &overrides).expect("reads");
        assert_eq!((config.training.steps, config.model.hidden, config.model.head), (7, vec![3, 4], Head::Dot));
        assert_eq!(config.data.hold_out, [1.5]);
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
                vec!["objective.path=nearest", "objective.estimator=regression"],
                vec!["objective.estimator", "no velocity", "weak"],
            ),
            ("[data]\npath = \"a\"", vec!["objective.path=spline"], vec!["objective.pairing", "spline", "pair by ot"]),
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
            ("[data]\npath = \"a\"", vec!["objective.centering=true"], vec!["objective.centering", "action"]),
            (
                "[data]\npath = \"a\"\nhold_out = [1]",
                vec!["objective.path=generative-vp"],
                vec!["objective.path", "generative", "hold_out"],
            ),
            ("[data]\npath = \"a\"", vec!["objective.weak_intervals=0"], vec!["objective.weak_intervals: is 0"]),
            ("[data]\npath = \"a\"", vec!["objective.pairing_relaxation=0"], vec!["pairing_relaxation: is 0"]),
            ("[data]\npath = \"a\"", vec!["objective.bend_rate=-1"], vec!["objective.bend_rate: is -1"]),
            (
                "[data]\npath = \"a\"",
                vec!["objective.path=learned", "objective.bend_hidden=[0]"],
                vec!["bend_hidden", "hidden[0]: is 0"],
            ),
            ("[data]\npath = \"a\"", vec!["objective.time_rule=monthly"], vec!["objective.time_rule", "simpson"]),
            ("[data]\npath = \"a\"", vec!["training"], vec!["--set", "has no ="]),
            ("[data]\npath = \"a\"", vec!["data.path.x=3"], vec!["--set", "no section"]),
            ("[data]\npath = \"a\"", vec!["=3"], vec!["--set", "no key"]),
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
        let snapshots = Snapshots { dim: 1, times: vec![0.0, 1.0], offsets: vec![0, 1, 2], samples: vec![0.5, 1.5] };
        let fingerprint = config.fingerprint(&snapshots).expect("a fingerprint");
        let changed = |change: &dyn Fn(&mut Config)| {
            let mut config = config.clone();
            change(&mut config);
            config.fingerprint(&snapshots).expect("a fingerprint")
        };
        assert_eq!(changed(&|config| config.output.checkpoint_every = 7), fingerprint);
        assert_eq!(changed(&|config| config.data.path = "moved.npz".into()), fingerprint);
        assert_eq!(changed(&|config| config.training.precision = PrecisionName::F16), fingerprint);
        assert_eq!(changed(&|config| config.training.steps += 1), fingerprint);
        assert_ne!(changed(&|config| config.training.seed += 1), fingerprint);
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
}
