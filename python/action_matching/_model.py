"""A trained model, and particles that it moves."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from . import _native
from ._arrays import Array, points, vector
from ._progress import Listener, ProgressOption
from .errors import refuse

if TYPE_CHECKING:
    from .torch import Potential

PathLike = Union[str, "os.PathLike[str]"]


def device_of(device: str, precision: Optional[str], threads: int) -> "_native.Device":
    """The device as the native module takes it."""
    return {"device": device, "precision": precision, "threads": threads}


@dataclass(frozen=True, eq=False)
class Particles:
    """Particles that a model has moved. ``np.asarray(particles)`` is their positions.

    With ``save_at`` every array has the saved times as its first axis, without it has none. Arrays are on the GPU if
    the start was a tensor there.
    """

    times: Union[float, np.ndarray]
    """Time of the particles, or the saved times ``[k]``, in units of the data."""
    positions: Array
    """``[n, d]`` or ``[k, n, d]``, in units of the data; of an ensemble the mean over its members."""
    log_weights: Optional[Array] = None
    """``[n]`` or ``[k, n]``, for a model with growth or for particles that had weights."""
    spread: Optional[Array] = None
    """Standard deviation of the positions over the members of an ensemble, shaped like them."""
    log_weights_spread: Optional[Array] = None
    """That of the log-weights."""

    @property
    def weights(self) -> Optional[np.ndarray]:
        """exp(log_weights); without growth and weights of their own, ``None``. Their mean is the mass of the
        population relative to that at the start."""
        return None if self.log_weights is None else np.exp(np.asarray(self.log_weights))

    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> np.ndarray:
        on_host = np.asarray(self.positions)
        array = on_host if dtype is None else on_host.astype(dtype, copy=False)
        return array.copy() if copy else array


class Model:
    """An action s(x, t) that was learned, or the members of an ensemble (``training.seeds``).

    Points ``x [n, d]`` and times ``t`` (one number, or ``[n]``) are in units of the data. Points may be NumPy
    arrays or tensors on the CPU (DLPack), which are read where they lie if they are contiguous, in float32 or
    float64; results are NumPy arrays of the same type, which ``torch.from_dlpack`` and others take without a copy.
    The network computes in float32 around the mean of the data.

    Points may also be a tensor on the GPU of the model (float32, contiguous). Results are then `DeviceArray` on that
    GPU, with the bits that the same numbers have as NumPy arrays.

    Of an ensemble every result is the mean over its members; `spread` is the standard deviation.

    Methods release the interpreter while they work, and Ctrl-C ends them. They raise `InputError` for points that
    cannot be used.
    """

    def __init__(self, native: "_native.Model", run: Optional[Path] = None) -> None:
        self._native = native
        self.run = run
        """The run folder, if the model comes from one."""

    @property
    def dim(self) -> int:
        """Dimension d."""
        return self._native.dim

    @property
    def time_range(self) -> Tuple[float, float]:
        """First and last time of training. Elsewhere the model is a guess."""
        return self._native.time_range

    @property
    def columns(self) -> Optional[List[str]]:
        """Names of the dimensions, if the data had any."""
        return self._native.columns

    @property
    def conditions(self) -> List[Tuple[str, str]]:
        """The conditions that the model depends on, each with the values of training in words; see `under`."""
        return self._native.conditions

    @property
    def sigma(self) -> float:
        """Diffusion σ₀, network units; 0 without."""
        return self._native.dynamics[0]

    @property
    def growth_strength(self) -> float:
        """λ of ``objective.growth``; 0 for a model without growth."""
        return self._native.dynamics[1]

    @property
    def members(self) -> List["Model"]:
        """The members of an ensemble, each a model; of a single model itself."""
        found = (self._native.member(index) for index in range(self._native.n_members))
        return [Model(member, self.run) for member in found if member is not None]

    @property
    def device(self) -> str:
        """The device that does the work, in words."""
        return self._native.device

    def __repr__(self) -> str:
        first, last = self.time_range
        parts = [f"dim={self.dim}", f"times {first:g} to {last:g}"]
        if self._native.n_members > 1:
            parts.append(f"{self._native.n_members} members")
        parts += [f"sigma={self.sigma:g}"] * (self.sigma > 0) + [f"growth={self.growth_strength:g}"] * (
            self.growth_strength > 0
        )
        parts += [f"condition {name}" for name, _ in self.conditions]
        return f"<action_matching.Model: {', '.join(parts)}, on {self.device}>"

    def describe(self) -> str:
        """What ``amatch inspect`` says of the (first) model, over several lines."""
        return self._native.describe()

    def potential(self, x: Any, t: Any) -> Array:
        """The potential s ``[n]``, a number without unit.

        Without growth it is known up to a function of time; of an ensemble then less its mean over the points of
        each time.
        """
        return self._at("potential", x, t)[0]

    def velocity(self, x: Any, t: Any) -> Array:
        """Velocities of particles ``[n, d]``, in units of the data per unit of time. With diffusion it is the drift,
        without the noise."""
        return self._at("velocity", x, t)[0]

    def time_derivative(self, x: Any, t: Any) -> Array:
        """∂s/∂t ``[n]``, per unit of time. Without growth it is known up to a function of time."""
        return self._at("time_derivative", x, t)[0]

    def laplacian(self, x: Any, t: Any) -> Array:
        """Δs = Σᵢ ∂²s/∂xᵢ² ``[n]``, per squared unit of the data; exact, so its cost grows with d."""
        return self._at("laplacian", x, t)[0]

    def growth(self, x: Any, t: Any) -> Array:
        """Growth rates r ``[n]``, per unit of time: the mass m of a particle obeys m' = r m. 0 without growth."""
        return self._at("growth", x, t)[0]

    def hjb_residual(self, x: Any, t: Any) -> Array:
        """What the Hamilton–Jacobi–Bellman equation lacks, ``[n]``, per unit of time: 0 where the flow is optimal.
        Without growth it is known up to a function of time."""
        return self._at("hjb_residual", x, t)[0]

    def spread(self, quantity: str, x: Any, t: Any) -> Array:
        """Standard deviation of a quantity over the members of an ensemble, in the shape and unit of the quantity.

        `quantity` is the name of a method above, as ``"velocity"``. Members disagree where the data do not decide; the
        error may be far larger.
        """
        deviation = self._at(quantity, x, t)[1]
        if deviation is None:
            raise refuse("model", "spread", "is that of an ensemble, and this is one model", "train several seeds")
        return deviation

    def _at(self, quantity: str, x: Any, t: Any) -> Tuple[Array, Optional[Array]]:
        self._refuse_conditions()
        at = points("x", x, self._native)
        return self._native.at(at, vector("t", t, len(at)), quantity)

    def log_density(self, x: Any, t: Any, base: Any, *, progress: ProgressOption = False) -> Array:
        """log q(x, t) ``[n]`` in units of the data, of the density that the flow carries from the first time to `t`.

        The points are moved back to the first time, with the divergence of the velocity along the way (exact, so
        the cost grows with d). With growth q is the density of mass, whose integral is 1 at the first time.

        Parameters
        ----------
        base
            Samples ``[m, d]`` of the first time, at which Gaussian kernels are put, as wide as Scott's rule has it
            (evenly chosen ones, if there are more than 5000); or ``"gaussian"``, the standard normal in network
            coordinates, from which generative paths start.

        Raises
        ------
        InputError
            For a model with diffusion, whose density does not follow the flow, and for an ensemble.
        """
        if isinstance(base, str) and base != "gaussian":
            raise refuse("log_density", "base", f"is {base!r}", 'give samples of the first time, or "gaussian"')
        self._refuse_conditions()
        at = points("x", x, self._native)
        kernels = None if isinstance(base, str) else points("base", base, self._native)
        with Listener(progress) as listener:
            return self._native.log_density(at, vector("t", t, len(at)), kernels, listener)

    def sample(
        self,
        x0: Any,
        t0: Optional[float] = None,
        t1: Optional[float] = None,
        *,
        save_at: Optional[Sequence[float]] = None,
        weights: Optional[Any] = None,
        method: Optional[str] = None,
        steps: Optional[int] = None,
        rtol: Optional[float] = None,
        atol: Optional[float] = None,
        seed: int = 0,
        progress: ProgressOption = None,
    ) -> Particles:
        """Moves particles from `t0` to `t1`, forward or (without diffusion) backward.

        Parameters
        ----------
        x0
            Positions ``[n, d]`` at `t0`, in units of the data.
        t0, t1
            Start and end [the first time of training, and the last of `save_at` or of training].
        save_at
            Times at which particles are kept, in the order they are reached; the end is added.
        weights
            Weights ``[n]`` that the particles have at the start, positive [1]; log-weights are then NumPy arrays.
        method
            ``euler``, ``heun``, ``rk4``, ``dopri5``, ``euler_maruyama`` or ``stochastic_heun`` [``dopri5``;
            ``stochastic_heun`` for a model with diffusion].
        steps
            Equal steps from start to end [100 for all methods but ``dopri5``].
        rtol, atol
            Tolerances of ``dopri5``, the second in network units [1e-4, 1e-5].
        seed
            Of the noise, which is the same for all members of an ensemble.
        progress
            See `Progress`.

        Raises
        ------
        InputError
            For arguments that do not suit each other or the model.
        NotFiniteError
            If a particle is lost.
        """
        start_at = points("x0", x0, self._native)
        first, last = self.time_range
        saved = [] if save_at is None else [float(t) for t in save_at]
        if t1 is not None and (not saved or saved[-1] != t1):
            saved.append(float(t1))
        way: "_native.Way" = {"method": method, "steps": steps, "rtol": rtol, "atol": atol, "seed": seed}
        start = float(first if t0 is None else t0)
        self._refuse_conditions()
        with Listener(progress) as listener:
            moved = _native.integrate(self._native, start_at, start, saved or [last], way, listener)
        if weights is not None:
            own = vector("weights", weights, len(start_at))
            if not (own > 0).all():
                raise refuse("x0", "weights", "are not all positive", "leave out particles without weight")
            # One product a row: with growth it grows, without it stays.
            shape = moved["positions"].shape[:2]
            grown = np.zeros(shape) if moved["log_weights"] is None else np.asarray(moved["log_weights"])
            moved["log_weights"] = grown + np.log(own)
        if save_at is None:
            last_slab: Dict[str, Any] = {name: array if array is None else array[0] for name, array in moved.items()}
            return Particles((saved or [last])[0], **last_slab)
        return Particles(np.array(saved or [last]), **moved)

    def _refuse_conditions(self) -> None:
        if self.conditions:
            known = "; ".join(known for _, known in self.conditions)
            raise refuse("model", "conditions", "must be chosen first", f"call model.under(…) with each: {known}")

    def under(self, **condition: Any) -> "Model":
        """The model under one condition, as ``model.under(dose=0.3, drug="A")``: it depends on none, and does all that
        models do."""
        pairs = [(name, value if isinstance(value, str) else repr(float(value))) for name, value in condition.items()]
        return Model(self._native.under(pairs), self.run)

    def save(self, path: PathLike, *, overwrite: bool = False) -> None:
        """Writes ``model.safetensors`` to `path`, whole or not at all; an ensemble to a folder of that name. `load` and
        ``amatch`` read either."""
        self._native.save(os.fspath(path), overwrite)

    def to_torch(self) -> "Potential":
        """The model as a `torch.nn.Module` (see `action_matching.torch`), equal to this one up to rounding, and
        differentiable; needs torch. Of an ensemble take one of `members`."""
        from .torch import Potential

        return Potential.of(self)


def load(path: PathLike, *, device: str = "auto", precision: Optional[str] = None, threads: int = 0) -> Model:
    """A model from its file, or from its run folder; the members of an ensemble from theirs.

    Parameters
    ----------
    path
        ``model.safetensors`` or a run folder.
    device
        ``cpu``, ``cuda``, ``cuda:N``, or ``auto``: a GPU if there is one.
    precision
        Of a GPU's products: ``f32``, ``tf32``, ``bf16`` [default] or ``f16``.
    threads
        CPU threads, 0 for one each core; they do not change results.

    Raises
    ------
    InputError
        Names what the file lacks. ``kind`` is ``"missing"`` if there is none.
    DeviceError
        If the device cannot be used.
    """
    native = _native.Model.load(os.fspath(path), device_of(device, precision, threads))
    return Model(native, Path(path) if os.path.isdir(path) else None)
