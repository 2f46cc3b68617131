"""Training on arrays."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

import numpy as np

from . import _native
from ._arrays import rows, vector
from ._model import Model, PathLike, device_of, load
from ._progress import Listener, ProgressOption
from .errors import refuse


def train(
    x: Any,
    times: Any,
    *,
    weights: Optional[Any] = None,
    growth_rates: Optional[Any] = None,
    conditions: Optional[Mapping[str, Any]] = None,
    out: Optional[PathLike] = None,
    resume: bool = False,
    overwrite: bool = False,
    seed: Optional[int] = None,
    device: str = "auto",
    precision: Optional[str] = None,
    threads: int = 0,
    progress: ProgressOption = None,
    **settings: Mapping[str, Any],
) -> Model:
    """Learns how a population moves from samples of it at two times or more.

    It does what ``amatch train`` does: chooses what is left open, pairs the snapshots, trains, and tests the model.
    Warnings come as `ActionMatchingWarning`, information through the logger ``action_matching``.

    Parameters
    ----------
    x
        Samples ``[n, d]``, the rows of all times below each other; NumPy, or a tensor on the CPU.
    times
        The time ``[n]`` of each row.
    weights, growth_rates
        Weights ``[n]`` of the rows, and known net growth rates ``[n]``, per unit of time.
    conditions
        Values ``[n]`` by name: the model then depends on them (`Model.under`).
    out
        Run folder [a temporary one, which is removed]: model, configuration, checkpoints and metrics, as
        ``amatch`` reads them. The data are stored beside it, as ``OUT.npz``.
    resume
        Continue an interrupted run in `out`, bit for bit; start it if there is none.
    overwrite
        Replace the run in `out`.
    seed
        ``training={"seed": seed}``.
    device, precision, threads
        See `load`.
    progress
        ``None`` shows a line on a terminal or in a notebook; see `Progress`.
    settings
        The sections of a configuration, as ``objective={"pairing": "ot"}, training={"steps": 2000}``;
        docs/configuration.md lists all keys.

    Returns
    -------
    Model
        With `Model.run` if there is an `out`.

    Raises
    ------
    InputError
        Names the setting or the row that cannot be used, before any step.
    NotFiniteError
        If the loss becomes infinite.
    KeyboardInterrupt
        After Ctrl-C, when the checkpoint is written: ``resume=True`` continues from it.
    """
    if resume and overwrite:
        raise refuse("train", "resume", "contradicts overwrite", "give one of them")
    if resume and out is None:
        raise refuse("train", "resume", "has no run to continue", "name its folder with out")
    arrays = _arrays(x, times, weights, growth_rates, conditions or {})
    with tempfile.TemporaryDirectory(prefix="action-matching-") as temporary:
        run = Path(temporary) / "run" if out is None else Path(os.path.abspath(out))
        data = run.with_name(run.name + ".npz")
        names: Dict[str, Any] = {"path": str(data), "samples": "samples", "times": "times"}
        names.update({name: name for name in ("weights", "growth") if name in arrays})
        if conditions:
            names["conditions"] = list(conditions)
        checked = _settings(settings, names, str(run), seed)
        is_new = _claim(data, run, arrays, resume, overwrite)
        try:
            if not (resume and data.exists()):
                _store(data, arrays)
            with Listener(progress) as listener:
                _native.train(checked, resume, overwrite, device_of(device, precision, threads), listener)
        except BaseException:
            if is_new and not _is_data_of(data, run):
                data.unlink(missing_ok=True)
            raise
        model = load(run, device=device, precision=precision, threads=threads)
    model.run = None if out is None else run
    return model


def _arrays(
    x: Any, times: Any, weights: Any, growth_rates: Any, conditions: Mapping[str, Any]
) -> Dict[str, np.ndarray]:
    """The arrays of the data file, by name."""
    samples = rows("x", x)
    n = len(samples)
    arrays = {"samples": samples, "times": vector("times", times, n)}
    if weights is not None:
        arrays["weights"] = vector("weights", weights, n)
    if growth_rates is not None:
        arrays["growth"] = vector("growth_rates", growth_rates, n)
    for name, values in conditions.items():
        values = np.asarray(values)
        if name in arrays or values.ndim not in (1, 2) or len(values) != n:
            problem = f"cannot be {name!r} of shape {list(values.shape)}"
            raise refuse("train", "conditions", problem, f"give values [{n}] under a name of their own")
        arrays[name] = values.astype(str) if values.dtype.kind == "O" else values
    for name, values in arrays.items():
        _check_finite(ARGUMENTS.get(name, name), values)
    return arrays


ARGUMENTS = {"samples": "x", "growth": "growth_rates"}
"""Arguments of `train` whose arrays have another name in the data file."""


def _check_finite(name: str, values: np.ndarray) -> None:
    """Refuses what is no number before it is in a file, which the caller has not seen."""
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    row, *column = np.argwhere(~np.isfinite(values))[0].tolist()
    at = f"column {column[0]}, counted from 0, is" if column else "is"
    raise refuse(name, f"row {row}", f"{at} {values[(row, *column)]}", "leave such rows out")


def _settings(
    sections: Mapping[str, Any], data: Mapping[str, Any], folder: str, seed: Optional[int]
) -> "_native.Settings":
    """The configuration, checked."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(each) for key, each in value.items() if each is not None}
        if isinstance(value, (list, tuple)):
            return [plain(each) for each in value]
        if isinstance(value, (np.generic, np.ndarray)):
            return value.tolist()
        return os.fspath(value) if isinstance(value, os.PathLike) else value

    whole = plain(sections)
    added = {"data": data, "output": {"folder": folder}, "training": plain({"seed": seed})}
    for section, own in added.items():
        given = whole.setdefault(section, {})
        if not isinstance(given, dict):
            continue  # refused with all else
        clash = [key for key in own if key in given and given[key] != own[key]]
        if clash:
            fix = "leave it out: train sets it from its other arguments"
            raise refuse("settings", f"{section}.{clash[0]}", "is given twice", fix, "conflict")
        given.update(own)
    try:
        text = json.dumps(whole)
    except TypeError as error:
        raise refuse("settings", "values", str(error), "use numbers, texts, lists and dicts", "malformed") from None
    return _native.Settings(text)


def _is_data_of(data: Path, run: Path) -> bool:
    """Whether the run in the folder was trained on this file."""
    of_run = _native.data_of(run)
    return of_run is not None and os.path.abspath(of_run) == str(data)


def _claim(data: Path, run: Path, arrays: Mapping[str, np.ndarray], resume: bool, overwrite: bool) -> bool:
    """Makes sure that the data may be stored; whether their file is new."""
    if not data.exists():
        return True
    if not (resume or overwrite) or not _is_data_of(data, run):
        fix = "continue with resume=True, replace with overwrite=True, or name another folder with out"
        if not run.exists():
            fix = "name another folder with out"
        raise refuse(str(data), "out", "already exists", fix, "exists")
    if resume:
        with np.load(data) as stored:
            same = set(stored.files) == set(arrays) and all(np.array_equal(stored[k], v) for k, v in arrays.items())
        if not same:
            raise refuse(str(data), "x", "holds other data than the run was begun with", "give those", "conflict")
    return False


def _store(data: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the file whole or not at all."""
    data.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=data.parent, prefix=data.name, suffix=".part", delete=False) as file:
        try:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, data)
        except BaseException:
            os.unlink(file.name)
            raise
