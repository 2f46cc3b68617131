//! Velocities of genes, by the loadings of the components that the model moves, and the genes that
//! move most.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;

use super::population::Population;
use crate::data::{Cells, Item};
use crate::error::{Error, InputKind, Result};
use crate::stage::{Stage, next, on_threads};

/// Bytes of both layers, at most.
const LARGEST: usize = 8 << 30;

/// Loadings of the genes that a layer of velocities has.
pub(super) struct Loadings {
    pub genes: Vec<String>,
    of: Vec<Loaded>,
}

/// A gene with loadings.
struct Loaded {
    gene: u32,
    /// `[dim]`.
    loadings: Vec<f32>,
    /// Its mean, if the run knows it, else 0.
    mean: f32,
}

impl Loadings {
    /// The loadings of the run, or `varm/PCs` of the file if the model was trained on `X_pca`: of
    /// the highly variable genes, if the file names them and not all are wanted.
    ///
    /// # Errors
    /// [`Error::Input`] if there are none, or the layer would be too large.
    pub fn read(cells: &Cells, path: &Path, population: &Population, all_genes: bool) -> Result<Loadings> {
        let genes = cells.genes()?;
        let dim = population.dim;
        let mut of: Vec<Loaded> = match &population.components {
            Some(components) => {
                let known: HashMap<&str, u32> =
                    genes.iter().enumerate().map(|(gene, name)| (name.as_str(), gene as u32)).collect();
                let width = components.n_columns();
                let gene_of = |column: usize| match components.columns() {
                    Some(names) => known.get(names[column].as_str()).copied(),
                    None => (width == genes.len()).then_some(column as u32),
                };
                let loadings = |column: usize| (0..dim).map(|k| components.loadings()[k * width + column]).collect();
                let loaded = |column: usize| {
                    let mean = components.mean()[column] as f32;
                    Some(Loaded { gene: gene_of(column)?, loadings: loadings(column), mean })
                };
                (0..width).filter_map(loaded).collect()
            }
            None if population.samples == "obsm/X_pca" && cells.has("varm/PCs") => {
                let (n, width, values) = cells.dense("varm/PCs")?;
                if n != genes.len() || width < dim {
                    let problem = format!("has shape [{n}, {width}], for {} genes and {dim} components", genes.len());
                    return Err(Error::input(path, "varm/PCs", problem, "compute the components again"));
                }
                let rows = values.chunks_exact(width).enumerate();
                let loaded = |(gene, row): (usize, &[f64])| {
                    let loadings = row[..dim].iter().map(|&x| x as f32).collect();
                    Loaded { gene: gene as u32, loadings, mean: 0.0 }
                };
                rows.map(loaded).collect()
            }
            None => {
                let problem = format!("has no loadings of {}, by which genes would follow", population.samples);
                let fix = "train on obsm/X_pca with varm/PCs in the file, or on components of X";
                return Err(Error::input(path, "varm/PCs", problem, fix).of_kind(InputKind::Missing));
            }
        };
        if let Some(variable) = cells.of_genes("var/highly_variable")?.filter(|_| !all_genes) {
            of.retain(|loaded| variable[loaded.gene as usize]);
        }
        of.retain(|Loaded { loadings, .. }| {
            loadings.iter().all(|x| x.is_finite()) && loadings.iter().any(|&x| x != 0.0)
        });
        if of.is_empty() {
            let fix = "check var/highly_variable, and that the genes are those of the run";
            return Err(Error::input(path, "genes", "have no loadings", fix));
        }
        // Velocities and positions.
        let n_bytes = population.times.len().saturating_mul(genes.len()).saturating_mul(2 * size_of::<f32>());
        if n_bytes > LARGEST {
            let problem = format!("would take {} GiB", n_bytes >> 30);
            let fix = "keep the highly variable genes alone in a copy of the file, and annotate that";
            return Err(Error::input(path, "layers/velocity", problem, fix).of_kind(InputKind::TooLarge));
        }
        Ok(Loadings { genes, of })
    }

    /// Velocities `[n, genes]` of cells with `velocities [n, dim]`; NaN for genes without loadings.
    pub fn velocities(&self, dim: usize, velocities: &[f32], stage: &Stage) -> Vec<f32> {
        self.layer(dim, velocities, |_| 0.0, stage)
    }

