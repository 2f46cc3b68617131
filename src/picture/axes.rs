//! A panel: a frame with two axes, and places in it.

use super::font;
use super::ink::Ink;
use super::scene::{Anchor, Mark, Scene};
use crate::display::shortest;

/// Size of most text, pixels.
const TEXT: f64 = 11.0;

/// What an axis covers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Range {
    pub low: f64,
    pub high: f64,
}

impl Range {
    /// The range of the finite ones of `values`, a little wider than they are; 0 to 1 without any.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Range {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.into_iter().filter(|value| value.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            return Range { low: 0.0, high: 1.0 };
        }
        // Equal values get room in the order of their size.
        let margin = (0.04 * (high - low)).max(1e-6 * low.abs().max(high.abs())).max(1e-300);
        Range { low: low - margin, high: high + margin }
    }

    /// The range of most of `values`: without the share `cut` of the largest and of the smallest.
    pub fn of_most(mut values: Vec<f64>, cut: f64) -> Range {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let out = (cut * values.len() as f64) as usize;
        Range::of(values[out..values.len() - out].iter().copied())
    }

    /// Where `value` lies, 0 at the lower end and 1 at the upper.
    pub fn share(self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// Round numbers in the range, about `n`.
    fn ticks(self, n: usize) -> Vec<f64> {
        let rough = (self.high - self.low) / n.max(1) as f64;
        let unit = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * unit).find(|step| *step >= 0.999 * rough);
        let step = step.unwrap_or(rough);
        let (first, last) = ((self.low / step).ceil(), (self.high / step).floor());
        let is_sane = first.abs() < 1e15 && last.abs() < 1e15 && last - first < 100.0;
        if !is_sane {
            return vec![self.low, self.high];
        }
        // Rounded to the digits of the step: 0.3, not 0.30000000000000004.
        let decimals = (-unit.log10()).clamp(0.0, 300.0) as usize + usize::from(unit < 1.0);
        let tick = |k: i64| {
            let value = k as f64 * step;
            format!("{value:.decimals$}").parse().unwrap_or(value)
        };
        (first as i64..=last as i64).map(tick).collect()
    }
}

/// A scene with axes.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    pub scene: Scene,
    pub x: Range,
    pub y: Range,
    /// Left, top, right and bottom of the frame, pixels.
    pub frame: [f64; 4],
}

impl Panel {
    /// Width and height of every panel.
    pub const SIZE: [f64; 2] = [340.0, 320.0];

    /// An empty panel called `title`, with names of the axes.
    pub fn new(title: &str, [x, y]: [Range; 2], [x_name, y_name]: [&str; 2]) -> Panel {
        let [width, height] = Panel::SIZE;
        let mut scene = Scene::new(width, height, title);
        let (x_ticks, y_ticks) = (x.ticks(5), y.ticks(5));
        let labels = |ticks: &[f64]| ticks.iter().map(|tick| label(*tick)).collect::<Vec<_>>();
        let (x_labels, y_labels) = (labels(&x_ticks), labels(&y_ticks));
        let widest = y_labels.iter().map(|text| font::width(text, TEXT)).fold(0.0, f64::max).min(90.0);
        let frame = [30.0 + widest, 42.0, width - 12.0, height - 42.0];
        let [left, top, right, bottom] = frame;
        scene.text([left, 17.0], fitted(title, 13.0, right - left), 13.0, Ink::Text, Anchor::Start);
        let panel = Panel { scene, x, y, frame };
        let places = |x: f64, y: f64| panel.place([x, y]);
        let (mut scene, mut marks) = (panel.scene.clone(), Vec::new());
        for (tick, text) in x_ticks.iter().zip(x_labels) {
            let at = places(*tick, y.low)[0];
            marks.push(vec![[at, bottom], [at, bottom + 4.0]]);
            scene.text([at, bottom + 16.0], text, TEXT, Ink::Muted, Anchor::Middle);
        }
        for (tick, text) in y_ticks.iter().zip(y_labels) {
            let at = places(x.low, *tick)[1];
            marks.push(vec![[left - 4.0, at], [left, at]]);
            scene.text([left - 7.0, at + 4.0], fitted(&text, TEXT, 90.0), TEXT, Ink::Muted, Anchor::End);
        }
        marks.push(vec![[left, top], [left, bottom], [right, bottom]]);
        scene.lines(marks, Ink::Muted, 1.0);
        let name = fitted(x_name, TEXT, right - left);
        scene.text([0.5 * (left + right), height - 8.0], name, TEXT, Ink::Muted, Anchor::Middle);
        let (at, text) = ([14.0, 0.5 * (top + bottom)], fitted(y_name, TEXT, bottom - top));
        scene.marks.push(Mark::Text {
            at,
            text,
            size: TEXT,
            ink: Ink::Muted,
            anchor: Anchor::Middle,
            is_upright: true,
        });
        Panel { scene, ..panel }
    }

