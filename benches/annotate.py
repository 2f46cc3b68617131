"""Time and memory of `amatch annotate` on 100 000 cells of 50 components.

    python benches/annotate.py target/release/amatch [CELLS] [GENES]

needs anndata and scipy. The file has X (sparse, 10 % of GENES), obsm/X_pca, obsm/X_umap and 15 neighbors
of each cell in obsp/connectivities; the model is trained on it for 200 steps. Memory is that of the
process at its largest, beside the size of the file; time is the best of three, and beside it that of the
processor, which says more where other work runs.
"""

import os
import subprocess
import sys
import tempfile

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sparse


def make(path, n, genes):
    random = np.random.default_rng(1)
    day = np.arange(n) % 4
    obs = pd.DataFrame({"day": pd.Categorical(day)}, index=[f"cell{k}" for k in range(n)])
    x = sparse.random(n, genes, 0.1, format="csr", dtype=np.float32, random_state=2)
    data = anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"g{k}" for k in range(genes)]))
    pca = random.normal(size=(n, 50)) / (1 + np.arange(50)) + np.outer(day, np.eye(50)[0])
    data.obsm["X_pca"] = pca.astype(np.float32)
    data.obsm["X_umap"] = pca[:, :2].astype(np.float32)
    # Which cells are neighbors does not change what is computed, only how many.
    others = random.integers(0, n, n * 15)
    graph = sparse.csr_matrix((np.ones(n * 15, np.float32), (np.repeat(np.arange(n), 15), others)), shape=(n, n))
    data.obsp["connectivities"] = graph.maximum(graph.T).tocsr()
    data.write_h5ad(path)


# Linux counts the memory of the process that starts another one as that of the other, so a small
# one starts it.
STARTER = """
import os, sys, time
start = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
print(status, time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
"""


def measured(command, folder):
    """(seconds, of which by the processor, MiB at the largest) of a command."""
    starter = [sys.executable, "-S", "-E", "-c", STARTER, *command]
    output = subprocess.run(starter, cwd=folder, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    status, seconds, busy, memory = output.split()[-4:]
    if int(status) != 0:
        sys.exit(f"{command} failed")
    return float(seconds), float(busy), float(memory)


def main(program, n=100_000, genes=2000):
    program = os.path.abspath(program)
    with tempfile.TemporaryDirectory() as folder:
        make(f"{folder}/cells.h5ad", int(n), int(genes))
        size = os.path.getsize(f"{folder}/cells.h5ad") / 2**20
        with open(f"{folder}/run.toml", "w") as file:
            file.write('[data]\npath = "cells.h5ad"\n[objective]\npath = "linear"\npairing = "independent"\ngrowth = 0.25\n')
            file.write('mass = "counts"\n[training]\nsteps = 200\n')
        subprocess.run([program, "train", "run.toml"], cwd=folder, check=True, stderr=subprocess.DEVNULL)
        command = [program, "annotate", "runs/run", "cells.h5ad", "--out", "annotated.h5ad", "--force", "--threads", "2"]
        runs = [measured(command + ["--device", "cpu"], folder) for _ in range(3)]
        (seconds, busy, _), memory = min(runs), max(run[2] for run in runs)
        print(f"{n} cells, file {size:.0f} MiB: {seconds:.2f} s ({busy:.2f} s of processor), ", end="")
        print(f"{memory:.0f} MiB, {memory / size:.2f} of the file")


if __name__ == "__main__":
    main(*sys.argv[1:])
