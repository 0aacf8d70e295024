"""What a machine is called, for measurements that hold on it and nowhere else."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import platform
from collections.abc import Mapping

from nnpack.codegen.target import Target

__all__ = ["machine_of", "processor_name"]

_CPUINFO = pathlib.Path("/proc/cpuinfo")


def processor_name(cpuinfo: pathlib.Path = _CPUINFO) -> str:
    """The processor's marketing name; the architecture where the system does not tell."""
    with contextlib.suppress(OSError), cpuinfo.open(errors="replace") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


@functools.lru_cache(maxsize=16)
def machine_of(target: Target) -> Mapping[str, str]:
    """The processor that runs ``target``: equal where measurements may be shared."""
    caches = target.caches
    return {
        "processor": processor_name(),
        "target": target.name,
        "cpu": target.cpu,
        "features": target.features,
        "caches": f"{caches.l1} {caches.l2} {caches.l3}",
    }
