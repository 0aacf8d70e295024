"""What the documents show is run: every fenced block of Python, behind those before it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def scripts() -> dict[str, str]:
    """The blocks of each document one behind the other; each with PyTorch behind those without."""
    found = {}
    for document in DOCUMENTS:
        blocks = re.findall(r"^```python\n(.*?)^```", document.read_text(), re.S | re.M)
        plain = [block for block in blocks if "import torch" not in block]
        if plain:
            found[document.name] = "\n".join(plain)
        for n, block in enumerate(blocks):
            if block not in plain:
                before = [other for other in blocks[:n] if other in plain]
                found[f"{document.name}-{n}"] = "\n".join([*before, block])
    return found


@pytest.mark.parametrize("code", scripts().values(), ids=scripts())
def test_blocks_of_python_run(code: str, tmp_path: Path) -> None:
    if "import torch" in code:
        pytest.importorskip("torch")
    environment = {**os.environ, "NNPACK_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-W", "error", "-c", code]
    run = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_links_between_documents_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
