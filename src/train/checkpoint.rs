//! Checkpoints: everything that a run needs to continue, verified by digest; the last three are
//! kept.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::stopping::Best;
use crate::config::hexadecimal;
use crate::density_path::TIME_KNOTS;
use crate::error::{Error, InputKind, Result};
use crate::tensor_writer::{NewTensor, write_tensors};
use crate::tensors::{CHECKPOINT_KEY, TensorFile, parsed};
use crate::training::{LossScale, NetworkState, TrainState};

/// Number of checkpoints that are kept.
const KEPT: usize = 3;
/// The version of checkpoints with the best weights of a run that may stop early.
const VERSION: u32 = 5;
/// The version of those without.
const PLAIN_VERSION: u32 = 4;
/// The version before the arithmetic of the engine was recorded.
const NO_ARITHMETIC_VERSION: u32 = 3;
/// The version before there was a loss scale.
const UNSCALED_VERSION: u32 = 2;
/// Names of the tensors of a network, after the prefix of the network.
const NETWORK_PARTS: [&str; 4] = ["parameters", "ema", "moment1", "moment2"];
const TIME_MOMENTS: &str = "time_moments";
const BEST: &str = "best";
const ACTION: &str = "";
const BEND: &str = "bend.";
const GROWTH: &str = "growth.";

/// The metadata of a checkpoint file.
#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    step: u64,
    fingerprint: String,
    #[serde(default)]
    loss_scale: LossScale,
    #[serde(default)]
    arithmetic: String,
    /// Of early stopping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    best: Option<BestHeader>,
    /// Digest of the other fields and the tensors.
    sha256: String,
}

/// [`Best`] without its weights.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct BestHeader {
    step: u64,
    distance: f64,
    in_vain: u64,
}

/// The state of a run after some step.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Parameters, moving average, moments, step.
    pub state: TrainState,
    /// [`Config::fingerprint`](crate::config::Config::fingerprint) of the run.
    pub fingerprint: String,
    /// [`Engine::arithmetic`](crate::engine::Engine::arithmetic) of the engine that took the last
    /// step; empty in old files.
    pub arithmetic: String,
    /// The best weights so far, with early stopping.
    pub best: Option<Best>,
}

impl Checkpoint {
    /// Writes the checkpoint into `folder` and removes those beyond the last three.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if the state is not finite, before anything is written or removed;
    /// [`Error::Io`] names the file. Earlier checkpoints stay.
    pub fn save(&self, folder: &Path) -> Result<PathBuf> {
        self.check_finite()?;
        let Checkpoint { state, fingerprint, arithmetic, best } = self;
        let path = folder.join(format!("step-{:010}.safetensors", state.step));
        let tensors = self.tensors().into_iter().map(|(name, values)| (name, NewTensor::f32(&[values.len()], values)));
        let version = if best.is_some() { VERSION } else { PLAIN_VERSION };
        let header = Header {
            version,
            step: state.step,
            fingerprint: fingerprint.clone(),
            loss_scale: state.loss_scale,
            arithmetic: arithmetic.clone(),
            best: best.as_ref().map(|&Best { step, distance, in_vain, .. }| BestHeader { step, distance, in_vain }),
            sha256: self.digest(version),
        };
        let json = serde_json::to_string(&header).map_err(|error| Error::io(&path, "write")(error.into()))?;
        let metadata = HashMap::from([(CHECKPOINT_KEY.to_string(), json)]);
        write_tensors(&(&path).into(), tensors.collect(), metadata)?;
        for old in list(folder)?.into_iter().rev().skip(KEPT) {
            std::fs::remove_file(&old).map_err(Error::io(old, "remove"))?;
        }
        Ok(path)
    }

