//! Scenes as PNG.

use tiny_skia::{Color, FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, Stroke, Transform};

use super::font::{self, Pen};
use super::ink::Ink;
use super::scene::{Anchor, Mark, Scene};

/// `scene` on white paper as a PNG of `scale` pixels for each of its own; `None` if it has no area,
/// or one that cannot be held.
pub(crate) fn png(scene: &Scene, scale: f64) -> Option<Vec<u8>> {
    let [width, height] = [scene.width, scene.height].map(|side| (side * scale).ceil() as u32);
    let mut pixels = Pixmap::new(width, height)?;
    let [r, g, b] = Ink::Paper.color(false);
    pixels.fill(Color::from_rgba8(r, g, b, 255));
    let transform = Transform::from_scale(scale as f32, scale as f32);
    scene.marks.iter().for_each(|mark| draw(&mut pixels, mark, transform));
    pixels.encode_png().ok()
}

fn draw(pixels: &mut Pixmap, mark: &Mark, transform: Transform) {
    match mark {
        Mark::Area { outlines, ink } => {
            if let Some(path) = path(outlines, true) {
                pixels.fill_path(&path, &paint(*ink, 1.0), FillRule::EvenOdd, transform, None);
            }
        }
        Mark::Lines { lines, ink, width, opacity } => {
            if let Some(path) = path(lines, false) {
                let width = *width as f32;
                let stroke =
                    Stroke { width, line_cap: LineCap::Round, line_join: LineJoin::Round, ..Stroke::default() };
                pixels.stroke_path(&path, &paint(*ink, *opacity), &stroke, transform, None);
            }
        }
        Mark::Dots { centers, ink, radius, opacity } => {
            for &[x, y] in centers {
                if let Some(disc) = PathBuilder::from_circle(x as f32, y as f32, *radius as f32) {
                    pixels.fill_path(&disc, &paint(*ink, *opacity), FillRule::Winding, transform, None);
                }
            }
        }
        Mark::Text { at, text, size, ink, anchor, is_upright } => {
            let width = font::width(text, *size);
            let back = match anchor {
                Anchor::Start => 0.0,
                Anchor::Middle => 0.5 * width,
                Anchor::End => width,
            } as f32;
            let [x, y] = at.map(|place| place as f32);
            let place = |[along, above]: [f32; 2]| {
                let along = along - back;
                if *is_upright { [x - above, y - along] } else { [x + along, y - above] }
            };
            let mut glyphs = Glyphs(PathBuilder::new());
            font::outline(text, *size, &place, &mut glyphs);
            if let Some(path) = glyphs.0.finish() {
                pixels.fill_path(&path, &paint(*ink, 1.0), FillRule::Winding, transform, None);
            }
        }
    }
}

fn paint(ink: Ink, opacity: f64) -> Paint<'static> {
    let [r, g, b] = ink.color(false);
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color_rgba8(r, g, b, (255.0 * opacity.clamp(0.0, 1.0)).round() as u8);
    paint
}

fn path(lines: &[Vec<[f64; 2]>], is_closed: bool) -> Option<Path> {
    let mut builder = PathBuilder::new();
    for line in lines.iter().filter(|line| line.len() > 1) {
        for (i, &[x, y]) in line.iter().enumerate() {
            if i == 0 { builder.move_to(x as f32, y as f32) } else { builder.line_to(x as f32, y as f32) }
        }
        if is_closed {
            builder.close();
        }
    }
    builder.finish()
}

struct Glyphs(PathBuilder);

impl Pen for Glyphs {
    fn move_to(&mut self, [x, y]: [f32; 2]) {
        self.0.move_to(x, y);
    }

    fn line_to(&mut self, [x, y]: [f32; 2]) {
        self.0.line_to(x, y);
    }

    fn quad_to(&mut self, [x1, y1]: [f32; 2], [x, y]: [f32; 2]) {
        self.0.quad_to(x1, y1, x, y);
    }

    fn cubic_to(&mut self, [x1, y1]: [f32; 2], [x2, y2]: [f32; 2], [x, y]: [f32; 2]) {
        self.0.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_where_they_belong() {
        let mut scene = Scene::new(40.0, 20.0, "");
        let square = vec![[2.0, 2.0], [8.0, 2.0], [8.0, 8.0], [2.0, 8.0]];
        scene.marks.push(Mark::Area { outlines: vec![square], ink: Ink::Data });
        scene.marks.push(Mark::Dots { centers: vec![[30.0, 10.0]], ink: Ink::Model, radius: 4.0, opacity: 1.0 });
        scene.text([10.0, 16.0], "M", 12.0, Ink::Text, Anchor::Start);
        let png = png(&scene, 2.0).expect("an area");
        let pixels = Pixmap::decode_png(&png).expect("reads");
        assert_eq!((pixels.width(), pixels.height()), (80, 40));
        let color = |x: u32, y: u32| {
            let color = pixels.pixel(x, y).expect("inside").demultiply();
            [color.red(), color.green(), color.blue()]
        };
        assert_eq!(
            [color(10, 10), color(60, 20), color(78, 38)],
            [Ink::Data, Ink::Model, Ink::Paper].map(|ink| ink.color(false))
        );
        // The stem of a letter, 12 px high: above the baseline, right of its start.
        let is_inked = (20..44).any(|x| color(x, 24) == Ink::Text.color(false));
        assert!(is_inked && (20..44).all(|x| color(x, 36) == Ink::Paper.color(false)));
        assert!(super::png(&Scene::new(0.0, 5.0, ""), 1.0).is_none());
    }
}
