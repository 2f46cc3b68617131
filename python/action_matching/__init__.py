"""Learn how a population moves from snapshots of it, and move particles accordingly.

>>> import action_matching as am
>>> model = am.train(x, times)              # samples [n, d], the time [n] of each
>>> moved = model.sample(x[times == 0], 0, 2)
>>> velocity = model.velocity(x, times)     # [n, d]

`action_matching.ann` does the same for AnnData, `action_matching.torch` makes a torch module of a model. The program
``amatch`` comes with the package.
"""

from . import errors
from ._evaluate import Report, evaluate
from ._model import Model, Particles, load
from ._native import DeviceArray
from ._progress import Progress
from ._train import train
from .errors import ActionMatchingError, ActionMatchingWarning, DeviceError, FileError, InputError, NotFiniteError

__all__ = [
    "ActionMatchingError",
    "ActionMatchingWarning",
    "DeviceArray",
    "DeviceError",
    "FileError",
    "InputError",
    "Model",
    "NotFiniteError",
    "Particles",
    "Progress",
    "Report",
    "errors",
    "evaluate",
    "load",
    "train",
]
