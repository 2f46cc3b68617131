//! Inks: colors by meaning, each for light and for dark paper.
//!
//! Times have the colors of viridis, which color-blind people tell apart and which stay in order
//! in gray; of it the end that would vanish on the paper is left out. Two things side by side have
//! blue and orange after Okabe and Ito (2008). Signed numbers go from blue over gray to orange.

use std::fmt::Write;

/// Number of steps of a scale of inks.
const STEPS: u8 = 16;

/// A color by its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ink {
    Paper,
    Text,
    /// Text of less weight, and axes.
    Muted,
    /// Lines that only guide the eye.
    Faint,
    /// Data behind something else.
    Backdrop,
    Data,
    Model,
    /// Step of a scale: see [`Ink::time`].
    Time(u8),
    /// Step of a scale: see [`Ink::level`].
    Level(u8),
    /// Step of a scale: see [`Ink::signed`].
    Signed(u8),
}

impl Ink {
    /// The ink of a time, or of any number, at `share` of its range 0..=1.
    pub fn time(share: f64) -> Ink {
        Ink::Time(step(share))
    }

    /// The ink of an area between level sets, at `share` of their range 0..=1.
    pub fn level(share: f64) -> Ink {
        Ink::Level(step(share))
    }

    /// The ink of a number between −1 and 1.
    pub fn signed(value: f64) -> Ink {
        Ink::Signed(step(0.5 + 0.5 * value))
    }

    /// The name of the ink in a style sheet.
    pub fn name(self) -> String {
        match self {
            Ink::Paper => "paper".into(),
            Ink::Text => "text".into(),
            Ink::Muted => "muted".into(),
            Ink::Faint => "faint".into(),
            Ink::Backdrop => "backdrop".into(),
            Ink::Data => "data".into(),
            Ink::Model => "model".into(),
            Ink::Time(step) => format!("time-{step}"),
            Ink::Level(step) => format!("level-{step}"),
            Ink::Signed(step) => format!("signed-{step}"),
        }
    }

    /// Red, green and blue on light or dark paper.
    pub fn color(self, is_dark: bool) -> [u8; 3] {
        let of = |light: [u8; 3], dark: [u8; 3]| if is_dark { dark } else { light };
        match self {
            Ink::Paper => of([255, 255, 255], [21, 24, 29]),
            Ink::Text => of([27, 31, 36], [230, 234, 239]),
            Ink::Muted => of([89, 99, 110], [153, 164, 177]),
            Ink::Faint => of([225, 229, 234], [48, 54, 62]),
            Ink::Backdrop => of([198, 204, 211], [72, 80, 90]),
            Ink::Data => of([0, 100, 168], [96, 178, 240]),
            Ink::Model => of([213, 94, 0], [255, 168, 71]),
            Ink::Time(step) => {
                let share = part(step);
                viridis(if is_dark { 0.24 + 0.76 * share } else { 0.02 + 0.81 * share })
            }
            Ink::Level(step) => of(
                between(part(step), [240, 245, 250], [154, 186, 219]),
                between(part(step), [28, 34, 43], [44, 82, 124]),
            ),
            Ink::Signed(step) => {
                let value = 2.0 * part(step) - 1.0;
                let middle = of([214, 216, 219], [70, 76, 84]);
                let end = if value < 0.0 { Ink::Data } else { Ink::Model };
                between(value.abs(), middle, end.color(is_dark))
            }
        }
    }

    /// All inks.
    fn all() -> impl Iterator<Item = Ink> {
        let single = [Ink::Paper, Ink::Text, Ink::Muted, Ink::Faint, Ink::Backdrop, Ink::Data, Ink::Model];
        let steps = (0..STEPS).flat_map(|step| [Ink::Time(step), Ink::Level(step), Ink::Signed(step)]);
        single.into_iter().chain(steps)
    }
}

/// Variables of a style sheet with all inks, dark where the reader prefers that, and classes `f-…`
/// and `s-…` that fill and stroke with them.
pub(crate) fn style_sheet() -> String {
    let mut sheet = String::new();
    for is_dark in [false, true] {
        sheet += if is_dark { "@media (prefers-color-scheme:dark){:root{" } else { ":root{" };
        for ink in Ink::all() {
            let [r, g, b] = ink.color(is_dark);
            let _ = write!(sheet, "--{}:#{r:02x}{g:02x}{b:02x};", ink.name());
        }
        sheet += if is_dark { "}}\n" } else { "}\n" };
    }
    for ink in Ink::all() {
        let name = ink.name();
        let _ = write!(sheet, ".f-{name}{{fill:var(--{name})}}.s-{name}{{stroke:var(--{name})}}");
    }
    sheet + "\n"
}

fn step(share: f64) -> u8 {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    (share * f64::from(STEPS - 1)).round() as u8
}

fn part(step: u8) -> f64 {
    f64::from(step.min(STEPS - 1)) / f64::from(STEPS - 1)
}

fn between(share: f64, from: [u8; 3], to: [u8; 3]) -> [u8; 3] {
    std::array::from_fn(|i| (f64::from(from[i]) * (1.0 - share) + f64::from(to[i]) * share).round() as u8)
}

/// Matplotlib's viridis (CC0), by eleven of its colors.
fn viridis(share: f64) -> [u8; 3] {
    const COLORS: [[u8; 3]; 11] = [
        [68, 1, 84],
        [72, 36, 117],
        [65, 68, 135],
        [53, 95, 141],
        [42, 120, 142],
        [33, 145, 140],
        [34, 168, 132],
        [68, 191, 112],
        [122, 209, 81],
        [189, 223, 38],
        [253, 231, 37],
    ];
    let place = share.clamp(0.0, 1.0) * 10.0;
    let k = (place as usize).min(9);
    between(place - k as f64, COLORS[k], COLORS[k + 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// WCAG 2.1: relative luminance, and the ratio of two.
    fn contrast(a: [u8; 3], b: [u8; 3]) -> f64 {
        let luminance = |color: [u8; 3]| -> f64 {
            let [r, g, b] = color.map(|part| {
                let part = f64::from(part) / 255.0;
                if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
            });
            0.2126 * r + 0.7152 * g + 0.0722 * b
        };
        let [a, b] = [luminance(a), luminance(b)];
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn text_is_legible_and_marks_are_seen_on_both_papers() {
        for is_dark in [false, true] {
            let paper = Ink::Paper.color(is_dark);
            let of = |ink: Ink| contrast(ink.color(is_dark), paper);
            assert!(of(Ink::Text) > 7.0 && of(Ink::Muted) > 4.5, "{is_dark}");
            assert!(of(Ink::Data) > 3.0 && of(Ink::Model) > 3.0, "{is_dark}");
            for step in 0..STEPS {
                assert!(of(Ink::Time(step)) > 1.7, "{is_dark} {step}: {}", of(Ink::Time(step)));
                let on_level = contrast(Ink::Text.color(is_dark), Ink::Level(step).color(is_dark));
                assert!(on_level > 4.5, "{is_dark} {step}: {on_level}");
            }
        }
    }

    #[test]
    fn every_ink_of_a_scale_is_in_the_style_sheet() {
        let sheet = style_sheet();
        for ink in
            [Ink::time(0.0), Ink::time(1.0), Ink::level(0.5), Ink::signed(-1.0), Ink::signed(9.0), Ink::time(f64::NAN)]
        {
            assert!(sheet.contains(&format!(".f-{}{{", ink.name())), "{ink:?}");
        }
    }
}
