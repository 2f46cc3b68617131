//! Columns of `obs` and `var`: numbers, texts and categories, with missing values
//! (`docs/fileformat-prose.md` of anndata).

use super::hdf5::Hdf5;
use crate::data::distinct::Distinct;
use crate::data::row_filter::Field;
use crate::error::{Error, InputKind, Result};

/// A column, one value per row.
pub(super) enum Column {
    /// NaN is missing.
    Numbers(Vec<f64>),
    Labels(Labels),
}

/// Texts of which many are equal.
pub(super) struct Labels {
    /// Index into `categories` of each row; one beyond them is missing.
    pub codes: Vec<u32>,
    pub categories: Vec<String>,
}

const MISSING: u32 = u32::MAX;

impl Column {
    /// The column at `at`, which has `n_rows` values.
    ///
    /// # Errors
    /// [`Error::Input`] if there is none, or it is of a kind that anndata does not write.
    pub fn read(file: &Hdf5, at: &str, n_rows: u64) -> Result<Column> {
        let refuse = |problem: String| {
            let fix = "save it again with anndata's write_h5ad";
            Err(Error::input(file.path(), at, problem, fix).of_kind(InputKind::Malformed))
        };
        let numbers = |at: &str| {
            let values = file.values(at)?;
            values.all().map_err(|error| crate::data::array::damaged(file.path(), at, error))
        };
        let encoding = file.text_attribute(at, "encoding-type").unwrap_or_default();
        let column = match (encoding.as_str(), file.is_group(at)) {
            ("categorical", true) => {
                let names = format!("{at}/categories");
                let categories = if file.is_group(&names) {
                    // Texts some of which may be missing: none of the categories is.
                    file.texts(&format!("{names}/values"))?
                } else if file.values(&names)?.element.is_ok() {
                    texts_of(file, &names)?
                } else {
                    file.texts(&names)?
                };
                let codes = numbers(&format!("{at}/codes"))?.iter().map(|&code| code_of(code)).collect();
                Column::Labels(Labels { codes, categories })
            }
            ("nullable-integer" | "nullable-boolean", true) => {
                let mut values = numbers(&format!("{at}/values"))?;
                let is_missing = numbers(&format!("{at}/mask"))?;
                if is_missing.len() != values.len() {
                    return refuse("has a mask of another length".into());
                }
                values.iter_mut().zip(&is_missing).filter(|(_, is_missing)| **is_missing != 0.0).for_each(|(x, _)| {
                    *x = f64::NAN;
                });
                Column::Numbers(values)
            }
            ("nullable-string-array", true) => {
                let mut labels = Labels::of(file.texts(&format!("{at}/values"))?);
                let is_missing = numbers(&format!("{at}/mask"))?;
                if is_missing.len() != labels.codes.len() {
                    return refuse("has a mask of another length".into());
                }
                let codes = labels.codes.iter_mut().zip(&is_missing);
                codes.filter(|(_, is_missing)| **is_missing != 0.0).for_each(|(code, _)| *code = MISSING);
                Column::Labels(labels)
            }
            (_, true) => return refuse(format!("is encoded as {encoding:?}, which is no column of values")),
            (_, false) => match file.values(at)? {
                values if values.is_bool() => Column::Labels(Labels {
                    codes: numbers(at)?.iter().map(|&x| u32::from(x != 0.0)).collect(),
                    categories: vec!["False".into(), "True".into()],
                }),
                values if values.element.is_ok() => Column::Numbers(numbers(at)?),
                _ => Column::Labels(Labels::of(file.texts(at)?)),
            },
        };
        let n = match &column {
            Column::Numbers(values) => values.len(),
            Column::Labels(labels) => labels.codes.len(),
        };
        if n as u64 == n_rows { Ok(column) } else { refuse(format!("has {n} values, but there are {n_rows} rows")) }
    }

    /// Whether each row passes `test`; a missing value passes as an empty text.
    pub fn test(&self, test: impl Fn(&Field<'_>) -> bool) -> Vec<bool> {
        match self {
            Column::Numbers(values) => values.iter().map(|&value| test(&Field::Number(value))).collect(),
            Column::Labels(labels) => {
                let passes: Vec<bool> = labels.categories.iter().map(|text| test(&Field::Text(text.into()))).collect();
                let missing = test(&Field::Text("".into()));
                labels.codes.iter().map(|&code| passes.get(code as usize).copied().unwrap_or(missing)).collect()
            }
        }
    }

    /// The first few values, at most `n`, as text.
    pub fn some(&self, n: usize) -> Vec<String> {
        match self {
            Column::Numbers(values) => {
                let mut found: Vec<f64> = Vec::new();
                for &value in values {
                    if found.len() < n && !found.contains(&value) && !value.is_nan() {
                        found.push(value);
                    }
                }
                found.iter().map(f64::to_string).collect()
            }
            Column::Labels(labels) => labels.categories.iter().take(n).cloned().collect(),
        }
    }
}

impl Labels {
    /// Texts of which equal ones share a category, in the order of their first occurrence.
    pub fn of(texts: Vec<String>) -> Self {
        let mut distinct = Distinct::default();
        texts.iter().for_each(|text| distinct.push(text.as_str()));
        Labels { codes: distinct.labels, categories: distinct.values }
    }

    /// `values[k]` for rows of category k, NaN for missing ones.
    pub fn to_numbers(&self, values: &[f64]) -> Vec<f64> {
        self.codes.iter().map(|&code| values.get(code as usize).copied().unwrap_or(f64::NAN)).collect()
    }
}

/// −1 and what is not a code are missing.
fn code_of(code: f64) -> u32 {
    if code >= 0.0 { code as u32 } else { MISSING }
}

/// Numbers of the data set at `at` as text, the shortest that gives back the stored number.
fn texts_of(file: &Hdf5, at: &str) -> Result<Vec<String>> {
    use crate::element::{Element, ElementType};
    let values = file.values(at)?;
    let is_f32 = matches!(values.element, Ok(Element { number: ElementType::F32, .. }));
    let numbers = values.all().map_err(|error| crate::data::array::damaged(file.path(), at, error))?;
    Ok(numbers.iter().map(|&x| if is_f32 { (x as f32).to_string() } else { x.to_string() }).collect())
}
