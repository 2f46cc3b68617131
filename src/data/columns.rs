//! The columns of a table: selection of the samples, and the check that they are those of a model.

use std::path::Path;

use super::array::list;
use super::ids;
use super::source::DEFAULT_SAMPLES;
use crate::error::{Error, InputKind, Result};

/// Columns that are samples only if named explicitly.
const TIME_NAMES: [&str; 2] = ["times", "time"];

/// Columns that `amatch sample` writes in addition to positions.
const BESIDE_SAMPLES: [&str; 4] = ["log_weights", "log_density", "log_weights_spread", "member"];

/// The start of the names of columns in which `amatch sample` writes the spread of an ensemble.
const SPREAD: &str = "spread_";

/// The names in a header line.
#[derive(Default)]
pub(super) struct Names {
    all: Vec<String>,
    /// Indices of the columns in the order of their names: tables may be wide.
    by_name: Vec<u32>,
    /// Columns beside the times that only their own names select.
    beside: Vec<String>,
}

/// The selected columns.
pub(super) struct Selection {
    /// Their indices.
    pub columns: Vec<usize>,
    /// True if the user named each of them, rather than a pattern.
    pub is_named: bool,
    /// Messages for the user.
    pub warnings: Vec<String>,
}

impl Names {
    pub fn new(all: Vec<String>) -> Self {
        let mut by_name: Vec<u32> = (0..all.len() as u32).collect();
        by_name.sort_unstable_by_key(|&i| &all[i as usize]);
        Names { all, by_name, beside: Vec::new() }
    }

    /// Leaves `column` out of what patterns and the default name select.
    pub fn leave_out(&mut self, column: &str) {
        self.beside.push(column.into());
    }

    fn is_beside(&self, name: &str) -> bool {
        self.beside.iter().any(|beside| beside == name)
    }

    /// The names, in the order of the columns.
    pub fn all(&self) -> &[String] {
        &self.all
    }

    /// The column of names of the rows, if there likely is one.
    pub fn ids(&self) -> Option<usize> {
        let named = (0..self.all.len()).filter_map(|i| Some((ids::likelihood(&self.all[i])?, i))).min();
        // Row names that pandas and R write come first.
        named.map(|(_, i)| i).or_else(|| self.all.first().filter(|name| is_unnamed(name)).map(|_| 0))
    }

    /// The column `name`, if it exists.
    ///
    /// # Errors
    /// [`Error::Input`] about `path` if there are two.
    pub fn find(&self, path: &Path, name: &str) -> Result<Option<usize>> {
        let from = self.by_name.partition_point(|&i| self.all[i as usize].as_str() < name);
        match self.by_name[from..].iter().take_while(|&&i| self.all[i as usize] == name).take(2).collect::<Vec<_>>()[..]
        {
            [] => Ok(None),
            [&column] => Ok(Some(column as usize)),
            _ => Err(Error::input(path, name, "two columns have this name", "rename one of them")),
        }
    }

    /// The columns that `samples` selects: the column of that name; or a list of names and of
    /// patterns with `*` (any characters) and `?` (any single one); or `x` for the columns `x_0`,
    /// `x_1`, …; or, by the default name, all data columns. Patterns skip the column `times`,
    /// columns without a name (the row numbers that pandas and R write) and those that name the
    /// rows.
    ///
    /// # Errors
    /// [`Error::Input`] about `path` if none matches, or one is missing.
    pub fn select(&self, path: &Path, samples: &str, times: &str) -> Result<Selection> {
        if let Some(column) = self.find(path, samples)? {
            let mut warnings = Vec::new();
            let numbered = self.numbered(samples);
            if !numbered.is_empty() {
                let others = list(numbered.iter().map(|(_, column)| &self.all[*column]));
                warnings.push(format!(
                    "{}: samples = {samples:?} takes the column {samples:?} alone; write \"{samples}_*\" for {others}",
                    path.display()
                ));
            }
            return Ok(Selection { columns: vec![column], is_named: true, warnings });
        }
        if samples.contains([',', '*', '?']) {
            return self.select_listed(path, samples, times);
        }
        let numbered = self.numbered(samples);
        if !numbered.is_empty() {
            if let Some(gap) = (0..numbered.len()).find(|&k| numbered[k].0 != k as u64) {
                let found = list(numbered.iter().map(|(_, column)| &self.all[*column]));
                let problem = format!("has the columns {found}, but no {samples}_{gap}");
                return Err(Error::input(
                    path,
                    samples,
                    problem,
                    format!("write samples = \"{samples}_*\" to take those"),
                ));
            }
            let columns = numbered.into_iter().map(|(_, column)| self.unambiguous(path, column));
            return Ok(Selection { columns: columns.collect::<Result<_>>()?, is_named: false, warnings: Vec::new() });
        }
        if samples != DEFAULT_SAMPLES {
            return Err(self.no_such(path, samples, samples));
        }
        let is_data = |name: &str| name != times && !TIME_NAMES.contains(&name) && !self.is_beside(name);
        let (left_out, columns): (Vec<usize>, Vec<usize>) =
            (0..self.all.len()).filter(|&i| is_data(&self.all[i])).partition(|&i| is_beside_samples(&self.all[i]));
        self.selection(path, columns, &left_out)
    }