    /// Positions `[n, genes]` of cells whose samples are `rows [n, dim]` more than `center [dim]`;
    /// NaN for genes without loadings.
    pub fn positions(&self, rows: &[f32], center: &[f64], stage: &Stage) -> Vec<f32> {
        let along = |loadings: &[f32]| loadings.iter().zip(center).map(|(&l, c)| f64::from(l) * c).sum::<f64>() as f32;
        self.layer(center.len(), rows, |Loaded { loadings, mean, .. }| mean + along(loadings), stage)
    }

    /// offset + loadings · value of each gene and each of `values [n, dim]`.
    fn layer(&self, dim: usize, values: &[f32], offset: impl Fn(&Loaded) -> f32, stage: &Stage) -> Vec<f32> {
        /// Cells that a thread takes at a time.
        const AT_ONCE: usize = 256;
        let width = self.genes.len();
        let offsets: Vec<f32> = self.of.iter().map(offset).collect();
        let mut layer = vec![f32::NAN; values.len() / dim * width];
        let parts = Mutex::new(layer.chunks_mut(AT_ONCE * width).zip(values.chunks(AT_ONCE * dim)));
        on_threads(stage.threads, || {
            while let Some((layer, values)) = next(&parts) {
                for (layer, v) in layer.chunks_exact_mut(width).zip(values.chunks_exact(dim)) {
                    for (Loaded { gene, loadings, .. }, offset) in self.of.iter().zip(&offsets) {
                        layer[*gene as usize] = offset + v.iter().zip(loadings).map(|(v, l)| v * l).sum::<f32>();
                    }
                }
            }
        });
        layer
    }

    /// Whether each gene has a velocity.
    pub fn has_velocity(&self) -> Vec<bool> {
        let mut has = vec![false; self.genes.len()];
        self.of.iter().for_each(|loaded| has[loaded.gene as usize] = true);
        has
    }

    /// The genes with a velocity by its root mean square over the cells of `layer`, the largest
    /// first: (name, root mean square, mean).
    pub fn ranked(&self, layer: &[f32]) -> Vec<(String, f64, f64)> {
        let width = self.genes.len();
        let mut sums = vec![[0.0f64; 3]; width];
        for row in layer.chunks_exact(width) {
            for (sum, &v) in sums.iter_mut().zip(row).filter(|(_, v)| v.is_finite()) {
                let v = f64::from(v);
                *sum = [sum[0] + 1.0, sum[1] + v, sum[2] + v * v];
            }
        }
        let of = |Loaded { gene, .. }: &Loaded| {
            let [n, sum, squares] = sums[*gene as usize];
            (self.genes[*gene as usize].clone(), (squares / n.max(1.0)).sqrt(), sum / n.max(1.0))
        };
        let mut ranked: Vec<(String, f64, f64)> = self.of.iter().map(of).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        ranked
    }
}

/// `ranked` as a data frame.
pub(super) fn frame(ranked: &[(String, f64, f64)]) -> Item {
    let column = |of: fn(&(String, f64, f64)) -> f64| Item::F64(ranked.iter().map(of).collect());
    Item::Frame {
        index: ranked.iter().map(|(name, ..)| name.clone()).collect(),
        columns: vec![
            ("root_mean_square".into(), column(|(_, square, _)| *square)),
            ("mean".into(), column(|(.., mean)| *mean)),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two of three genes have loadings on two components, one of them a mean.
    #[test]
    fn positions_have_the_mean_of_each_gene() {
        let of = vec![
            Loaded { gene: 2, loadings: vec![1.0, -2.0], mean: 10.0 },
            Loaded { gene: 0, loadings: vec![0.5, 0.0], mean: 0.0 },
        ];
        let loadings = Loadings { genes: ["a", "b", "c"].map(String::from).into(), of };
        let rows = [1.0, 0.0, 0.0, f32::NAN];
        let found = loadings.positions(&rows, &[4.0, 3.0], &Stage::new(1, &()));
        // At (5, 3) and (4, NaN).
        assert_eq!([found[0], found[2]], [2.5, 9.0]);
        assert!(found[1].is_nan() && found[3..].iter().all(|x| x.is_nan()), "{found:?}");
        let velocities = loadings.velocities(2, &rows[..2], &Stage::new(1, &()));
        assert_eq!([velocities[0], velocities[2]], [0.5, 1.0]);
    }
}
