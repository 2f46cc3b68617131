"""AnnData's view of annotated cells.

    python annotate.py make             writes plain.h5ad, and its samples to plain.safetensors
    python annotate.py look AFTER...    opens each AFTER.h5ad, which must hold all of plain.h5ad, and
                                        writes what it adds to AFTER.safetensors
    python annotate.py coupling NAME... opens each coupling NAME.h5ad, and writes it to
                                        NAME.safetensors
    python annotate.py disown A B       writes B.h5ad, A.h5ad without word of who has annotated it
"""

import json
import sys
import warnings

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sparse
from safetensors.numpy import save_file

N_CELLS, N_GENES, DIM = 60, 8, 3


def make():
    random = np.random.default_rng(7)
    day = np.array([0.0, 3.0, 7.0])[np.arange(N_CELLS) % 3]
    obs = pd.DataFrame(index=[f"cell {k}" for k in range(N_CELLS)])
    day_text = [f"day {t:g}" for t in day]
    day_text[5] = None
    day_text[9] = "day 99"
    obs["day"] = pd.Categorical(day_text)
    obs["celltype"] = pd.Categorical(np.where(np.arange(N_CELLS) // 3 % 2 == 0, "α-cell", "MPP"))
    obs["treated"] = pd.Categorical(np.where(np.arange(N_CELLS) % 2 == 0, "yes", "no"))
    var = pd.DataFrame(index=[f"GENE{k}" for k in range(N_GENES)])
    var["highly_variable"] = np.arange(N_GENES) != 2
    x = sparse.csr_matrix(random.poisson(0.6, (N_CELLS, N_GENES)).astype(np.float32))
    data = anndata.AnnData(x, obs=obs, var=var)
    pca = (random.normal(size=(N_CELLS, DIM)) + day[:, None]).astype(np.float32)
    pca[7, 1] = np.nan
    data.obsm["X_pca"] = pca
    data.obsm["X_umap"] = random.normal(size=(N_CELLS, 2)).astype(np.float32)
    data.varm["PCs"] = random.normal(size=(N_GENES, DIM))
    graph = random.random((N_CELLS, N_CELLS)) < 0.2
    data.obsp["connectivities"] = sparse.csr_matrix((graph | graph.T).astype(np.float32))
    data.uns["pca"] = {"variance": np.arange(3.0), "note": "kept"}
    data.raw = data.copy()
    data.write_h5ad("plain.h5ad", compression="gzip")
    store("plain", {"pca": pca})


def store(name, arrays):
    save_file({key: np.ascontiguousarray(array, dtype=float) for key, array in arrays.items()}, f"{name}.safetensors")


def projected(data):
    """The formula of obsm/velocity_umap, cell by cell."""
    x, v, e = data.obsm["X_pca"].astype(float), data.obsm["velocity_pca"].astype(float), data.obsm["X_umap"]
    found = np.full(e.shape, np.nan)
    for i in range(N_CELLS):
        others = [j for j in data.obsp["connectivities"][i].indices if j != i and np.isfinite(x[j]).all()]
        if not others or not np.isfinite(v[i]).all():
            continue
        dx, de = x[others] - x[i], e[others] - e[i]
        cosine = dx @ v[i] / np.linalg.norm(dx, axis=1) / np.linalg.norm(v[i])
        weight = np.exp(cosine / 0.1)
        share = weight / weight.sum() - 1 / len(others)
        found[i] = share @ (de / np.linalg.norm(de, axis=1, keepdims=True))
    return found


def look(after):
    old, new = anndata.read_h5ad("plain.h5ad"), anndata.read_h5ad(f"{after}.h5ad")
    pd.testing.assert_frame_equal(old.obs, new.obs[old.obs.columns])
    pd.testing.assert_frame_equal(old.var, new.var[old.var.columns])
    assert (old.X != new.X).nnz == 0 and (old.raw.X != new.raw.X).nnz == 0
    np.testing.assert_array_equal(old.obsm["X_pca"], new.obsm["X_pca"])
    np.testing.assert_array_equal(old.uns["pca"]["variance"], new.uns["pca"]["variance"])
    assert new.uns["pca"]["note"] == "kept"
    provenance = new.uns["amatch"]
    assert len(provenance["model_sha256"]) == 64 and provenance["basis"] == "pca", provenance
    assert provenance["samples"] == "obsm/X_pca" and provenance["times"] == "obs/day"
    assert len(provenance["columns"]) == len(provenance["meanings"])
    if "config" in provenance:
        json.loads(provenance["config"])
    arrays = {f"obs.{name}": new.obs[name].to_numpy() for name in new.obs.columns.difference(old.obs.columns)}
    arrays |= {f"obsm.{name}": new.obsm[name] for name in new.obsm.keys() - old.obsm.keys()}
    if "velocity" in new.layers:
        loadings = old.varm["PCs"].copy()
        loadings[2] = np.nan
        wanted = new.obsm["velocity_pca"].astype(float) @ loadings.T
        np.testing.assert_allclose(new.layers["velocity"], wanted, rtol=1e-4, atol=1e-5)
        positions = old.obsm["X_pca"].astype(float) @ loadings.T
        np.testing.assert_allclose(new.layers["Ms"], positions, rtol=1e-4, atol=1e-4)
        assert new.var["velocity_genes"].dtype == bool and new.var["velocity_genes"].sum() == N_GENES - 1
        drivers = provenance["driver_genes"]
        square = np.sqrt(np.nanmean(wanted**2, axis=0))
        order = np.argsort(-np.nan_to_num(square))[: N_GENES - 1]
        assert list(drivers.index) == [f"GENE{k}" for k in order], drivers
        np.testing.assert_allclose(drivers["root_mean_square"], square[order], rtol=1e-4)
        np.testing.assert_allclose(drivers["mean"], np.nanmean(wanted, axis=0)[order], rtol=1e-3, atol=1e-5)
    if "velocity_umap" in new.obsm:
        np.testing.assert_allclose(new.obsm["velocity_umap"], projected(new), rtol=1e-3, atol=1e-4)
    if "fate" in new.obsm:
        assert list(provenance["fates"]) == ["MPP", "α-cell"], provenance["fates"]
    store(after, arrays)


def coupling(name):
    data = anndata.read_h5ad(f"{name}.h5ad")
    assert sparse.issparse(data.X) and data.X.format == "csr"
    number = lambda names: [float(name.split()[1]) for name in names]
    store(name, {"X": data.X.toarray(), "obs": number(data.obs_names), "var": number(data.var_names)})


def disown(before, after):
    data = anndata.read_h5ad(f"{before}.h5ad")
    assert "velocity_pca" in data.obsm and list(data.obs.columns).count("speed") == 1
    del data.uns["amatch"]
    data.write_h5ad(f"{after}.h5ad")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    command, *names = sys.argv[1:]
    if command == "make":
        make()
    if command == "disown":
        disown(*names)
        names = []
    for name in names:
        {"look": look, "coupling": coupling}[command](name)
