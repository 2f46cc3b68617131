"""The workloads as plain data: what runs, how many floating-point operations it counts, what is to be reached."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise


@dataclass(frozen=True)
class Hardware:
    """What a workload runs on, and the type of the operands of its products. Sums, weights and
    the optimizer are f32."""

    device: str = "cpu"
    """`cpu` or `cuda`."""
    precision: str = "f32"
    """`f32`, `tf32` or `bf16`; of a GPU."""

    @property
    def is_gpu(self) -> bool:
        return self.device == "cuda"


CPU = Hardware()


@dataclass(frozen=True)
class Network:
    """SiLU network of the input [x, t]. Head: `quadratic` s = ½‖x − o‖², `scalar` s = o."""

    dim: int
    hidden: tuple[int, ...]
    head: str

    @property
    def widths(self) -> list[int]:
        """Width of the input, of each hidden layer and of the output."""
        return [self.dim + 1, *self.hidden, self.dim if self.head == "quadratic" else 1]

    @property
    def flop_per_product(self) -> int:
        """One row times every weight: a multiplication and an addition for each weight, none for biases."""
        return 2 * sum(n_in * n_out for n_in, n_out in pairwise(self.widths))


@dataclass(frozen=True)
class Target:
    """What the release asks for."""

    ratio: float
    """Time of the fastest peer over ours, at least."""
    of_peak: float
    """Our share of the matrix-product peak, at least."""


@dataclass(frozen=True)
class Training:
    """One training step: draw, loss, gradient, clip, AdamW, moving average."""

    name: str
    network: Network
    n_interior: int
    target: Target
    sigma: float = 0.0
    """Diffusion: the loss has ½σ²Δs too."""
    laplacian: str = "probe"
    """With diffusion: `probe` estimates Δs with one probe per row, `exact` sums all unit vectors."""
    estimator: str = "action"
    """Of the loss: `action`, or `regression` on the path's velocity u, ½‖∇s‖² − u·∇s."""
    hardware: Hardware = CPU
    unit = "step"

    @property
    def n_boundary(self) -> int:
        """Rows at t = 0, and as many at t = 1."""
        return 0 if self.is_regression else self.n_interior

    @property
    def is_regression(self) -> bool:
        return self.estimator == "regression"

    @property
    def has_probe(self) -> bool:
        return self.sigma != 0.0 and self.laplacian == "probe"

    @property
    def is_exact(self) -> bool:
        """True if the loss has the exact Laplacian."""
        return self.sigma != 0.0 and self.laplacian == "exact"

    @property
    def n_directions(self) -> int:
        """Directions of second derivatives."""
        return self.network.dim if self.is_exact else int(self.has_probe)

    @property
    def flop(self) -> float:
        """Of one step. An interior row takes 6 products: primal, reverse, tangent, adjoint and two of the weight
        gradient. Each direction of the Laplacian adds tangent, adjoint and one of the weight gradient. A boundary row
        takes 3, as it needs neither reverse nor tangent."""
        per_interior_row = 6 + 3 * self.n_directions
        return float(self.network.flop_per_product * (per_interior_row * self.n_interior + 3 * 2 * self.n_boundary))


@dataclass(frozen=True)
class Sampling:
    """One sampling run: `n_particles` from t = 0 to t = 1 in `n_steps` equal steps."""

    name: str
    network: Network
    method: str
    """`euler` or `rk4`."""
    n_particles: int
    n_steps: int
    target: Target
    hardware: Hardware = CPU
    unit = "run"

    @property
    def velocities_per_step(self) -> int:
        return {"euler": 1, "rk4": 4}[self.method]

    @property
    def flop_per_particle(self) -> float:
        """2 products for each velocity: primal and reverse."""
        return 2.0 * self.network.flop_per_product * self.velocities_per_step * self.n_steps

    @property
    def flop(self) -> float:
        """Of one run."""
        return self.n_particles * self.flop_per_particle


@dataclass(frozen=True)
class Product:
    """The best matrix product a library reaches, whatever its shape: the peak the figures are a fraction of."""

    hardware: Hardware = CPU
    name: str = "peak"
    unit = "GFLOP"
    flop = 1e9


Workload = Training | Sampling

HYDROGEN = Network(dim=3, hidden=(256,) * 4, head="quadratic")
EMBRYOID = Network(dim=5, hidden=(512,) * 3, head="scalar")
TOY2D = Network(dim=2, hidden=(64,) * 3, head="scalar")
WIDE = Network(dim=50, hidden=(512,) * 4, head="scalar")

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Training("hydrogen", HYDROGEN, n_interior=1000, target=Target(1.25, 0.85)),
        Training("hydrogen-regression", HYDROGEN, n_interior=1000, target=Target(1.0, 0.85), estimator="regression"),
        Training("entropic-hydrogen", HYDROGEN, n_interior=1000, target=Target(1.4, 0.85), sigma=1.0),
        Training(
            "entropic-hydrogen-exact",
            HYDROGEN,
            n_interior=1000,
            target=Target(1.0, 0.85),
            sigma=1.0,
            laplacian="exact",
        ),
        Training("embryoid", EMBRYOID, n_interior=512, target=Target(1.1, 0.85)),
        Training("embryoid-regression", EMBRYOID, n_interior=512, target=Target(1.0, 0.85), estimator="regression"),
        Training("toy2d", TOY2D, n_interior=4096, target=Target(2.0, 0.75)),
        Training("wide", WIDE, n_interior=2048, target=Target(1.1, 0.85)),
        Sampling("sampling-hydrogen", HYDROGEN, "euler", n_particles=200_000, n_steps=100, target=Target(1.1, 0.85)),
        Sampling("sampling-toy2d", TOY2D, "rk4", n_particles=1_000_000, n_steps=50, target=Target(1.5, 0.75)),
    )
}
PEAK = Product.name


def chosen(name: str, hardware: Hardware, rows: int | None) -> Workload | Product:
    """The workload of this name, or the peak. `rows`: of each kind in a step, or particles, instead of its own."""
    if name == PEAK:
        return Product(hardware)
    workload = replace(WORKLOADS[name], hardware=hardware)
    if rows is None:
        return workload
    if isinstance(workload, Training):
        return replace(workload, n_interior=rows)
    return replace(workload, n_particles=rows)
