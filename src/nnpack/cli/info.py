"""``nnpack info``: what the library sees of the machine. Needs no extra."""

from __future__ import annotations

import pathlib
import platform
from importlib.metadata import PackageNotFoundError, version

import nnpack
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
        "threads": str(get_num_threads()),
        "cache folder": "none (in memory only)" if folder is None else str(folder),
        **versions(),
    }


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


def processor_name(cpuinfo: pathlib.Path = pathlib.Path("/proc/cpuinfo")) -> str:
    """The processor's marketing name; the architecture where the system does not tell."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
