"""From cells of AnnData to streamlines: notebook.py FILE.npz OUT.png (docs/python.md says what to install)."""

import sys

import anndata
import numpy as np

from action_matching import ann

data = np.load(sys.argv[1])  # examples/data/mouse_hematopoiesis.npz: mouse blood progenitors in two dimensions
adata = anndata.AnnData(obs={"day": 2 + 2 * data["times"]}, obsm={"X_tigon": data["samples"]})

settings = {"objective": {"pairing": "ot"}, "training": {"steps": 4000}}
model = ann.train(adata, "day", basis="X_tigon", seed=0, **settings)
ann.velocity(adata, model)
print(adata)

axes = ann.stream(adata, color="day", density=1.6)
axes.figure.savefig(sys.argv[2], dpi=100)
