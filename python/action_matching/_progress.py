"""Progress of long work: a line on a terminal or in a notebook, or a function of the caller."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from typing import Any, Callable, NamedTuple, Optional, Union

from .errors import ActionMatchingWarning

_log = logging.getLogger("action_matching")


class Progress(NamedTuple):
    """How far long work has come."""

    units: str
    """What is counted, as ``steps``."""
    done: int
    total: int
    text: str
    """The state in words, as ``loss -3.1191``; may be empty."""


ProgressOption = Union[bool, Callable[[Progress], Any], None]
"""``None`` shows a line on a terminal and in a notebook, ``True`` always, ``False`` never; a function is
called with each `Progress` (it may raise, which ends the work)."""


def _is_notebook() -> bool:
    shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
    return type(shell).__name__ == "ZMQInteractiveShell"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class _Line:
    """One line that is written over and over."""

    def __init__(self) -> None:
        self.width = 0
        self.units: Optional[str] = None
        self.began, self.first = 0.0, 0

    def __call__(self, progress: Progress) -> None:
        units, done, total, text = progress
        now = time.monotonic()
        if units != self.units:
            self.units, self.began, self.first = units, now, done
        share = done / total if total else 0.0
        bar = "━" * round(24 * share)
        elapsed, gained = now - self.began, done - self.first
        left = f", {_duration(elapsed * (total - done) / gained)} left" if gained > 0 and elapsed > 1 else ""
        self._write(f"{bar:24} {done:,}/{total:,} {units}{', ' if text else ''}{text}{left}")

    def _write(self, line: str) -> None:
        sys.stderr.write("\r" + line.ljust(self.width))
        sys.stderr.flush()
        self.width = len(line)

    def clear(self) -> None:
        if self.width:
            self._write("")
            sys.stderr.write("\r")
            sys.stderr.flush()
            self.width = 0


class Listener:
    """Hands the events of the native module to the caller: progress as asked for, warnings by way of
    `warnings`, all else to the logger ``action_matching``."""

    def __init__(self, progress: ProgressOption) -> None:
        if progress is None:
            progress = bool(getattr(sys.stderr, "isatty", lambda: False)()) or _is_notebook()
        self._line = _Line() if progress is True else None
        self._show: Optional[Callable[[Progress], Any]] = progress if callable(progress) else self._line

    def __call__(self, kind: str, event: Any) -> None:
        if kind == "progress":
            if self._show is not None:
                self._show(Progress(*event))
            return
        if self._line is not None:
            self._line.clear()
        if kind == "warning":
            warnings.warn(event, ActionMatchingWarning, stacklevel=3)
        else:
            _log.info(event)

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._line is not None:
            self._line.clear()
