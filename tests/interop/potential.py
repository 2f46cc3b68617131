"""The potential of a model.safetensors with only numpy and safetensors: a second reading of the file format.

    potential.py FOLDER...

Each FOLDER holds model.safetensors and points.safetensors (x [n, d], t [n], in data units). Written into it is
potential.safetensors, float64, in network coordinates: s [n], ds_dx [n, d], ds_dt [n].
"""

import json
import math
import sys
from pathlib import Path

try:
    import numpy as np
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file
except ImportError as error:
    sys.exit(f"{error}: install numpy and safetensors ({sys.executable} -m pip install numpy safetensors)")


def logistic(z):
    return 0.5 * (1.0 + np.tanh(0.5 * z))


def normal_distribution(z):
    return 0.5 * np.vectorize(math.erfc)(-z / math.sqrt(2.0))


def normal_density(z):
    return np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


# name: (f, f')
ACTIVATIONS = {
    "silu": (lambda z: z * logistic(z), lambda z: logistic(z) * (1.0 + z * (1.0 - logistic(z)))),
    "tanh": (np.tanh, lambda z: 1.0 - np.tanh(z) ** 2),
    "softplus": (lambda z: np.logaddexp(0.0, z), logistic),
    "gelu": (lambda z: z * normal_distribution(z), lambda z: normal_distribution(z) + z * normal_density(z)),
    "sin": (np.sin, np.cos),
}


def time_features(embedding, t):
    """phi(t) and phi'(t), each [n, width]."""
    phi, slope = [t], [np.ones_like(t)]
    if embedding["kind"] == "fourier":
        angular = [2.0 * math.pi * f for f in embedding["frequencies"]]
        phi += [np.sin(a * t) for a in angular] + [np.cos(a * t) for a in angular]
        slope += [a * np.cos(a * t) for a in angular] + [-a * np.sin(a * t) for a in angular]
    return np.stack(phi, axis=1), np.stack(slope, axis=1)


def potential(model, tensors, x, t):
    """s [n], its gradient in x [n, d] and in t [n], at points in network coordinates."""
    activation, slope = ACTIVATIONS[model["activation"]]
    weights = [tensors[f"net.{2 * i}.weight"].astype(np.float64) for i in range(len(model["hidden"]) + 1)]
    biases = [tensors[f"net.{2 * i}.bias"].astype(np.float64) for i in range(len(model["hidden"]) + 1)]

    phi, d_phi = time_features(model["time_embedding"], t)
    inner, z = np.concatenate([x, phi], axis=1), []
    for weight, bias in zip(weights[:-1], biases[:-1]):
        z.append(inner @ weight.T + bias)
        inner = activation(z[-1])
    output = inner @ weights[-1].T + biases[-1]

    if model["head"] == "scalar":
        s, ds_doutput, direct = output[:, 0], np.ones_like(output), np.zeros_like(x)
    elif model["head"] == "quadratic":
        s, ds_doutput, direct = 0.5 * ((x - output) ** 2).sum(axis=1), output - x, x - output
    elif model["head"] == "dot":
        s, ds_doutput, direct = (x * output).sum(axis=1), x, output
    else:
        raise ValueError(f"unknown head {model['head']}")

    bar = ds_doutput @ weights[-1]
    for weight, z in zip(reversed(weights[:-1]), reversed(z)):
        bar = (bar * slope(z)) @ weight
    d = x.shape[1]
    return s, bar[:, :d] + direct, (bar[:, d:] * d_phi).sum(axis=1)


def main(folders):
    for folder in map(Path, folders):
        with safe_open(folder / "model.safetensors", framework="numpy") as file:
            model = json.loads(file.metadata()["action_matching"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if model["version"] != 1:
            sys.exit(f"{folder}: version {model['version']} of the model file, this reads 1")
        points = load_file(folder / "points.safetensors")
        start, end = model["time_range"]
        x = (points["x"] - np.array(model["mean"])) / np.array(model["scale"])
        s, ds_dx, ds_dt = potential(model, tensors, x, (points["t"] - start) / (end - start))
        answer = {"s": s, "ds_dx": ds_dx, "ds_dt": ds_dt}
        save_file({name: np.ascontiguousarray(value) for name, value in answer.items()}, folder / "potential.safetensors")


if __name__ == "__main__":
    main(sys.argv[1:])
