//! Velocities of cells on an embedding such as UMAP.

use crate::data::Graph;
use crate::error::Result;
use crate::projection::direction;
use crate::stage::Stage;

/// V `[n, width]` of cells with `rows [n, dim]` and `velocities [n, dim]` at `embedding [n,
/// width]`, by the neighbors of each cell ([`direction`]). NaN for cells that have no velocity, no
/// place or no neighbors that have one.
///
/// # Errors
/// [`Error::Interrupted`](crate::Error::Interrupted) if the watch of `stage` cancels.
pub fn projected(
    (dim, rows, velocities): (usize, &[f32], &[f32]),
    (width, embedding): (usize, &[f32]),
    graph: &Graph,
    stage: &Stage,
) -> Result<Vec<f32>> {
    /// Cells that a thread takes at a time.
    const AT_ONCE: usize = 1024;
    let n = rows.len() / dim;
    let (row, place) = (|cell: usize| &rows[cell * dim..][..dim], |cell: usize| &embedding[cell * width..][..width]);
    let parts: Vec<usize> = (0..n).step_by(AT_ONCE).collect();
    let found = stage.map(stage.threads, &parts, |&first| {
        let mut found = Vec::with_capacity(AT_ONCE * width);
        for cell in first..n.min(first + AT_ONCE) {
            let neighbors = graph.neighbors[graph.starts[cell]..graph.starts[cell + 1]].iter();
            let others = neighbors.map(|&other| (row(other as usize), place(other as usize)));
            match direction((row(cell), &velocities[cell * dim..][..dim]), place(cell), others) {
                Some(direction) => found.extend(direction.into_iter().map(|part| part as f32)),
                None => found.extend(std::iter::repeat_n(f32::NAN, width)),
            }
        }
        Ok(found)
    })?;
    Ok(found.concat())
}
