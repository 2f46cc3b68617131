//! `data.where`: which rows of a file are read.

#[cfg(feature = "files")]
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::hold_out::SplitValue;

/// A condition on the columns of a file, such as `celltype == 'HSC' and day <= 6`: terms joined by
/// `and`, each a column, one of `==`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `not in`, and a number, a
/// quoted text or, after `in`, a list of them in brackets. A name with spaces or signs is quoted
/// with backticks.
///
/// ```
/// use action_matching::data::RowFilter;
///
/// let filter: RowFilter = "celltype in ['HSC', 'MPP'] and day <= 6".parse()?;
/// assert_eq!(filter.columns().collect::<Vec<_>>(), ["celltype", "day"]);
/// assert!("celltype = HSC".parse::<RowFilter>().is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RowFilter {
    text: String,
    terms: Vec<Term>,
}

/// A condition on one column.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Term {
    pub column: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    In(Vec<SplitValue>),
    NotIn(Vec<SplitValue>),
    Less(f64),
    AtMost(f64),
    Greater(f64),
    AtLeast(f64),
}

/// A value of a column.
#[cfg(feature = "files")]
pub(super) enum Field<'a> {
    /// NaN is missing.
    #[cfg_attr(not(any(feature = "h5ad", feature = "parquet")), allow(dead_code, reason = "other tables hold texts"))]
    Number(f64),
    Text(Cow<'a, str>),
}

#[cfg(feature = "files")]
impl Field<'_> {
    /// The number that it is or that its text says.
    pub fn number(&self) -> Option<f64> {
        match self {
            Field::Number(x) => Some(*x),
            Field::Text(text) => text.parse().ok(),
        }
    }

    /// The text that it is, or its number in the fewest digits.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Field::Number(x) => x.to_string().into(),
            Field::Text(text) => Cow::Borrowed(text),
        }
    }

    /// True if it is `value`; a number and its text are the same.
    pub fn is(&self, value: &SplitValue) -> bool {
        match (value, self) {
            (SplitValue::Number(value), _) => self.number() == Some(*value),
            (SplitValue::Text(value), Field::Text(text)) => value == text,
            (SplitValue::Text(value), Field::Number(x)) => *value == x.to_string(),
        }
    }
}

/// The row of a file that is row `row` of those `kept`; all are kept if `None`.
pub(super) fn file_row(kept: Option<&[bool]>, row: usize) -> usize {
    let mut places = kept.into_iter().flatten().enumerate().filter(|(_, is_kept)| **is_kept);
    places.nth(row).map_or(row, |(place, _)| place)
}

impl RowFilter {
    /// The columns that it looks at.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().map(|term| term.column.as_str())
    }

    #[cfg(feature = "files")]
    pub(super) fn terms(&self) -> &[Term] {
        &self.terms
    }
}

#[cfg(feature = "files")]
impl Term {
    /// True if a row with `field` in its column is read.
    pub fn admits(&self, field: &Field<'_>) -> bool {
        let number = field.number();
        match &self.test {
            Test::In(values) => values.iter().any(|value| field.is(value)),
            Test::NotIn(values) => !values.iter().any(|value| field.is(value)),
            Test::Less(limit) => number.is_some_and(|x| x < *limit),
            Test::AtMost(limit) => number.is_some_and(|x| x <= *limit),
            Test::Greater(limit) => number.is_some_and(|x| x > *limit),
            Test::AtLeast(limit) => number.is_some_and(|x| x >= *limit),
        }
    }
}

impl FromStr for RowFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let tokens = tokens(text)?;
        let mut left = &tokens[..];
        let mut terms = Vec::new();
        loop {
            terms.push(term(&mut left)?);
            match left {
                [] => return Ok(RowFilter { text: text.trim().into(), terms }),
                [Token::Word(word), rest @ ..] if word == "and" => left = rest,
                [other, ..] => return Err(format!("has {other} where a term ends: join terms with and")),
            }
        }
    }
}

impl TryFrom<String> for RowFilter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<RowFilter> for String {
    fn from(filter: RowFilter) -> String {
        filter.text
    }
}

