//! Values that have a kind: `"linear"`, or `{ kind = "learned", rate = 0.3 }` if the kind has
//! settings of its own. For `#[serde(with = "kind")]` on an enum with the tag `kind`, or on an enum
//! of names.

use serde::de::{DeserializeOwned, Deserializer};
use serde::ser::{Error as _, Serialize, Serializer};

/// The name of the tag.
pub(super) const KIND: &str = "kind";
/// The kind of an [`Option`] that is `None`: the program decides.
pub(super) const AUTO: &str = "auto";

pub(super) fn serialize<T: Serialize, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    let value = toml::Value::try_from(value).map_err(S::Error::custom)?;
    match value.as_table().and_then(|table| table.get(KIND)) {
        Some(kind) if value.as_table().is_some_and(|table| table.len() == 1) => kind.serialize(serializer),
        _ => value.serialize(serializer),
    }
}

pub(super) fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    from_value(<toml::Value as serde::Deserialize>::deserialize(deserializer)?)
}

fn from_value<T: DeserializeOwned, E: serde::de::Error>(value: toml::Value) -> Result<T, E> {
    if let toml::Value::String(name) = &value
        && let Ok(named) = table_of(name).try_into()
    {
        return Ok(named);
    }
    value.try_into().map_err(E::custom)
}

/// `{ kind = "name" }`.
pub(super) fn table_of(name: &str) -> toml::Value {
    toml::Value::Table(toml::Table::from_iter([(KIND.to_string(), name.into())]))
}

/// The same for a value that may be left to the program: `"auto"` is `None`.
pub(super) mod auto {
    use super::*;

    pub(in super::super) fn serialize<T: Serialize, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            None => serializer.serialize_str(AUTO),
            Some(value) => super::serialize(value, serializer),
        }
    }

    pub(in super::super) fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let value = <toml::Value as serde::Deserialize>::deserialize(deserializer)?;
        let is_auto = |value: &toml::Value| value.as_str() == Some(AUTO);
        if is_auto(&value) || value.as_table().is_some_and(|table| table.len() == 1 && table.values().all(is_auto)) {
            return Ok(None);
        }
        from_value(value).map(Some)
    }
}
