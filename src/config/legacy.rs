//! Keys of earlier versions, which are still read: names that changed, and settings of one kind
//! (`bend_rate`) that are now a part of that kind (`path = { kind = "learned", rate = 0.3 }`).

use std::path::Path;

use super::keys::inline;
use super::kind::KIND;
use crate::error::{Error, Result};

/// Keys under another name: section, old name, new name.
const RENAMED: [(&str, &str, &str); 2] =
    [("data", "standardise", "standardize"), ("objective", "centring", "centering")];

/// A key whose value has settings of its own.
struct Whole {
    section: &'static str,
    name: &'static str,
    /// The setting that a plain value stands for.
    main: &'static str,
    /// The plain value of a configuration without this key.
    default: &'static str,
    /// Settings that had keys of their own.
    parts: &'static [Part],
}

/// A key that became a setting of another.
struct Part {
    /// Its old key, in the section of the whole.
    old: &'static str,
    /// Its name within the whole.
    name: &'static str,
    /// The kinds that have it; all if there are none.
    kinds: &'static [&'static str],
}

const WHOLES: [Whole; 8] = [
    Whole { section: "model", name: "time_embedding", main: KIND, default: "raw", parts: &[] },
    Whole {
        section: "objective",
        name: "sigma",
        main: "value",
        default: "0.0",
        parts: &[Part { old: "sigma_schedule", name: "schedule", kinds: &[] }],
    },
    Whole {
        section: "objective",
        name: "laplacian",
        main: KIND,
        default: "rademacher",
        parts: &[Part { old: "probes", name: "probes", kinds: &["rademacher", "gaussian"] }],
    },
    Whole { section: "objective", name: "time_weight", main: KIND, default: "constant", parts: &[] },
    Whole {
        section: "objective",
        name: "estimator",
        main: KIND,
        default: "auto",
        parts: &[
            Part { old: "centering", name: "centering", kinds: &["action"] },
            Part { old: "weak_intervals", name: "intervals", kinds: &["weak"] },
        ],
    },
    Whole {
        section: "objective",
        name: "path",
        main: KIND,
        default: "linear",
        parts: &[
            Part { old: "bend_hidden", name: "hidden", kinds: &["learned"] },
            Part { old: "bend_rate", name: "rate", kinds: &["learned"] },
        ],
    },
    Whole {
        section: "objective",
        name: "pairing",
        main: KIND,
        default: "independent",
        parts: &[
            Part { old: "pairing_relaxation", name: "relaxation", kinds: &["unbalanced"] },
            Part { old: "pairing_rows", name: "rows", kinds: &["ot", "unbalanced"] },
        ],
    },
    Whole {
        section: "training",
        name: "schedule",
        main: KIND,
        default: "cosine",
        parts: &[Part { old: "final_rate", name: "final_rate", kinds: &["cosine"] }],
    },
];

impl Whole {
    fn find(section: &str, name: &str) -> Option<&'static Whole> {
        WHOLES.iter().find(|whole| whole.section == section && whole.name == name)
    }

    /// The old key of the setting `name`, with the section before it.
    fn old_key(&self, part: &Part) -> String {
        format!("{}.{}", self.section, old_name(self.section, part.old))
    }

    /// `value` as a table, if it is a plain one.
    fn table_of(&self, value: Option<toml::Value>) -> toml::Value {
        match value {
            Some(toml::Value::Table(table)) => toml::Value::Table(table),
            value => {
                let default = || self.default.parse().map_or_else(|_| self.default.into(), toml::Value::Float);
                let main = value.unwrap_or_else(default);
                toml::Value::Table(toml::Table::from_iter([(self.main.to_string(), main)]))
            }
        }
    }

    /// Moves the settings with old keys of `keys` to where they are now.
    fn fold(&self, file: &Path, keys: &mut toml::Table, found: &mut Found) -> Result<()> {
        let old: Vec<&Part> = self.parts.iter().filter(|part| keys.contains_key(part.old)).collect();
        let Some(first) = old.first() else { return Ok(()) };
        let key = format!("{}.{}", self.section, self.name);
        if keys.get(self.name).is_some_and(toml::Value::is_table) {
            let problem = format!("is the old form of a setting of {key}, which is there in its new form too");
            let fix = format!("write {} within {key}", first.name);
            return Err(Error::input(file, self.old_key(first), problem, fix));
        }
        let centered = keys.get("centering").and_then(toml::Value::as_bool) == Some(true);
        let given = keys.remove(self.name);
        let plain = given.as_ref().and_then(toml::Value::as_str).unwrap_or(self.default);
        // Centering asks for the one form that it is a setting of.
        let kind = if plain == "auto" && centered { "action" } else { plain }.to_string();
        if self.name == "estimator" && centered && kind != "action" {
            let key = format!("{}.{}", self.section, old_name(self.section, "centering"));
            let problem = format!("is set, but only action has it, and {}.{} is {kind}", self.section, self.name);
            return Err(Error::input(file, key, problem, "set objective.estimator = action"));
        }
        let has_kind = given.as_ref().is_none_or(toml::Value::is_str);
        let mut whole = match self.main {
            KIND if has_kind => self.table_of(Some(kind.as_str().into())),
            KIND => {
                // The value does not fit, which is said later.
                keys.extend(given.map(|given| (self.name.to_string(), given)));
                return Ok(());
            }
            _ => self.table_of(given.clone()),
        };
        let mut used = Vec::new();
        for part in old {
            let Some(value) = keys.remove(part.old) else { continue };
            if part.kinds.is_empty() || part.kinds.contains(&kind.as_str()) {
                if let Some(table) = whole.as_table_mut() {
                    table.insert(part.name.to_string(), value);
                }
                used.push(self.old_key(part));
            } else {
                found.unused.push(self.old_key(part));
            }
        }
        if used.is_empty() {
            keys.extend(given.map(|given| (self.name.to_string(), given)));
        } else {
            found.moved.push(format!("{} is now {key} = {}", used.join(" with "), inline(&whole)));
            keys.insert(self.name.to_string(), whole);
        }
        Ok(())
    }
}

