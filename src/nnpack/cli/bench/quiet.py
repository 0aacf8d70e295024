"""Some peers print from native code, past ``sys.stdout``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

STREAMS = (1, 2)


@contextmanager
def quiet() -> Iterator[None]:
    """What native code writes to the process's output and error meanwhile goes nowhere."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = {stream: os.dup(stream) for stream in STREAMS}
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for stream in STREAMS:
            os.dup2(nowhere, stream)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, copy in saved.items():
            os.dup2(copy, stream)
            os.close(copy)
        os.close(nowhere)
