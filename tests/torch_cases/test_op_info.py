"""PyTorch's own sample inputs give what PyTorch gives in float64, and its error inputs are errors.

`torch.testing._internal` holds, for each operator, the samples that PyTorch tests itself with.
"""

from __future__ import annotations

import copy
import importlib.util
import inspect
import sys
import types
import unittest
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import nnpack
from tests.torch_cases.adapters import ADAPTERS, NotApplicableError

torch: Any = pytest.importorskip("torch")

# float32 sums of up to some hundred terms, and transforms of small images.
TOLERANCE = 5e-5
LEAST_SAMPLES = {
    "cat": 5,
    "log_softmax": 6,
    "nn.functional.adaptive_avg_pool2d": 6,
    "nn.functional.adaptive_max_pool2d": 6,
    "nn.functional.avg_pool2d": 4,
    "nn.functional.batch_norm": 8,
    "nn.functional.conv1d": 5,
    "nn.functional.conv2d": 20,
    "nn.functional.conv_transpose1d": 5,
    "nn.functional.conv_transpose2d": 6,
    "nn.functional.cross_entropy": 4,
    "nn.functional.elu": 2,
    "nn.functional.gelu": 4,
    "nn.functional.hardsigmoid": 2,
    "nn.functional.hardswish": 2,
    "nn.functional.hardtanh": 2,
    "nn.functional.interpolate": 10,
    "nn.functional.leaky_relu": 4,
    "nn.functional.linear": 5,
    "nn.functional.max_pool2d": 1000,
    "nn.functional.mish": 2,
    "nn.functional.pad": 4,
    "nn.functional.prelu": 2,
    "nn.functional.relu": 2,
    "nn.functional.relu6": 2,
    "nn.functional.silu": 2,
    "sigmoid": 2,
    "softmax": 6,
    "tanh": 1,
}


def _stand_in_for_expecttest() -> types.ModuleType:
    """A package that PyTorch's tests import, and their samples have no use for."""
    module = types.ModuleType("expecttest")
    module.TestCase = unittest.TestCase  # type: ignore[attr-defined]
    module.assert_expected_inline = None  # type: ignore[attr-defined]
    return module


def _operators() -> dict[str, list[Any]]:
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        if importlib.util.find_spec("expecttest") is None:
            patch.setitem(sys.modules, "expecttest", _stand_in_for_expecttest())
        from torch.testing._internal.common_methods_invocations import op_db
    found: dict[str, list[Any]] = {name: [] for name in ADAPTERS}
    for operator in op_db:
        if operator.name in found and torch.float32 in operator.dtypes:
            found[operator.name].append(operator)
    return found


OPERATORS = _operators()


def to_arrays(value: Any) -> Any:
    """Tensors as arrays, wherever they are."""
    if isinstance(value, torch.Tensor):
        return value.detach().numpy().copy() if value.is_contiguous() else value.detach().numpy()
    if isinstance(value, tuple | list):
        return type(value)(to_arrays(item) for item in value)
    return value


def to_double(value: Any) -> Any:
    """Floating tensors in float64, wherever they are."""
    if isinstance(value, torch.Tensor):
        return value.detach().double() if value.is_floating_point() else value.detach().clone()
    if isinstance(value, tuple | list):
        return type(value)(to_double(item) for item in value)
    return value


def arguments_of(name: str, operator: Any, sample: Any) -> tuple[list[Any], dict[str, Any]]:
    """What an adapter is given of ``sample``."""
    arguments = [to_arrays(value) for value in (sample.input, *sample.args)]
    options = {word: to_arrays(value) for word, value in sample.kwargs.items()}
    mode = operator.variant_test_name
    if name == "nn.functional.pad" and "mode" not in options and len(arguments) < 3 and mode:
        options["mode"] = mode.removesuffix("_negative")
    return arguments, options


def ours(name: str, operator: Any, sample: Any) -> Any:
    """What this library makes of ``sample``. Raises NotApplicableError."""
    arguments, options = arguments_of(name, operator, sample)
    try:
        inspect.signature(ADAPTERS[name]).bind(*arguments, **options)
    except TypeError as error:
        raise NotApplicableError(str(error)) from error
    return ADAPTERS[name](*arguments, **options)


def samples(name: str, kind: str) -> Iterator[tuple[Any, Any]]:
    """The samples, or the error inputs, of all variants of an operator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for operator in OPERATORS[name]:
            if kind == "sample":
                chosen = operator.sample_inputs("cpu", torch.float32, requires_grad=False)
            elif operator.error_inputs_func is None:
                continue
            else:
                chosen = operator.error_inputs("cpu")
            for sample in chosen:
                yield operator, sample


def expect(operator: Any, sample: Any) -> Any:
    """What PyTorch gives in float64."""
    arguments = copy.deepcopy(to_double(list(sample.args)))
    options = {word: to_double(value) for word, value in sample.kwargs.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return operator.op(to_double(sample.input), *arguments, **options)


def assert_close(found: Any, expected: Any, label: str, least: float = 1e-6) -> None:
    """Within `TOLERANCE` of the greatest number expected, or of ``least``."""
    if isinstance(expected, tuple | list):
        assert isinstance(found, tuple), label
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other, label, least)
        return
    truth = expected.numpy()
    assert found.shape == truth.shape, label
    finite = np.abs(truth[np.isfinite(truth)]).max(initial=0) if truth.dtype.kind == "f" else 0
    np.testing.assert_allclose(
        found, truth, rtol=1e-4, atol=TOLERANCE * max(finite, least), err_msg=label
    )


@pytest.mark.parametrize("name", ADAPTERS)
def test_samples_give_what_pytorch_gives(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    counted: Counter[str] = Counter()
    for operator, sample in samples(name, "sample"):
        try:
            found = ours(name, operator, sample)
        except NotApplicableError as reason:
            counted[str(reason)] += 1
            continue
        counted["run"] += 1
        assert_close(found, expect(operator, sample), f"{name} {sample.summary()}")
    with capsys.disabled():
        print(f"\npytorch {name}: {dict(counted)}", end="")
    assert counted["run"] >= LEAST_SAMPLES[name]


# Where this library has a meaning for what PyTorch refuses.
MEANINGFUL = (
    "stride must be",
    "Overlap",
)


@pytest.mark.parametrize("name", ADAPTERS)
def test_error_inputs_are_refused(name: str) -> None:
    accepted = []
    for operator, error in samples(name, "error"):
        try:
            ours(name, operator, error.sample_input)
        except (NotApplicableError, nnpack.NnpackError):
            continue
        accepted.append(error.error_regex)
    assert not [regex for regex in accepted if not any(word in regex for word in MEANINGFUL)]
