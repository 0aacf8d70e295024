"""Targets as values: what a kernel generator needs to know of a machine."""

from __future__ import annotations

import functools
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence

from nnpack.codegen.lock import llvm_lock
from nnpack.errors import SettingsError
from nnpack.frozen import dataclass, replace
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
class Rates:
    """How fast one core is: where cost models start. `runtime.calibration` measures them.

    ``clock``: cycles a second; ``multiply_adds_per_cycle``: of full vector registers; the
    bandwidths: bytes a second that a plain copy reads and writes, both counted, from the
    second-level cache, from the last level, and from memory.
    """

    clock: float = 3.0e9
    multiply_adds_per_cycle: float = 1.0
    l2_bandwidth: float = 90e9
    l3_bandwidth: float = 80e9
    memory_bandwidth: float = 14e9


@dataclass(frozen=True)
class Target:
    """An instruction set with its vector shape, and the processor it is tuned for.

    ``lanes`` is the number of float32 in a vector register, ``registers`` how many there are.
    ``broadcast_operand``: an arithmetic instruction can broadcast a scalar from memory itself,
    so that broadcasts need no register. ``masks``: loads and stores of some lanes are one
    instruction that neither faults nor slows down on the others. ``half_conversions``: vectors
    of half precision become single precision, and the other way round, in one instruction.
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
    rates: Rates = Rates()
    half_conversions: bool = False

    @property
    def clock(self) -> float:
        """Cycles a second."""
        return self.rates.clock

    @property
    def multiply_adds_per_cycle(self) -> float:
        """Vector multiply-adds a cycle on one core."""
        return self.rates.multiply_adds_per_cycle

    @property
    def multiply_adds(self) -> float:
        """Vector multiply-adds a second on one core."""
        return self.clock * self.multiply_adds_per_cycle


_X86_TRIPLE = "x86_64-unknown-linux-gnu"

AVX512 = Target(
    "avx512",
    16,
    32,
    True,
    True,
    True,
    _X86_TRIPLE,
    "skylake-avx512",
    "+avx512f,+avx512dq",
    half_conversions=True,
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
    "+avx2,+fma,+f16c",
    rates=Rates(multiply_adds_per_cycle=2.0),
    half_conversions=True,
)
X86_64 = Target("x86-64", 4, 16, False, False, False, _X86_TRIPLE, "x86-64", "")
NEON = Target(
    "neon",
    4,
    32,
    True,
    False,
    True,
    "aarch64-unknown-linux-gnu",
    "generic",
    "+neon",
    half_conversions=True,
)

# Best first; the features LLVM must report of a host for the target to run there.
_REQUIRED_FEATURES: Mapping[Target, tuple[str, ...]] = {
    AVX512: ("avx512f", "avx512dq", "avx512vl", "avx512bw", "fma", "avx2", "f16c"),
    AVX2: ("avx2", "fma", "f16c"),
    X86_64: (),
}


@functools.cache
def host_target() -> Target:
    """The best target this machine runs, or the lesser one that ``NNPACK_TARGET`` names.

    Its rates are those measured on this machine, if they ever were.

    Raises SettingsError when the named target does not run here.
    """
    # No child may inherit the lock of a module half imported.
    with llvm_lock:
        from nnpack.codegen.rates import kept_rates

        target = choose_target(get_settings().target, runnable_targets())
        return replace(target, rates=kept_rates(target) or target.rates)


def choose_target(forced: str | None, runnable: Sequence[Target]) -> Target:
    """The target called ``forced``, or by default the first. Raises SettingsError without one."""
    names = [target.name for target in runnable]
    if forced is None:
        return runnable[0]
    if forced not in names:
        raise SettingsError(
            f"NNPACK_TARGET={forced!r} does not run here; choose one of {', '.join(names)}"
        )
    return runnable[names.index(forced)]


@functools.cache
def runnable_targets() -> tuple[Target, ...]:
    """The targets this machine runs, best first."""
    with llvm_lock:
        import llvmlite.binding as llvm

        return targets_of_machine(
            platform.machine(),
            _host_features(),
            triple=llvm.get_process_triple(),
            cpu=llvm.get_host_cpu_name(),
            caches=host_caches(),
        )


def targets_of_machine(
    machine: str, features: Mapping[str, bool], *, triple: str, cpu: str, caches: CacheSizes
) -> tuple[Target, ...]:
    """The targets that ``machine`` with these features (LLVM's names) runs, best first.

    Only the best is compiled for ``cpu`` and all features: a lesser one that was asked for stands
    for lesser machines. Baseline x86-64 stays what it is, whatever cpu calls itself.
    """
    if machine.lower() in ("aarch64", "arm64"):
        runnable = [NEON]
    else:
        required = _REQUIRED_FEATURES.items()
        runnable = [t for t, names in required if all(features.get(name) for name in names)]
    best = runnable[0]
    if best is not X86_64:
        flags = ",".join(f"{'+' if on else '-'}{name}" for name, on in sorted(features.items()))
        best = replace(best, cpu=cpu, features=flags)
    return tuple(replace(t, triple=triple, caches=caches) for t in (best, *runnable[1:]))


def _host_features() -> Mapping[str, bool]:
    """What LLVM detects; nothing where it cannot tell."""
    import llvmlite.binding as llvm

    try:
        return dict(llvm.get_host_cpu_features())
    except RuntimeError:
        return {}


@functools.cache
def host_caches() -> CacheSizes:
    """Data cache sizes of the first processor; fallbacks where the machine hides them."""
    return complete_caches(caches_from_sysfs() or _caches_from_sysconf())


def complete_caches(sizes: Mapping[int, int]) -> CacheSizes:
    """Sizes by level, those that are missing filled in; no level is less than the one before."""
    l1 = sizes.get(1, FALLBACK_CACHES.l1)
    l2 = max(sizes.get(2, FALLBACK_CACHES.l2), l1)
    l3 = max(sizes.get(3, FALLBACK_CACHES.l3 if 2 not in sizes else 0), l2)
    return CacheSizes(l1, l2, l3)


_SYSFS = pathlib.Path("/sys/devices/system/cpu/cpu0/cache")


def caches_from_sysfs(folder: pathlib.Path = _SYSFS) -> dict[int, int]:
    """Bytes of data cache by level, as Linux tells them; empty where it does not."""
    sizes: dict[int, int] = {}
    names = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208 - half the time of a glob
    for index in [f"{folder}/{name}" for name in names if name.startswith("index")]:
        try:
            kind = _read_word(f"{index}/type")
            level = int(_read_word(f"{index}/level"))
            size = _read_word(f"{index}/size")
            scale = {"K": KIB, "M": KIB * KIB}[size[-1]]
            nbytes = int(size[:-1]) * scale
        except (OSError, ValueError, KeyError, IndexError):
            continue
        if kind in ("Data", "Unified") and nbytes > 0:
            sizes[level] = nbytes
    return sizes


def _read_word(path: str) -> str:
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        return file.read().strip()


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
