"""``nnpack bench --roofline``: what each phase has to do, and how fast it does it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")

from nnpack.cli import main
from nnpack.cli.bench import command, roofline
from nnpack.cli.bench.layers import Layer
from nnpack.cli.bench.ours import layer_problem
from nnpack.cli.bench.roofline import measure_phases, peak_flops, phase_work
from nnpack.codegen.target import AVX2, AVX512, Rates, host_target
from nnpack.planner import make_plan
from tests.cli.bench.fakes import STRIDED

if TYPE_CHECKING:
    import pathlib

LAYER = Layer("Tiny", 32, 48, 24, 3, padding=1)


@pytest.mark.parametrize("target", [AVX512, AVX2])
@pytest.mark.parametrize(
    ("algorithm", "products"),
    [
        # 36 tiles of 6x6 frequencies, 16 of 8x8.
        ("winograd_4", 6 * 6 * 6 * 6),
        ("winograd_6", 4 * 4 * 8 * 8),
    ],
)
def test_products_are_those_of_all_tiles_and_frequencies(
    target: object, algorithm: str, products: int
) -> None:
    problem = layer_problem(LAYER, 2)
    plan = make_plan(problem, algorithm, target, 1)  # type: ignore[arg-type]
    work = phase_work(problem, plan, target)  # type: ignore[arg-type]
    flops, _ = work["multiplication"]
    assert flops == 2 * 2 * products * 32 * 48
    _, into = work["input transform"]
    assert into == 4 * (math.prod(problem.x_shape) + 2 * products * 32)


def test_direct_products_are_those_of_the_definition() -> None:
    problem = layer_problem(LAYER, 1)
    plan = make_plan(problem, "direct", AVX512, 1)
    assert phase_work(problem, plan, AVX512)["multiplication"][0] == LAYER.flops(1)


def test_strided_products_are_not_accounted_for() -> None:
    problem = layer_problem(STRIDED, 1)
    with pytest.raises(ValueError, match="stride"):
        phase_work(problem, make_plan(problem, "direct", AVX512, 1), AVX512)


def test_the_peak_is_two_flops_a_lane_and_multiply_add() -> None:
    assert peak_flops(Rates(3e9, 2.0), AVX2) == 2 * 8 * 3e9 * 2


def test_phases_are_measured() -> None:
    phases = measure_phases(LAYER, host_target(), profiles=2)
    assert "multiplication" in [phase.name for phase in phases]
    assert all(phase.seconds > 0 for phase in phases)


def test_it_is_shown_and_drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(command, "LARGE_LAYERS", (LAYER,))
    monkeypatch.setattr(roofline, "PROFILES", 1)
    monkeypatch.setattr(roofline, "measure_rates", lambda _target: Rates())
    plot = tmp_path / "roofline.png"
    assert main(["bench", "--roofline", "--plot", str(plot)]) == 0
    assert "multiplication" in capsys.readouterr().out
    assert plot.read_bytes().startswith(b"\x89PNG")
