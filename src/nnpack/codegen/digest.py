"""Digests of what is kept on disk: BLAKE2b of 32 bytes (Aumasson et al., 2013)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import blake2b
else:
    # `hashlib` brings OpenSSL, 3 ms of a warm start; `random` of the standard library goes round
    # it in the same way.
    try:
        from _blake2 import blake2b
    except ImportError:
        from hashlib import blake2b

__all__ = ["DIGEST_BYTES", "digest"]

DIGEST_BYTES = 32


def digest(pieces: Iterable[bytes]) -> bytes:
    """The digest of ``pieces`` put together."""
    state = blake2b(digest_size=DIGEST_BYTES)
    for piece in pieces:
        state.update(piece)
    return bytes(state.digest())
