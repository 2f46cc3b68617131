"""A trained model as a torch module; needs torch."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Tuple

import numpy as np
import torch
from torch import Tensor, nn

from ._model import Model, PathLike, load
from .errors import refuse


class Sin(nn.Module):
    """The activation ``sin``."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.sin(z)


ACTIVATIONS = {"silu": nn.SiLU, "tanh": nn.Tanh, "softplus": nn.Softplus, "gelu": nn.GELU, "sin": Sin}


class Potential(nn.Module):
    """The action s(x, t) of a trained model.

    ``potential(x, t)`` is s ``[n]`` at points ``x [n, d]`` and times ``t`` (a number, or ``[n]``) in units of the data;
    autograd gives all derivatives, of the parameters too. ``net`` is the ``nn.Sequential`` whose tensors
    ``model.safetensors`` holds. It is float32 as the file is; ``.double()`` computes in float64, and ``.to("cuda")`` on
    a GPU.
    """

    mean: Tensor
    scale: Tensor
    frequencies: Tensor

    def __init__(self, metadata: Any, tensors: Any) -> None:
        super().__init__()
        if metadata.get("conditions"):
            raise refuse("model", "conditions", "must be chosen first", "call model.under(…).to_torch()")
        if metadata.get("growth_head"):
            raise refuse("model", "growth_head", "is a second network, which torch modules do not have", "use Model itself")
        embedding = metadata["time_embedding"]
        frequencies = embedding["frequencies"] if embedding["kind"] == "fourier" else []
        self.dim: int = metadata["dim"]
        self.head: str = metadata["head"]
        self.growth_strength: float = metadata["growth"]
        self.cost_exponent: float = metadata["cost_exponent"]
        self.time_range: Tuple[float, float] = tuple(metadata["time_range"])
        # float64, as a mean may be far larger than the spread; `.float()` leaves them what they are.
        self.register_buffer("mean", torch.tensor(metadata["mean"], dtype=torch.float64), persistent=False)
        self.register_buffer("scale", torch.tensor(metadata["scale"], dtype=torch.float64), persistent=False)
        self.register_buffer("frequencies", torch.tensor(frequencies, dtype=torch.float64), persistent=False)
        widths = [self.dim + 1 + 2 * len(frequencies), *metadata["hidden"], 1 if self.head == "scalar" else self.dim]
        layers: list[nn.Module] = []
        for n_in, n_out in zip(widths, widths[1:]):
            layers += [nn.Linear(n_in, n_out), ACTIVATIONS[metadata["activation"]]()]
        self.net = nn.Sequential(*layers[:-1])
        self.load_state_dict(tensors)

    @classmethod
    def of(cls, model: Model) -> "Potential":
        """That of a `Model`; of an ensemble take one of its members."""
        if len(model.members) > 1:
            raise refuse("model", "members", f"are {len(model.members)}", "take one: model.members[0].to_torch()")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.safetensors"
            model.save(file)
            return cls(*_read(file.read_bytes()))

    @classmethod
    def load(cls, path: PathLike) -> "Potential":
        """That of ``model.safetensors``, or of a run folder."""
        return cls.of(load(os.fspath(path), device="cpu"))

    def _network(self, x: Tensor, t: Any) -> Tuple[Tensor, Tensor]:
        """Points and times in network coordinates."""
        start, end = self.time_range
        dtype = self.net[0].weight.dtype
        y = ((x.to(torch.float64) - self.mean) / self.scale).to(dtype)
        time = torch.as_tensor(t, dtype=torch.float64, device=x.device)
        return y, ((time - start) / (end - start)).to(dtype).expand(len(x))

    def _of_network(self, y: Tensor, tau: Tensor) -> Tensor:
        """s at points in network coordinates."""
        inputs = [y, tau[:, None]]
        if len(self.frequencies):
            angles = 2 * torch.pi * self.frequencies.to(tau.dtype) * tau[:, None]
            inputs += [torch.sin(angles), torch.cos(angles)]
        output = self.net(torch.cat(inputs, dim=1))
        if self.head == "scalar":
            return output[:, 0]
        if self.head == "dot":
            return (y * output).sum(dim=1)
        return 0.5 * ((y - output) ** 2).sum(dim=1)

    def forward(self, x: Tensor, t: Any) -> Tensor:
        """s ``[n]``, a number without unit."""
        return self._of_network(*self._network(x, t))

    def velocity(self, x: Tensor, t: Any) -> Tensor:
        """Velocities ``[n, d]``, in units of the data per unit of time: what ``Model.velocity`` has. Solvers that call
        ``v(t, x)`` take ``lambda t, x: potential.velocity(x, t)``."""
        is_recorded = torch.is_grad_enabled()
        with torch.enable_grad():
            y, tau = self._network(x, t)
            if not y.requires_grad:
                y.requires_grad_()
            (slope,) = torch.autograd.grad(self._of_network(y, tau).sum(), y, create_graph=is_recorded)
        if self.cost_exponent != 2.0:
            slope = slope.abs() ** (self.cost_exponent - 1.0) * slope.sign()
        start, end = self.time_range
        return slope * (self.scale / (end - start)).to(slope.dtype)

    def growth(self, x: Tensor, t: Any) -> Tensor:
        """Growth rates ``[n]``, per unit of time; 0 without growth."""
        start, end = self.time_range
        return self.growth_strength / (end - start) * self(x, t)


def _read(file: bytes) -> Tuple[Any, Any]:
    """Metadata and tensors of a ``model.safetensors`` of float32."""
    n_header = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + n_header])
    metadata = json.loads(header.pop("__metadata__")["action_matching"])
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + n_header + offset for offset in entry["data_offsets"])
        values = np.frombuffer(file[begin:end], dtype="<f4").astype(np.float32)
        tensors[name] = torch.from_numpy(values.reshape(entry["shape"]))
    return metadata, tensors
