"""Every error is of one tree, and also the built-in error a caller would expect."""

from __future__ import annotations

import pytest

from nnpack import errors


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (errors.ProblemError, (errors.NnpackError, ValueError)),
        (errors.AlgorithmError, (errors.ProblemError, ValueError)),
        (errors.DtypeError, (errors.NnpackError, TypeError)),
        (errors.SettingsError, (errors.NnpackError, ValueError)),
        (errors.CompilationError, (errors.NnpackError, RuntimeError)),
        (errors.RegisterPressureError, (errors.CompilationError, RuntimeError)),
    ],
)
def test_each_error_can_be_caught_by_its_bases(
    error: type[Exception], bases: tuple[type[Exception], ...]
) -> None:
    for base in bases:
        with pytest.raises(base, match="why"):
            raise error("why")


def test_all_errors_are_exported() -> None:
    own = [name for name in vars(errors) if name.endswith("Error")]
    assert sorted(own) == errors.__all__
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.NnpackError)
