"""Targets as values: what a kernel generator needs to know of a machine."""

from __future__ import annotations

import functools
import os
import pathlib
import platform
from dataclasses import dataclass, replace

from nnpack.errors import SettingsError
from nnpack.settings import get_settings

KIB = 1024


@dataclass(frozen=True)
class CacheSizes:
    """Bytes of data cache: first and second level a core, last level for all cores."""

    l1: int
    l2: int
    l3: int


# What a virtual machine that hides its caches most likely has: a small server core.
FALLBACK_CACHES = CacheSizes(l1=32 * KIB, l2=512 * KIB, l3=8 * KIB * KIB)


@dataclass(frozen=True)
class Target:
    """An instruction set with its vector shape, and the processor it is tuned for.

    ``lanes`` is the number of float32 in a vector register, ``registers`` how many there are.
    ``broadcast_operand``: an arithmetic instruction can broadcast a scalar from memory itself,
    so that broadcasts need no register. ``masks``: loads and stores of some lanes are one
    instruction that neither faults nor slows down on the others.
    """

    name: str
    lanes: int
    registers: int
    fma: bool
    masks: bool
    broadcast_operand: bool
    triple: str
    cpu: str
    features: str
    caches: CacheSizes = FALLBACK_CACHES
    # Cycles a second, and vector multiply-adds (full registers) a cycle: where cost models start.
    clock: float = 3.0e9
    multiply_adds_per_cycle: float = 1.0

    @property
    def multiply_adds(self) -> float:
        """Vector multiply-adds a second on one core."""
        return self.clock * self.multiply_adds_per_cycle

    @property
    def vector_bytes(self) -> int:
        """Bytes of one vector register."""
        return 4 * self.lanes


_X86_TRIPLE = "x86_64-unknown-linux-gnu"

AVX512 = Target(
    "avx512", 16, 32, True, True, True, _X86_TRIPLE, "skylake-avx512", "+avx512f,+avx512dq"
)
AVX2 = Target(
    "avx2",
    8,
    16,
    True,
    True,
    False,
    _X86_TRIPLE,
    "haswell",
    "+avx2,+fma",
    multiply_adds_per_cycle=2.0,
)
X86_64 = Target("x86-64", 4, 16, False, False, False, _X86_TRIPLE, "x86-64", "")
NEON = Target("neon", 4, 32, True, False, True, "aarch64-unknown-linux-gnu", "generic", "+neon")

# Best first; the features LLVM must report of a host for the target to run there.
_REQUIRED_FEATURES: tuple[tuple[Target, tuple[str, ...]], ...] = (
    (AVX512, ("avx512f", "avx512dq", "avx512vl", "avx512bw", "fma", "avx2")),
    (AVX2, ("avx2", "fma")),
    (X86_64, ()),
)


def find_target(name: str) -> Target:
    """The target called ``name``. Raises SettingsError when there is none."""
    targets = {t.name: t for t in (AVX512, AVX2, X86_64, NEON)}
    if name not in targets:
        raise SettingsError(f"unknown target {name!r}; choose one of {', '.join(targets)}")
    return targets[name]


@functools.cache
def host_target() -> Target:
    """The best target this machine runs, or the lesser one that ``NNPACK_TARGET`` names.

    Raises SettingsError when the named target does not run here.
    """
    forced = get_settings().target
    best, cpu, features = _detect()
    if forced is None or forced == best.name:
        return replace(best, cpu=cpu, features=features, caches=host_caches())
    runnable = [t for t, _ in _REQUIRED_FEATURES] if best in (AVX512, AVX2, X86_64) else [best]
    runnable = runnable[runnable.index(best) :]
    target = find_target(forced)
    if target not in runnable:
        names = ", ".join(t.name for t in runnable)
        raise SettingsError(f"NNPACK_TARGET={forced!r} does not run here; choose one of {names}")
    return replace(target, caches=host_caches())


def _detect() -> tuple[Target, str, str]:
    """The best target of the host, with the processor's name and features as LLVM spells them."""
    import llvmlite.binding as llvm

    cpu = llvm.get_host_cpu_name()
    reported = llvm.get_host_cpu_features()
    if platform.machine().lower() in ("aarch64", "arm64"):
        return replace(NEON, triple=llvm.get_process_triple()), cpu, reported.flatten()
    for target, required in _REQUIRED_FEATURES:
        if all(reported.get(feature, False) for feature in required):
            native = replace(target, triple=llvm.get_process_triple())
            return target, cpu, reported.flatten() if native.lanes > 4 else target.features
    return X86_64, X86_64.cpu, X86_64.features


@functools.cache
def host_caches() -> CacheSizes:
    """Data cache sizes of the first processor; fallbacks where the machine hides them."""
    sizes = _caches_from_sysfs() or _caches_from_sysconf()
    l1 = sizes.get(1, FALLBACK_CACHES.l1)
    l2 = max(sizes.get(2, FALLBACK_CACHES.l2), l1)
    l3 = max(sizes.get(3, FALLBACK_CACHES.l3 if 2 not in sizes else 0), l2)
    return CacheSizes(l1, l2, l3)


def _caches_from_sysfs() -> dict[int, int]:
    sizes: dict[int, int] = {}
    for index in pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index[0-9]*"):
        try:
            kind = (index / "type").read_text().strip()
            level = int((index / "level").read_text())
            size = (index / "size").read_text().strip()
            scale = {"K": KIB, "M": KIB * KIB}[size[-1]]
            nbytes = int(size[:-1]) * scale
        except (OSError, ValueError, KeyError, IndexError):
            continue
        if kind in ("Data", "Unified") and nbytes > 0:
            sizes[level] = nbytes
    return sizes


def _caches_from_sysconf() -> dict[int, int]:
    names = {1: "SC_LEVEL1_DCACHE_SIZE", 2: "SC_LEVEL2_CACHE_SIZE", 3: "SC_LEVEL3_CACHE_SIZE"}
    sizes: dict[int, int] = {}
    for level, name in names.items():
        try:
            nbytes = os.sysconf(name)
        except (AttributeError, OSError, ValueError):
            continue
        if nbytes > 0:
            sizes[level] = nbytes
    return sizes
