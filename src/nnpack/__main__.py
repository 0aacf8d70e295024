"""``python -m nnpack``: the same commands as the console script ``nnpack``."""

from __future__ import annotations

import sys

from nnpack.cli import main

sys.exit(main())
