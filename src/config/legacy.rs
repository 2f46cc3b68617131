//! Keys of earlier versions, which are still read: names that changed, and settings of one kind
//! (`bend_rate`) that are now a part of that kind (`path = { kind = "learned", rate = 0.3 }`).

use std::path::Path;

use super::keys::inline;
use super::kind::{AUTO, KIND};
use crate::error::{Error, InputKind, Result};

/// Keys under another name: section, old name, new name.
const RENAMED: [(&str, &str, &str); 1] = [("data", "standardise", "standardize")];

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
    /// The keys that it had, in the section of the whole.
    old: &'static [&'static str],
    /// Its name within the whole.
    name: &'static str,
    /// The kinds that have it; all if there are none.
    kinds: &'static [&'static str],
    /// What its old key means for the kind.
    choice: Choice,
}

/// Effect of a setting with a key of its own on the kind of the whole.
enum Choice {
    /// None: for other kinds it is without effect.
    Never,
    /// `true` asks for the first kind that has it, and contradicts those that do not.
    IfTrue,
}

impl Part {
    /// True if `value` under an old key asks for a kind that has this setting.
    fn chooses(&self, value: Option<&toml::Value>) -> bool {
        match self.choice {
            Choice::Never => false,
            Choice::IfTrue => value.and_then(toml::Value::as_bool) == Some(true),
        }
    }

    /// True if `kind` has this setting.
    fn belongs_to(&self, kind: &str) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }

    /// The old key under which `keys` hold it.
    ///
    /// # Errors
    /// [`Error::Input`] when there are two.
    fn key_in(&self, file: &Path, section: &str, keys: &toml::Table) -> Result<Option<&'static str>> {
        let mut found = self.old.iter().copied().filter(|key| keys.contains_key(*key));
        let first = found.next();
        if let (Some(first), Some(second)) = (first, found.next()) {
            let problem = format!("is another name of {section}.{second}, which is there too");
            let error = Error::input(file, format!("{section}.{first}"), problem, "keep one of the two");
            return Err(error.of_kind(InputKind::Conflict));
        }
        Ok(first)
    }
}

const WHOLES: [Whole; 9] = [
    Whole { section: "model", name: "time_embedding", main: KIND, default: "raw", parts: &[] },
    Whole {
        section: "objective",
        name: "sigma",
        main: "value",
        default: "0.0",
        parts: &[Part { old: &["sigma_schedule"], name: "schedule", kinds: &[], choice: Choice::Never }],
    },
    Whole {
        section: "objective",
        name: "laplacian",
        main: KIND,
        default: "rademacher",
        parts: &[Part { old: &["probes"], name: "probes", kinds: &["rademacher", "gaussian"], choice: Choice::Never }],
    },
    Whole { section: "objective", name: "time_weight", main: KIND, default: "constant", parts: &[] },
    Whole { section: "objective", name: "mass", main: KIND, default: "ignored", parts: &[] },
    Whole {
        section: "objective",
        name: "estimator",
        main: KIND,
        default: "auto",
        parts: &[
            Part { old: &["centring", "centering"], name: "centering", kinds: &["action"], choice: Choice::IfTrue },
            Part { old: &["weak_intervals"], name: "intervals", kinds: &["weak"], choice: Choice::Never },
        ],
    },
    Whole {
        section: "objective",
        name: "path",
        main: KIND,
        default: AUTO,
        parts: &[
            Part { old: &["bend_hidden"], name: "hidden", kinds: &["learned"], choice: Choice::Never },
            Part { old: &["bend_rate"], name: "rate", kinds: &["learned"], choice: Choice::Never },
        ],
    },
    Whole {
        section: "objective",
        name: "pairing",
        main: KIND,
        default: AUTO,
        parts: &[
            Part { old: &["pairing_relaxation"], name: "relaxation", kinds: &["unbalanced"], choice: Choice::Never },
            Part { old: &["pairing_rows"], name: "rows", kinds: &["ot", "unbalanced", "wfr"], choice: Choice::Never },
        ],
    },
    Whole {
        section: "training",
        name: "schedule",
        main: KIND,
        default: "cosine",
        parts: &[Part { old: &["final_rate"], name: "final_rate", kinds: &["cosine"], choice: Choice::Never }],
    },
];

