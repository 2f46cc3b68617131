"""PyTorch's matrix product."""

from __future__ import annotations

from functools import partial

import torch

from ..forms import Form, Forms, flop_per_call, product_sizes
from ..workloads import Hardware, Product
from .torch_action import finish, operand_type


def version() -> str:
    return f"PyTorch {torch.__version__}"


def forms(workload: Product) -> Forms:
    """Square products of every size."""
    return {f"{n}×{n}×{n}": partial(_form, workload.hardware, n) for n in product_sizes(workload.hardware)}


def _form(hardware: Hardware, n: int) -> Form:
    a, b, out = torch.randn(3, n, n).to(operand_type(hardware))
    flop = 2.0 * n**3
    n_products = max(1, round(flop_per_call(hardware) / flop)) if hardware.is_gpu else 1

    def advance() -> None:
        for _ in range(n_products):
            torch.mm(a, b, out=out)
        finish(hardware)

    return Form(advance, n_products * flop / 1e9, dict)
