//! What each rank has, on all of them.

use crate::error::{Error, RankKind, Result};

/// Hands bytes from rank to rank. All ranks make the same calls in the same order.
pub trait Exchange: Send + Sync {
    /// The number of this rank, and of ranks.
    fn place(&self) -> (usize, usize);

    /// What each rank passes as `own`, by number of the rank.
    ///
    /// # Errors
    /// [`Error::Rank`] if a rank is lost, [`Error::Device`] if a device fails.
    fn share(&self, own: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// What rank 0 passes as `own`; what others pass is ignored.
    ///
    /// # Errors
    /// As [`Exchange::share`].
    fn of_first(&self, own: &[u8]) -> Result<Vec<u8>> {
        Ok(self.share(own)?.swap_remove(0))
    }

    /// Checks that all ranks pass the same `own`, which is `what` in words.
    ///
    /// # Errors
    /// [`Error::Rank`] on all ranks names the first that has another; else as [`Exchange::share`].
    fn check_equal(&self, what: &str, own: &str) -> Result<()> {
        let all = self.share(own.as_bytes())?;
        match all.iter().position(|other| *other != all[0]) {
            None => Ok(()),
            Some(rank) => Err(Error::Rank {
                kind: RankKind::Differs,
                problem: format!("{what}: rank {rank} has another than rank 0"),
                fix: "start all ranks with the same program, configuration and data",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ranks(Vec<Vec<u8>>);

    impl Exchange for Ranks {
        fn place(&self) -> (usize, usize) {
            (0, self.0.len())
        }

        fn share(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
            assert!(self.0.contains(&own.to_vec()));
            Ok(self.0.clone())
        }
    }

    #[test]
    fn the_rank_that_differs_is_named() {
        let ranks = Ranks(["a", "a", "b"].map(|text| text.as_bytes().to_vec()).into());
        let error = ranks.check_equal("the data", "b").expect_err("differ").to_string();
        assert!(error.contains("the data: rank 2 has another than rank 0"), "{error}");
        assert_eq!(ranks.of_first(b"b").expect("shared"), b"a");
        Ranks(vec![b"a".to_vec(); 2]).check_equal("the data", "a").expect("equal");
    }
}
