//! What a picture is made of.

use super::ink::Ink;

/// A picture: marks on an area of `width` × `height` pixels, later ones over earlier ones.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub width: f64,
    pub height: f64,
    /// What it shows, for people who do not see it.
    pub title: String,
    pub marks: Vec<Mark>,
}

/// Something drawn. Places are pixels from the upper left.
#[derive(Clone, Debug)]
pub(crate) enum Mark {
    /// Closed outlines, filled where an odd number of them lies around a place.
    Area { outlines: Vec<Vec<[f64; 2]>>, ink: Ink },
    /// Lines that are not closed.
    Lines { lines: Vec<Vec<[f64; 2]>>, ink: Ink, width: f64, opacity: f64 },
    /// Discs, each of which shows through those over it.
    Dots { centers: Vec<[f64; 2]>, ink: Ink, radius: f64, opacity: f64 },
    /// One line of text; `at` is on its baseline.
    Text { at: [f64; 2], text: String, size: f64, ink: Ink, anchor: Anchor, is_upright: bool },
}

/// Which end of a text is at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

impl Scene {
    pub fn new(width: f64, height: f64, title: impl Into<String>) -> Scene {
        Scene { width, height, title: title.into(), marks: Vec::new() }
    }

    pub fn lines(&mut self, lines: Vec<Vec<[f64; 2]>>, ink: Ink, width: f64) {
        self.marks.push(Mark::Lines { lines, ink, width, opacity: 1.0 });
    }

    pub fn text(&mut self, at: [f64; 2], text: impl Into<String>, size: f64, ink: Ink, anchor: Anchor) {
        self.marks.push(Mark::Text { at, text: text.into(), size, ink, anchor, is_upright: false });
    }

    /// The scenes in rows of `columns` each, as one.
    pub fn in_rows(scenes: &[Scene], columns: usize, title: &str) -> Scene {
        let mut whole = Scene::new(0.0, 0.0, title);
        for row in scenes.chunks(columns.max(1)) {
            let (top, mut left) = (whole.height, 0.0);
            for scene in row {
                whole.marks.extend(scene.marks.iter().map(|mark| mark.moved([left, top])));
                left += scene.width;
                whole.height = whole.height.max(top + scene.height);
            }
            whole.width = whole.width.max(left);
        }
        whole
    }
}

impl Mark {
    fn moved(&self, by: [f64; 2]) -> Mark {
        let mut mark = self.clone();
        let place = |at: &mut [f64; 2]| *at = [at[0] + by[0], at[1] + by[1]];
        match &mut mark {
            Mark::Area { outlines: lines, .. } | Mark::Lines { lines, .. } => {
                lines.iter_mut().flatten().for_each(place)
            }
            Mark::Dots { centers, .. } => centers.iter_mut().for_each(place),
            Mark::Text { at, .. } => place(at),
        }
        mark
    }
}
