//! Names of rows, such as barcodes of cells: read beside samples, and kept to what is made of them.

use std::path::{Path, PathBuf};

use crate::error::{Error, InputKind, Result};

/// The name under which ids are written, and that arrays of them have.
pub(super) const IDS: &str = "ids";

/// Names of columns of ids in a table, in any case; the first that a table has is read.
#[cfg(feature = "files")]
const LIKELY: [&str; 10] = [
    IDS,
    "id",
    "cell",
    "cell_id",
    "cell_name",
    "barcode",
    "cell_barcode",
    "obs_names",
    "index",
    "__index_level_0__", // an index without a name, as pandas writes it to .parquet
];

/// How likely a column `name` of a table holds ids, 0 most of all; `None` if it does not.
#[cfg(feature = "files")]
pub(super) fn likelihood(name: &str) -> Option<usize> {
    LIKELY.iter().position(|likely| name.eq_ignore_ascii_case(likely))
}

/// The ids of a file while they are read. They take the memory of their texts, which is held
/// against the size of the file.
pub(super) struct Ids {
    path: PathBuf,
    name: String,
    bytes_left: u64,
    texts: Vec<String>,
}

/// Longest id, in bytes.
pub(super) const LONGEST: usize = 1024;

impl Ids {
    /// None yet, of the column or array `name` of a file of `size` bytes.
    pub fn new(path: &Path, name: &str, size: u64) -> Self {
        /// Bytes of texts that any file may hold, and bytes for each byte of a compressed one.
        const BYTES: u64 = 1 << 20;
        const RATIO: u64 = 64;
        let bytes_left = size.saturating_mul(RATIO).saturating_add(BYTES);
        Ids { path: path.into(), name: name.into(), bytes_left, texts: Vec::new() }
    }

    /// Adds the id of one more row.
    ///
    /// # Errors
    /// [`Error::Input`] if it is too long, or all are for their file.
    pub fn push(&mut self, text: &str) -> Result<()> {
        let n = text.len() as u64;
        if text.len() > LONGEST || n > self.bytes_left {
            let problem = format!("has a name of {n} bytes in row {} (counted from 0)", self.texts.len());
            let fix = format!("give names of at most {LONGEST} bytes, or leave the column out");
            return Err(Error::input(&self.path, &self.name, problem, fix).of_kind(InputKind::TooLarge));
        }
        self.bytes_left -= n;
        self.texts.push(text.into());
        Ok(())
    }

    /// The ids of `n_rows` rows.
    ///
    /// # Errors
    /// [`Error::Input`] if there are more or fewer.
    pub fn finish(self, n_rows: usize) -> Result<Vec<String>> {
        let n = self.texts.len();
        if n == n_rows {
            return Ok(self.texts);
        }
        let problem = format!("has {n} names, but there are {n_rows} rows");
        Err(Error::input(&self.path, &self.name, problem, "give one name per row"))
    }
}

/// `ids` with a number at the end of those that an earlier row has, as
/// `AnnData.obs_names_make_unique` numbers them: `a`, `b`, `a-1`.
#[cfg(feature = "h5ad")]
pub(super) fn unique<'a>(ids: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
    use std::collections::{HashMap, HashSet};
    let mut taken: HashSet<String> = ids.clone().map(String::from).collect();
    let mut repeats: HashMap<&str, usize> = HashMap::new();
    ids.map(|id| {
        let Some(n) = repeats.get_mut(id) else {
            repeats.insert(id, 0);
            return id.to_owned();
        };
        loop {
            *n += 1;
            let numbered = format!("{id}-{n}");
            if taken.insert(numbered.clone()) {
                return numbered;
            }
        }
    })
    .collect()
}

#[cfg(all(test, feature = "h5ad"))]
mod tests {
    use super::*;

    #[test]
    fn repeated_ids_are_numbered() {
        let ids = ["a", "b", "a", "a-1", "a", "b"];
        assert_eq!(unique(ids.into_iter()), ["a", "b", "a-2", "a-1", "a-3", "b-1"]);
    }

    #[test]
    fn ids_that_are_too_long_are_refused() {
        let mut ids = Ids::new(Path::new("a.csv"), "barcode", 0);
        ids.push("AAAC").expect("fits");
        let refused = ids.push(&"A".repeat(LONGEST + 1)).expect_err("too long").to_string();
        assert!(refused.starts_with("a.csv: barcode: has a name of 1025 bytes in row 1"), "{refused}");
        assert!(ids.finish(2).expect_err("one").to_string().contains("has 1 names, but there are 2 rows"));
        let mut many = Ids::new(Path::new("a.npz"), "ids", 0);
        let refused = (0..).find_map(|_| many.push(&"A".repeat(LONGEST)).err()).expect("bounded");
        assert!(refused.to_string().contains("a name of 1024 bytes in row 1024"), "{refused}");
    }
}