impl fmt::Display for RowFilter {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    /// A name in backticks.
    Name(String),
    Sign(&'static str),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Token::Word(word) => write!(f, "{word}"),
            Token::Text(text) => write!(f, "'{text}'"),
            Token::Name(name) => write!(f, "`{name}`"),
            Token::Sign(sign) => write!(f, "{sign}"),
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    /// Longer signs first.
    const SIGNS: [&str; 9] = ["==", "!=", "<=", ">=", "<", ">", "[", "]", ","];
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = if matches!(first, '\'' | '"' | '`') {
            let Some(length) = rest[1..].find(first) else { return Err(format!("has a {first} that nothing closes")) };
            let inner = rest[1..1 + length].to_owned();
            (if first == '`' { Token::Name(inner) } else { Token::Text(inner) }, length + 2)
        } else if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            (Token::Sign(sign), sign.len())
        } else {
            let is_end = |c: char| c.is_whitespace() || "=!<>[],'\"`".contains(c);
            let length = rest.find(is_end).unwrap_or(rest.len());
            if length == 0 {
                return Err(format!("has a {first} that is no sign: write == or !="));
            }
            (Token::Word(rest[..length].into()), length)
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

/// Takes one term off the front of `left`.
fn term(left: &mut &[Token]) -> Result<Term, String> {
    let (column, rest) = match left {
        [Token::Word(name) | Token::Name(name), rest @ ..] => (name.clone(), rest),
        [other, ..] => return Err(format!("has {other} where the name of a column is expected")),
        [] => return Err("ends where the name of a column is expected".into()),
    };
    let (test, rest) = match rest {
        [Token::Sign("=="), value, rest @ ..] => (Test::In(vec![self::value(value)?]), rest),
        [Token::Sign("!="), value, rest @ ..] => (Test::NotIn(vec![self::value(value)?]), rest),
        [Token::Sign(sign @ ("<" | "<=" | ">" | ">=")), limit, rest @ ..] => {
            let SplitValue::Number(limit) = value(limit)? else {
                return Err(format!("compares {column} by {sign} with a text: give a number"));
            };
            let test = match *sign {
                "<" => Test::Less(limit),
                "<=" => Test::AtMost(limit),
                ">" => Test::Greater(limit),
                _ => Test::AtLeast(limit),
            };
            (test, rest)
        }
        [Token::Word(word), rest @ ..] if word == "in" => {
            let (values, rest) = values(rest)?;
            (Test::In(values), rest)
        }
        [Token::Word(not), Token::Word(word), rest @ ..] if not == "not" && word == "in" => {
            let (values, rest) = values(rest)?;
            (Test::NotIn(values), rest)
        }
        _ => return Err(format!("has no ==, !=, <, <=, >, >=, in or not in with a value after {column}")),
    };
    *left = rest;
    Ok(Term { column, test })
}

fn value(token: &Token) -> Result<SplitValue, String> {
    match token {
        Token::Text(text) => Ok(SplitValue::Text(text.clone())),
        Token::Word(word) => match (word.parse(), word.as_str()) {
            (Ok(number), _) if f64::is_finite(number) => Ok(SplitValue::Number(number)),
            (Ok(_), _) => Err(format!("compares with {word}: give a finite number")),
            (_, "true" | "True") => Ok(SplitValue::Text("True".into())),
            (_, "false" | "False") => Ok(SplitValue::Text("False".into())),
            _ => Err(format!("has {word} where a value is expected: quote texts, as in '{word}'")),
        },
        other => Err(format!("has {other} where a number or a quoted text is expected")),
    }
}

/// A list in brackets off the front of `tokens`: (its values, what follows).
fn values(tokens: &[Token]) -> Result<(Vec<SplitValue>, &[Token]), String> {
    let [Token::Sign("["), rest @ ..] = tokens else { return Err("has no [ after in".into()) };
    let Some(end) = rest.iter().position(|token| *token == Token::Sign("]")) else {
        return Err("has a [ that nothing closes".into());
    };
    let values = rest[..end]
        .split(|token| *token == Token::Sign(","))
        .map(|one| match one {
            [token] => value(token),
            _ => Err("has a list in which values are not separated by single commas".into()),
        })
        .collect::<Result<_, _>>()?;
    Ok((values, &rest[end + 1..]))
}

#[cfg(all(test, feature = "files"))]
mod tests {
    use super::*;

    fn admits(filter: &str, fields: &[Field<'_>]) -> bool {
        let filter: RowFilter = filter.parse().expect("a filter");
        filter.terms().iter().zip(fields).all(|(term, field)| term.admits(field))
    }

    #[test]
    fn terms_compare_numbers_and_texts() {
        use Field::Number;
        let text = |text: &'static str| Field::Text(text.into());
        for (filter, field, expected) in [
            ("a == 'HSC'", text("HSC"), true),
            ("a == 'HSC'", text("MPP"), false),
            ("a != 'HSC'", text("MPP"), true),
            ("a in ['HSC', \"MPP\"]", text("MPP"), true),
            ("a not in ['HSC', 'MPP']", text("MPP"), false),
            ("`a b` == 3", Number(3.0), true),
            ("a == 3", text("3.0"), true),
            ("a=='3'", Number(3.0), true),
            ("a<=6", Number(6.0), true),
            ("a < 6", Number(6.0), false),
            ("a > 6", text("7"), true),
            ("a >= 6", Number(f64::NAN), false),
            ("a == True", text("True"), true),
            ("a != 'x'", Number(f64::NAN), true),
        ] {
            assert_eq!(admits(filter, &[field]), expected, "{filter}");
        }
        assert!(admits("a == 'x' and b < 2", &[text("x"), Number(1.0)]));
        assert!(!admits("a == 'x' and b < 2", &[text("x"), Number(2.0)]));
    }

    #[test]
    fn what_is_no_condition_is_said() {
        for (filter, problem) in [
            ("", "name of a column"),
            ("a", "no =="),
            ("a = 3", "write =="),
            ("a != nan", "finite number"),
            ("a == HSC", "quote texts"),
            ("a == 'HSC", "nothing closes"),
            ("a in 3", "no ["),
            ("a in [3", "nothing closes"),
            ("a in [3 4]", "commas"),
            ("a < 'x'", "give a number"),
            ("a == 3 b == 4", "join terms"),
            ("'a' == 3", "name of a column"),
        ] {
            let found = filter.parse::<RowFilter>().expect_err(filter);
            assert!(found.contains(problem), "{filter}: {found}");
        }
    }
}
