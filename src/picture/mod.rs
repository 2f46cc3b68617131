//! Pictures: a scene of marks in inks, written as SVG for pages (light and dark), as SVG for papers
//! and as PNG; with what the pictures of this crate are made of: axes, level sets, streamlines.
//!
//! Written by hand: plotters and kuva draw neither streamlines nor level sets, which are most of
//! the work, and write colors into their SVG, where a page for light and dark needs names of inks.

mod axes;
mod field;
mod font;
mod ink;
mod level_sets;
mod raster;
mod scene;
mod streamlines;
mod svg;

pub(crate) use axes::{Panel, Range};
pub(crate) use field::Field;
pub(crate) use ink::{Ink, style_sheet};
pub(crate) use level_sets::region_above;
pub(crate) use raster::png;
pub(crate) use scene::{Anchor, Mark, Scene};
pub(crate) use streamlines::streamlines;
pub(crate) use svg::{Colors, escape, svg};
