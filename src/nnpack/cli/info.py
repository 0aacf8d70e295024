"""``nnpack info``: what the library sees of the machine. Needs no extra."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import nnpack
from nnpack.codegen.machine import processor_name
from nnpack.codegen.rates import kept_rates
from nnpack.codegen.target import Target, host_target
from nnpack.codegen.version import llvm_version
from nnpack.settings import get_num_threads, get_settings

KIB = 1024


def info() -> None:
    """Print processor, target, caches, threads, cache folder and versions, one a line."""
    for name, value in facts(host_target()).items():
        print(f"{name:<14} {value}")


def facts(target: Target) -> dict[str, str]:
    """The lines of ``nnpack info`` as name -> value."""
    folder = get_settings().cache_dir
    caches = target.caches
    return {
        "processor": processor_name(),
        "LLVM CPU": target.cpu,
        "target": f"{target.name}: {target.lanes} float32 lanes, {target.registers} registers",
        "caches": f"L1d {size(caches.l1)}, L2 {size(caches.l2)}, L3 {size(caches.l3)}",
        "rates": _rates(target),
        "threads": str(get_num_threads()),
        "cache folder": "none (in memory only)" if folder is None else str(folder),
        **versions(),
    }


def _rates(target: Target) -> str:
    rates = target.rates
    speed = 2e-9 * target.lanes * target.multiply_adds
    bandwidths = (rates.l2_bandwidth, rates.l3_bandwidth, rates.memory_bandwidth)
    copies = ", ".join(f"{1e-9 * bandwidth:.0f}" for bandwidth in bandwidths)
    origin = "shipped" if kept_rates(target) is None else "measured here"
    return (
        f"{speed:.0f} GFLOP/s at {1e-9 * rates.clock:.2f} GHz a core; "
        f"copies L2, L3, memory at {copies} GB/s ({origin})"
    )


def versions() -> dict[str, str]:
    """Versions of what computes: nnpack, Python, numpy, llvmlite and its LLVM."""
    return {
        "nnpack": nnpack.__version__,
        "python": f"{platform.python_version()} ({platform.system()} {platform.machine()})",
        "numpy": _version_of("numpy"),
        "llvmlite": _version_of("llvmlite"),
        "LLVM": ".".join(map(str, llvm_version())),
    }


def size(count: int) -> str:
    """``count`` bytes in KiB or MiB: ``size(1 << 20)`` is ``"1 MiB"``."""
    unit, name = (KIB * KIB, "MiB") if count >= KIB * KIB else (KIB, "KiB")
    return f"{count / unit:g} {name}"


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
