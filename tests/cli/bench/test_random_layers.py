"""Random layers of every kind."""

from __future__ import annotations

from collections import Counter

from nnpack.cli.bench.ours import layer_problem
from nnpack.cli.bench.random_layers import MOST_FLOPS, random_layers


def test_a_seed_always_draws_the_same() -> None:
    assert random_layers(20, seed=3) == random_layers(40, seed=3)[:20]
    assert random_layers(20, seed=3) != random_layers(20, seed=4)


def test_they_are_well_formed_and_of_every_kind() -> None:
    drawn = random_layers(400, seed=0)
    for layer, batch in drawn:
        assert layer_problem(layer, batch).y_shape == layer.output_shape(batch)
        assert layer.flops(batch) <= MOST_FLOPS
    kinds = Counter(layer.kind for layer, _ in drawn)
    families = ("first 3x3", "first large", "depthwise", "grouped", "1xN", "1x1", "3x3")
    assert all(kinds[family] >= 8 for family in families), kinds
    assert all(kinds[family] >= 2 for family in ("3x3/2", "1x1/2", "5x5", "7x7")), kinds
    assert any(kind.startswith("dilated") for kind in kinds)
    assert {batch for _, batch in drawn} == {1, 2, 4, 8, 16}
