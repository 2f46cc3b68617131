"""AnnData's view of .h5ad files: makes those that the tests read, and opens those that are written.

    python cells.py make FOLDER     files of every encoding, and their values as .npz
    python cells.py NAME...         opens NAME.h5ad, and writes what it holds to NAME.npz
"""

import sys
import warnings

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sparse

N_CELLS, N_GENES, DIM = 23, 5, 3


def cells(x):
    random = np.random.default_rng(3)
    day = np.array([0, 3, 7])[np.arange(N_CELLS) % 3]
    names = [f"cell {k}" for k in range(N_CELLS)]
    obs = pd.DataFrame(index=names)
    obs["day"] = pd.Categorical([f"day {t}" for t in day])
    obs["hours"] = day * 24.0
    obs["single"] = (day / np.float32(10)).astype(np.float32)
    obs["stage"] = pd.Categorical(day)
    obs["nullable"] = pd.array(day, dtype="Int64")
    obs["gap"] = pd.array([None, *day[1:]], dtype="Int64")
    obs["batch"] = pd.array(np.arange(N_CELLS) % 2, dtype="int16")
    obs["celltype"] = pd.Categorical(np.where(np.arange(N_CELLS) % 4 < 2, "HSC", "MPP"))
    obs["plate"] = [f"P{k % 5}" for k in range(N_CELLS)]
    obs["chosen"] = np.arange(N_CELLS) % 4 < 2
    data = anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"GENE{k}" for k in range(N_GENES)]))
    data.obsm["X_pca"] = (random.normal(size=(N_CELLS, DIM)) + day[:, None]).astype(np.float32)
    frame = pd.DataFrame(random.normal(size=(N_CELLS, 2)), index=names, columns=["z", "a"])
    data.obsm["X_frame"] = frame
    return data


def make(folder):
    x = np.random.default_rng(2).poisson(0.6, (N_CELLS, N_GENES)).astype(np.float32)
    kinds = {
        "csr": (sparse.csr_matrix(x), {"compression": "lzf"}),
        "csc": (sparse.csc_matrix(x.astype(np.float64)), {"compression": "gzip"}),
        "dense": (x.astype(np.int32), {}),
    }
    for name, (matrix, settings) in kinds.items():
        data = cells(matrix)
        data.layers["counts"] = sparse.csr_matrix(x.astype(np.int64))
        data.write_h5ad(f"{folder}/{name}.h5ad", **settings)
    with h5py.File(f"{folder}/dense.h5ad", "a") as file:
        # Shuffled chunks that divide rows and columns.
        pca = file["obsm/X_pca"][()]
        del file["obsm/X_pca"]
        array = file["obsm"].create_dataset(
            "X_pca", data=pca, chunks=(4, 2), compression="gzip", shuffle=True, fletcher32=True
        )
        array.attrs["encoding-type"], array.attrs["encoding-version"] = "array", "0.2.0"
    np.savez(
        f"{folder}/cells.npz",
        X=x,
        pca=data.obsm["X_pca"],
        frame=data.obsm["X_frame"].to_numpy(),
        day=data.obs["hours"].to_numpy() / 24,
    )
    with h5py.File(f"{folder}/old.h5ad", "w") as file:
        file.create_dataset("obs", data=np.zeros(3, dtype=[("index", "S4"), ("day", "f4")]))


def look(name):
    data = anndata.read_h5ad(f"{name}.h5ad")
    arrays = {f"obs.{column}": data.obs[column].to_numpy() for column in data.obs}
    arrays |= {f"obsm.{key}": np.asarray(value) for key, value in data.obsm.items()}
    arrays |= {f"layers.{key}": np.asarray(value) for key, value in data.layers.items()}
    if data.X is not None:
        arrays["X"] = np.asarray(data.X)
    np.savez(f"{name}.npz", **arrays)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1] == "make":
        make(sys.argv[2])
    else:
        for name in sys.argv[1:]:
            look(name)
