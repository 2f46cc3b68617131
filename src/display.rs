//! Numbers for people to read.
//!
//! ```
//! use action_matching::display::{shortest, significant};
//!
//! assert_eq!((significant(0.123456, 4), significant(1.5e-9, 2)), ("0.1235".into(), "1.5e-9".into()));
//! assert_eq!(shortest(1e300), "1e300");
//! ```

/// `value` with `digits` significant digits at any magnitude: fixed notation from 1e-3 to 1e6,
/// otherwise scientific.
#[must_use]
pub fn significant(value: f64, digits: usize) -> String {
    let decimals = digits.max(1) - 1;
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    // The exponent after rounding: 9.9999 has the exponent of 10.
    let scientific = format!("{value:.decimals$e}");
    let exponent = scientific.split_once('e').and_then(|(_, exponent)| exponent.parse::<i32>().ok()).unwrap_or(0);
    if (-3..6).contains(&exponent) {
        format!("{value:.*}", (decimals as i32 - exponent).max(0) as usize)
    } else {
        scientific
    }
}

/// The shortest text that parses to `value`.
#[must_use]
pub fn shortest(value: f64) -> String {
    let in_full = value == 0.0 || !value.is_finite() || (1e-5..1e16).contains(&value.abs());
    if in_full { value.to_string() } else { format!("{value:e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_digits_are_right_at_every_magnitude() {
        for (value, text) in [
            (0.5, "0.5000"),
            (0.1234567, "0.1235"),
            (0.00123456, "0.001235"),
            (0.000123456, "1.235e-4"),
            (0.99996, "1.000"),
            (9999.6, "10000"),
            (-12.3456, "-12.35"),
            (123456.7, "123457"),
            (999999.7, "1.000e6"),
            (1234567.0, "1.235e6"),
            (-1.5e15, "-1.500e15"),
            (2.5e-9, "2.500e-9"),
            (5e-324, "4.941e-324"),
            (f64::MAX, "1.798e308"),
            (0.0, "0"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(significant(value, 4), text);
        }
        for exponent in -300..=300 {
            let value = 1.2345678 * 10f64.powi(exponent);
            let read: f64 = significant(value, 4).parse().unwrap();
            assert!((read - value).abs() <= 0.5e-3 * value, "{value} reads {read}");
        }
        assert_eq!(significant(0.123456789, 6), "0.123457");
    }

    #[test]
    fn the_shortest_text_reads_back() {
        for (value, text) in [(0.8, "0.8"), (7.0, "7"), (-0.00002, "-0.00002"), (1e300, "1e300"), (2.5e-9, "2.5e-9")] {
            assert_eq!(shortest(value), text);
            assert_eq!(text.parse(), Ok(value));
        }
    }
}
