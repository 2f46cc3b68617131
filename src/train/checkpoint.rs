//! Checkpoints: everything a run needs to go on, verified by digest, the last three kept.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::hexadecimal;
use crate::density_path::TIME_KNOTS;
use crate::engine::{LossScale, NetworkState, TrainState};
use crate::error::{Error, Result};
use crate::tensors::{CHECKPOINT_KEY, NewTensor, TensorFile, write_tensors};

/// Checkpoints that are kept.
const KEPT: usize = 3;
const VERSION: u32 = 3;
/// The version before it had no loss scale.
const UNSCALED_VERSION: u32 = 2;
/// Names of the tensors of a network, behind the prefix of which one it is.
const NETWORK_PARTS: [&str; 4] = ["parameters", "ema", "moment1", "moment2"];
const ACTION: &str = "";
const BEND: &str = "bend.";

/// The metadata of a checkpoint file.
#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    step: u64,
    fingerprint: String,
    #[serde(default)]
    loss_scale: LossScale,
    /// Digest over the rest and the tensors.
    sha256: String,
}

/// The state of a run after some step.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Parameters, moving average, moments, step.
    pub state: TrainState,
    /// [`Config::fingerprint`](crate::config::Config::fingerprint) of the run.
    pub fingerprint: String,
}

impl Checkpoint {
    /// Writes the checkpoint into `folder` and removes those beyond the last three.
    ///
    /// # Errors
    /// [`Error::Io`] names the file; earlier checkpoints stay.
    pub fn save(&self, folder: &Path) -> Result<PathBuf> {
        let Checkpoint { state, fingerprint } = self;
        let path = folder.join(format!("step-{:010}.safetensors", state.step));
        let tensors = parts(state).into_iter().map(|(name, values)| (name, NewTensor::f32(&[values.len()], values)));
        let header = Header {
            version: VERSION,
            step: state.step,
            fingerprint: fingerprint.clone(),
            loss_scale: state.loss_scale,
            sha256: self.digest(VERSION),
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
    /// [`Error::Input`] says what is missing, misshapen or altered.
    pub fn load(path: &Path) -> Result<Checkpoint> {
        let mut file = TensorFile::open(path)?;
        let fail = |field: &str, problem: String| {
            Err(Error::input(path, field, problem, "use an earlier checkpoint, or start the run again"))
        };
        let Some(json) = file.metadata(CHECKPOINT_KEY) else {
            return fail(CHECKPOINT_KEY, "is missing from the metadata: this is no checkpoint".into());
        };
        let Header { version, step, fingerprint, loss_scale, sha256 } = match serde_json::from_str(json) {
            Ok(header) => header,
            Err(error) => return fail(CHECKPOINT_KEY, format!("cannot be read: {error}")),
        };
        if !(UNSCALED_VERSION..=VERSION).contains(&version) {
            return fail(CHECKPOINT_KEY, format!("has version {version}, not {VERSION}"));
        }
        let has_bend = file.names().iter().any(|name| name.starts_with(BEND));
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
        let time_moments = file.f32s("time_moments", &[2 * TIME_KNOTS])?;
        let state = TrainState { step, action, bend, time_moments, loss_scale };
        let checkpoint = Checkpoint { state, fingerprint };
        if checkpoint.digest(version) != sha256 {
            return fail("sha256", "does not match the content: the file was altered".into());
        }
        Ok(checkpoint)
    }

    /// The newest checkpoint of `folder` that is whole; `warn` hears of each newer one that is not. `None` without any file.
    ///
    /// # Errors
    /// The newest file's error when none is whole.
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

    /// SHA-256 over step, fingerprint, loss scale and tensors, as `version` has it.
    fn digest(&self, version: u32) -> String {
        let mut hash = Sha256::new();
        hash.update(self.state.step.to_le_bytes());
        hash.update(&self.fingerprint);
        if version > UNSCALED_VERSION {
            hash.update(self.state.loss_scale.scale.to_le_bytes());
            hash.update(self.state.loss_scale.good_steps.to_le_bytes());
        }
        for (name, values) in parts(&self.state) {
            hash.update(name);
            for value in values {
                hash.update(value.to_le_bytes());
            }
        }
        hexadecimal(&hash.finalize())
    }

    /// What `amatch inspect` says of a checkpoint.
    pub fn describe(&self) -> String {
        let rms = |values: &[f32]| {
            (values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / values.len().max(1) as f64).sqrt()
        };
        let mut text = format!("step             {}\nfingerprint      {}\n", self.state.step, self.fingerprint);
        for (name, values) in parts(&self.state) {
            text += &format!("{name:<16} [{}], root mean square {:.3e}\n", values.len(), rms(values));
        }
        text
    }
}

/// Every tensor of `state` with its name.
fn parts(state: &TrainState) -> Vec<(String, &[f32])> {
    let TrainState { step: _, action, bend, time_moments, loss_scale: _ } = state;
    let mut parts = vec![("time_moments".to_string(), &time_moments[..])];
    for (prefix, network) in [(ACTION, Some(action)), (BEND, bend.as_ref())] {
        let Some(NetworkState { parameters, ema, moment1, moment2 }) = network else { continue };
        for (name, values) in NETWORK_PARTS.into_iter().zip([parameters, ema, moment1, moment2]) {
            parts.push((format!("{prefix}{name}"), &values[..]));
        }
    }
    parts
}

/// The checkpoint files of `folder`, oldest first.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder, "list"))?;
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.strip_prefix("step-").and_then(|name| name.strip_suffix(".safetensors")).is_some()
        })
        .collect();
    // Names have ten digits, so their order is that of the steps.
    paths.sort();
    Ok(paths)
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
        let loss_scale = LossScale { scale: 1024.0, good_steps: 77 };
        let state =
            TrainState { step, action: network(1.0), bend, time_moments: vec![0.125; 2 * TIME_KNOTS], loss_scale };
        Checkpoint { state, fingerprint: "abc".into() }
    }

    #[test]
    fn the_last_three_are_kept_and_the_newest_whole_one_is_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        assert_eq!(Checkpoint::load_newest(folder, |_| ()).expect("reads"), None);
        let paths: Vec<PathBuf> = [5, 90, 100, 1000].map(|step| checkpoint(step).save(folder).expect("saves")).into();
        assert_eq!(list(folder).expect("lists"), paths[1..]);
        assert_eq!(Checkpoint::load_newest(folder, |_| ()).expect("reads"), Some(checkpoint(1000)));

        // The newest truncated, the one before it with one bit flipped.
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

    /// A file of the version before the loss scale, with the digest that it had.
    #[test]
    fn files_of_version_2_load_with_the_loss_scale_to_start_from() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("step-0000000012.safetensors");
        let mut expected = checkpoint(12);
        expected.state.loss_scale = LossScale::default();
        // SHA-256 of the step, the fingerprint and each tensor's name and values, by another program.
        let sha256 = "31065d6008167a26d9194effb1babf71ef88634d270686a394d3a98b808f9551";
        let json = format!(r#"{{"version":2,"step":12,"fingerprint":"abc","sha256":"{sha256}"}}"#);
        let tensors =
            parts(&expected.state).into_iter().map(|(name, values)| (name, NewTensor::f32(&[values.len()], values)));
        write_tensors(&(&path).into(), tensors.collect(), HashMap::from([(CHECKPOINT_KEY.to_string(), json)]))
            .expect("writes");
        assert_eq!(Checkpoint::load(&path).expect("loads"), expected);
    }

    /// Every single flipped bit of the tensors, of the step and of the loss scale is noticed.
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
