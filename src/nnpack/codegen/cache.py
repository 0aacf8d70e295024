"""Compiled kernels on disk: ``<key>.o`` = SHA-256 of the code, then the code.

A file is used only when it and its folder belong to the user, nobody else may write them, and the
digest agrees. Everything that goes wrong here means compiling again, never failing.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pathlib
import stat
import tempfile

from nnpack.codegen.target import Target
from nnpack.settings import get_settings

_DIGEST_BYTES = 32
_SOURCES = ("codegen", "kernels", "maths", "runtime")


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
def sources_digest() -> str:
    """One digest of every source that takes part in emitting code."""
    digest = hashlib.sha256()
    package = pathlib.Path(__file__).parent.parent
    for folder in _SOURCES:
        for path in sorted((package / folder).glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def read(key: str) -> bytes | None:
    """The object code stored under ``key``, or None."""
    folder = _folder()
    if folder is None:
        return None
    try:
        with (folder / f"{key}.o").open("rb") as file:
            if not _is_private(os.fstat(file.fileno())):
                return None
            content = file.read()
    except OSError:
        return None
    digest, code = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return code if hashlib.sha256(code).digest() == digest else None


def write(key: str, code: bytes) -> None:
    """Store ``code`` under ``key`` atomically; silently not, where that is impossible."""
    folder = _folder()
    if folder is None:
        return
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".tmp", delete=False) as file:
            temporary = pathlib.Path(file.name)
            file.write(hashlib.sha256(code).digest() + code)
        temporary.replace(folder / f"{key}.o")
    except OSError:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _folder() -> pathlib.Path | None:
    """The user's folder of object code, made if need be; None unless it is safe to use."""
    base = get_settings().cache_dir
    if base is None:
        return None
    folder = base / "objects"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        private = _is_private(os.lstat(folder)) and stat.S_ISDIR(os.lstat(folder).st_mode)
    except OSError:
        return None
    return folder if private else None


def _is_private(status: os.stat_result) -> bool:
    """Whether only the user can have written this file or folder."""
    if not hasattr(os, "getuid"):
        return True
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
