"""Measured rates on disk, one file a machine and target; the shipped ones hold where there is none.

``nnpack tune --calibrate`` measures and keeps them (`runtime.calibration`); nothing else does.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from typing import Any

from nnpack.codegen.digest import digest
from nnpack.codegen.files import private_folder, read_private, remove_private, write_private
from nnpack.codegen.machine import machine_of
from nnpack.codegen.target import Rates, Target, host_target
from nnpack.settings import get_settings

__all__ = ["WISDOM_FOLDER", "forget_rates", "keep_rates", "kept_rates"]

# The folder of everything measured, in the user's folder of the library.
WISDOM_FOLDER = "wisdom"
_MOST_BYTES = 8192
# No core is slower or faster than this by any of the rates: such a file is not ours.
_LEAST, _MOST = 1e-3, 1e15


def kept_rates(target: Target) -> Rates | None:
    """What was measured on this machine for ``target``; None without a file that is sound."""
    folder = _folder(make=False)
    content = None if folder is None else read_private(folder / _name(target), _MOST_BYTES)
    if content is None:
        return None
    import json

    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("machine") != machine_of(target):
        return None
    return _rates(record.get("rates"))


def _rates(record: Any) -> Rates | None:
    names = [field.name for field in dataclasses.fields(Rates)]
    if not isinstance(record, dict) or sorted(record) != sorted(names):
        return None
    for value in record.values():
        if type(value) is not float or not math.isfinite(value) or not _LEAST <= value <= _MOST:
            return None
    return Rates(**record)


def keep_rates(target: Target, rates: Rates) -> None:
    """Keep ``rates`` for this machine and use them from now on, in plans that are yet to be made.

    Silently not kept where there is no folder that is safe.
    """
    folder = _folder(make=True)
    if folder is None:
        return
    import json

    record = {"machine": machine_of(target), "rates": dataclasses.asdict(rates)}
    write_private(folder / _name(target), json.dumps(record).encode())
    host_target.cache_clear()


def forget_rates() -> None:
    """Return to the rates the library ships, on all machines that share the folder."""
    folder = _folder(make=False)
    for path in [] if folder is None else folder.glob("rates-*.json"):
        remove_private(path)
    host_target.cache_clear()


def _folder(*, make: bool) -> pathlib.Path | None:
    return private_folder(get_settings().cache_dir, WISDOM_FOLDER, make=make)


def _name(target: Target) -> str:
    words = "\0".join(machine_of(target).values())
    return f"rates-{digest([words.encode()]).hex()}.json"
