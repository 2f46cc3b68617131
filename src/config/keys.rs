//! The values that each key of a configuration takes, in words: a value of another kind is answered
//! with its key, itself, what is allowed and an example.

use std::path::Path;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, Visitor};

use super::kind::KIND;
use super::{Config, legacy};
use crate::data::Standardization;
use crate::density_path::{Knots, TimeRule};
use crate::error::{Error, InputKind};
use crate::model::{Activation, Head};
use crate::objective::SigmaSchedule;

/// The values of a key.
enum Takes {
    /// A value as these words say.
    Words(&'static str),
    /// One of some names.
    Name(fn() -> &'static [&'static str]),
    /// A kind, by its name or as a table with its settings.
    Kind(&'static [Kind]),
    /// A plain value, as these words say, or a table of settings.
    Table(&'static str, &'static [Setting]),
}
use Takes::{Kind as OneOf, Name, Table, Words};

/// The name of a kind, and its settings.
type Kind = (&'static str, &'static [Setting]);

/// A setting of a kind: its name, what it takes, and an example.
type Setting = (&'static str, Takes, &'static str);

const WHOLE: Takes = Words("a whole number from 0 to 2⁶³ − 1");
const NUMBER: Takes = Words("a number");
const NUMBERS: Takes = Words("a list of numbers");
const TEXT: Takes = Words("text in quotes");
const SAMPLES: Takes = Words("text in quotes: a name, or columns such as \"x1,x2\" or \"PC*\"");
const WIDTHS: Takes = Words("a list of whole numbers, the widths of the layers");
const PROBES: &[Setting] = &[("probes", WHOLE, "1")];

/// Every key, in the order in which they are written: what it takes, and an example.
const KEYS: &[(&str, Takes, &str)] = &[
    ("data.path", TEXT, "\"cells.npz\""),
    ("data.times_path", TEXT, "\"times.npy\""),
    ("data.samples", SAMPLES, "\"samples\""),
    ("data.times", TEXT, "\"times\""),
    ("data.conditions", Words("a list of names in quotes"), "[\"dose\", \"drug\"]"),
    ("data.weights", TEXT, "\"weight\""),
    ("data.growth", TEXT, "\"net_growth\""),
    (
        "data.hold_out",
        Table(
            "a list of times, a range such as \"0.5..19.5 step 1\", { share = a number below 1, seed = a whole \
             number }, or { column = a name, value = text or a number }",
            &[
                ("share", NUMBER, "0.1"),
                ("seed", WHOLE, "0"),
                ("column", TEXT, "\"split\""),
                ("value", Words("text in quotes, or a number"), "\"test\""),
            ],
        ),
        "[1, 2.5]",
    ),
    ("data.where", Words("a condition on columns, in quotes"), "\"celltype == 'HSC' and day <= 6\""),
    ("data.standardize", Name(names::<Standardization>), "\"isotropic\""),
    ("data.components", WHOLE, "50"),
    ("model.hidden", Words("auto, or a list of whole numbers, the widths of the layers"), "[128, 128]"),
    ("model.activation", Name(names::<Activation>), "\"silu\""),
    ("model.head", Name(names::<Head>), "\"scalar\""),
    (
        "model.time_embedding",
        OneOf(&[("auto", &[]), ("raw", &[]), ("fourier", &[("frequencies", NUMBERS, "[0.5, 1]")])]),
        "{ kind = \"fourier\", frequencies = [0.5, 1] }",
    ),
    (
        "objective.sigma",
        Table(
            "a number, or { value = a number, schedule = \"one-minus-t\" }",
            &[("value", NUMBER, "0.1"), ("schedule", Name(names::<SigmaSchedule>), "\"one-minus-t\"")],
        ),
        "0.1",
    ),
    (
        "objective.laplacian",
        OneOf(&[("rademacher", PROBES), ("gaussian", PROBES), ("exact", &[])]),
        "{ kind = \"rademacher\", probes = 1 }",
    ),
    ("objective.growth", Words("a number, or auto"), "0.5"),
    ("objective.growth_head", Words("true or false"), "false"),
    ("objective.cost_exponent", NUMBER, "2"),
    (
        "objective.time_weight",
        OneOf(&[("constant", &[]), ("one-minus-t", &[]), ("polynomial", &[("coefficients", NUMBERS, "[1, -0.5]")])]),
        "{ kind = \"polynomial\", coefficients = [1, -0.5] }",
    ),
    (
        "objective.estimator",
        OneOf(&[
            ("auto", &[]),
            ("action", &[("centering", Words("true or false"), "false")]),
            ("weak", &[("intervals", Words("a whole number from 1 to 2³² − 1"), "16")]),
            ("regression", &[]),
        ]),
        "\"auto\"",
    ),
    (
        "objective.path",
        OneOf(&[
            ("auto", &[]),
            ("linear", &[]),
            ("spline", &[("limit", NUMBER, "2"), ("knots", Name(names::<Knots>), "\"distance\"")]),
            ("learned", &[("hidden", WIDTHS, "[64, 64]"), ("rate", NUMBER, "0.3")]),
            ("nearest", &[]),
            ("generative-linear", &[]),
            ("generative-vp", &[]),
            ("generative-sqrt", &[]),
        ]),
        "\"auto\"",
    ),
    (
        "objective.pairing",
        OneOf(&[
            ("auto", &[]),
            ("independent", &[]),
            ("ot", &[("rows", WHOLE, "2048")]),
            ("unbalanced", &[("relaxation", NUMBER, "1"), ("rows", WHOLE, "2048")]),
            ("wfr", &[("rows", WHOLE, "2048")]),
        ]),
        "\"auto\"",
    ),
    (
        "objective.mass",
        OneOf(&[("ignored", &[]), ("counts", &[]), ("growth", &[]), ("totals", &[("values", NUMBERS, "[1, 1.5]")])]),
        "\"ignored\"",
    ),
    ("objective.time_rule", Name(names::<TimeRule>), "\"low-discrepancy\""),
    ("training.steps", WHOLE, "10000"),
    ("training.interior_rows", WHOLE, "1024"),
    ("training.boundary_rows", WHOLE, "1024"),
    ("training.shards", WHOLE, "8"),
    ("training.learning_rate", NUMBER, "1e-3"),
    ("training.warmup_steps", WHOLE, "500"),
    (
        "training.schedule",
        OneOf(&[("constant", &[]), ("cosine", &[("final_rate", NUMBER, "0.01")])]),
        "{ kind = \"cosine\", final_rate = 0.01 }",
    ),
    ("training.beta1", NUMBER, "0.9"),
    ("training.beta2", NUMBER, "0.999"),
    ("training.epsilon", NUMBER, "1e-8"),
    ("training.weight_decay", NUMBER, "0"),
    ("training.clip_norm", NUMBER, "1"),
    ("training.ema_decay", NUMBER, "0.999"),
    ("training.seed", WHOLE, "0"),
    ("training.seeds", WHOLE, "5"),
    (
        "training.stop",
        OneOf(&[("never", &[]), ("held-out", &[("share", NUMBER, "0.1"), ("patience", WHOLE, "10")])]),
        "\"never\"",
    ),
    ("training.precision", Name(|| &["auto", "f32", "tf32", "bf16", "f16"]), "\"auto\""),
    ("output.folder", TEXT, "\"runs/first\""),
    ("output.checkpoint_every", WHOLE, "1000"),
    ("output.metrics_every", WHOLE, "10"),
];

impl Takes {
    /// The advice, before "as in".
    fn words(&self) -> String {
        match self {
            Words(words) | Table(words, _) => format!("use {words}"),
            Name(names) => format!("use one of {}", names().join(", ")),
            OneOf(kinds) => {
                let name = |(kind, settings): &Kind| match settings {
                    [] => kind.to_string(),
                    _ => format!("{kind} ({})", settings.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ")),
                };
                format!("use one of {}", kinds.iter().map(name).collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// What is taken, for a table of the manual.
    fn markdown(&self) -> String {
        let quoted = |name: &str| format!("`{name}`");
        match self {
            Words(words) | Table(words, _) => (*words).into(),
            Name(names) => names().iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", "),
            OneOf(kinds) => kinds.iter().map(|(kind, _)| quoted(kind)).collect::<Vec<_>>().join(", "),
        }
    }

    /// The settings that `table` may hold; none if its kind is not known.
    fn settings(&self, table: &toml::Table) -> Option<&'static [Setting]> {
        match self {
            Words(_) | Name(_) => None,
            Table(_, settings) => Some(settings),
            OneOf(kinds) => {
                let wanted = table.get(KIND)?.as_str()?;
                kinds.iter().find(|(kind, _)| *kind == wanted).map(|(_, settings)| *settings)
            }
        }
    }
}

/// Every key, followed by its settings, each once: its name with dots, and what it takes, in
/// Markdown.
pub(super) fn described() -> Vec<(String, String)> {
    let mut described: Vec<(String, String)> = Vec::new();
    for (key, takes, _) in KEYS {
        described.push((key.to_string(), takes.markdown()));
        let settings: Vec<&Setting> = match takes {
            Words(_) | Name(_) => Vec::new(),
            Table(_, settings) => settings.iter().collect(),
            OneOf(kinds) => kinds.iter().flat_map(|(_, settings)| *settings).collect(),
        };
        for (setting, takes, _) in settings {
            let name = format!("{key}.{setting}");
            if described.iter().all(|(known, _)| *known != name) {
                described.push((name, takes.markdown()));
            }
        }
    }
    described
}

/// Values of `key` that have its `setting` and leave it at its default: kinds by their names, or
/// another setting alone.
pub(super) fn without(key: &str, setting: &str) -> Vec<toml::Value> {
    let takes = KEYS.iter().find(|(known, ..)| *known == key).map(|(_, takes, _)| takes);
    match takes {
        Some(OneOf(kinds)) => {
            let has = |(_, settings): &&Kind| settings.iter().any(|(name, ..)| *name == setting);
            kinds.iter().filter(has).map(|(kind, _)| super::kind::table_of(kind)).collect()
        }
        Some(Table(_, settings)) => {
            let others = settings.iter().filter(|(name, ..)| *name != setting);
            others
                .filter_map(|(name, _, example)| {
                    Some(format!("{name} = {example}").parse::<toml::Table>().ok()?.into())
                })
                .collect()
        }
        _ => Vec::new(),
    }
}

/// Every key, and every setting of a kind, with values that it takes, as in a file: what tests make
/// configurations of.
#[must_use]
pub fn accepted_values() -> Vec<(String, String)> {
    let mut values = Vec::new();
    for (key, takes, example) in KEYS {
        let mut add = |setting: &str, value: &str| values.push((format!("{key}{setting}"), value.to_string()));
        add("", example);
        match takes {
            Words(_) => {}
            Name(names) => names().iter().for_each(|name| add("", &format!("\"{name}\""))),
            Table(_, settings) => {
                let inline: Vec<String> =
                    settings.iter().map(|(name, _, example)| format!("{name} = {example}")).collect();
                add("", &format!("{{ {} }}", inline.join(", ")));
                settings.iter().for_each(|(name, _, example)| add(&format!(".{name}"), example));
            }
            OneOf(kinds) => {
                for (kind, settings) in *kinds {
                    add("", &format!("\"{kind}\""));
                    let inline: String =
                        settings.iter().map(|(name, _, example)| format!(", {name} = {example}")).collect();
                    add("", &format!("{{ {KIND} = \"{kind}\"{inline} }}"));
                    settings.iter().for_each(|(name, _, example)| add(&format!(".{name}"), example));
                }
            }
        }
    }
    for (old, key, setting) in legacy::old_keys() {
        let example = values.iter().find(|(known, _)| *known == format!("{key}{setting}")).map(|(_, value)| value);
        values.extend(example.cloned().map(|example| (old, example)));
    }
    values
}

/// The configuration `table` as text: sections and keys in the order of [`KEYS`], one line a key.
pub(super) fn text(table: &toml::Table) -> String {
    let mut text = String::new();
    let mut last = "";
    for (key, ..) in KEYS {
        let Some((section, name)) = key.split_once('.') else { continue };
        let Some(value) = table.get(section).and_then(|keys| keys.get(name)) else { continue };
        if section != last {
            text += if last.is_empty() { "" } else { "\n" };
            text += &format!("[{section}]\n");
            last = section;
        }
        text += &format!("{name} = {}\n", inline(value));
    }
    text
}

/// `value` in one line, a kind before its settings.
pub(crate) fn inline(value: &toml::Value) -> String {
    match value {
        toml::Value::Table(table) => {
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by_key(|(name, _)| name.as_str() != KIND);
            let entries: Vec<String> = entries.into_iter().map(|(name, value)| format!("{name} = {value}")).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        value => value.to_string(),
    }
}

/// Checks that each setting in the table `value` of `key` is one of its kind.
///
/// # Errors
/// [`Error::Input`] names it, and the one that may be meant.
pub(super) fn check_settings(file: &Path, key: &str, value: &toml::Value) -> crate::error::Result<()> {
    let Some((_, takes, _)) = KEYS.iter().find(|(name, ..)| *name == key) else { return Ok(()) };
    let Some(table) = value.as_table() else { return Ok(()) };
    let Some(settings) = takes.settings(table) else { return Ok(()) };
    let is_known =
        |name: &str| settings.iter().any(|(known, ..)| *known == name) || name == KIND && matches!(takes, OneOf(_));
    let Some(unknown) = table.keys().find(|name| !is_known(name)) else { return Ok(()) };
    let owners: Vec<&str> = match takes {
        OneOf(kinds) => {
            let has = |(_, settings): &&Kind| settings.iter().any(|(name, ..)| name == unknown);
            kinds.iter().filter(has).map(|(kind, _)| *kind).collect()
        }
        _ => Vec::new(),
    };
    let likeness = |setting: &&Setting| strsim::jaro_winkler(unknown, setting.0);
    let nearest = settings.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let fix = match nearest {
        _ if !owners.is_empty() => format!("it belongs to {}", owners.join(" and ")),
        Some((name, ..)) => format!("did you mean {key}.{name}?"),
        None => "remove it: this kind has no settings".into(),
    };
    let kind = matches!(takes, OneOf(_)).then(|| table.get(KIND).and_then(toml::Value::as_str)).flatten();
    let of = kind.unwrap_or(key);
    Err(Error::input(file, shortened(&format!("{key}.{unknown}")), format!("is not a setting of {of}"), fix)
        .of_kind(InputKind::Unknown))
}

/// The error for a value that its key does not take; `at` is the path to it in `table`, as in
/// `model.hidden[1]`.
pub(super) fn unfit_value(file: &Path, at: &str, table: &toml::Table) -> Error {
    let end = at.match_indices(['.', '[']).map(|(end, _)| end).nth(1).unwrap_or(at.len());
    let key = &at[..end];
    let (section, name) = key.split_once('.').unwrap_or((key, ""));
    let value = table.get(section).and_then(|keys| keys.get(name));
    let problem = |value: &toml::Value| format!("is {}", shortened(&inline(value)));
    let fix = |key: &str, takes: &Takes, example: &str| format!("{}, as in {key} = {example}", takes.words());
    let Some((_, takes, example)) = KEYS.iter().find(|(known, ..)| *known == key) else {
        let problem = value.map_or("does not fit".into(), problem);
        return Error::input(file, key, problem, "see the table of keys in docs/configuration.md");
    };
    let part = value.and_then(toml::Value::as_table).and_then(|table| {
        let unfit = |(name_of_setting, ..): &&Setting| {
            let kept = |(name, _): &(&String, &toml::Value)| *name == KIND || name == name_of_setting;
            let alone: toml::Table =
                table.iter().filter(kept).map(|(name, value)| (name.clone(), value.clone())).collect();
            let keys = toml::Table::from_iter([(name.to_string(), alone.into())]);
            let config = toml::Table::from_iter([(section.to_string(), keys.into())]);
            table.contains_key(*name_of_setting) && Config::deserialize(config).is_err()
        };
        let (setting, takes, example) = takes.settings(table)?.iter().find(unfit)?;
        Some((format!("{key}.{setting}"), takes, example, table.get(*setting)?))
    });
    match part {
        Some((key, takes, example, value)) => Error::input(file, &key, problem(value), fix(&key, takes, example)),
        None => {
            let problem = value.map_or("does not fit".into(), problem);
            Error::input(file, key, problem, fix(key, takes, example))
        }
    }
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
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
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

    /// `value` under the key of a setting of `kind` alone.
    fn read_setting(key: &str, kind: &str, setting: &str, value: &str) -> crate::error::Result<Config> {
        let (section, name) = key.split_once('.').unwrap();
        let kind = if kind.is_empty() { String::new() } else { format!("kind = \"{kind}\", ") };
        read(section, name, &format!("{{ {kind}{setting} = {value} }}"))
    }

    /// Every setting of every key: key, kind, setting.
    fn settings() -> Vec<(&'static str, &'static str, &'static Setting)> {
        let of = |(key, takes, _): &'static (&'static str, Takes, &'static str)| match takes {
            Words(_) | Name(_) => vec![],
            Table(_, settings) => settings.iter().map(|setting| (*key, "", setting)).collect(),
            OneOf(kinds) => {
                let of = |(kind, settings): &'static Kind| settings.iter().map(|setting| (*key, *kind, setting));
                kinds.iter().flat_map(of).collect::<Vec<_>>()
            }
        };
        KEYS.iter().flat_map(of).collect()
    }

    #[test]
    fn every_key_is_described() {
        let mut config = Config::default();
        config.data.times_path = Some("times.npy".into());
        config.data.components = Some(50);
        config.data.conditions = vec!["dose".into()];
        config.data.only = String::from("day <= 6").try_into().ok();
        (config.data.weights, config.data.growth) = (Some("weight".into()), Some("rate".into()));
        let table = toml::Table::try_from(config).unwrap();
        let keys: BTreeSet<String> = table
            .iter()
            .flat_map(|(section, keys)| keys.as_table().unwrap().keys().map(move |key| format!("{section}.{key}")))
            .collect();
        assert_eq!(keys, KEYS.iter().map(|(key, ..)| key.to_string()).collect());
        assert_eq!(KEYS.len(), keys.len(), "a key is there twice");
        let written = text(&table);
        assert_eq!(written.parse::<toml::Table>().unwrap(), table);
    }

    /// Kinds and their settings, as the types have them.
    #[test]
    fn every_kind_is_described() {
        let listed = |message: &str| -> BTreeSet<String> {
            message.lines().next().unwrap().split('`').skip(1).step_by(2).skip(1).map(String::from).collect()
        };
        let mut checked = 0;
        for (key, takes, _) in KEYS {
            let OneOf(kinds) = takes else { continue };
            let (section, name) = key.split_once('.').unwrap();
            let answer = |value: toml::Value| {
                let keys = toml::Table::from_iter([(name.to_string(), value)]);
                Config::deserialize(toml::Table::from_iter([(section.to_string(), keys.into())]))
                    .map_err(|e| e.message().to_string())
            };
            let unheard = toml::Table::from_iter([(KIND.to_string(), "unheard".into())]);
            let mut known = listed(&answer(unheard.into()).unwrap_err());
            let has_auto = ["objective.estimator", "model.time_embedding"].contains(key);
            known.extend(has_auto.then(|| "auto".to_string()));
            assert_eq!(known, kinds.iter().map(|(kind, _)| kind.to_string()).collect(), "{key}");
            for (kind, settings) in kinds.iter().filter(|(_, settings)| !settings.is_empty()) {
                let mut table =
                    toml::Table::from_iter([(KIND.to_string(), (*kind).into()), ("unheard".into(), 1.into())]);
                // Some are required.
                table.extend(settings.iter().map(|(name, _, example)| {
                    (name.to_string(), format!("x = {example}").parse::<toml::Table>().unwrap().remove("x").unwrap())
                }));
                let message = answer(table.into()).unwrap_err();
                assert_eq!(
                    listed(&message),
                    settings.iter().map(|(name, ..)| name.to_string()).collect(),
                    "{key} {kind}: {message}"
                );
                checked += 1;
            }
        }
        assert_eq!(checked, 14);
    }

    /// The values that an error recommends are accepted: its example, and each name it lists.
    #[test]
    fn what_is_recommended_is_taken() {
        for (key, takes, example) in KEYS {
            let (section, name) = key.split_once('.').unwrap();
            let taken = |value: &str| {
                // Values that contradict others, which are at their defaults here, are of the right
                // kind.
                let refused = read(section, name, value).err().map(|error| error.to_string());
                assert!(!refused.as_ref().is_some_and(|message| message.contains("as in")), "{refused:?}");
            };
            match *key {
                // Only a model that grows has a use for it.
                "data.growth" => taken(example),
                _ => assert!(read(section, name, example).is_ok(), "{key} = {example}"),
            }
            if let Name(names) = takes {
                assert!(names().len() >= 2, "{key}");
                names().iter().for_each(|name| taken(&format!("\"{name}\"")));
            }
            if let OneOf(kinds) = takes {
                let required = ["fourier", "polynomial", "totals"];
                kinds.iter().filter(|(kind, _)| !required.contains(kind)).for_each(|(kind, _)| {
                    taken(&format!("\"{kind}\""));
                    taken(&format!("{{ kind = \"{kind}\" }}"));
                });
            }
        }
        for (key, kind, (setting, _, example)) in settings() {
            let refused = read_setting(key, kind, setting, example).err().map(|error| error.to_string());
            assert!(!refused.as_ref().is_some_and(|message| message.contains("as in")), "{refused:?}");
        }
    }

    /// Every key with every kind of value that it does not take: one form of error, in the words of
    /// this program.
    #[test]
    fn values_of_a_wrong_kind_are_answered_with_what_is_right() {
        let values =
            ["3", "-3", "2.5", "nan", "true", "\"\\u0000\"", "\"unheard of\"", "[]", "[\"a\"]", "[-1]", "[[1]]"];
        let tables = ["{}", "{ kind = 3 }", "{ kind = \"none\" }", "{ kind = \"raw\", more = 1 }", "1979-05-27"];
        let mut refused = 0;
        let mut check = |key: &str, value: &str, example: &str, result: crate::error::Result<Config>| {
            let Err(error) = result else { return };
            let message = error.to_string();
            // The name of the folder is random.
            let said = message.split_once("run.toml").map_or(&message[..], |(_, said)| said);
            let other_rule = !message.contains("as in"); // the right kind, out of range
            let (start, end) = (format!("run.toml: {key}: is "), format!(", as in {key} = {example})"));
            assert!(other_rule || message.contains(&start) && message.ends_with(&end), "{key} = {value}: {message}");
            for word in ["expected", "invalid", "variant", "sequence", "deserialize", "missing", "data did not", "f64"]
            {
                assert!(!said.contains(word), "{key} = {value}: {message}");
            }
            assert!(message.contains(": is ") || message.contains("does not"), "{key} = {value}: {message}");
            refused += usize::from(!other_rule);
        };
        for (key, _, example) in KEYS {
            let (section, name) = key.split_once('.').unwrap();
            for value in values.iter().chain(&tables) {
                check(key, value, example, read(section, name, value));
            }
        }
        for (key, kind, (setting, _, example)) in settings() {
            for value in values.iter().chain(&tables) {
                let result = read_setting(key, kind, setting, value);
                check(&format!("{key}.{setting}"), value, example, result);
            }
        }
        assert!(refused > 10 * (KEYS.len() + settings().len()), "{refused}");
    }

    #[test]
    fn long_values_are_shortened() {
        let message = read("training", "steps", &format!("\"{}\"", "ä".repeat(10_000))).unwrap_err().to_string();
        assert!(message.len() < 400 && message.contains("ä…"), "{message}");
    }
}
