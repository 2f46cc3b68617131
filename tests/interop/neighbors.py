"""What scVelo, CellRank and TensorBoard make of the files of a run.

    python neighbors.py make                 writes cells.h5ad
    python neighbors.py open RUN             opens annotated.h5ad, tmaps/ and the events of RUN

needs scvelo, cellrank and tensorboard. Prints their versions and what was checked.
"""

import json
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

import matplotlib

matplotlib.use("Agg")

import anndata
import numpy as np
import pandas as pd
import scanpy as sc

N_CELLS, N_GENES, DIM = 300, 25, 5


def make():
    """Cells that move along the first gene, and grow where the second one is high."""
    random = np.random.default_rng(3)
    day = np.array([0, 1, 2])[np.arange(N_CELLS) % 3]
    x = random.normal(size=(N_CELLS, N_GENES)) * np.linspace(1.0, 0.2, N_GENES)
    x[:, 0] += 2.0 * day
    names = [f"cell {k}" for k in range(N_CELLS)]
    obs = pd.DataFrame({"day": pd.Categorical(day), "celltype": pd.Categorical(np.where(x[:, 1] > 0, "A", "B"))}, index=names)
    data = anndata.AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=[f"GENE{k}" for k in range(N_GENES)]))
    sc.pp.pca(data, n_comps=DIM)
    sc.pp.neighbors(data, n_neighbors=15)
    sc.tl.umap(data)
    data.write_h5ad("cells.h5ad")


def check(what, is_met, seen=""):
    if not is_met:
        sys.exit(f"{what}: {seen}")
    print(f"ok  {what}")


def is_stochastic(matrix):
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    return matrix.shape == (N_CELLS, N_CELLS) and np.allclose(sums, 1.0, atol=1e-5), sums


def open_with_scvelo(data):
    import scvelo as scv

    print(f"scvelo {scv.__version__}")
    for basis in ("pca", "umap"):
        before = data.obsm[f"velocity_{basis}"].copy()
        scv.pl.velocity_embedding_stream(data, basis=basis, show=False)
        scv.pl.velocity_embedding_grid(data, basis=basis, show=False)
        check(f"scvelo draws velocity_{basis}, and keeps it", np.array_equal(before, data.obsm[f"velocity_{basis}"]))
    # Genes: cosines between velocities and the ways to neighbors, in layers/Ms and layers/velocity.
    scv.tl.velocity_graph(data, vkey="velocity", xkey="Ms", n_jobs=1)
    graph = data.uns["velocity_graph"]
    check("scvelo's velocity_graph of genes", graph.shape == (N_CELLS, N_CELLS) and graph.nnz > N_CELLS, graph.nnz)
    # The loadings are orthonormal and have all that moves: cosines of genes are those of components.
    x, v = data.obsm["X_pca"].astype(float), data.obsm["velocity_pca"].astype(float)
    rows, columns = graph.nonzero()
    ways = x[columns] - x[rows]
    cosines = np.einsum("ij,ij->i", ways, v[rows]) / np.linalg.norm(ways, axis=1) / np.linalg.norm(v[rows], axis=1)
    # scVelo takes the mean over genes off both; for many genes that changes little.
    seen = np.corrcoef(cosines, np.asarray(graph[rows, columns]).ravel())[0, 1]
    check("its cosines are those of the components", seen > 0.9, seen)


def open_with_cellrank(data):
    import cellrank as cr

    print(f"cellrank {cr.__version__}")
    kernel = cr.kernels.VelocityKernel(data, attr="obsm", xkey="X_pca", vkey="velocity_pca")
    kernel.compute_transition_matrix(show_progress_bar=False)
    check("VelocityKernel of obsm/velocity_pca", *is_stochastic(kernel.transition_matrix))
    later = kernel.transition_matrix @ data.obsm["X_pca"][:, :1] - data.obsm["X_pca"][:, :1]
    same_way = np.mean(np.sign(later[:, 0]) == np.sign(data.obsm["velocity_pca"][:, 0]))
    check("its cells go where the velocity points", same_way > 0.8, same_way)
    kernel = cr.kernels.VelocityKernel(data)
    kernel.compute_transition_matrix(show_progress_bar=False)
    check("VelocityKernel of layers/velocity and layers/Ms", *is_stochastic(kernel.transition_matrix))
    for folder in ("tmaps", "tmaps-wfr", "tmaps-partial"):
        data.obs["day"] = data.obs["day"].astype(float).astype("category")
        kernel = cr.kernels.RealTimeKernel.from_wot(data, path=folder, time_key="day")
        kernel.compute_transition_matrix(threshold=None)
        check(f"RealTimeKernel of {folder}", *is_stochastic(kernel.transition_matrix))


def open_with_tensorboard(run):
    import tensorboard
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    print(f"tensorboard {tensorboard.__version__}")
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    tags = events.Tags()["scalars"]
    check("tensorboard finds the loss", "loss" in tags, tags)
    for tag in tags:
        key = tag.removeprefix("terms/")
        wanted = {line["step"]: line[key] for line in metrics if line.get(key) is not None}
        seen = {event.step: event.value for event in events.Scalars(tag)}
        is_same = wanted.keys() == seen.keys() and np.allclose([wanted[step] for step in seen], list(seen.values()), rtol=1e-6)
        check(f"its {tag} is that of metrics.jsonl at {len(seen)} steps", is_same, (wanted, seen))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make()
    else:
        cells = anndata.read_h5ad("annotated.h5ad")
        print(f"anndata {anndata.__version__}, numpy {np.__version__}")
        open_with_scvelo(cells.copy())
        open_with_cellrank(cells.copy())
        open_with_tensorboard(Path(sys.argv[2]))
