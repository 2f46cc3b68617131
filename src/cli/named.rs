//! Values of the library by the names that the command line has for them.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

/// A name, its value, and what the help says of it (nothing if empty).
pub type Named<T> = (&'static str, T, &'static str);

/// Parses one of `values` by its name.
pub fn one_of<T: Clone + Send + Sync + 'static>(values: &'static [Named<T>]) -> impl TypedValueParser<Value = T> {
    let possible = values.iter().map(|(name, _, help)| {
        let value = PossibleValue::new(*name);
        if help.is_empty() { value } else { value.help(*help) }
    });
    PossibleValuesParser::new(possible).try_map(|wanted: String| {
        let found = values.iter().find(|(name, ..)| *name == wanted);
        found.map(|(_, value, _)| value.clone()).ok_or("is not one of them")
    })
}