    /// Pixels of a point.
    pub fn place(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let [left, top, right, bottom] = self.frame;
        [left + (right - left) * self.x.share(x), bottom - (bottom - top) * self.y.share(y)]
    }

    /// The point at a place.
    pub fn point(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let [left, top, right, bottom] = self.frame;
        let along = |range: Range, share: f64| range.low + share * (range.high - range.low);
        [along(self.x, (x - left) / (right - left)), along(self.y, (bottom - y) / (bottom - top))]
    }

    /// Pixels that one unit of the axes is.
    pub fn pixels_per_unit(&self) -> [f64; 2] {
        let [left, top, right, bottom] = self.frame;
        [(right - left) / (self.x.high - self.x.low), -(bottom - top) / (self.y.high - self.y.low)]
    }

    fn holds(&self, [x, y]: [f64; 2]) -> bool {
        let [left, top, right, bottom] = self.frame;
        (left - 1.0..=right + 1.0).contains(&x) && (top - 1.0..=bottom + 1.0).contains(&y)
    }

    /// Draws points; those outside the frame are left out.
    pub fn dots(&mut self, points: impl IntoIterator<Item = [f64; 2]>, ink: Ink, radius: f64, opacity: f64) {
        let centers: Vec<_> = points.into_iter().map(|at| self.place(at)).filter(|at| self.holds(*at)).collect();
        if !centers.is_empty() {
            self.scene.marks.push(Mark::Dots { centers, ink, radius, opacity });
        }
    }

    /// Draws lines through points; what lies outside the frame is left out.
    pub fn lines(&mut self, lines: &[Vec<[f64; 2]>], ink: Ink, width: f64, opacity: f64) {
        let mut parts: Vec<Vec<[f64; 2]>> = Vec::new();
        for line in lines {
            let mut part = Vec::new();
            for at in line.iter().map(|at| self.place(*at)) {
                if self.holds(at) {
                    part.push(at);
                } else if !part.is_empty() {
                    parts.push(std::mem::take(&mut part));
                }
            }
            parts.push(part);
        }
        parts.retain(|part| part.len() > 1);
        if !parts.is_empty() {
            self.scene.marks.push(Mark::Lines { lines: parts, ink, width, opacity });
        }
    }

    /// A row of names with their inks, above the frame on the right.
    pub fn key(&mut self, entries: &[(String, Ink)]) {
        let [_, top, right, _] = self.frame;
        let mut at = right;
        for (name, ink) in entries.iter().rev() {
            let name = fitted(name, TEXT, 120.0);
            self.scene.text([at, top - 7.0], name.as_str(), TEXT, Ink::Muted, Anchor::End);
            at -= font::width(&name, TEXT) + 8.0;
            let centers = vec![[at, top - 11.0]];
            self.scene.marks.push(Mark::Dots { centers, ink: *ink, radius: 4.0, opacity: 1.0 });
            at -= 14.0;
        }
    }

    /// A scale of inks between two numbers, above the frame on the right.
    pub fn scale(&mut self, [low, high]: [&str; 2], ink: impl Fn(f64) -> Ink) {
        const WIDTH: f64 = 96.0;
        let [_, top, right, _] = self.frame;
        let end = right - font::width(high, TEXT) - 5.0;
        self.scene.text([right, top - 7.0], high, TEXT, Ink::Muted, Anchor::End);
        const PARTS: usize = 16;
        for k in 0..PARTS {
            let [from, to] = [k, k + 1].map(|k| end - WIDTH + WIDTH * k as f64 / PARTS as f64);
            let outlines = vec![vec![[from, top - 16.0], [to, top - 16.0], [to, top - 7.0], [from, top - 7.0]]];
            self.scene.marks.push(Mark::Area { outlines, ink: ink(k as f64 / (PARTS - 1) as f64) });
        }
        self.scene.text([end - WIDTH - 5.0, top - 7.0], low, TEXT, Ink::Muted, Anchor::End);
    }