    /// Selects by a list of names and patterns.
    fn select_listed(&self, path: &Path, samples: &str, times: &str) -> Result<Selection> {
        let (mut columns, mut left_out, mut is_named) = (Vec::new(), Vec::new(), true);
        let mut taken = vec![false; self.all.len()];
        for item in samples.split(',').map(str::trim) {
            if let Some(column) = self.find(path, item)? {
                if taken[column] {
                    return Err(Error::input(
                        path,
                        item,
                        format!("samples = {samples:?} names it twice"),
                        "name it once",
                    ));
                }
                taken[column] = true;
                columns.push(column);
                continue;
            }
            if !item.contains(['*', '?']) {
                return Err(self.no_such(path, item, samples));
            }
            is_named = false;
            let matching: Vec<usize> = (0..self.all.len())
                .filter(|&i| self.all[i] != times && !self.is_beside(&self.all[i]) && matches(item, &self.all[i]))
                .collect();
            let (of_rows, named): (Vec<usize>, Vec<usize>) =
                matching.into_iter().partition(|&i| is_of_rows(&self.all[i]));
            if named.is_empty() {
                return Err(self.no_such(path, item, samples));
            }
            left_out.extend(of_rows);
            for column in named {
                if !std::mem::replace(&mut taken[column], true) {
                    columns.push(column);
                }
            }
        }
        let selection = self.selection(path, columns, &left_out)?;
        Ok(Selection { is_named, ..selection })
    }

    fn selection(&self, path: &Path, columns: Vec<usize>, left_out: &[usize]) -> Result<Selection> {
        for &column in &columns {
            self.unambiguous(path, column)?;
        }
        let warnings = (!left_out.is_empty()).then(|| {
            let names = list(left_out.iter().map(|&column| match self.all[column].as_str() {
                "" => format!("column {column} (counted from 0; it has no name)"),
                name => format!("{name:?}"),
            }));
            format!("{}: not taken for samples: {names}; name a column in samples to take it", path.display())
        });
        Ok(Selection { columns, is_named: false, warnings: warnings.into_iter().collect() })
    }

    /// `column`, if no other column has its name.
    fn unambiguous(&self, path: &Path, column: usize) -> Result<usize> {
        self.find(path, &self.all[column])?;
        Ok(column)
    }

    /// The existing columns `{name}_0`, `{name}_1`, … in the order of their numbers.
    fn numbered(&self, name: &str) -> Vec<(u64, usize)> {
        let number = |column: &str| {
            let digits = column.strip_prefix(name)?.strip_prefix('_')?;
            let number: u64 = digits.parse().ok()?;
            (number.to_string() == digits).then_some(number)
        };
        let mut numbered: Vec<(u64, usize)> =
            self.all.iter().enumerate().filter_map(|(i, column)| Some((number(column)?, i))).collect();
        numbered.sort_unstable();
        numbered.dedup_by_key(|(number, _)| *number); // two columns of one name are refused when they are selected
        numbered
    }

    fn no_such(&self, path: &Path, name: &str, samples: &str) -> Error {
        let fix = format!("samples = {samples:?} selects from its columns: {}", list(&self.all));
        Error::input(path, name, "no such column", fix).of_kind(InputKind::Missing)
    }
}

/// True for names and numbers of rows, and for what `amatch sample` writes in addition to
/// positions.
fn is_beside_samples(name: &str) -> bool {
    is_of_rows(name) || BESIDE_SAMPLES.contains(&name) || name.starts_with(SPREAD)
}

