"""Cells of AnnData: train on them, and write what a model says of each back, as ``scvelo.tl`` does.

>>> from action_matching import ann
>>> model = ann.train(adata, "day")                       # obsm["X_pca"]
>>> ann.velocity(adata, model)                            # obsm["velocity_pca"], obs["action"], …
>>> ann.stream(adata, basis="X_pca", color="action")      # needs matplotlib
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence, Tuple

import numpy as np

from ._model import Model
from ._train import train as _train
from .errors import refuse

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

KEY = "amatch"
"""Where `train` and `velocity` note in ``uns`` what they used."""


def times_of(adata: "AnnData", time_key: str) -> np.ndarray:
    """Times ``[n]`` of the cells: numbers, or the number inside texts as ``day 3``, ``E8.5`` and ``12h``, whose
    surroundings must be the same in all of them."""
    if time_key not in adata.obs:
        fix = f"use one of: {', '.join(map(str, adata.obs.columns)) or 'none'}"
        raise refuse("adata", f"obs/{time_key}", "does not exist", fix, "missing")
    column = adata.obs[time_key]
    try:
        times = np.asarray(column, dtype=np.float64)
    except (TypeError, ValueError):
        texts = column.astype(str).str.strip()
        number = {text: _number(time_key, text) for text in texts.unique()}
        first = next(iter(number))
        for text, (_, around) in number.items():
            if around != number[first][1]:
                problem = f"holds {first!r} and {text!r}, whose units may differ"
                raise refuse("adata", f"obs/{time_key}", problem, "make the column numeric") from None
        times = np.array([number[text][0] for text in texts])
    if not np.isfinite(times).all():
        raise refuse("adata", f"obs/{time_key}", "has no time for some cells", "leave those out")
    return times


def _number(time_key: str, text: str) -> Tuple[float, Tuple[str, str]]:
    """The first number of a text, and what stands around it."""
    # A sign belongs to the number at the start and after a space; elsewhere it joins words.
    found = re.search(r"(?:(?:^|(?<=\s))-)?\d+(?:\.\d+)?", text)
    if found is None:
        problem = f"holds {text!r}, in which there is no number"
        raise refuse("adata", f"obs/{time_key}", problem, "make the column numeric")
    around = text[: found.start()].strip().lower(), text[found.end() :].strip().lower()
    return float(found.group()), around


def _positions(adata: "AnnData", basis: str) -> np.ndarray:
    key = basis if basis in adata.obsm or basis == "X" or basis.startswith("X_") else f"X_{basis}"
    if key == "X":
        array = adata.X
    elif key in adata.obsm:
        array = adata.obsm[key]
    else:
        fix = f"use one of: {', '.join(adata.obsm) or 'none'}; scanpy.pp.pca makes X_pca"
        raise refuse("adata", f"obsm/{key}", "does not exist", fix, "missing")
    return np.asarray(array.toarray() if hasattr(array, "toarray") else array)


def _noted(adata: "AnnData", name: str, given: Optional[str]) -> str:
    """An argument, or what `train` has noted of it."""
    value = given if given is not None else adata.uns.get(KEY, {}).get(name)
    if value is None:
        raise refuse("adata", name, "is unknown, as the model was not trained here", f"give {name}")
    return str(value)


def train(adata: "AnnData", time_key: str, basis: str = "X_pca", **settings: Any) -> Model:
    """Trains on the cells, as `action_matching.train` does, which has all other arguments.

    Parameters
    ----------
    adata
        Cells of two times or more.
    time_key
        Column of ``obs`` that holds the time; see `times_of`.
    basis
        Array of ``obsm``, as ``X_pca`` or ``pca``, or ``X``.

    Returns
    -------
    Model
        ``uns["amatch"]`` notes `time_key` and `basis` for `velocity`.
    """
    model = _train(_positions(adata, basis), times_of(adata, time_key), **settings)
    adata.uns[KEY] = {**adata.uns.get(KEY, {}), "time_key": time_key, "basis": basis}
    return model


def velocity(
    adata: "AnnData", model: Model, *, time_key: Optional[str] = None, basis: Optional[str] = None, copy: bool = False
) -> Optional["AnnData"]:
    """Writes what the model says of each cell at its own time, under the names that ``amatch annotate`` uses.

    =========================  ==============================================================================
    ``obsm["velocity_pca"]``   velocity, for the basis ``X_pca``, units of the data per unit of time: what
                               ``scvelo.pl.velocity_embedding_stream(basis="pca")`` reads, and CellRank's
                               ``VelocityKernel(attr="obsm", xkey="X_pca", vkey="velocity_pca")``
    ``obs["action"]``          the potential s
    ``obs["speed"]``           length of the velocity
    ``obs["hjb_residual"]``    0 where the flow is optimal, per unit of time; without growth less its mean
                               over the cells of each time
    ``obs["growth_rate"]``     of models with growth: m' = growth_rate · m
    =========================  ==============================================================================

    Parameters
    ----------
    time_key, basis
        As in `train` [those that it noted].
    copy
        Return an annotated copy, and leave `adata` as it is.
    """
    adata = adata.copy() if copy else adata
    basis = _noted(adata, "basis", basis)
    x, t = _positions(adata, basis), times_of(adata, _noted(adata, "time_key", time_key))
    v = model.velocity(x, t)
    adata.obsm[f"velocity_{_short(basis)}"] = v.astype(np.float32)
    adata.obs["action"] = model.potential(x, t).astype(np.float64)
    adata.obs["speed"] = np.linalg.norm(v, axis=1).astype(np.float64)
    residual = model.hjb_residual(x, t).astype(np.float64)
    if model.growth_strength > 0:
        adata.obs["growth_rate"] = model.growth(x, t).astype(np.float64)
    else:
        # As the potential, the residual is known up to a function of time.
        _, of_time = np.unique(t, return_inverse=True)
        residual -= (np.bincount(of_time, residual) / np.bincount(of_time))[of_time]
    adata.obs["hjb_residual"] = residual
    return adata if copy else None


def stream(
    adata: "AnnData",
    basis: Optional[str] = None,
    *,
    components: Sequence[int] = (0, 1),
    color: Optional[str] = None,
    ax: Optional["Axes"] = None,
    grid: int = 40,
    density: float = 1.2,
    cmap: str = "viridis",
    size: float = 4.0,
) -> "Axes":
    """Draws the cells on two components of `basis`, and the streamlines of their velocities, which `velocity` wrote.
    Needs matplotlib.

    Parameters
    ----------
    color
        Column of ``obs``, numbers or categories [the time].
    grid
        Points of the grid along each axis on which velocities are averaged, with a Gaussian of one cell of the grid.
    density, cmap, size
        Of the streamlines and the dots, as matplotlib has them.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patheffects import withStroke

    basis = _noted(adata, "basis", basis)
    key = f"velocity_{_short(basis)}"
    if key not in adata.obsm:
        raise refuse("adata", f"obsm/{key}", "does not exist", "call ann.velocity first", "missing")
    color = _noted(adata, "time_key", color)
    if color not in adata.obs:
        raise refuse("adata", f"obs/{color}", "does not exist", "name a column of obs", "missing")
    pair = list(components)
    x, v = _positions(adata, basis)[:, pair], np.asarray(adata.obsm[key])[:, pair]
    ax = plt.subplots(figsize=(5.4, 5), layout="constrained")[1] if ax is None else ax
    _dots(ax, x, adata.obs[color], color, cmap, size)
    streams = ax.streamplot(*_on_grid(x, v, grid), density=density, color="black", linewidth=0.8)
    streams.lines.set_path_effects([withStroke(linewidth=2, foreground="white")])
    low, high = np.quantile(x, [0.001, 0.999], axis=0)
    margin = 0.05 * (high - low)
    ax.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    ax.set(xlabel=f"{_short(basis)} {pair[0] + 1}", ylabel=f"{_short(basis)} {pair[1] + 1}", xticks=[], yticks=[])
    ax.set_aspect("equal")
    ax.spines[:].set_visible(False)
    return ax


