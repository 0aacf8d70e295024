"""On PyTorch's own sample inputs, gradients are what PyTorch's autograd gives in float64."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest

from tests.torch_cases.adapters import ADAPTERS, NotApplicableError
from tests.torch_cases.gradient_adapters import GRADIENTS
from tests.torch_cases.test_op_info import (
    arguments_of,
    assert_close,
    ours,
    samples,
    to_double,
)

torch: Any = pytest.importorskip("torch")

# Samples that must at least be compared; of those that are very many, one in so many is.
LEAST = {
    "log_softmax": 5,
    "nn.functional.adaptive_avg_pool2d": 5,
    "nn.functional.adaptive_max_pool2d": 6,
    "nn.functional.avg_pool2d": 4,
    "nn.functional.batch_norm": 8,
    "nn.functional.conv1d": 5,
    "nn.functional.conv2d": 20,
    "nn.functional.conv_transpose1d": 5,
    "nn.functional.conv_transpose2d": 6,
    "nn.functional.cross_entropy": 2,
    "nn.functional.elu": 1,
    "nn.functional.gelu": 4,
    "nn.functional.hardsigmoid": 1,
    "nn.functional.hardswish": 2,
    "nn.functional.hardtanh": 2,
    "nn.functional.interpolate": 10,
    "nn.functional.leaky_relu": 4,
    "nn.functional.linear": 5,
    "nn.functional.max_pool2d": 60,
    "nn.functional.mish": 1,
    "nn.functional.pad": 4,
    "nn.functional.prelu": 2,
    "nn.functional.relu": 2,
    "nn.functional.relu6": 1,
    "nn.functional.silu": 1,
    "sigmoid": 1,
    "softmax": 5,
    "tanh": 1,
}
# Where terms of about this size cancel: of two numbers that are normalised, nothing remains.
SIZE = {"nn.functional.batch_norm": 1.0}
EVERY = {"nn.functional.max_pool2d": 16}


def _named(name: str, values: Any, options: Any) -> dict[str, Any]:
    """Arguments by the names that the adapter has for them."""
    bound = inspect.signature(ADAPTERS[name]).bind(*values, **options).arguments
    named = dict(bound)
    for kind in ("options", "arguments", "values"):
        extra = named.pop(kind, {})
        named |= extra if isinstance(extra, dict) else {}
    return named


def _expected(operator: Any, sample: Any, grad: Any, name: str) -> dict[str, Any]:
    """PyTorch's gradients in float64 of all floating arguments, by name, or None."""
    values = [to_double(value) for value in (sample.input, *sample.args)]
    options = {word: to_double(value) for word, value in sample.kwargs.items()}
    named = _named(name, values, options).items()
    wanted = {k: v for k, v in named if _is_floating(v) and not k.startswith("running")}
    for tensor in wanted.values():
        tensor.requires_grad_()
    y = operator.op(*values, **options)
    y = y[0] if isinstance(y, tuple) else y
    found = torch.autograd.grad(
        y, list(wanted.values()), torch.from_numpy(grad).double(), allow_unused=True
    )
    return dict(zip(wanted, found, strict=True))


def _is_floating(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _compared(name: str, operator: Any, sample: Any) -> None:
    """Compare all gradients of one sample. Raises NotApplicableError."""
    y = ours(name, operator, sample)
    y = y[0] if isinstance(y, tuple) else y
    if not y.size:
        raise NotApplicableError("nothing to differentiate")
    grad = np.random.default_rng(y.size).standard_normal(y.shape, np.float32)
    values, options = arguments_of(name, operator, sample)
    found = GRADIENTS[name](grad, *values, **options)
    expected = _expected(operator, sample, grad, name)
    for argument, gradient in found.items():
        if expected[argument] is not None:
            label = f"{name} {argument} {sample.summary()}"
            assert_close(gradient, expected[argument], label, SIZE.get(name, 1e-6))


def _some(name: str) -> Iterator[tuple[Any, Any]]:
    return islice(samples(name, "sample"), 0, None, EVERY.get(name, 1))


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.filterwarnings("ignore")
def test_gradients_of_samples_are_those_of_pytorch(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    counted: Counter[str] = Counter()
    for operator, sample in _some(name):
        try:
            _compared(name, operator, sample)
        except NotApplicableError as reason:
            counted[str(reason)] += 1
        else:
            counted["run"] += 1
    with capsys.disabled():
        print(f"\npytorch gradient of {name}: {dict(counted)}", end="")
    assert counted["run"] >= LEAST[name]
