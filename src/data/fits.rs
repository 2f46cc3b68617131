//! The check that samples suit a model.

use std::path::Path;

use super::array::list;
use crate::error::{Error, Result};
use crate::model::Coordinates;

/// Checks that samples of `path` suit a model of `coordinates`: of equal dimension `dim`, and, if
/// both have column names, with the same `columns` in the same order.
///
/// # Errors
/// [`Error::Input`] that lists both.
pub fn check_fits(path: &Path, dim: usize, columns: Option<&[String]>, coordinates: &Coordinates) -> Result<()> {
    let wanted = coordinates.mean.len();
    match (columns, &coordinates.columns) {
        (Some(found), Some(names)) if found != names => {
            let (mut a, mut b) = (found.to_vec(), names.clone());
            a.sort_unstable();
            b.sort_unstable();
            let what = if a == b { "are in another order" } else { "are not those of the model" };
            let problem = format!("{} {what}, trained on {}", list(found), list(names));
            let fix = format!("give these columns in this order, by samples = \"{}\"", list(names).replace(", ", ","));
            Err(Error::input(path, "columns", problem, fix))
        }
        _ if dim != wanted => {
            let problem = format!("have dimension {dim}, but the model has {wanted}");
            Err(Error::input(path, "samples", problem, "give samples of the model's dimension"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_refuses_other_columns_and_another_order() {
        let own = |names: &[&str]| Some(names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        let coordinates = Coordinates { columns: own(&["PC1", "PC2"]), ..Coordinates::identity(2) };
        let check = |columns: Option<Vec<String>>, dim| {
            check_fits(Path::new("a.csv"), dim, columns.as_deref(), &coordinates).map_err(|error| error.to_string())
        };
        assert_eq!(check(own(&["PC1", "PC2"]), 2), Ok(()));
        assert_eq!(check(None, 2), Ok(()));
        for (columns, dim, wanted) in [
            (own(&["PC2", "PC1"]), 2, "PC2, PC1 are in another order, trained on PC1, PC2 (give"),
            (own(&["PC1", "PC3"]), 2, "PC1, PC3 are not those of the model, trained on PC1, PC2 (give"),
            (own(&["PC1"]), 1, "PC1 are not those of the model"),
            (None, 3, "have dimension 3, but the model has 2"),
        ] {
            let message = check(columns, dim).unwrap_err();
            assert!(message.contains(wanted), "{message}");
        }
        let unnamed = Coordinates::identity(2);
        assert!(check_fits(Path::new("a.csv"), 2, own(&["a", "b"]).as_deref(), &unnamed).is_ok());
    }
}
