"""Measured rates are found again on the same machine, and believed only when they are sound."""

from __future__ import annotations

import dataclasses
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nnpack.codegen import rates
from nnpack.codegen.rates import forget_rates, keep_rates, kept_rates
from nnpack.codegen.target import AVX2, AVX512, Rates, host_target
from nnpack.settings import Settings

MEASURED = Rates(3.5e9, 1.01, 1e11, 9e10, 1.5e10)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder of measurements; where its files will be."""
    monkeypatch.setattr(rates, "get_settings", lambda: Settings(cache_dir=tmp_path / "cache"))
    yield tmp_path / "cache" / "wisdom"
    host_target.cache_clear()


def test_what_is_kept_is_found_and_forgotten(folder: Path) -> None:
    assert kept_rates(AVX2) is None
    keep_rates(AVX2, MEASURED)
    assert kept_rates(AVX2) == MEASURED
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    forget_rates()
    assert kept_rates(AVX2) is None
    assert list(folder.iterdir()) == []


@pytest.mark.usefixtures("folder")
def test_targets_have_rates_of_their_own() -> None:
    keep_rates(AVX2, MEASURED)
    assert kept_rates(AVX512) is None


@pytest.mark.usefixtures("folder")
def test_the_host_has_the_rates_that_were_measured() -> None:
    shipped = host_target().rates
    keep_rates(host_target(), MEASURED)
    assert host_target().rates == MEASURED
    forget_rates()
    assert host_target().rates == shipped


def test_another_processor_does_not_use_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_rates(AVX2, MEASURED)
    (file,) = folder.iterdir()
    monkeypatch.setattr(rates, "machine_of", lambda _target: {"processor": "another"})
    assert kept_rates(AVX2) is None
    # Nor under a name that was made to fit.
    file.rename(folder / rates._name(AVX2))
    assert kept_rates(AVX2) is None


def _with_rates(**changes: Any) -> dict[str, Any]:
    return {**dataclasses.asdict(MEASURED), **changes}


UNSOUND: list[Any] = [
    None,
    [],
    {},
    _with_rates(clock=0.0),
    _with_rates(clock=-1.0),
    _with_rates(clock=float("nan")),
    _with_rates(clock=float("inf")),
    _with_rates(clock=True),
    _with_rates(clock="3e9"),
    _with_rates(other=1.0),
]


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "\xff", "[" * 8000),
        json.dumps({"rates": _with_rates()}),
        *(json.dumps({"machine": "ours", "rates": rates}) for rates in UNSOUND),
    ],
)
def test_damaged_files_are_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(rates, "machine_of", lambda _target: _Machine({"processor": "p"}))
    keep_rates(AVX2, MEASURED)
    (file,) = folder.iterdir()
    file.write_bytes(text.encode("latin-1"))
    assert kept_rates(AVX2) is None


class _Machine(dict[str, str]):
    """Equal to whatever a file says."""

    __hash__ = None

    def __eq__(self, other: object) -> bool:
        return other is not None

    def __ne__(self, other: object) -> bool:
        return other is None


@pytest.mark.usefixtures("folder")
def test_without_a_folder_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "get_settings", lambda: Settings(cache_dir=None))
    keep_rates(AVX2, MEASURED)
    forget_rates()
    assert kept_rates(AVX2) is None
