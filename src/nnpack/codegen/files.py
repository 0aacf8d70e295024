"""Files of the user alone, kept from run to run: what is found is not believed unless it is safe.

A file is read only when it and its folder belong to the user and nobody else may write them;
it is written whole or not at all. Everything that goes wrong here is silent: what cannot be kept
is computed again.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import stat

__all__ = ["private_folder", "read_private", "remove_private", "shrink_folder", "write_private"]


def private_folder(
    base: pathlib.Path | None, name: str, *, make: bool = True
) -> pathlib.Path | None:
    """The folder ``name`` in ``base``, made if told so; None unless it is there and safe to use."""
    if base is None:
        return None
    folder = base / name
    try:
        if make:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        private = _is_private(os.lstat(folder)) and stat.S_ISDIR(os.lstat(folder).st_mode)
    except OSError:
        return None
    return folder if private else None


def read_private(path: pathlib.Path, limit: int | None = None) -> bytes | None:
    """What ``path`` holds, if it is the user's and has at most ``limit`` bytes; else None."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
            return None
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not _is_private(status) or (limit is not None and status.st_size > limit):
                return None
            return file.read()
    except OSError:
        return None


def write_private(path: pathlib.Path, content: bytes) -> None:
    """Make ``path`` hold ``content``, atomically; silently not, where that is impossible."""
    import tempfile  # costs 4 ms, and a warm start writes nothing

    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            temporary = pathlib.Path(file.name)
            file.write(content)
        temporary.replace(path)
    except BaseException as error:  # an interrupt leaves nothing behind either
        if temporary is not None:
            remove_private(temporary)
        if not isinstance(error, OSError):
            raise


def remove_private(path: pathlib.Path) -> None:
    """Remove ``path`` if it is there and can be removed."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def shrink_folder(folder: pathlib.Path, limit: int) -> None:
    """Remove the files of ``folder`` that were used longest ago, until ``limit`` bytes are left."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        found = [(entry.stat(follow_symlinks=False), entry.path) for entry in entries]
        found.sort(key=lambda pair: max(pair[0].st_atime, pair[0].st_mtime), reverse=True)
        kept = 0
        for status, path in found:
            kept += status.st_size
            if kept > limit and stat.S_ISREG(status.st_mode):
                remove_private(pathlib.Path(path))


def _is_private(status: os.stat_result) -> bool:
    """Whether only the user can have written this file or folder."""
    if not hasattr(os, "getuid"):
        return True
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
