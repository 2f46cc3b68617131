//! `--condition NAME=VALUE`: the condition under which a model moves particles.

use action_matching::data::RowGroups;
use action_matching::model::{Condition, ConditionValue, Coordinates};
use anyhow::bail;

use super::output::note;

/// Pairs of a name and a value from arguments `NAME=VALUE` of `flag`.
pub fn pairs(flag: &str, given: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) => Ok((name.trim().to_string(), value.trim().to_string())),
        None => bail!("{flag} {text}: has no value (write {flag} {text}=VALUE)"),
    };
    given.iter().map(pair).collect()
}

/// The values of all conditions of a model with `coordinates`, given by `flag`. Notes those outside
/// of training.
pub fn chosen(flag: &str, given: &[String], coordinates: &Coordinates) -> anyhow::Result<Vec<ConditionValue>> {
    if given.is_empty() && !coordinates.conditions.is_empty() {
        let known: Vec<String> = coordinates.conditions.iter().map(Condition::known).collect();
        bail!(
            "{flag}: is missing, and the model depends on conditions (give each, as in {flag} NAME=VALUE: {})",
            known.join("; ")
        );
    }
    let values = coordinates.parse_condition(&pairs(flag, given)?)?;
    note_extrapolation(&values, coordinates);
    Ok(values)
}

/// Notes numbers outside of those in training.
pub fn note_extrapolation(values: &[ConditionValue], coordinates: &Coordinates) {
    for (condition, value) in coordinates.conditions.iter().zip(values) {
        if condition.extrapolates(value) {
            note!(
                "warning: {} = {value} lies outside of training ({}): the model is a guess there",
                condition.name(),
                condition.known()
            );
        }
    }
}

/// True if `a` and `b` are the same value of `condition`, up to rounding.
pub fn same(condition: &Condition, a: &ConditionValue, b: &ConditionValue) -> bool {
    match (condition, a, b) {
        (Condition::Number { scale, .. }, ConditionValue::Number(a), ConditionValue::Number(b)) => {
            (a - b).abs() <= 1e-6 * scale
        }
        _ => a == b,
    }
}

/// Fails if the data have other conditions than the model.
pub fn check_names(groups: &RowGroups, coordinates: &Coordinates) -> anyhow::Result<()> {
    let names: Vec<&str> = coordinates.conditions.iter().map(Condition::name).collect();
    if groups.names != names {
        let list = |names: &[&str]| if names.is_empty() { "none".to_string() } else { names.join(", ") };
        let found: Vec<&str> = groups.names.iter().map(String::as_str).collect();
        bail!(
            "conditions: the data have {}, the model {} (give data with these arrays or columns, and the run folder, whose \
             configuration names them)",
            list(&found),
            list(&names)
        );
    }
    Ok(())
}

/// The groups of the data that have all the `wanted` values.
pub fn matching(groups: &RowGroups, wanted: &[(usize, ConditionValue)], coordinates: &Coordinates) -> Vec<usize> {
    let fits =
        |k: &usize| wanted.iter().all(|(i, value)| same(&coordinates.conditions[*i], &groups.values[*k][*i], value));
    (0..groups.values.len()).filter(fits).collect()
}

/// The first few groups of the data, in words.
pub fn list(groups: &RowGroups) -> String {
    const SHOWN: usize = 12;
    let n = groups.values.len();
    let shown: Vec<String> = (0..n.min(SHOWN)).map(|k| groups.describe(k)).collect();
    let more = if n > SHOWN { format!("; … ({n} in all)") } else { String::new() };
    format!("{}{more}", shown.join("; "))
}