    /// Reads a checkpoint and verifies its digest.
    ///
    /// # Errors
    /// [`Error::Input`] describing what is missing, misshapen or altered.
    pub fn load(path: &Path) -> Result<Checkpoint> {
        let mut file = TensorFile::open(path)?;
        let fail = |field: &str, problem: String| {
            Err(Error::input(path, field, problem, "use an earlier checkpoint, or start the run again")
                .of_kind(InputKind::Malformed))
        };
        let Some(json) = file.metadata(CHECKPOINT_KEY) else {
            return fail(CHECKPOINT_KEY, "is missing from the metadata: this is no checkpoint".into());
        };
        let Header { version, step, fingerprint, loss_scale, arithmetic, best, sha256 } = match parsed(json) {
            Ok(header) => header,
            Err((field, problem)) if field.is_empty() => return fail(CHECKPOINT_KEY, problem),
            Err((field, problem)) => return fail(&format!("{CHECKPOINT_KEY}: {field}"), problem),
        };
        if !(UNSCALED_VERSION..=VERSION).contains(&version) {
            return fail(CHECKPOINT_KEY, format!("has version {version}, not {VERSION}"));
        }
        let has = |file: &TensorFile, prefix: &str| file.names().iter().any(|name| name.starts_with(prefix));
        let [has_bend, has_growth] = [BEND, GROWTH].map(|prefix| has(&file, prefix));
        let mut network = |prefix: &str| -> Result<NetworkState> {
            let shape = file.shape(&format!("{prefix}{}", NETWORK_PARTS[0]))?;
            let mut read = |name: &str| file.f32s(&format!("{prefix}{name}"), &shape);
            let [parameters, ema, moment1, moment2] = NETWORK_PARTS;
            Ok(NetworkState {
                parameters: read(parameters)?,
                ema: read(ema)?,
                moment1: read(moment1)?,
                moment2: read(moment2)?,
            })
        };
        let action = network(ACTION)?;
        let bend = if has_bend { Some(network(BEND)?) } else { None };
        let growth = if has_growth { Some(network(GROWTH)?) } else { None };
        let time_moments = file.f32s(TIME_MOMENTS, &[2 * TIME_KNOTS])?;
        let weights = |BestHeader { step, distance, in_vain }| -> Result<Best> {
            let weights = file.f32s(BEST, &[action.parameters.len()])?;
            Ok(Best { step, distance, in_vain, weights })
        };
        let best = best.map(weights).transpose()?;
        let state = TrainState { step, action, bend, growth, time_moments, loss_scale };
        let checkpoint = Checkpoint { state, fingerprint, arithmetic, best };
        if checkpoint.digest(version) != sha256 {
            return fail("sha256", "does not match the content: the file was altered".into());
        }
        Ok(checkpoint)
    }

    /// The newest whole checkpoint of `folder`; `warn` is called for each newer one that is
    /// damaged. `None` if there are no files.
    ///
    /// # Errors
    /// The newest file's error if none is whole.
    pub fn load_newest(folder: &Path, mut warn: impl FnMut(&str)) -> Result<Option<Checkpoint>> {
        let mut newest_error = None;
        for path in list(folder)?.iter().rev() {
            match Checkpoint::load(path) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(error) => {
                    warn(&format!("{error}; trying the checkpoint before it"));
                    newest_error.get_or_insert(error);
                }
            }
        }
        newest_error.map_or(Ok(None), Err)
    }

    /// Fails for a state that is not finite: no run can continue from it.
    fn check_finite(&self) -> Result<()> {
        let lost = self.tensors().into_iter().find(|(_, values)| values.iter().any(|value| !value.is_finite()));
        lost.map_or(Ok(()), |(name, _)| {
            Err(Error::NotFinite {
                what: if name == TIME_MOMENTS { "the loss over time" } else { "the state of the optimizer" },
                step: self.state.step,
                fix: "lower training.learning_rate, raise training.warmup_steps, or rescale the data: the network works best \
                      with data.standardize at its default",
            })
        })
    }

    /// SHA-256 over step, fingerprint, loss scale, arithmetic and tensors, as defined by `version`.
    fn digest(&self, version: u32) -> String {
        let mut hash = Sha256::new();
        hash.update(self.state.step.to_le_bytes());
        hash.update(&self.fingerprint);
        if version > UNSCALED_VERSION {
            hash.update(self.state.loss_scale.scale.to_le_bytes());
            hash.update(self.state.loss_scale.good_steps.to_le_bytes());
        }
        if version > NO_ARITHMETIC_VERSION {
            hash.update((self.arithmetic.len() as u64).to_le_bytes());
            hash.update(&self.arithmetic);
        }
        if let Some(Best { step, distance, in_vain, .. }) = &self.best {
            [step.to_le_bytes(), distance.to_le_bytes(), in_vain.to_le_bytes()]
                .iter()
                .for_each(|bytes| hash.update(bytes));
        }
        for (name, values) in self.tensors() {
            hash.update(name);
            for value in values {
                hash.update(value.to_le_bytes());
            }
        }
        hexadecimal(&hash.finalize())
    }

    /// Every tensor with its name.
    fn tensors(&self) -> Vec<(String, &[f32])> {
        let best = self.best.iter().map(|best| (BEST.to_string(), &best.weights[..]));
        tensors_of(&self.state).into_iter().chain(best).collect()
    }

    /// The description of a checkpoint by `amatch inspect`.
    #[must_use]
    pub fn describe(&self) -> String {
        let rms = |values: &[f32]| {
            (values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / values.len().max(1) as f64).sqrt()
        };
        let mut text = format!("step             {}\nfingerprint      {}\n", self.state.step, self.fingerprint);
        if !self.arithmetic.is_empty() {
            text += &format!("arithmetic       {}\n", self.arithmetic);
        }
        if let Some(Best { step, distance, in_vain, .. }) = &self.best {
            text += &format!(
                "best             step {step}, energy distance {distance:.4e} on rows kept apart, {in_vain} measurements since\n"
            );
        }
        for (name, values) in self.tensors() {
            text += &format!("{name:<16} [{}], root mean square {:.3e}\n", values.len(), rms(values));
        }
        text
    }
}