impl Whole {
    fn find(section: &str, name: &str) -> Option<&'static Whole> {
        WHOLES.iter().find(|whole| whole.section == section && whole.name == name)
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
        let mut old = Vec::new();
        for part in self.parts {
            old.extend(part.key_in(file, self.section, keys)?.map(|name| (part, name)));
        }
        let Some((first, first_name)) = old.first() else { return Ok(()) };
        let key = format!("{}.{}", self.section, self.name);
        if keys.get(self.name).is_some_and(toml::Value::is_table) {
            let problem = format!("is the old form of a setting of {key}, which is there in its new form too");
            let fix = format!("write {} within {key}", first.name);
            let error = Error::input(file, format!("{}.{first_name}", self.section), problem, fix);
            return Err(error.of_kind(InputKind::Conflict));
        }
        let given = keys.remove(self.name);
        let kind = self.kind(file, &key, given.as_ref(), &old, keys)?;
        let mut whole = match self.main {
            KIND => self.table_of(Some(kind.into())),
            _ => self.table_of(given.clone()),
        };
        let mut used = Vec::new();
        for (part, name) in old {
            let Some(value) = keys.remove(name) else { continue };
            let old_key = format!("{}.{name}", self.section);
            if part.belongs_to(kind) {
                if let Some(table) = whole.as_table_mut() {
                    table.insert(part.name.to_string(), value);
                }
                used.push(old_key);
            } else {
                found.unused.push(old_key);
            }
        }
        let fits = self.main != KIND || given.as_ref().is_none_or(toml::Value::is_str);
        if used.is_empty() || !fits {
            // A value that does not fit is refused later.
            keys.extend(given.map(|given| (self.name.to_string(), given)));
        } else {
            found.moved.push(format!("{} is now {key} = {}", used.join(" with "), inline(&whole)));
            keys.insert(self.name.to_string(), whole);
        }
        Ok(())
    }

    /// The kind of the whole: the one `given`, or else the one that a setting of `old` asks for.
    ///
    /// # Errors
    /// [`Error::Input`] when a setting asks for a kind that is not the one given.
    fn kind<'a>(
        &self,
        file: &Path,
        key: &str,
        given: Option<&'a toml::Value>,
        old: &[(&Part, &str)],
        keys: &toml::Table,
    ) -> Result<&'a str> {
        let mut kind = given.and_then(toml::Value::as_str).unwrap_or(self.default);
        for (part, name) in old.iter().filter(|(part, name)| part.chooses(keys.get(*name))) {
            if part.belongs_to(kind) {
                continue;
            }
            if kind != AUTO {
                let (kinds, wanted) = (part.kinds.join(" and "), part.kinds[0]);
                let problem =
                    format!("is set, as {}.{name}, but only {kinds} has it, and {key} is {kind}", self.section);
                let error =
                    Error::input(file, format!("{key}.{}", part.name), problem, format!("set {key} = {wanted}"));
                return Err(error.of_kind(InputKind::Conflict));
            }
            kind = part.kinds[0];
        }
        Ok(kind)
    }
}

/// Every key of earlier versions, the key that it belongs to now, and its place within: `.rate`, or
/// nothing.
pub(super) fn old_keys() -> Vec<(String, String, String)> {
    let renamed = RENAMED
        .iter()
        .map(|(section, old, new)| (format!("{section}.{old}"), format!("{section}.{new}"), String::new()));
    let of_whole = |whole: &'static Whole| {
        let of_part = move |part: &'static Part| {
            let now = (format!("{}.{}", whole.section, whole.name), format!(".{}", part.name));
            part.old.iter().map(move |old| (format!("{}.{old}", whole.section), now.0.clone(), now.1.clone()))
        };
        whole.parts.iter().flat_map(of_part)
    };
    renamed.chain(WHOLES.iter().flat_map(of_whole)).collect()
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
            let error = Error::input(file, format!("{section}.{old}"), problem, format!("keep {section}.{new}"));
            return Err(error.of_kind(InputKind::Conflict));
        }
        keys.insert(new.to_string(), value);
        found.moved.push(format!("{section}.{old} is now {section}.{new}"));
    }
    Ok(())
}

/// Moves every setting of `table` with an old key to where it is now.
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

/// Prepares `table` for a `value` of the command line at the dotted key `parts`, which replaces
/// what the file says in either form. The key under which the value belongs.
///
/// # Errors
/// As [`fold`].
pub(super) fn make_way(
    file: &Path,
    table: &mut toml::Table,
    parts: &[&str],
    value: &toml::Value,
    found: &mut Found,
) -> Result<Vec<String>> {
    let mut parts: Vec<String> = parts.iter().map(|part| part.to_string()).collect();
    let [section, name, ..] = &mut parts[..] else { return Ok(parts) };
    if let Some((_, old, new)) = RENAMED.iter().find(|(of, old, _)| of == section && old == name) {
        found.moved.push(format!("{section}.{old} is now {section}.{new}"));
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
        } else if value.is_table() {
            whole.parts.iter().flat_map(|part| part.old).for_each(|old| drop(keys.remove(*old)));
        }
        return Ok(parts);
    }
    for whole in WHOLES.iter().filter(|whole| whole.section == section) {
        let part = whole.parts.iter().find(|part| part.old.contains(&name.as_str()) && parts.len() == 2);
        let Some(part) = part else { continue };
        if keys.get(whole.name).is_some_and(toml::Value::is_table) {
            let new = format!("{section}.{}.{}", whole.name, part.name);
            found.moved.push(format!("{section}.{name} is now {new}"));
            return Ok(vec![section, whole.name.to_string(), part.name.to_string()]);
        }
        part.old.iter().for_each(|old| drop(keys.remove(*old)));
    }
    Ok(parts)
}
