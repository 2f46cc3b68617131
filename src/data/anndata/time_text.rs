//! Times that are written as text, such as `day 3`, `E8.5` or `12h`.

/// The number in each of `texts`, if what surrounds it is the same in all of them: (numbers, true
/// if there is text beside them).
///
/// # Errors
/// What is wrong with the texts, as the end of a sentence.
pub(super) fn numbers(texts: &[String]) -> Result<(Vec<f64>, bool), String> {
    let parts: Vec<Parts<'_>> = texts
        .iter()
        .map(|text| Parts::of(text.trim()).ok_or_else(|| format!("holds {text:?}, in which there is no number")))
        .collect::<Result<_, _>>()?;
    let Some(first) = parts.first() else { return Ok((Vec::new(), false)) };
    let surrounds = |parts: &Parts<'_>| (parts.before.trim().to_lowercase(), parts.after.trim().to_lowercase());
    if let Some(k) = parts.iter().position(|other| surrounds(other) != surrounds(first)) {
        return Err(format!("holds {:?} and {:?}, whose units may differ", texts[0], texts[k]));
    }
    let has_text = surrounds(first) != (String::new(), String::new());
    Ok((parts.iter().map(|parts| parts.number).collect(), has_text))
}

/// A text around its first number.
struct Parts<'a> {
    before: &'a str,
    number: f64,
    after: &'a str,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Option<Self> {
        if let Ok(number) = text.parse::<f64>() {
            return Some(Parts { before: "", number, after: "" });
        }
        let start = text.find(|c: char| c.is_ascii_digit())?;
        let digits = |from: usize| from + text[from..].bytes().take_while(u8::is_ascii_digit).count();
        let mut end = digits(start);
        if text[end..].starts_with('.') && digits(end + 1) > end + 1 {
            end = digits(end + 1);
        }
        // A sign belongs to the number at the start and after a space; elsewhere it joins words.
        let signed = text[..start].strip_suffix('-').filter(|before| before.is_empty() || before.ends_with(' '));
        let start = signed.map_or(start, str::len);
        Some(Parts { before: &text[..start], number: text[start..end].parse().ok()?, after: &text[end..] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str]) -> Result<(Vec<f64>, bool), String> {
        numbers(&texts.iter().map(|text| text.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn the_number_inside_a_text_is_its_time() {
        assert_eq!(read(&["0", "2.5", "1e2"]), Ok((vec![0.0, 2.5, 100.0], false)));
        assert_eq!(read(&["day 3", "day 10"]), Ok((vec![3.0, 10.0], true)));
        assert_eq!(read(&["E8.5", "E6.75"]), Ok((vec![8.5, 6.75], true)));
        assert_eq!(read(&["12h", "0h"]), Ok((vec![12.0, 0.0], true)));
        assert_eq!(read(&["Day 00-03", "day 07-03"]), Ok((vec![0.0, 7.0], true)));
        assert_eq!(read(&["d-1", "d-2"]), Ok((vec![1.0, 2.0], true)));
        assert_eq!(read(&["day -1", "day 2"]), Ok((vec![-1.0, 2.0], true)));
    }

    #[test]
    fn texts_without_a_number_or_with_several_units_are_refused() {
        assert!(read(&["day 3", "control"]).is_err_and(|problem| problem.contains("\"control\"")));
        assert!(read(&["12h", "2d"]).is_err_and(|problem| problem.contains("units")));
        assert!(read(&["E8.5", "P0"]).is_err_and(|problem| problem.contains("\"P0\"")));
    }
}
