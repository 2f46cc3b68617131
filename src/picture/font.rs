//! The font of pictures: a part of DejaVu Sans, embedded, so that text has the same width on every
//! machine and pictures of pixels need no fonts.

use ttf_parser::{Face, OutlineBuilder};

/// Latin, Greek and Cyrillic letters and signs of mathematics: `pyftsubset` of DejaVu Sans 2.37.
const FONT: &[u8] = include_bytes!("DejaVuSans-subset.ttf");

/// Takes the outline of a text.
pub(super) trait Pen {
    fn move_to(&mut self, to: [f32; 2]);
    fn line_to(&mut self, to: [f32; 2]);
    fn quad_to(&mut self, control: [f32; 2], to: [f32; 2]);
    fn cubic_to(&mut self, first: [f32; 2], second: [f32; 2], to: [f32; 2]);
    fn close(&mut self);
}

/// The width of `text` at `size`.
pub(crate) fn width(text: &str, size: f64) -> f64 {
    let Some(face) = face() else { return 0.6 * size * text.chars().count() as f64 };
    let units: f64 = text.chars().map(|c| f64::from(advance(&face, c))).sum();
    units * size / f64::from(face.units_per_em())
}

/// Draws `text` at `size` with `pen`: `place` takes points right of the start and above the
/// baseline.
pub(super) fn outline(text: &str, size: f64, place: &dyn Fn([f32; 2]) -> [f32; 2], pen: &mut dyn Pen) {
    let Some(face) = face() else { return };
    let scale = size as f32 / f32::from(face.units_per_em());
    let mut left = 0.0;
    for c in text.chars() {
        // A letter that the font has not is a box.
        let glyph = face.glyph_index(c).unwrap_or_default();
        let mut placed = Placed { left, scale, place, pen: &mut *pen };
        face.outline_glyph(glyph, &mut placed);
        left += scale * f32::from(advance(&face, c));
    }
}

/// `None` cannot be: a test reads the font.
fn face() -> Option<Face<'static>> {
    Face::parse(FONT, 0).ok()
}

fn advance(face: &Face<'_>, c: char) -> u16 {
    face.glyph_hor_advance(face.glyph_index(c).unwrap_or_default()).unwrap_or(0)
}

struct Placed<'a> {
    left: f32,
    scale: f32,
    place: &'a dyn Fn([f32; 2]) -> [f32; 2],
    pen: &'a mut dyn Pen,
}

impl Placed<'_> {
    fn at(&self, x: f32, y: f32) -> [f32; 2] {
        (self.place)([self.left + self.scale * x, self.scale * y])
    }
}

impl OutlineBuilder for Placed<'_> {
    fn move_to(&mut self, x: f32, y: f32) {
        self.pen.move_to(self.at(x, y));
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.pen.line_to(self.at(x, y));
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        self.pen.quad_to(self.at(x1, y1), self.at(x, y));
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        self.pen.cubic_to(self.at(x1, y1), self.at(x2, y2), self.at(x, y));
    }

    fn close(&mut self) {
        self.pen.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_font_has_the_letters_of_pictures() {
        let face = face().expect("reads");
        for c in "Loss of 0.5 – kinetic energy E[½‖∇s‖²], σ λ ∂ → ≤ × é ß Ω ж −".chars() {
            assert!(face.glyph_index(c).is_some(), "{c}");
        }
        assert!((width("mm", 10.0) / width("m", 10.0) - 2.0).abs() < 1e-9 && width("i", 10.0) < width("m", 10.0));
    }
}
