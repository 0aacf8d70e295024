"""Settings: the only reader of environment variables, and the number of threads.

==================== =========================================================================
NNPACK_NUM_THREADS   threads a call uses unless told otherwise
OMP_NUM_THREADS      the same, when NNPACK_NUM_THREADS is not set; of a list, ``4,2``, its first
NNPACK_CACHE_DIR     folder of compiled kernels; ``off`` keeps none; by default ``nnpack`` in
                     ``$XDG_CACHE_HOME`` or ``~/.cache``
NNPACK_TARGET        ``avx512``, ``avx2`` or ``x86-64``: emit for less than this machine has
NNPACK_VERBOSE       ``1`` writes a line of CSV to stderr for each plan and call
==================== =========================================================================

A variable set to nothing counts as not set.
"""

from __future__ import annotations

import functools
import operator
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import SupportsIndex

from nnpack.errors import DtypeError, NnpackError, ProblemError, SettingsError
from nnpack.frozen import dataclass

__all__ = [
    "MAX_THREADS",
    "TARGETS",
    "Settings",
    "default_num_threads",
    "get_num_threads",
    "get_settings",
    "resolve_num_threads",
    "set_num_threads",
]

TARGETS = ("avx512", "avx2", "x86-64")

# Far more than any machine gains from; it keeps a typing error from exhausting the process table.
MAX_THREADS = 1024

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class Settings:
    """What the environment asks for.

    ``threads`` is None when it does not say; ``cache_dir`` is an absolute path, or None for no
    cache on disk; ``target`` is one of ``TARGETS``, or None for this machine's best.
    """

    threads: int | None = None
    cache_dir: Path | None = None
    target: str | None = None
    verbose: bool = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read the variables from ``environ``.

        Raises SettingsError when an ``NNPACK_`` variable is malformed. A malformed OMP_NUM_THREADS
        is ignored, as OpenMP itself does: it belongs to other libraries.
        """
        return cls(
            threads=_threads(environ),
            cache_dir=_cache_dir(environ),
            target=_target(environ),
            verbose=_verbose(environ),
        )


@functools.cache
def get_settings() -> Settings:
    """Return the settings of this process, read from the environment at the first call.

    Raises SettingsError when a variable is malformed.
    """
    return Settings.from_environment()


def _threads(environ: Mapping[str, str]) -> int | None:
    text = environ.get("NNPACK_NUM_THREADS", "").strip()
    if not text:
        return _openmp_threads(environ.get("OMP_NUM_THREADS", ""))
    if not _is_number(text) or not 1 <= int(text) <= MAX_THREADS:
        raise SettingsError(
            f"NNPACK_NUM_THREADS={text!r} must be an integer from 1 to {MAX_THREADS}; "
            "unset it for one thread a core"
        )
    return int(text)


def _is_number(text: str) -> bool:
    """Whether these are digits that ``int`` reads, and not a thousand of them."""
    return text.isascii() and text.isdecimal() and len(text) < 10


def _openmp_threads(text: str) -> int | None:
    # One number for each level of nesting; the outermost is the one that concerns us.
    outermost = text.partition(",")[0].strip()
    if not _is_number(outermost) or int(outermost) < 1:
        return None
    return min(int(outermost), MAX_THREADS)


def _cache_dir(environ: Mapping[str, str]) -> Path | None:
    text = environ.get("NNPACK_CACHE_DIR", "").strip()
    if text.lower() == "off":
        return None
    try:
        return Path(text).expanduser().absolute() if text else _default_cache_dir(environ)
    except RuntimeError:  # there is no home folder: nowhere to keep anything
        return None


def _default_cache_dir(environ: Mapping[str, str]) -> Path:
    base = Path(environ.get("XDG_CACHE_HOME", ""))
    # The XDG base directory specification: a relative path is invalid and must be ignored.
    return (base if base.is_absolute() else Path.home() / ".cache") / "nnpack"


def _target(environ: Mapping[str, str]) -> str | None:
    text = environ.get("NNPACK_TARGET", "").strip()
    if text and text not in TARGETS:
        raise SettingsError(
            f"NNPACK_TARGET={text!r} must be one of {', '.join(TARGETS)}; "
            "unset it for the best this machine can do"
        )
    return text or None


def _verbose(environ: Mapping[str, str]) -> bool:
    text = environ.get("NNPACK_VERBOSE", "").strip().lower()
    if text not in _TRUE + _FALSE:
        raise SettingsError(f"NNPACK_VERBOSE={text!r} must be 1 or 0")
    return text in _TRUE


# set_num_threads is a documented piece of process-wide state; one slot, replaced as a whole.
_chosen_threads: list[int | None] = [None]


def set_num_threads(threads: SupportsIndex | None) -> None:
    """Use ``threads`` threads in every later call that does not say otherwise.

    None returns to what the environment and the machine say. More threads than cores is slow, never
    stuck. Raises DtypeError when it is no integer, SettingsError outside 1 to ``MAX_THREADS``.
    """
    _chosen_threads[0] = None if threads is None else _check_threads(threads, SettingsError)


def get_num_threads() -> int:
    """Return how many threads a call uses unless it says otherwise, at least 1.

    set_num_threads comes first, then NNPACK_NUM_THREADS, OMP_NUM_THREADS, and the cores this
    process may use (``default_num_threads``). Raises SettingsError when a variable is malformed.
    """
    return _chosen_threads[0] or get_settings().threads or default_num_threads()


def resolve_num_threads(threads: SupportsIndex | None) -> int:
    """Return the number of threads for a call whose argument is ``threads``.

    Raises DtypeError when it is neither None nor an integer, ProblemError outside 1 to
    ``MAX_THREADS``.
    """
    if type(threads) is int and 1 <= threads <= MAX_THREADS:  # half the time of the check
        return threads
    return get_num_threads() if threads is None else _check_threads(threads, ProblemError)


def _check_threads(threads: SupportsIndex, error: type[NnpackError]) -> int:
    try:
        count = operator.index(threads)
    except TypeError:
        count = None
    if count is None or isinstance(threads, bool):
        raise DtypeError(f"threads={threads!r} must be an integer or None")
    if not 1 <= count <= MAX_THREADS:
        raise error(f"threads={count} must be from 1 to {MAX_THREADS}; None uses every core it may")
    return count


@functools.cache
def default_num_threads() -> int:
    """Return the number of cores this process may use, at least 1; found once.

    It is the smaller of the affinity mask and the control group's quota, rounded down: a group that
    spends its quota before the period ends is stopped, all workers at once, until the next.
    """
    limit = cgroup_cpu_limit()
    cores = affinity_count()
    return cores if limit is None else max(1, min(cores, int(limit)))


def affinity_count() -> int:
    """Return how many processors the scheduler may run this process on."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def cgroup_cpu_limit(
    membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> float | None:
    """Return the tightest quota, in cores, of this process's control groups, or None.

    ``membership`` has lines ``hierarchy:controllers:path``; a group is bound by its ancestors'
    quotas as well. Version 2 keeps "quota period" in ``cpu.max``, version 1 two files under the
    ``cpu`` controller (Linux documentation, admin-guide/cgroup-v2 and scheduler/sched-bwc).
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    limits = [limit for line in lines for limit in _quotas(line, root)]
    return min(limits, default=None)


def _quotas(line: str, root: Path) -> Iterator[float]:
    _, _, rest = line.partition(":")
    controllers, _, path = rest.partition(":")
    if controllers and "cpu" not in controllers.split(","):
        return
    # Distributions mount version 1 under the joined names or under links to them.
    mounts = (controllers, "cpu") if controllers else ("", "unified")
    for mount in dict.fromkeys(mounts):
        for folder in _with_ancestors(root / mount, path):
            yield from _quota_of(folder)


def _with_ancestors(mount: Path, path: str) -> Iterator[Path]:
    # Inside a container the path may be the host's; its ancestors end at the mount, which exists.
    relative = Path(path.lstrip("/"))
    for ancestor in (relative, *relative.parents):
        yield mount / ancestor


def _quota_of(folder: Path) -> Iterator[float]:
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        if quota.isdecimal() and int(quota) > 0 and int(period) > 0:  # "max" and -1: no limit
            yield int(quota) / int(period)
    except (OSError, ValueError):
        return
