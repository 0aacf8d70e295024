"""What ``nnpack info`` says."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from nnpack.cli.info import facts, size
from nnpack.codegen.machine import processor_name
from nnpack.codegen.target import AVX2, CacheSizes

if TYPE_CHECKING:
    import pathlib


def test_sizes_are_in_the_unit_people_use() -> None:
    assert size(32 << 10) == "32 KiB"
    assert size(1 << 20) == "1 MiB"
    assert size(1280 << 10) == "1.25 MiB"


def test_the_target_is_told_with_its_vectors_and_caches() -> None:
    target = dataclasses.replace(AVX2, caches=CacheSizes(48 << 10, 2 << 20, 36 << 20))
    lines = facts(target)
    assert lines["target"] == "avx2: 8 float32 lanes, 16 registers"
    assert lines["caches"] == "L1d 48 KiB, L2 2 MiB, L3 36 MiB"


def test_the_processor_is_named_as_its_maker_does(tmp_path: pathlib.Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Frobnicator 9000\n")
    assert processor_name(cpuinfo) == "Frobnicator 9000"


def test_a_system_that_hides_its_processor_still_has_a_name(tmp_path: pathlib.Path) -> None:
    assert processor_name(tmp_path / "absent")
