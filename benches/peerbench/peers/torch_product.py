"""PyTorch's f32 matrix product."""

from __future__ import annotations

from functools import partial

import torch

from ..forms import Form, Forms, product_sizes
from ..workloads import Product


def version() -> str:
    return f"PyTorch {torch.__version__}"


def forms(workload: Product) -> Forms:
    """Square products of every size."""
    return {f"{n}×{n}×{n}": partial(_form, n) for n in product_sizes()}


def _form(n: int) -> Form:
    a, b, out = torch.randn(3, n, n)

    def advance() -> None:
        torch.mm(a, b, out=out)

    return Form(advance, 2e-9 * n**3, dict)