/// True for names and numbers of rows.
fn is_of_rows(name: &str) -> bool {
    is_unnamed(name) || ids::likelihood(name).is_some()
}

/// True if pandas or R would write a column of row numbers under `name`.
fn is_unnamed(name: &str) -> bool {
    let number = name.strip_prefix("Unnamed: ").or_else(|| name.strip_prefix("Unnamed:"));
    name.is_empty() || number.is_some_and(|number| !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit()))
}

/// True if `name` matches `pattern`: `*` stands for any characters, `?` for any single one.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // The position to continue from if the text after the last star does not match: the star takes
    // one more character.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    (p, n) = (star + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(header: &str) -> Names {
        Names::new(header.split(';').map(String::from).collect())
    }

    fn selected(header: &str, samples: &str) -> Result<(Vec<String>, usize)> {
        let names = names(header);
        let selection = names.select(Path::new("a.csv"), samples, "day")?;
        let chosen = selection.columns.iter().map(|&i| names.all[i].clone()).collect();
        Ok((chosen, selection.warnings.len()))
    }

    #[test]
    fn columns_are_chosen_by_name_list_pattern_and_number() {
        for (header, samples, wanted, n_warnings) in [
            ("day;x;y", "samples", "x y", 0),
            (";day;x;y", "samples", "x y", 1),
            ("Unnamed: 0;Unnamed: 12;day;x", "samples", "x", 1),
            ("Unnamed: 0;day;x", "*", "x", 1),
            ("Barcode;day;x", "samples", "x", 1),
            ("id;day;x", "*", "x", 1),
            ("id;day;x", "id,x", "id x", 0),
            ("Unnamed: 0;day;x", "Unnamed: 0,x", "Unnamed: 0 x", 0),
            ("day;x;log_weights;log_density", "samples", "x", 1),
            ("day;x;log_weights", "log_weights", "log_weights", 0),
            ("day;time;times;x", "samples", "x", 0),
            ("type;PC1;PC2;day", "PC*", "PC1 PC2", 0),
            ("aXb1;aYb2;ab3;b", "a?b*,b", "aXb1 aYb2 b", 0),
            ("a1;a2;b", "b,a*,a1*", "b a1 a2", 0),
            ("x_10;x_9;x_8;x_7;x_6;x_5;x_4;x_3;x_2;x_1;x_0", "x", "x_0 x_1 x_2 x_3 x_4 x_5 x_6 x_7 x_8 x_9 x_10", 0),
            ("samples_1;samples_0;z", "samples", "samples_0 samples_1", 0),
            ("x;x_0;x_1", "x", "x", 1),
            ("a,b;c", "a,b", "a,b", 0),
            ("day;x", "day", "day", 0),
        ] {
            let (chosen, warnings) = selected(header, samples).unwrap();
            assert_eq!((chosen.join(" ").as_str(), warnings), (wanted, n_warnings), "{header}, {samples}");
        }
    }

    #[test]
    fn what_cannot_be_chosen_is_named() {
        for (header, samples, wanted) in [
            ("x_0;x_2;x_3", "x", "a.csv: x: has the columns x_0, x_2, x_3, but no x_1"),
            ("x_1;x_2", "x", "but no x_0 (write samples = \"x_*\" to take those)"),
            ("x_0;x_1;x_1", "x", "x_1: two columns have this name"),
            ("x;y;y", "samples", "y: two columns have this name"),
            ("x;y", "z*", "z*: no such column"),
            ("x;y", "x,z", "z: no such column"),
            ("x;y", "x,x", "x: samples = \"x,x\" names it twice"),
            (";y", "Unnamed*", "Unnamed*: no such column"),
        ] {
            let message = selected(header, samples).unwrap_err().to_string();
            assert!(message.contains(wanted), "{message}");
        }
    }

    #[test]
    fn patterns_match_names() {
        for (pattern, name, wanted) in [
            ("*", "", true),
            ("**", "ab", true),
            ("?", "", false),
            ("?", "ä", true),
            ("a*b*c", "axbxbxc", true),
            ("a*b*c", "axbxbx", false),
            ("*ab", "aab", true),
            ("ab", "abc", false),
            ("*?c", "c", false),
        ] {
            assert_eq!(matches(pattern, name), wanted, "{pattern} {name}");
        }
    }
}
