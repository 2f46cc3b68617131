//! What each key of a configuration takes, in words: a value of another kind is answered with its key, itself, what is allowed and an
//! example.

use std::path::Path;

use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};

use super::{EstimatorName, Mass, Pairing, PrecisionName, Schedule};
use crate::data::Standardization;
use crate::density_path::{Interpolant, TimeRule};
use crate::error::Error;
use crate::laplacian::LaplacianRule;
use crate::model::{Activation, Head};
use crate::objective::SigmaSchedule;

/// What a key takes.
enum Takes {
    /// What these words say.
    Words(&'static str),
    /// One of some names.
    Name(fn() -> &'static [&'static str]),
}
use Takes::{Name, Words};

const WHOLE: Takes = Words("a whole number from 0 to 2⁶³ − 1");
const NUMBER: Takes = Words("a number");
const TEXT: Takes = Words("text in quotes");
const SAMPLES: Takes = Words("text in quotes, a list of columns too: \"x1,x2\" or \"PC*\"");

/// Every key: what it takes, and an example.
const KEYS: &[(&str, Takes, &str)] = &[
    ("data.path", TEXT, "\"cells.npz\""),
    ("data.times_path", TEXT, "\"times.npy\""),
    ("data.samples", SAMPLES, "\"samples\""),
    ("data.times", TEXT, "\"times\""),
    ("data.hold_out", Words("a list of times"), "[1, 2.5]"),
    ("data.standardize", Name(names::<Standardization>), "\"isotropic\""),
    ("model.hidden", Words("a list of widths, whole numbers"), "[128, 128]"),
    ("model.activation", Name(names::<Activation>), "\"silu\""),
    ("model.head", Name(names::<Head>), "\"scalar\""),
    (
        "model.time_embedding",
        Words("{ kind = \"raw\" } or { kind = \"fourier\", frequencies = a list of numbers }"),
        "{ kind = \"fourier\", frequencies = [0.5, 1] }",
    ),
    ("objective.sigma", NUMBER, "0.1"),
    ("objective.sigma_schedule", Name(names::<SigmaSchedule>), "\"constant\""),
    ("objective.laplacian", Name(names::<LaplacianRule>), "\"rademacher\""),
    ("objective.probes", WHOLE, "1"),
    ("objective.growth", NUMBER, "0.5"),
    ("objective.cost_exponent", NUMBER, "2"),
    (
        "objective.time_weight",
        Words(
            "{ kind = \"constant\" }, { kind = \"one-minus-t\" } or { kind = \"polynomial\", coefficients = a list of numbers }",
        ),
        "{ kind = \"polynomial\", coefficients = [1, -0.5] }",
    ),
    ("objective.estimator", Name(names::<EstimatorName>), "\"auto\""),
    ("objective.centering", Words("true or false"), "false"),
    ("objective.weak_intervals", Words("a whole number from 1 to 2³² − 1"), "16"),
    ("objective.path", Name(names::<Interpolant>), "\"linear\""),
    ("objective.bend_hidden", Words("a list of widths, whole numbers"), "[64, 64]"),
    ("objective.bend_rate", NUMBER, "0.3"),
    ("objective.pairing", Name(names::<Pairing>), "\"independent\""),
    ("objective.pairing_rows", WHOLE, "2048"),
    ("objective.pairing_relaxation", NUMBER, "1"),
    ("objective.mass", Name(names::<Mass>), "\"ignored\""),
    ("objective.time_rule", Name(names::<TimeRule>), "\"low-discrepancy\""),
    ("training.steps", WHOLE, "10000"),
    ("training.interior_rows", WHOLE, "1024"),
    ("training.boundary_rows", WHOLE, "1024"),
    ("training.learning_rate", NUMBER, "1e-3"),
    ("training.warmup_steps", WHOLE, "500"),
    ("training.schedule", Name(names::<Schedule>), "\"cosine\""),
    ("training.final_rate", NUMBER, "0.01"),
    ("training.beta1", NUMBER, "0.9"),
    ("training.beta2", NUMBER, "0.999"),
    ("training.epsilon", NUMBER, "1e-8"),
    ("training.weight_decay", NUMBER, "0"),
    ("training.clip_norm", NUMBER, "1"),
    ("training.ema_decay", NUMBER, "0.999"),
    ("training.seed", WHOLE, "0"),
    ("training.precision", Name(names::<PrecisionName>), "\"auto\""),
    ("output.folder", TEXT, "\"runs/first\""),
    ("output.checkpoint_every", WHOLE, "1000"),
    ("output.metrics_every", WHOLE, "10"),
];

