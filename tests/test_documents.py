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


def blocks() -> list[tuple[str, str]]:
    found = []
    for document in DOCUMENTS:
        code = re.findall(r"^```python\n(.*?)^```", document.read_text(), re.S | re.M)
        for n, block in enumerate(code):
            before = [b for b in code[:n] if "import torch" not in b]
            found.append((f"{document.name}-{n}", "\n".join([*before, block])))
    return found


@pytest.mark.parametrize("code", [b for _, b in blocks()], ids=[name for name, _ in blocks()])
def test_a_block_of_python_runs(code: str, tmp_path: Path) -> None:
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
