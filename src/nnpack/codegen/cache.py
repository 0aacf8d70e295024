"""Compiled kernels on disk: ``<key>.o`` = SHA-256 of the code, then the code.

A file is used only when it is safe (see `codegen.files`) and the digest agrees. Everything that
goes wrong here means compiling again, never failing.
"""

from __future__ import annotations

import functools
import hashlib
import pathlib

from nnpack.codegen.files import private_folder, read_private, write_private
from nnpack.codegen.target import Target
from nnpack.settings import get_settings

_DIGEST_BYTES = 32
# Where code is emitted.
SOURCES = ("codegen", "kernels", "maths", "runtime")


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
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@functools.cache
def sources_digest(folders: tuple[str, ...] = SOURCES) -> str:
    """One digest of every source in ``folders``, by default of all that emit code."""
    digest = hashlib.sha256()
    package = pathlib.Path(__file__).parent.parent
    for folder in folders:
        for path in sorted((package / folder).glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def read(key: str) -> bytes | None:
    """The object code stored under ``key``, or None."""
    folder = _folder()
    content = None if folder is None else read_private(folder / f"{key}.o")
    if content is None:
        return None
    digest, code = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return code if hashlib.sha256(code).digest() == digest else None


def write(key: str, code: bytes) -> None:
    """Store ``code`` under ``key`` atomically; silently not, where that is impossible."""
    folder = _folder()
    if folder is not None:
        write_private(folder / f"{key}.o", hashlib.sha256(code).digest() + code)


def _folder() -> pathlib.Path | None:
    """The user's folder of object code."""
    return private_folder(get_settings().cache_dir, "objects")
