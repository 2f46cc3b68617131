//! From a file and overrides to a table of known keys.

use std::io::Read;
use std::path::Path;

use super::legacy::{self, Found};
use super::{Config, keys};
use crate::data::names_data;
use crate::error::{Error, InputKind, Result};
use crate::files::open_file;

/// The text of the configuration `path`.
pub(super) fn text(path: &Path) -> Result<String> {
    let (file, size) = open_file(path)?;
    if names_data(path) {
        let problem = "is a data file, where a configuration is wanted";
        let fix = "name a .toml with `[data]` and, below it, `path = \"…\"`: the file of your data";
        return Err(Error::input(path, "path", problem, fix));
    }
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
        Error::input(path, format!("line {line}"), problem, "save the file as UTF-8").of_kind(InputKind::Malformed)
    })
}

/// The error in text that is not TOML, with its line.
fn syntax_error(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let number = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
    let line = text.lines().nth(number - 1).unwrap_or_default().trim();
    let message = error.message();
    // The parser's expectation helps if it is a character.
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
    Error::input(path, format!("line {number}"), problem, fix).of_kind(InputKind::Malformed)
}

/// Largest configuration file.
const MAX_BYTES: u64 = 16 << 20;

/// Parts of the longest key there is: section, key, and the parts of an inline table.
const MAX_KEY_PARTS: usize = 4;

/// The table of `text`, which errors call `path`, with the values of `overrides`, all keys known
/// and in their present form; and a line about those that were not.
pub(super) fn table(path: &Path, text: &str, overrides: &[String]) -> Result<(toml::Table, Option<String>)> {
    let mut table: toml::Table = text.parse().map_err(|error| syntax_error(path, text, &error))?;
    let mut found = Found::default();
    legacy::rename(path, &mut table, &mut found)?;
    let mut assignments = overrides.iter().map(|text| Assignment::parse(text)).collect::<Result<Vec<_>>>()?;
    // A whole value before its settings, so that their order does not count.
    assignments.sort_by_key(|assignment| assignment.key.len());
    for assignment in assignments {
        assignment.apply(path, &mut table, &mut found)?;
    }
    legacy::fold(path, &mut table, &mut found)?;
    check_keys(path, &table)?;
    Ok((table, found.line(path)))
}

/// `key=value` with a dotted key, which replaces one value. What is not TOML is taken as a string.
struct Assignment<'a> {
    text: &'a str,
    key: Vec<&'a str>,
    value: toml::Value,
}

impl<'a> Assignment<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        let Some((key, value)) = text.split_once('=') else { return Err(refused(text, "has no =")) };
        let value = format!("value = {value}")
            .parse::<toml::Table>()
            .ok()
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(|| toml::Value::String(value.trim().to_string()));
        let key: Vec<&str> = key.trim().split('.').collect();
        if key.len() > MAX_KEY_PARTS {
            return Err(refused(text, "has a key of too many levels"));
        }
        if key.last().is_none_or(|last| last.is_empty()) {
            return Err(refused(text, "has no key"));
        }
        Ok(Assignment { text, key, value })
    }

    fn apply(self, path: &Path, table: &mut toml::Table, found: &mut Found) -> Result<()> {
        let mut parts = legacy::make_way(path, table, &self.key, &self.value, found)?;
        let Some(last) = parts.pop() else { return Err(refused(self.text, "has no key")) };
        let mut section = table;
        for key in parts {
            let next = section.entry(key).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            let Some(next) = next.as_table_mut() else {
                return Err(refused(self.text, "has a key below a value that is no section"));
            };
            section = next;
        }
        section.insert(last, self.value);
        Ok(())
    }
}

/// The error about an override.
fn refused(assignment: &str, problem: &str) -> Error {
    let fix = "write `overrides` section.key=value, as in training.steps=2000";
    Error::input("`overrides`", keys::shortened(assignment), problem, fix).of_kind(InputKind::Malformed)
}

/// Every key must be known; the nearest known one is suggested.
fn check_keys(path: &Path, table: &toml::Table) -> Result<()> {
    let mut known = toml::Table::try_from(Config::default()).unwrap_or_default();
    if let Some(data) = known.get_mut("data").and_then(toml::Value::as_table_mut) {
        // Keys that are written only if they are set.
        for key in ["times_path", "where", "conditions", "weights", "growth", "components"] {
            data.insert(key.to_string(), toml::Value::String(String::new()));
        }
    }
    let unknown = |key: String, candidates: Vec<String>| {
        // Compared by their last parts, so that a key in the wrong section finds the right one; of
        // keys that are alike, one of the same section is meant.
        const SAME_SECTION: f64 = 0.1;
        const ALIKE: f64 = 0.75;
        let parts = |key: &str| key.rsplit_once('.').map_or((String::new(), key.into()), |(a, b)| (a.into(), b.into()));
        let (section, last): (String, String) = parts(&key);
        let likeness = |candidate: &String| {
            let (its_section, its_last) = parts(candidate);
            let alike: f64 = strsim::jaro_winkler(&last, &its_last);
            if its_section == section && !section.is_empty() { alike + SAME_SECTION } else { alike }
        };
        // The first of equals: a bare `path` is that of the data.
        let nearest = candidates.iter().rev().map(|key| (likeness(key), key)).max_by(|a, b| a.0.total_cmp(&b.0));
        let fix = match nearest {
            Some((likeness, nearest)) if likeness >= ALIKE => format!("did you mean {nearest}?"),
            _ => "docs/configuration.md lists all keys".into(),
        };
        Err(Error::input(path, keys::shortened(&key), "is not a key of the configuration", fix)
            .of_kind(InputKind::Unknown))
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
        for (name, value) in values {
            keys::check_settings(path, &format!("{section}.{name}"), value)?;
        }
    }
    Ok(())
}
