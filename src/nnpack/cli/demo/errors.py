"""What can go wrong in the demo; every message says what to do.

NnpackError
  DemoError
    CheckpointError   a file of PyTorch that cannot be read, or of another network (a ValueError)
    NcnnFormatError   the weight file is not what the network needs (also a ValueError)
    WeightsError      the weights cannot be had
    PictureError      the picture cannot be read, written or enlarged
"""

from __future__ import annotations

from nnpack.errors import NnpackError

__all__ = ["CheckpointError", "DemoError", "NcnnFormatError", "PictureError", "WeightsError"]


class DemoError(NnpackError):
    """The demo cannot go on."""


class CheckpointError(DemoError, ValueError):
    """A file of PyTorch that is malformed, or made for another network."""


class NcnnFormatError(DemoError, ValueError):
    """A weight file that is malformed, or made for another network."""


class WeightsError(DemoError):
    """The weights are neither in the cache, nor in the file named, nor to be downloaded."""


class PictureError(DemoError):
    """A picture that cannot be read, written or enlarged."""