def _short(basis: str) -> str:
    """``pca`` of ``X_pca``."""
    return basis[2:] if basis.startswith("X_") else basis


def _dots(ax: "Axes", x: np.ndarray, values: Any, name: str, cmap: str, size: float) -> None:
    """The cells: a color and a line in the legend for each of a few values, else a bar of colors."""
    import matplotlib

    most = 10
    order = np.random.default_rng(0).permutation(len(x))  # no value hides another
    look: Dict[str, Any] = {"s": size, "linewidths": 0, "rasterized": True}
    distinct = values.astype("category").cat
    if len(distinct.categories) > most and values.dtype.kind in "fiu":
        dots = ax.scatter(x[order, 0], x[order, 1], c=values.to_numpy()[order], cmap=cmap, **look)
        ax.figure.colorbar(dots, ax=ax, label=name, shrink=0.6)
        return
    colors = matplotlib.colormaps[cmap](np.linspace(0.05, 0.9, max(len(distinct.categories), 2)))
    ax.scatter(x[order, 0], x[order, 1], c=colors[distinct.codes.to_numpy()[order]], **look)
    for category, one in zip(distinct.categories, colors):
        text = f"{category:g}" if isinstance(category, (int, float)) else str(category)
        ax.scatter([], [], color=one, s=36, label=text)
    ax.legend(title=name, frameon=False)


def _on_grid(x: np.ndarray, v: np.ndarray, n: int) -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Axes of a grid and the mean velocity ``[n, n]`` along each, NaN where there are few cells."""
    low, high = np.quantile(x, [0.001, 0.999], axis=0)
    edges = [np.linspace(low[i], high[i], n + 1) for i in (0, 1)]
    sums = [np.histogram2d(x[:, 1], x[:, 0], bins=edges[::-1], weights=weight)[0] for weight in (None, *v.T)]
    kernel = np.exp(-0.5 * np.arange(-3, 4) ** 2)

    def smooth(values: np.ndarray) -> np.ndarray:
        for axis in (0, 1):
            values = np.apply_along_axis(np.convolve, axis, values, kernel, mode="same")
        return values

    count, right, up = (smooth(each) for each in sums)
    enough = count > 0.1 * count.mean()
    mean = [np.where(enough, each / np.where(enough, count, 1), np.nan) for each in (right, up)]
    centers = [0.5 * (edge[1:] + edge[:-1]) for edge in edges]
    return centers[0], centers[1], mean[0], mean[1]
