"""The public names are complete and sorted, and importing the package costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import nnpack


def _imported_by(statement: str) -> set[str]:
    program = f"{statement}; import sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


def test_importing_the_package_imports_neither_numpy_nor_llvmlite() -> None:
    assert not {"numpy", "llvmlite"} & _imported_by("import nnpack")


def test_stating_a_problem_does_not_import_llvmlite() -> None:
    assert "llvmlite" not in _imported_by("import nnpack; nnpack.Relu(); nnpack.get_num_threads()")


def test_public_names_are_sorted_and_listed() -> None:
    assert sorted(nnpack.__all__) == nnpack.__all__
    assert set(nnpack.__all__) <= set(dir(nnpack))


@pytest.mark.parametrize("name", nnpack.__all__)
def test_every_public_name_works_and_has_a_docstring(name: str) -> None:
    value = getattr(nnpack, name)
    assert name == "__version__" or value.__doc__


def test_a_misspelt_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="conv2dd"):
        getattr(nnpack, "conv2dd")  # noqa: B009 - mypy would refuse the attribute
