"""Modules that tell what computes them."""

from __future__ import annotations

import torch

__all__ = ["Named"]


class Named(torch.nn.Module):
    """A module whose representation tells what computes it."""

    def _get_name(self) -> str:
        return f"nnpack.{type(self).__name__}"
