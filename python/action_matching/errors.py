"""Exceptions, with the same texts as the messages of the program ``amatch``.

=====================  ==========================  ==============================================
exception              is also a                   raised for
=====================  ==========================  ==============================================
`InputError`           `ValueError`                data, settings, arguments and files that cannot
                                                   be used
`FileError`            `OSError`                   what the operating system refused
`DeviceError`          `RuntimeError`              a device that is missing, too small or failed
`NotFiniteError`       `ArithmeticError`           a loss or a particle that became infinite
=====================  ==========================  ==============================================
"""

from __future__ import annotations


class ActionMatchingError(Exception):
    """Every error of this package."""


class InputError(ActionMatchingError, ValueError):
    """Data, a setting, an argument or a file that cannot be used.

    Attributes
    ----------
    kind
        ``value``, ``missing``, ``unknown``, ``conflict``, ``malformed``, ``too-large``, ``exists`` or
        ``in-use``.
    origin, field, problem, fix
        The parts of the message ``origin: field: problem (fix)``; empty where there are none.
    """

    kind: str = "value"
    origin: str = ""
    field: str = ""
    problem: str = ""
    fix: str = ""


class FileError(ActionMatchingError, OSError):
    """The operating system refused an operation on a file."""


class DeviceError(ActionMatchingError, RuntimeError):
    """A device that cannot be used.

    ``kind`` is ``unavailable``, ``unsupported``, ``out-of-memory`` or ``failed``.
    """

    kind: str = "failed"


class NotFiniteError(ActionMatchingError, ArithmeticError):
    """The loss of a training, or a particle on its way, became infinite."""


class ActionMatchingWarning(UserWarning):
    """The result may be worse than it looks; the text says why and what helps."""


def refuse(origin: str, field: str, problem: str, fix: str, kind: str = "value") -> InputError:
    """An `InputError` with its parts."""
    error = InputError(f"{origin}: {field}: {problem} ({fix})")
    error.kind, error.origin, error.field, error.problem, error.fix = kind, origin, field, problem, fix
    return error
