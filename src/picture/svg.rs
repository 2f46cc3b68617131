//! Scenes as SVG.

use std::fmt::Write;

use super::ink::Ink;
use super::scene::{Anchor, Mark, Scene};

/// Where the colors of a picture come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colors {
    /// Classes of the page around it ([`super::style_sheet`]).
    OfPage,
    /// Its own, on white paper.
    OfPaper,
}

/// `scene` as an SVG element; with colors of its own it is a file.
pub(crate) fn svg(scene: &Scene, colors: Colors) -> String {
    let Scene { width, height, title, marks } = scene;
    let mut out = String::from("<svg ");
    if colors == Colors::OfPaper {
        let _ = write!(out, "xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" ");
    }
    let title = escape(title);
    let _ = write!(out, "viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\" ");
    out += "font-family=\"DejaVu Sans,Verdana,sans-serif\">";
    if colors == Colors::OfPaper {
        let _ = write!(
            out,
            "<title>{title}</title><rect width=\"{width}\" height=\"{height}\"{}/>",
            paint(Ink::Paper, colors, true)
        );
    }
    marks.iter().for_each(|mark| write_mark(&mut out, mark, colors));
    out + "</svg>\n"
}

/// `text` between tags or in an attribute. What no XML may hold is replaced.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            '\t' | '\n' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn write_mark(out: &mut String, mark: &Mark, colors: Colors) {
    match mark {
        Mark::Area { outlines, ink } => {
            let _ = write!(out, "<path fill-rule=\"evenodd\"{} d=\"", paint(*ink, colors, true));
            for outline in outlines {
                write_line(out, outline);
                out.push('z');
            }
            *out += "\"/>";
        }
        Mark::Lines { lines, ink, width, opacity } => {
            let _ =
                write!(out, "<path fill=\"none\" stroke-width=\"{}\"{}", number(*width), paint(*ink, colors, false));
            *out += " stroke-linejoin=\"round\" stroke-linecap=\"round\"";
            if *opacity < 1.0 {
                let _ = write!(out, " opacity=\"{}\"", number(*opacity));
            }
            *out += " d=\"";
            lines.iter().for_each(|line| write_line(out, line));
            *out += "\"/>";
        }
        // A line of no length with round ends is the shortest way to write a disc.
        Mark::Dots { centers, ink, radius, opacity } => {
            let width = number(2.0 * radius);
            let _ = write!(out, "<g stroke-linecap=\"round\" stroke-width=\"{width}\"{}", paint(*ink, colors, false));
            if *opacity < 1.0 {
                let _ = write!(out, " stroke-opacity=\"{}\"", number(*opacity));
                *out += ">";
                for &[x, y] in centers {
                    let _ = write!(out, "<path d=\"M{} {}h0\"/>", number(x), number(y));
                }
            } else {
                *out += "><path d=\"";
                for &[x, y] in centers {
                    let _ = write!(out, "M{} {}h0", number(x), number(y));
                }
                *out += "\"/>";
            }
            *out += "</g>";
        }
        Mark::Text { at: [x, y], text, size, ink, anchor, is_upright } => {
            let _ = write!(
                out,
                "<text x=\"{}\" y=\"{}\" font-size=\"{size}\"{}",
                number(*x),
                number(*y),
                paint(*ink, colors, true)
            );
            *out += match anchor {
                Anchor::Start => "",
                Anchor::Middle => " text-anchor=\"middle\"",
                Anchor::End => " text-anchor=\"end\"",
            };
            if *is_upright {
                let _ = write!(out, " transform=\"rotate(-90 {} {})\"", number(*x), number(*y));
            }
            let _ = write!(out, ">{}</text>", escape(text));
        }
    }
}

fn paint(ink: Ink, colors: Colors, is_fill: bool) -> String {
    match colors {
        Colors::OfPage => format!(" class=\"{}-{}\"", if is_fill { 'f' } else { 's' }, ink.name()),
        Colors::OfPaper => {
            let [r, g, b] = ink.color(false);
            format!(" {}=\"#{r:02x}{g:02x}{b:02x}\"", if is_fill { "fill" } else { "stroke" })
        }
    }
}

fn write_line(out: &mut String, line: &[[f64; 2]]) {
    for (i, &[x, y]) in line.iter().enumerate() {
        let _ = write!(out, "{}{} {}", if i == 0 { 'M' } else { 'L' }, number(x), number(y));
    }
}

/// A tenth of a pixel is enough; widths have a digit more.
fn number(value: f64) -> String {
    let text = if value.abs() < 4.0 { format!("{value:.2}") } else { format!("{value:.1}") };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_only_text() {
        let mut scene = Scene::new(10.0, 10.0, "a\"><script>");
        scene.text([1.0, 2.0], "<script>&\u{1}\u{0}</script>", 9.0, Ink::Text, Anchor::Start);
        for colors in [Colors::OfPage, Colors::OfPaper] {
            let svg = svg(&scene, colors);
            assert!(!svg.contains("<script") && svg.contains("&lt;script&gt;&amp;\u{fffd}\u{fffd}"), "{svg}");
        }
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, -0.001, 100.0, 12.34, 0.55].map(number), ["0", "0", "100", "12.3", "0.55"]);
    }
}