/// Every tensor of `state` with its name.
fn tensors_of(state: &TrainState) -> Vec<(String, &[f32])> {
    let TrainState { step: _, action, bend, growth, time_moments, loss_scale: _ } = state;
    let mut tensors = vec![(TIME_MOMENTS.to_string(), &time_moments[..])];
    for (prefix, network) in [(ACTION, Some(action)), (BEND, bend.as_ref()), (GROWTH, growth.as_ref())] {
        let Some(NetworkState { parameters, ema, moment1, moment2 }) = network else { continue };
        for (name, values) in NETWORK_PARTS.into_iter().zip([parameters, ema, moment1, moment2]) {
            tensors.push((format!("{prefix}{name}"), &values[..]));
        }
    }
    tensors
}

/// The checkpoint files of `folder`, oldest first. Copies under other names (step-best.safetensors)
/// are not among them.
///
/// # Errors
/// [`Error::Io`] if an entry cannot be read: an unreadable checkpoint must not count as missing.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let step_of = |path: &Path| -> Option<u64> {
        let name = path.file_name()?.to_str()?.strip_prefix("step-")?.strip_suffix(".safetensors")?;
        (name.len() >= 10 && name.bytes().all(|digit| digit.is_ascii_digit())).then(|| name.parse().ok())?
    };
    let list = || -> std::io::Result<Vec<(u64, PathBuf)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            found.extend(step_of(&path).map(|step| (step, path)));
        }
        Ok(found)
    };
    let mut found = list().map_err(Error::io(folder, "list"))?;
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(step: u64) -> Checkpoint {
        let values = |scale: f32| (0..100).map(|i| scale * i as f32).collect::<Vec<f32>>();
        let network = |scale: f32| NetworkState {
            parameters: values(0.5 * scale),
            ema: values(0.25 * scale),
            moment1: values(-1e-30 * scale),
            moment2: values(1e-20 * scale),
        };
        let bend = step.is_multiple_of(2).then(|| network(3.0));
        let growth = step.is_multiple_of(3).then(|| network(5.0));
        let loss_scale = LossScale { scale: 1024.0, good_steps: 77 };
        let state = TrainState {
            step,
            action: network(1.0),
            bend,
            growth,
            time_moments: vec![0.125; 2 * TIME_KNOTS],
            loss_scale,
        };
        let best = step.is_multiple_of(7).then(|| Best { step, distance: 0.1 + 0.2, in_vain: 2, weights: values(7.0) });
        Checkpoint { state, fingerprint: "abc".into(), arithmetic: "cpu, scalar".into(), best }
    }

    #[test]
    fn a_state_that_is_lost_is_not_written_and_costs_no_good_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths: Vec<PathBuf> = [1, 2, 3].map(|step| checkpoint(step).save(folder.path()).expect("saves")).into();
        for (lost, what) in [(f32::NAN, "the state of the optimizer"), (f32::INFINITY, "the loss over time")] {
            let mut bad = checkpoint(4);
            if lost.is_nan() {
                bad.state.action.moment2[7] = lost
            } else {
                bad.state.time_moments[2] = lost
            }
            let message = bad.save(folder.path()).unwrap_err().to_string();
            assert!(message.starts_with(what) && message.contains("step 4"), "{message}");
        }
        assert_eq!(list(folder.path()).expect("lists"), paths);
    }

    #[test]
    fn copies_under_other_names_are_no_checkpoints() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = checkpoint(12).save(folder.path()).expect("saves");
        for name in ["step-best.safetensors", "step-12.safetensors", "step-00000000zz.safetensors", "x.safetensors"] {
            std::fs::copy(&path, folder.path().join(name)).expect("copies");
        }
        let later = checkpoint(20_000_000_000).save(folder.path()).expect("saves");
        assert_eq!(list(folder.path()).expect("lists"), [path, later]);
    }

    #[test]
    fn the_last_three_are_kept_and_the_newest_whole_one_is_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        assert_eq!(Checkpoint::load_newest(folder, |_| ()).expect("reads"), None);
        let paths: Vec<PathBuf> = [5, 90, 100, 1000].map(|step| checkpoint(step).save(folder).expect("saves")).into();
        assert_eq!(list(folder).expect("lists"), paths[1..]);
        assert_eq!(Checkpoint::load_newest(folder, |_| ()).expect("reads"), Some(checkpoint(1000)));

        // The newest one truncated, the one before it with one bit flipped.
        let bytes = std::fs::read(&paths[3]).expect("reads");
        std::fs::write(&paths[3], &bytes[..bytes.len() - 1]).expect("writes");
        let mut bytes = std::fs::read(&paths[2]).expect("reads");
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        std::fs::write(&paths[2], bytes).expect("writes");
        let mut warnings = Vec::new();
        let found = Checkpoint::load_newest(folder, |message| warnings.push(message.to_string()));
        assert_eq!(found.expect("reads"), Some(checkpoint(90)));
        assert!(warnings[0].contains("cut short") && warnings[0].contains("step-0000001000"), "{warnings:?}");
        assert!(warnings[1].contains("altered") && warnings[1].contains("step-0000000100"), "{warnings:?}");

        std::fs::write(&paths[1], b"").expect("writes");
        assert!(Checkpoint::load_newest(folder, |_| ()).is_err());
    }

    /// The best weights of a run that may stop early come back to the last bit, and are covered by
    /// the digest.
    #[test]
    fn the_best_weights_are_part_of_a_checkpoint() {
        let folder = tempfile::tempdir().expect("a folder");
        let checkpoint = checkpoint(7);
        assert!(checkpoint.best.is_some());
        let path = checkpoint.save(folder.path()).expect("saves");
        assert_eq!(Checkpoint::load(&path).expect("loads"), checkpoint);
        assert!(checkpoint.describe().contains("best             step 7, energy distance 3.0000e-1"));
        let text = std::fs::read(&path).expect("reads");
        let at = text.windows(11).position(|bytes| bytes == br#"in_vain\":2"#).expect("is there");
        let mut altered = text.clone();
        altered[at + 10] = b'3';
        std::fs::write(&path, altered).expect("writes");
        assert!(Checkpoint::load(&path).is_err());
    }

    /// A file of the version before the loss scale, with its original digest.
    #[test]
    fn files_of_version_2_load_with_the_loss_scale_to_start_from() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("step-0000000012.safetensors");
        let mut expected = checkpoint(12);
        expected.state.loss_scale = LossScale::default();
        expected.state.growth = None;
        expected.arithmetic = String::new();
        // SHA-256 of the step, the fingerprint and each tensor's name and values, computed by
        // another program.
        let sha256 = "31065d6008167a26d9194effb1babf71ef88634d270686a394d3a98b808f9551";
        let json = format!(r#"{{"version":2,"step":12,"fingerprint":"abc","sha256":"{sha256}"}}"#);
        let tensors = tensors_of(&expected.state)
            .into_iter()
            .map(|(name, values)| (name, NewTensor::f32(&[values.len()], values)));
        write_tensors(&(&path).into(), tensors.collect(), HashMap::from([(CHECKPOINT_KEY.to_string(), json)]))
            .expect("writes");
        assert_eq!(Checkpoint::load(&path).expect("loads"), expected);
    }

    /// Every single flipped bit of the tensors, of the step and of the loss scale is detected.
    #[test]
    fn flipped_bits_are_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = checkpoint(12).save(folder.path()).expect("saves");
        let good = std::fs::read(&path).expect("reads");
        let step = good.windows(4).position(|window| window == b":12,").expect("the step is in the header") + 1;
        let good_steps = good.windows(3).position(|window| window == b":77").expect("the loss scale is there") + 2;
        for position in [step, good_steps, good.len() - 1, good.len() - 450, good.len() - 900, good.len() - 1599] {
            let mut bytes = good.clone();
            bytes[position] ^= 1;
            std::fs::write(&path, bytes).expect("writes");
            assert!(Checkpoint::load(&path).is_err(), "byte {position}");
        }
    }
}
