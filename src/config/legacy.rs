//! Keys of earlier versions, which are still read.

use std::path::Path;

use crate::error::{Error, Result};

/// Keys under another name: section, old name, new name.
const RENAMED: [(&str, &str, &str); 2] =
    [("data", "standardise", "standardize"), ("objective", "centring", "centering")];

/// Gives the keys of `table` their present names. A line that names the old keys and what to write
/// instead, if there are any; `origin` is the file that holds them.
///
/// # Errors
/// [`Error::Input`] when a key is there under both names.
pub(super) fn renew(origin: &Path, table: &mut toml::Table) -> Result<Option<String>> {
    let mut found = Vec::new();
    for (section, old, new) in RENAMED {
        let Some(keys) = table.get_mut(section).and_then(toml::Value::as_table_mut) else { continue };
        let Some(value) = keys.remove(old) else { continue };
        if keys.contains_key(new) {
            let problem = format!("is the old name of {section}.{new}, which is there too");
            return Err(Error::input(origin, format!("{section}.{old}"), problem, format!("keep {section}.{new}")));
        }
        keys.insert(new.to_string(), value);
        found.push(format!("{section}.{old} is now {section}.{new}"));
    }
    Ok((!found.is_empty()).then(|| format!("{}: {}; the old name is still read", origin.display(), found.join(", "))))
}

/// `assignment` (`key=value`) under the present name of its key, if it has an old one, and a line that says so.
pub(super) fn renew_assignment(assignment: &str) -> Option<(String, String)> {
    let (key, value) = assignment.split_once('=')?;
    let (section, name) = key.trim().split_once('.')?;
    let (_, old, new) = RENAMED.into_iter().find(|(of, old, _)| (*of, *old) == (section, name))?;
    let line = format!("--set: {section}.{old} is now {section}.{new}; the old name is still read");
    Some((format!("{section}.{new}={value}"), line))
}

/// `text` of a configuration with the names that keys had in version 1, which fingerprints are made of.
pub(super) fn old_names(text: &str) -> String {
    RENAMED
        .iter()
        .fold(text.to_string(), |text, (_, old, new)| text.replace(&format!("\n{new} = "), &format!("\n{old} = ")))
}
