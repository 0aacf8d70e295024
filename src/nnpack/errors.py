"""The exceptions of this package.

::

    NnpackError
    ├── ProblemError (ValueError)             shapes, values or arguments that fit no convolution
    │   └── AlgorithmError                    the named algorithm cannot do this problem
    ├── DtypeError (TypeError)                wrong dtype, or wrong kind of object
    ├── SettingsError (ValueError)            malformed environment variable or setting
    └── CompilationError (RuntimeError)       native code could not be made
        └── RegisterPressureError             a tile needs more vector registers than there are

All of them are raised while a problem is stated or planned, before anything is computed or written.
"""

from __future__ import annotations

__all__ = [
    "AlgorithmError",
    "CompilationError",
    "DtypeError",
    "NnpackError",
    "ProblemError",
    "RegisterPressureError",
    "SettingsError",
]


class NnpackError(Exception):
    """Anything this package raises on purpose."""


class ProblemError(NnpackError, ValueError):
    """An argument has a shape or a value that fits no well-formed problem."""


class AlgorithmError(ProblemError):
    """The named algorithm cannot do this problem; the message says why and the way out."""


class DtypeError(NnpackError, TypeError):
    """An argument has the wrong dtype or is the wrong kind of object; nothing is converted."""


class SettingsError(NnpackError, ValueError):
    """An environment variable or a setting is malformed."""


class CompilationError(NnpackError, RuntimeError):
    """Native code could not be generated, compiled or linked."""


class RegisterPressureError(CompilationError):
    """A tile needs more vector registers than the target has."""
