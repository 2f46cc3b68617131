"""NumPy's f32 matrix product."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..forms import Form, Forms, product_sizes
from ..workloads import Product


def version() -> str:
    return f"NumPy {np.__version__}"


def forms(workload: Product) -> Forms:
    """Square products of every size."""
    return {f"{n}×{n}×{n}": partial(_form, n) for n in product_sizes(workload.hardware)}


def _form(n: int) -> Form:
    a, b = np.random.default_rng(4).standard_normal((2, n, n), dtype=np.float32)
    out = np.empty_like(a)

    def advance() -> None:
        np.matmul(a, b, out=out)

    return Form(advance, 2e-9 * n**3, dict)