    /// A line of text at the lower edge of the frame, in its left corner or, with `Anchor::End`, in
    /// its right one.
    pub fn remark(&mut self, text: &str, corner: Anchor) {
        let [left, _, right, bottom] = self.frame;
        let text = fitted(text, TEXT, right - left - 8.0);
        let x = if corner == Anchor::End { right - 4.0 } else { left + 8.0 };
        self.scene.text([x, bottom - 8.0], text, TEXT, Ink::Text, corner);
    }
}

/// A number at an axis.
fn label(value: f64) -> String {
    let scientific = value != 0.0 && !(1e-3..1e6).contains(&value.abs());
    let text = if scientific { format!("{value:e}") } else { shortest(value) };
    text.replace('-', "−")
}

/// `text`, shortened to `width` at `size`.
fn fitted(text: &str, size: f64, width: f64) -> String {
    if font::width(text, size) <= width {
        return text.into();
    }
    let mut kept = String::new();
    for c in text.chars() {
        if font::width(&kept, size) + font::width(&format!("{c}…"), size) > width {
            break;
        }
        kept.push(c);
    }
    kept + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let ticks = |low: f64, high: f64| Range { low, high }.ticks(5);
        assert_eq!(ticks(-0.1, 1.1), [0.0, 0.5, 1.0]);
        assert_eq!(ticks(0.0, 0.61), [0.0, 0.2, 0.4, 0.6]);
        assert_eq!(ticks(0.0, 8000.0), [0.0, 2000.0, 4000.0, 6000.0, 8000.0]);
        assert_eq!(ticks(-3.2e-5, -1.9e-5), [-3e-5, -2.5e-5, -2e-5].map(|x: f64| x));
        for low in [1e-300, -1e9, 1e16, 1e300] {
            for width in [1e-3, 1.0, 1e5] {
                let range = Range { low, high: low + width * low.abs() };
                let ticks = range.ticks(5);
                assert!(
                    (2..12).contains(&ticks.len()) && ticks.iter().all(|tick| tick.is_finite()),
                    "{range:?}: {ticks:?}"
                );
            }
        }
    }

    #[test]
    fn a_range_is_never_empty() {
        assert_eq!(Range::of([f64::NAN]), Range { low: 0.0, high: 1.0 });
        for value in [0.0, 3.0, -1e20, 1e-200] {
            let range = Range::of([value]);
            assert!(range.low < value && value < range.high, "{range:?}");
        }
        let most = Range::of_most((0..100).map(f64::from).chain([1e9]).collect(), 0.02);
        assert!(most.high < 110.0 && most.low > -10.0);
    }

    #[test]
    fn a_point_is_placed_by_the_axes() {
        let axes = [Range { low: 0.0, high: 2.0 }, Range { low: -1.0, high: 1.0 }];
        let mut panel = Panel::new("title", axes, ["x", "y"]);
        let [left, top, right, bottom] = panel.frame;
        assert_eq!(panel.place([0.0, -1.0]), [left, bottom]);
        assert_eq!(panel.place([2.0, 1.0]), [right, top]);
        let back = panel.point(panel.place([0.3, 0.4]));
        assert!((back[0] - 0.3).abs() < 1e-9 && (back[1] - 0.4).abs() < 1e-9);
        let [x, y] = panel.pixels_per_unit();
        assert!(
            (panel.place([1.0, 0.0])[0] - left - x).abs() < 1e-9
                && (panel.place([0.0, 0.0])[1] - bottom - y).abs() < 1e-9
        );
        let before = panel.scene.marks.len();
        panel.dots([[5.0, 0.0], [f64::NAN, 0.0]], Ink::Data, 1.0, 1.0);
        assert_eq!(panel.scene.marks.len(), before, "outside");
        panel.lines(&[vec![[0.1, 0.0], [0.2, 0.0], [9.0, 0.0], [0.3, 0.0], [0.4, 0.0]]], Ink::Data, 1.0, 1.0);
        let Some(Mark::Lines { lines, .. }) = panel.scene.marks.last() else { panic!("lines") };
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn long_names_are_shortened() {
        let text = fitted(&"long ".repeat(100), TEXT, 100.0);
        assert!(text.ends_with('…') && font::width(&text, TEXT) <= 100.0, "{text}");
    }
}
