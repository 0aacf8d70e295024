"""Measuring in a process of its own, so that a peer that crashes costs one measurement.

The process lives on from layer to layer, for importing all peers takes seconds; after a crash the
layer is measured again in a new one, without whom it happened to.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, Protocol

from nnpack.cli.bench.contestant import Contestant
from nnpack.cli.bench.layers import Layer
from nnpack.cli.bench.results import LayerResult, Measurement
from nnpack.cli.bench.session import OnStep, Setting, measure_layer

# No step of any contestant takes as long; one that does hangs.
LONGEST_STEP_SECONDS = 300.0


class Measurer(Protocol):
    """Something that measures layers."""

    def measure(
        self, layer: Layer, contestants: Sequence[Contestant], setting: Setting, on_step: OnStep
    ) -> LayerResult:
        """As `session.measure_layer`."""

    def close(self) -> None:
        """Give back what it holds."""


class Isolated:
    """Measures in a child process. Contestants are passed by reference: functions of modules."""

    def __init__(self, longest_step_seconds: float = LONGEST_STEP_SECONDS) -> None:
        self._longest = longest_step_seconds
        self._process: Any = None
        self._connection: Connection | None = None

    def measure(
        self, layer: Layer, contestants: Sequence[Contestant], setting: Setting, on_step: OnStep
    ) -> LayerResult:
        """As `session.measure_layer`; whoever brings the process down has no times, and a reason.

        Raises RuntimeError when the process dies and nobody was at it.
        """
        lost: list[Measurement] = []
        while True:
            names = [measurement.contestant for measurement in lost]
            alive = [c for c in contestants if c.name not in names]
            found = self._ask(layer, alive, setting, on_step)
            if isinstance(found, LayerResult):
                return replace(found, measurements=(*found.measurements, *lost))
            self.close()
            guilty = next((c for c in alive if c.name == found), None)
            if guilty is None:
                raise RuntimeError(f"the measuring process ended at {layer.name}, nobody running")
            lost.append(Measurement(guilty.name, guilty.is_ours, reason="crashed or hung"))

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(
        self, layer: Layer, contestants: Sequence[Contestant], setting: Setting, on_step: OnStep
    ) -> LayerResult | str:
        """The result; or who was running when the process died or hung."""
        connection = self._connection or self._start()
        running = ""
        try:
            connection.send((layer, tuple(contestants), setting))
            while connection.poll(self._longest):
                answer = connection.recv()
                if isinstance(answer, LayerResult):
                    return answer
                step, running = answer
                on_step(step, running)
        except (EOFError, ConnectionError):
            pass
        return running

    def _start(self) -> Connection:
        # Not a fork: peers' threads would not survive it.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        return self._connection


def _serve(connection: Connection) -> None:
    """Measure what is asked for, until nobody asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means

    def on_step(step: str, contestant: str) -> None:
        connection.send((step, contestant))

    while True:
        try:
            layer, contestants, setting = connection.recv()
        except EOFError:
            return
        connection.send(measure_layer(layer, contestants, setting, on_step))