/// Old keys that were found, in words.
#[derive(Default)]
pub(super) struct Found {
    moved: Vec<String>,
    unused: Vec<String>,
}

impl Found {
    /// The line for the user; `None` if everything is in its present form.
    pub(super) fn line(&self, file: &Path) -> Option<String> {
        let mut parts = self.moved.clone();
        if !self.unused.is_empty() {
            parts.push(format!("without effect: {}", self.unused.join(", ")));
        }
        (!parts.is_empty()).then(|| format!("{}: old keys are still read; {}", file.display(), parts.join("; ")))
    }
}

/// The name that the key `name` of `section` had first.
fn old_name(section: &str, name: &'static str) -> &'static str {
    RENAMED.iter().find(|(of, _, new)| (*of, *new) == (section, name)).map_or(name, |(_, old, _)| old)
}

/// Gives keys of `table` that have another name now that name.
///
/// # Errors
/// [`Error::Input`] when a key is there under both names.
pub(super) fn rename(file: &Path, table: &mut toml::Table, found: &mut Found) -> Result<()> {
    for (section, old, new) in RENAMED {
        let Some(keys) = table.get_mut(section).and_then(toml::Value::as_table_mut) else { continue };
        let Some(value) = keys.remove(old) else { continue };
        if keys.contains_key(new) {
            let problem = format!("is the old name of {section}.{new}, which is there too");
            return Err(Error::input(file, format!("{section}.{old}"), problem, format!("keep {section}.{new}")));
        }
        keys.insert(new.to_string(), value);
        if section == "data" {
            // The other one is a setting of the estimator, which is named with it.
            found.moved.push(format!("{section}.{old} is now {section}.{new}"));
        }
    }
    Ok(())
}

/// Moves every setting of `table` with an old key, already under its present name, to where it is
/// now.
///
/// # Errors
/// [`Error::Input`] when a setting is there in both forms.
pub(super) fn fold(file: &Path, table: &mut toml::Table, found: &mut Found) -> Result<()> {
    for whole in &WHOLES {
        if let Some(keys) = table.get_mut(whole.section).and_then(toml::Value::as_table_mut) {
            whole.fold(file, keys, found)?;
        }
    }
    Ok(())
}

/// Prepares `table` for a value of the command line at the dotted key `parts`, which replaces what
/// the file says in either form. The key under which the value belongs.
///
/// # Errors
/// As [`fold`].
pub(super) fn make_way(
    file: &Path,
    table: &mut toml::Table,
    parts: &[&str],
    is_table: bool,
    found: &mut Found,
) -> Result<Vec<String>> {
    let mut parts: Vec<String> = parts.iter().map(|part| part.to_string()).collect();
    let [section, name, ..] = &mut parts[..] else { return Ok(parts) };
    if let Some((_, old, new)) = RENAMED.iter().find(|(of, old, _)| of == section && old == name) {
        if *section == "data" {
            found.moved.push(format!("{section}.{old} is now {section}.{new}"));
        }
        *name = new.to_string();
    }
    let (section, name) = (section.clone(), name.clone());
    if parts.len() > 2 && Whole::find(&section, &name).is_some() {
        table.entry(&section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    }
    let Some(keys) = table.get_mut(&section).and_then(toml::Value::as_table_mut) else { return Ok(parts) };
    if let Some(whole) = Whole::find(&section, &name) {
        if parts.len() > 2 {
            whole.fold(file, keys, found)?;
            let value = whole.table_of(keys.remove(&name));
            keys.insert(name, value);
        } else if is_table {
            whole.parts.iter().for_each(|part| drop(keys.remove(part.old)));
        }
        return Ok(parts);
    }
    for whole in WHOLES.iter().filter(|whole| whole.section == section) {
        let part = whole.parts.iter().find(|part| part.old == name && parts.len() == 2);
        if let Some(part) = part.filter(|_| keys.get(whole.name).is_some_and(toml::Value::is_table)) {
            let new = format!("{section}.{}.{}", whole.name, part.name);
            found.moved.push(format!("{} is now {new}", whole.old_key(part)));
            return Ok(vec![section, whole.name.to_string(), part.name.to_string()]);
        }
    }
    Ok(parts)
}
