"""Quickly defined dataclasses behave as frozen dataclasses do."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Mapping
from typing import Any

import pytest

from nnpack.frozen import dataclass, field, replace


@dataclass(frozen=True)
class Tile:
    """A tile."""

    rows: int
    columns: int = 4


@dataclass(frozen=True)
class Other:
    rows: int
    columns: int = 4


@dataclass(frozen=True)
class Stage:
    kernel: Tile
    arguments: Mapping[str, int] = field(hash=False)
    note: str = field(default="", compare=False)


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base."""

    size: int
    doubled: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "doubled", 2 * self.size)


@dataclass(frozen=True, kw_only=True)
class Derived(Base):
    """Has one more field."""

    name: str = "derived"


@dataclass(frozen=True)
class Nothing:
    """Has no fields."""


def test_fields_are_given_by_place_or_by_name() -> None:
    assert Tile(2, 4) == Tile(2) == Tile(rows=2) == Tile(2, columns=4)
    assert Tile(2, 3).columns == 3


def test_equal_values_have_equal_hashes() -> None:
    assert hash(Tile(2)) == hash(Tile(2, 4))
    assert len({Tile(2), Tile(2, 4), Tile(3)}) == 2
    assert len({Nothing(), Nothing()}) == 1


def test_values_of_different_classes_differ() -> None:
    values: set[Any] = {Tile(2), Other(2)}
    assert len(values) == 2


def test_fields_may_be_left_out_of_hashes_and_comparisons() -> None:
    stage = Stage(Tile(1), {"x": 1}, "one")
    assert stage == Stage(Tile(1), {"x": 1}, "two")
    assert stage != Stage(Tile(1), {"x": 2})
    assert hash(stage) == hash(Stage(Tile(1), {"x": 2}))


def test_repr_is_that_of_a_dataclass() -> None:
    assert (
        repr(Stage(Tile(1), {})) == "Stage(kernel=Tile(rows=1, columns=4), arguments={}, note='')"
    )
    assert repr(Derived(size=3)) == "Derived(size=3, name='derived')"
    assert repr(Nothing()) == "Nothing()"


def test_fields_of_bases_are_inherited_and_derived_ones_computed() -> None:
    assert Derived(size=3).doubled == 6
    assert Derived(size=3) == Derived(size=3, name="derived") != Derived(size=3, name="")


def test_values_cannot_be_changed() -> None:
    tile: Any = Tile(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        tile.rows = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del tile.rows
    with pytest.raises(dataclasses.FrozenInstanceError):
        tile.other = 2


def test_tools_for_dataclasses_work() -> None:
    assert replace(Tile(1), rows=2) == dataclasses.replace(Tile(1), rows=2) == Tile(2)
    assert dataclasses.asdict(Stage(Tile(1), {"x": 1})) == {
        "kernel": {"rows": 1, "columns": 4},
        "arguments": {"x": 1},
        "note": "",
    }
    assert replace(Derived(size=3), size=4).doubled == 8
    match Tile(5, 6):
        case Tile(rows, columns):
            assert (rows, columns) == (5, 6)


def test_values_can_be_copied_and_pickled() -> None:
    for value in (Tile(2), Derived(size=4), Nothing()):
        assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == value


def test_signatures_name_the_fields() -> None:
    assert str(inspect.signature(Tile)) == "(rows: 'int', columns: 'int' = 4)"
    assert str(inspect.signature(Derived)) == "(*, size: 'int', name: 'str' = 'derived')"


@pytest.mark.parametrize(
    ("values", "named", "said"),
    [
        ((), {}, "lacks"),
        ((1, 2, 3), {}, "more"),
        ((1,), {"rows": 1}, "twice"),
        ((1,), {"depth": 1}, "depth"),
    ],
)
def test_wrong_arguments_are_refused(
    values: tuple[int, ...], named: Mapping[str, int], said: str
) -> None:
    with pytest.raises(TypeError, match=said):
        Tile(*values, **named)


def test_keywords_only_means_that() -> None:
    kind: Any = Derived
    with pytest.raises(TypeError):
        kind(3)


def test_what_is_not_frozen_is_refused() -> None:
    define: Any = dataclass
    with pytest.raises(TypeError, match="frozen"):
        define(frozen=False)
