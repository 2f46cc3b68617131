//! The machines that a node list of SLURM names, such as `gpu[01-04,7],login`.

use crate::error::{Error, Result};

/// Most machines of a list: what is longer is a mistake, or an attack on memory.
const MOST: usize = 1 << 16;

/// The names in `list`, in its order.
///
/// ```
/// use action_matching::ranks::hosts::expand;
///
/// assert_eq!(expand("gpu[08-10,2],login")?, ["gpu08", "gpu09", "gpu10", "gpu2", "login"]);
/// # Ok::<(), action_matching::Error>(())
/// ```
///
/// # Errors
/// A list that SLURM would not write.
pub fn expand(list: &str) -> Result<Vec<String>> {
    let malformed = |problem: String| {
        Error::input("node list", list, problem, "expected names with ranges of numbers, as in gpu[01-04,7],login")
    };
    let mut names = Vec::new();
    for pattern in patterns(list).map_err(malformed)? {
        let mut built = vec![String::new()];
        for piece in pattern {
            let endings = match piece {
                Piece::Text(text) => vec![text.to_owned()],
                Piece::Ranges(ranges) => numbers(ranges).map_err(malformed)?,
            };
            if built.len().saturating_mul(endings.len()).saturating_add(names.len()) > MOST {
                return Err(malformed(format!("more than {MOST} machines")));
            }
            built = built.iter().flat_map(|start| endings.iter().map(move |end| format!("{start}{end}"))).collect();
        }
        names.extend(built);
    }
    Ok(names)
}

/// A part of a name.
enum Piece<'a> {
    Text(&'a str),
    /// What is between brackets.
    Ranges(&'a str),
}

/// The names of a list, in their parts.
fn patterns(list: &str) -> Result<Vec<Vec<Piece<'_>>>, String> {
    let mut all = Vec::new();
    let mut rest = list;
    loop {
        let mut pieces = Vec::new();
        let end = loop {
            let at = rest.find(['[', ']', ',']).unwrap_or(rest.len());
            let (text, after) = rest.split_at(at);
            if !text.is_empty() {
                pieces.push(Piece::Text(text));
            }
            match after.chars().next() {
                Some('[') => {
                    let (ranges, after) = after[1..].split_once(']').ok_or("a [ without its ]")?;
                    pieces.push(Piece::Ranges(ranges));
                    rest = after;
                }
                Some(']') => return Err("a ] without its [".into()),
                Some(_) => break Some(&after[1..]),
                None => break None,
            }
        };
        if pieces.is_empty() {
            return Err("a name is empty".into());
        }
        all.push(pieces);
        match end {
            Some(after) => rest = after,
            None => return Ok(all),
        }
    }
}

/// The numbers of `01-04,7`, as they are written.
fn numbers(ranges: &str) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for range in ranges.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse::<usize>().map_err(|_| format!("{text:?} is no number")),
            false => Err(format!("{text:?} is no number")),
        };
        let (from, to) = (number(first)?, number(last)?);
        if to < from || to - from >= MOST || all.len() + (to - from) >= MOST {
            return Err(format!("the range {range:?}"));
        }
        // Leading zeros keep the width of the first number.
        all.extend((from..=to).map(|number| format!("{number:0width$}", width = first.len())));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_name_their_machines() {
        for (list, expected) in [
            ("node", "node"),
            ("a,b", "a b"),
            ("gpu[01-04,7]", "gpu01 gpu02 gpu03 gpu04 gpu7"),
            ("gpu[9-11]", "gpu9 gpu10 gpu11"),
            ("gpu[098-101]", "gpu098 gpu099 gpu100 gpu101"),
            ("rack[1-2]n[3,5],login", "rack1n3 rack1n5 rack2n3 rack2n5 login"),
            ("n[1-2]-ib.cluster,m3", "n1-ib.cluster n2-ib.cluster m3"),
        ] {
            assert_eq!(expand(list).expect(list).join(" "), expected);
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for (list, word) in [
            ("", "empty"),
            ("a,,b", "empty"),
            ("gpu[1-2", "without its ]"),
            ("gpu1]", "without its ["),
            ("gpu[]", "no number"),
            ("gpu[a-b]", "no number"),
            ("gpu[+1]", "no number"),
            ("gpu[4-1]", "range"),
            ("gpu[1-99999999]", "range"),
            ("gpu[99999999999999999999]", "no number"),
            ("n[1-60000]m[1-60000]", "more than 65536"),
        ] {
            let message = expand(list).expect_err(list).to_string();
            assert!(message.contains(word) && message.contains("gpu[01-04,7]"), "{list}: {message}");
        }
    }
}
