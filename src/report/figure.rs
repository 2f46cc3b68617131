//! A figure: panels with a caption.

use crate::picture::{Colors, Scene, png, svg};

/// Panels beside each other, and what one sees.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Short name, for files.
    pub name: String,
    /// The heading.
    pub title: String,
    /// What one sees, and what is good.
    pub caption: String,
    pub(crate) panels: Vec<Scene>,
}

impl Figure {
    pub(super) fn new(name: &str, title: &str, panels: Vec<Scene>, caption: String) -> Figure {
        Figure { name: name.into(), title: title.into(), caption, panels }
    }

    /// All panels as an SVG file on white paper.
    #[must_use]
    pub fn svg(&self) -> String {
        svg(&self.whole(), Colors::OfPaper)
    }

    /// All panels as a PNG file on white paper, `scale` pixels for each of the SVG; `None` if it
    /// would be too large.
    #[must_use]
    pub fn png(&self, scale: f64) -> Option<Vec<u8>> {
        png(&self.whole(), scale)
    }

    fn whole(&self) -> Scene {
        // Rows of three, but four panels as a square.
        let columns = if self.panels.len() == 4 { 2 } else { 3 };
        Scene::in_rows(&self.panels, columns, &self.title)
    }
}