/// The error for a value that its key does not take; `at` is the path to it in `table`, as in `model.hidden[1]`.
pub(super) fn unfit_value(file: &Path, at: &str, table: &toml::Table) -> Error {
    let end = at.match_indices(['.', '[']).map(|(end, _)| end).nth(1).unwrap_or(at.len());
    let key = &at[..end];
    let value = key.split_once('.').and_then(|(section, name)| table.get(section)?.get(name));
    let problem = value.map_or("does not fit".into(), |value| format!("is {}", shortened(&value.to_string())));
    let fix = match KEYS.iter().find(|(name, ..)| *name == key) {
        Some((_, Words(words), example)) => format!("use {words}, as in {key} = {example}"),
        Some((_, Name(names), example)) => format!("use one of {}, as in {key} = {example}", names().join(", ")),
        None => "see the configuration table in the README".into(),
    };
    Error::input(file, key, problem, fix)
}

/// The start of a text that may be long, in one line.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN: usize = 60;
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN + 1).collect();
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// The names of the variants of an enum, as they are read.
fn names<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // Asks for a value only to learn what could be given; there is none.
    let _ = T::deserialize(Question(&mut names));
    names
}

struct Question<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Question<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("no value"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = variants;
        Err(Self::Error::custom("no value"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::Config;

    fn read(section: &str, name: &str, value: &str) -> crate::error::Result<Config> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        let data = if section == "data" && name == "path" { "" } else { "[data]\npath = \"a.npz\"\n" };
        let header = if section == "data" && !data.is_empty() { String::new() } else { format!("[{section}]\n") };
        std::fs::write(&path, format!("{data}{header}{name} = {value}\n")).unwrap();
        Config::read(&path, &[])
    }

    #[test]
    fn every_key_is_described() {
        let mut config = Config::default();
        config.data.times_path = Some("times.npy".into());
        let table = toml::Table::try_from(config).unwrap();
        let keys: BTreeSet<String> = table
            .iter()
            .flat_map(|(section, keys)| keys.as_table().unwrap().keys().map(move |key| format!("{section}.{key}")))
            .collect();
        assert_eq!(keys, KEYS.iter().map(|(key, ..)| key.to_string()).collect());
        assert_eq!(KEYS.len(), keys.len(), "a key is there twice");
    }

    /// What an error recommends is accepted: its example, and each name it lists.
    #[test]
    fn what_is_recommended_is_taken() {
        for (key, takes, example) in KEYS {
            let (section, name) = key.split_once('.').unwrap();
            let taken = |value: &str| {
                // Values that contradict others, which are at their defaults here, are of the right kind.
                let refused = read(section, name, value).err().map(|error| error.to_string());
                assert!(!refused.as_ref().is_some_and(|message| message.contains("as in")), "{refused:?}");
            };
            assert!(read(section, name, example).is_ok(), "{key} = {example}");
            if let Name(names) = takes {
                assert!(names().len() >= 2, "{key}");
                names().iter().for_each(|name| taken(&format!("\"{name}\"")));
            }
        }
    }

    /// Every key with every kind of value that it does not take: one form of error, in the words of this program.
    #[test]
    fn values_of_a_wrong_kind_are_answered_with_what_is_right() {
        let values =
            ["3", "-3", "2.5", "nan", "true", "\"\\u0000\"", "\"unheard of\"", "[]", "[\"a\"]", "[-1]", "[[1]]"];
        let tables = ["{}", "{ kind = 3 }", "{ kind = \"none\" }", "{ kind = \"raw\", more = 1 }", "1979-05-27"];
        let mut refused = 0;
        for (key, _, example) in KEYS {
            let (section, name) = key.split_once('.').unwrap();
            for value in values.iter().chain(&tables) {
                let Err(error) = read(section, name, value) else { continue };
                let message = error.to_string();
                let other_rule = !message.contains("as in"); // the right kind, out of range
                let (start, end) = (format!("run.toml: {key}: is "), format!(", as in {key} = {example})"));
                assert!(
                    other_rule || message.contains(&start) && message.ends_with(&end),
                    "{key} = {value}: {message}"
                );
                for word in
                    ["expected", "invalid", "variant", "sequence", "deserialize", "missing", "data did not", "f64"]
                {
                    assert!(!message.contains(word), "{key} = {value}: {message}");
                }
                assert!(message.contains(": is ") || message.contains("does not"), "{key} = {value}: {message}");
                refused += usize::from(!other_rule);
            }
        }
        assert!(refused > 10 * KEYS.len(), "{refused}");
    }

    #[test]
    fn long_values_are_shortened() {
        let message = read("training", "steps", &format!("\"{}\"", "ä".repeat(10_000))).unwrap_err().to_string();
        assert!(message.len() < 400 && message.contains("ä…"), "{message}");
    }
}
