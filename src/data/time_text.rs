//! Times that are written as text, such as `day 3`, `E8.5` or `12h`.

/// Reads the numbers in texts, one after the other, as long as what surrounds them is the same.
#[derive(Default)]
pub(super) struct TimeTexts {
    /// The first text, and what surrounds its number.
    first: Option<(String, [String; 2])>,
    /// The first texts that are more than a number, with their numbers.
    shown: Vec<(String, f64)>,
    has_more: bool,
}

/// Why a column holds no times: the way out of it.
pub(super) const FIX: &str = "name a column of numbers, or of texts with a number and one unit, as in \"day 3\"";

impl TimeTexts {
    /// The number in `text`.
    ///
    /// # Errors
    /// What is wrong with the text, as the end of a sentence.
    pub fn number(&mut self, text: &str) -> Result<f64, String> {
        let Parts { before, number, after } = Parts::of(text.trim())?;
        let surrounds = [before, after].map(|part| part.trim().to_lowercase());
        let has_text = surrounds.iter().any(|part| !part.is_empty());
        match &self.first {
            None => self.first = Some((text.into(), surrounds)),
            Some((_, of_first)) if *of_first == surrounds => {}
            Some((first, _)) => return Err(format!("holds {first:?} and {text:?}, whose units may differ")),
        }
        if has_text && !self.has_more && self.shown.iter().all(|(shown, _)| shown != text) {
            /// Texts that the notice shows.
            const SHOWN: usize = 12;
            self.has_more = self.shown.len() == SHOWN;
            if !self.has_more {
                self.shown.push((text.into(), number));
            }
        }
        Ok(number)
    }

    /// What was read as numbers in the column `name`, if there was text beside them.
    pub fn notice(&self, name: &str) -> Option<String> {
        let pairs: Vec<String> = self.shown.iter().map(|(text, number)| format!("{text:?} is {number}")).collect();
        let more = if self.has_more { ", …" } else { "" };
        (!pairs.is_empty()).then(|| format!("{name} is text, read as numbers: {}{more}", pairs.join(", ")))
    }
}

/// A text around its first number.
struct Parts<'a> {
    before: &'a str,
    number: f64,
    after: &'a str,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Result<Self, String> {
        /// Bytes of a text that may be a time.
        const LONGEST: usize = 80;
        if text.len() > LONGEST {
            return Err(format!("holds a text of {} bytes, too long for a time", text.len()));
        }
        if let Ok(number) = text.parse::<f64>() {
            return Ok(Parts { before: "", number, after: "" });
        }
        let none = || format!("holds {text:?}, in which there is no number");
        let start = text.find(|c: char| c.is_ascii_digit()).ok_or_else(none)?;
        let digits = |from: usize| from + text[from..].bytes().take_while(u8::is_ascii_digit).count();
        let mut end = digits(start);
        if text[end..].starts_with('.') && digits(end + 1) > end + 1 {
            end = digits(end + 1);
        } else if text[end..].starts_with(',') && digits(end + 1) > end + 1 {
            return Err(format!("holds {text:?}, with a decimal comma"));
        }
        // A sign belongs to the number at the start and after a space; elsewhere it joins words.
        let signed = text[..start].strip_suffix('-').filter(|before| before.is_empty() || before.ends_with(' '));
        let start = signed.map_or(start, str::len);
        let number = text[start..end].parse().map_err(|_| none())?;
        Ok(Parts { before: &text[..start], number, after: &text[end..] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str]) -> Result<(Vec<f64>, Option<String>), String> {
        let mut times = TimeTexts::default();
        let numbers = texts.iter().map(|text| times.number(text)).collect::<Result<_, _>>()?;
        Ok((numbers, times.notice("day")))
    }

    #[test]
    fn the_number_inside_a_text_is_its_time() {
        for (texts, numbers) in [
            (["day 3", "day 10"], [3.0, 10.0]),
            (["E8.5", "E6.75"], [8.5, 6.75]),
            (["12h", "0h"], [12.0, 0.0]),
            (["Day 00-03", "day 07-03"], [0.0, 7.0]),
            (["d-1", "d-2"], [1.0, 2.0]),
            (["day -1", "day 2"], [-1.0, 2.0]),
        ] {
            let [a, b] = texts;
            let notice = format!("day is text, read as numbers: {a:?} is {}, {b:?} is {}", numbers[0], numbers[1]);
            assert_eq!(read(&[a, b, a]), Ok((vec![numbers[0], numbers[1], numbers[0]], Some(notice))));
        }
        assert_eq!(read(&["0", "2.5", "1e2"]), Ok((vec![0.0, 2.5, 100.0], None)));
        let many: Vec<String> = (0..13).map(|k| format!("day {k}")).collect();
        let (_, notice) = read(&many.iter().map(String::as_str).collect::<Vec<_>>()).expect("times");
        assert!(notice.is_some_and(|notice| notice.ends_with("\"day 11\" is 11, …")));
    }

    #[test]
    fn texts_without_a_number_or_with_several_units_are_refused() {
        for (texts, problem) in [
            (["day 3", "control"], "\"control\", in which there is no number"),
            (["12h", "2d"], "units"),
            (["3", "day 4"], "units"),
            (["E8.5", "P0"], "\"P0\""),
            (["day 1", "day 1,5"], "decimal comma"),
            (["day 1", &*"9".repeat(100)], "too long"),
        ] {
            assert!(read(&texts).is_err_and(|found| found.contains(problem)), "{texts:?}");
        }
    }
}
