"""The best target that a machine's features allow, and caches that machines hide."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnpack.codegen.target import (
    AVX2,
    AVX512,
    FALLBACK_CACHES,
    NEON,
    X86_64,
    CacheSizes,
    Target,
    caches_from_sysfs,
    choose_target,
    complete_caches,
    host_caches,
    host_target,
    runnable_targets,
    targets_of_machine,
)
from nnpack.errors import SettingsError

KIB = 1024
CACHES = CacheSizes(32 * KIB, 1024 * KIB, 4096 * KIB)
AVX2_FEATURES = {"avx2": True, "f16c": True, "fma": True, "sse4a": False}
AVX512_FEATURES = AVX2_FEATURES | dict.fromkeys(
    ("avx512f", "avx512dq", "avx512vl", "avx512bw"), True
)


def _targets(machine: str, features: dict[str, bool]) -> tuple[Target, ...]:
    return targets_of_machine(machine, features, triple="t", cpu="c", caches=CACHES)


@pytest.mark.parametrize(
    ("machine", "features", "names"),
    [
        ("x86_64", AVX512_FEATURES, ["avx512", "avx2", "x86-64"]),
        ("AMD64", AVX2_FEATURES, ["avx2", "x86-64"]),
        ("x86_64", AVX512_FEATURES | {"avx512dq": False}, ["avx2", "x86-64"]),
        ("x86_64", {"avx2": True}, ["x86-64"]),
        ("x86_64", {}, ["x86-64"]),
        ("aarch64", {"neon": True}, ["neon"]),
        ("arm64", {}, ["neon"]),
    ],
)
def test_features_decide_what_runs(
    machine: str, features: dict[str, bool], names: list[str]
) -> None:
    assert [target.name for target in _targets(machine, features)] == names


def test_only_the_best_is_tuned_for_the_processor() -> None:
    best, lesser = _targets("x86_64", AVX2_FEATURES)
    assert (best.cpu, best.features) == ("c", "+avx2,+f16c,+fma,-sse4a")
    assert (lesser.cpu, lesser.features) == (X86_64.cpu, X86_64.features)
    assert {t.triple for t in (best, lesser)} == {"t"}
    assert {t.caches for t in (best, lesser)} == {CACHES}


def test_baseline_is_baseline_on_every_machine() -> None:
    (only,) = _targets("x86_64", {"avx": True})
    assert (only.cpu, only.features) == (X86_64.cpu, X86_64.features)


def test_a_lesser_target_can_be_forced_and_no_greater_one() -> None:
    assert choose_target(None, (AVX2, X86_64)) is AVX2
    assert choose_target("x86-64", (AVX2, X86_64)) is X86_64
    with pytest.raises(SettingsError, match="'avx512' does not run here; .* avx2, x86-64"):
        choose_target("avx512", (AVX2, X86_64))


def test_the_host_has_a_target_it_runs() -> None:
    assert host_target() in runnable_targets()
    assert host_target().caches == host_caches()


@pytest.mark.parametrize("target", [AVX512, AVX2, X86_64, NEON], ids=lambda t: str(t.name))
def test_derived_numbers_of_a_target(target: Target) -> None:
    assert target.multiply_adds == target.clock * target.multiply_adds_per_cycle


def _write_cache(folder: Path, number: int, kind: str, level: str, size: str) -> None:
    index = folder / f"index{number}"
    index.mkdir()
    for name, text in (("type", kind), ("level", level), ("size", size)):
        (index / name).write_text(text + "\n")


def test_caches_are_read_from_the_files_of_the_kernel(tmp_path: Path) -> None:
    _write_cache(tmp_path, 0, "Data", "1", "48K")
    _write_cache(tmp_path, 1, "Instruction", "1", "32K")
    _write_cache(tmp_path, 2, "Unified", "2", "2M")
    assert caches_from_sysfs(tmp_path) == {1: 48 * KIB, 2: 2048 * KIB}


@pytest.mark.parametrize("size", ["", "K", "manyK", "12X", "0K"])
def test_malformed_files_count_as_hidden(tmp_path: Path, size: str) -> None:
    _write_cache(tmp_path, 0, "Data", "1", size)
    (tmp_path / "index1").mkdir()
    assert caches_from_sysfs(tmp_path) == {}
    assert caches_from_sysfs(tmp_path / "absent") == {}


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({}, FALLBACK_CACHES),
        ({1: 64 * KIB}, CacheSizes(64 * KIB, FALLBACK_CACHES.l2, FALLBACK_CACHES.l3)),
        # A machine that shows two levels has no third.
        ({1: 32 * KIB, 2: 256 * KIB}, CacheSizes(32 * KIB, 256 * KIB, 256 * KIB)),
        ({1: 1024 * KIB}, CacheSizes(1024 * KIB, 1024 * KIB, FALLBACK_CACHES.l3)),
    ],
)
def test_hidden_levels_are_filled_in(sizes: dict[int, int], expected: CacheSizes) -> None:
    assert complete_caches(sizes) == expected
