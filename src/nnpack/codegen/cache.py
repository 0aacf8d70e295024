"""Compiled kernels on disk: ``<key>.o`` = digest of the code, then the code.

A file is used only when it is safe (see `codegen.files`) and the digest agrees. Everything that
goes wrong here means compiling again, never failing.
"""

from __future__ import annotations

import functools
import itertools
import os
import pathlib
from collections.abc import Iterator

from nnpack.codegen.digest import DIGEST_BYTES, digest
from nnpack.codegen.files import private_folder, read_private, shrink_folder, write_private
from nnpack.codegen.target import Target
from nnpack.settings import get_settings

# Where code is emitted.
SOURCES = ("codegen", "kernels", "maths", "runtime")

# Tens of thousands of kernels. Versions of the library come and go, and their kernels would stay.
# Looked at when a process writes its first kernel, and then now and again.
LIMIT_BYTES = 512 * 2**20
WRITES_PER_CHECK = 256
_written = itertools.count()


def object_key(specification: str, target: Target) -> str:
    """The file name of a kernel: all that its code depends on, digested."""
    import llvmlite

    parts = (
        specification,
        target.name,
        target.triple,
        target.cpu,
        target.features,
        llvmlite.__version__,
        sources_digest(),
    )
    return digest(["\0".join(parts).encode()]).hex()


@functools.cache
def sources_digest(folders: tuple[str, ...] = SOURCES) -> str:
    """One digest of every source in ``folders``, by default of all that emit code.

    Empty where there are no files to read, as in an archive: then nothing can tell what an older
    version of the library left on disk, and nothing is kept there.
    """
    package = pathlib.Path(__file__).parent.parent
    try:
        contents = [piece for folder in folders for piece in _contents(package / folder)]
    except OSError:
        return ""
    return digest(contents).hex() if contents else ""


def _contents(folder: pathlib.Path) -> Iterator[bytes]:
    """Names and contents of the sources in ``folder``, or of what is installed in their place."""
    for name in sorted(os.listdir(folder)):  # noqa: PTH208 - half the time of a glob
        if name.endswith((".py", ".pyc")):
            with open(f"{folder}/{name}", "rb", buffering=0) as file:  # noqa: PTH123
                yield from (name.encode() + b"\0", file.read())


def read(key: str) -> bytes | None:
    """The object code stored under ``key``, or None."""
    folder = _folder()
    content = None if folder is None else read_private(folder / f"{key}.o")
    if content is None:
        return None
    expected, code = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    return code if digest([code]) == expected else None


def write(key: str, code: bytes) -> None:
    """Store ``code`` under ``key`` atomically; silently not, where that is impossible."""
    folder = _folder()
    if folder is None:
        return
    write_private(folder / f"{key}.o", digest([code]) + code)
    if next(_written) % WRITES_PER_CHECK == 0:
        shrink_folder(folder, LIMIT_BYTES)


def _folder() -> pathlib.Path | None:
    """The user's folder of object code, if what lies there can be told from that of others."""
    return None if not sources_digest() else private_folder(get_settings().cache_dir, "objects")
