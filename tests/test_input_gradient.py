"""Input gradients: transposes of the forward functions, on any problem, any view."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnpack
from tests import gradient_oracle, oracle
from tests.guard import guarded_array, guarded_copy
from tests.plans import all_survive, integers
from tests.problems import (
    ConvCase,
    TransposedCase,
    conv_problems,
    conv_transpose_problems,
    laid_out,
    problem_count,
)

Float32Array = npt.NDArray[np.float32]

GEOMETRY = ("stride", "padding", "dilation", "groups")


def _words(case: ConvCase | TransposedCase) -> dict[str, Any]:
    names = (*GEOMETRY, "output_padding") if isinstance(case, TransposedCase) else GEOMETRY
    return {name: getattr(case, name) for name in names}


def _grad(case: ConvCase | TransposedCase, layout: str = "dense") -> Float32Array:
    rng = np.random.default_rng(case.weight.size)
    return laid_out(rng.standard_normal(case.reference().shape, dtype=np.float32), layout)


def _assert_close(result: Float32Array, expected: Any, magnitude: Any) -> None:
    assert result.shape == expected.shape
    bound = 5e-5 * float(np.max(magnitude, initial=0.0)) + 1e-30
    assert np.all(np.abs(result - expected) <= bound)


def _magnitude(case: ConvCase, grad: Float32Array) -> Any:
    """The sums of absolute values wherever a tile may reach."""
    words = _words(case)
    full = gradient_oracle.input_gradient(np.abs(grad), np.abs(case.weight), case.x.shape, **words)
    # What falls into the padding of x is a part of the tile too.
    return np.append(full, np.abs(grad).max(initial=0.0) * np.abs(case.weight).sum())


LAYOUTS = st.sampled_from(["dense", "channels last", "flipped", "crop"])


@given(case=conv_problems(epilogues=False), layout=LAYOUTS)
def test_any_input_gradient_agrees_with_the_oracle(case: ConvCase, layout: str) -> None:
    """And, as the oracle of gradients has none itself, <A x, g> = <x, A' g>."""
    grad = _grad(case, layout)
    result = nnpack.conv2d_input_gradient(grad, case.weight, case.x.shape, **_words(case))
    expected = gradient_oracle.input_gradient(grad, case.weight, case.x.shape, **_words(case))
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    _assert_close(result, expected, _magnitude(case, grad))
    _assert_adjoint(case, oracle.conv2d, grad, result)


def _assert_adjoint(case: Any, forward: Any, grad: Float32Array, result: Float32Array) -> None:
    left = float(np.vdot(case.reference(), grad.astype(np.float64)))
    right = float(np.vdot(case.x.astype(np.float64), result))
    sums = forward(np.abs(case.x), np.abs(case.weight), **_words(case))
    assert abs(left - right) <= 1e-5 * float(np.vdot(sums, np.abs(grad))) + 1e-4


@given(case=conv_transpose_problems(epilogues=False), layout=LAYOUTS)
def test_it_is_the_adjoint_of_any_transposed_convolution(case: TransposedCase, layout: str) -> None:
    """<A x, g> = <x, A' g>, in float64 but for the gradient."""
    grad = _grad(case, layout)
    result = nnpack.conv_transpose2d_input_gradient(grad, case.weight, case.x.shape, **_words(case))
    assert result.shape == case.x.shape
    _assert_adjoint(case, oracle.conv_transpose2d, grad, result)


@settings(max_examples=problem_count(0.2))
@given(case=conv_problems(epilogues=False), threads=st.sampled_from([1, 2]))
def test_nothing_beyond_the_arguments_is_touched(case: ConvCase, threads: int) -> None:
    grad = _grad(case)
    words = _words(case)

    def run(grad: Float32Array, weight: Float32Array, **more: Any) -> Float32Array:
        return nnpack.conv2d_input_gradient(grad, weight, case.x.shape, **words, **more)

    expected = run(grad, case.weight)

    def check(side: Any) -> None:
        operands = guarded_copy(grad, side), guarded_copy(case.weight, side)
        out = guarded_array(case.x.shape, side)
        assert run(*operands, out=out, threads=threads) is out
        np.testing.assert_array_equal(out, expected)
        run(*operands, out=out, threads=threads, accumulate=True)
        np.testing.assert_allclose(out, 2 * expected, rtol=1e-6, atol=1e-6)

    assert all_survive([partial(check, "before"), partial(check, "after")])


@settings(max_examples=problem_count(0.2))
@given(case=conv_problems(epilogues=False))
def test_results_are_the_same_for_any_number_of_threads(case: ConvCase) -> None:
    grad = _grad(case)
    one, *others = (
        nnpack.conv2d_input_gradient(
            grad, case.weight, case.x.shape, **_words(case), threads=threads
        )
        for threads in (1, 2, 3, 8)
    )
    for other in others:
        np.testing.assert_array_equal(one, other)


def _sample() -> tuple[Float32Array, Float32Array, tuple[int, ...]]:
    rng = np.random.default_rng(3)
    return integers(rng, (2, 5, 7, 9)), integers(rng, (5, 4, 3, 3)), (2, 4, 7, 9)


@pytest.mark.parametrize("algorithm", ["winograd_4", "fourier_16", "direct", "implicit_gemm"])
def test_forward_algorithms_serve_the_gradient(algorithm: str) -> None:
    grad, weight, shape = _sample()
    expected = gradient_oracle.input_gradient(grad, weight, shape, padding=1)
    result = nnpack.conv2d_input_gradient(grad, weight, shape, padding=1, algorithm=algorithm)
    np.testing.assert_allclose(result, expected, atol=1e-2)


@pytest.mark.parametrize("stride", [2, 3, (1, 4)])
@pytest.mark.parametrize("size", [9, 10, 11, 12])
def test_pixels_that_no_output_reaches_get_zero(stride: Any, size: int) -> None:
    weight = np.ones((2, 3, 1, 1), np.float32)
    shape = (1, 3, size, size)
    y_shape = nnpack.conv2d(np.ones(shape, np.float32), weight, stride=stride).shape
    grad = np.ones(y_shape, np.float32)
    result = nnpack.conv2d_input_gradient(grad, weight, shape, stride=stride)
    expected = gradient_oracle.input_gradient(grad, weight, shape, stride=stride)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("padding", [(7, 0, 0, 9), 6, (0, 8)])
def test_padding_beyond_the_kernel_is_not_part_of_the_gradient(padding: Any) -> None:
    rng = np.random.default_rng(4)
    x, weight = integers(rng, (1, 3, 5, 4)), integers(rng, (2, 3, 3, 2))
    y_shape = oracle.conv2d(x, weight, padding=padding, stride=2).shape
    grad = integers(rng, y_shape)
    result = nnpack.conv2d_input_gradient(grad, weight, x.shape, padding=padding, stride=2)
    expected = gradient_oracle.input_gradient(grad, weight, x.shape, padding=padding, stride=2)
    np.testing.assert_allclose(result, expected, atol=1e-3)


def test_accumulation_adds_to_out() -> None:
    grad, weight, shape = _sample()
    rng = np.random.default_rng(5)
    out = integers(rng, shape)
    expected = out + gradient_oracle.input_gradient(grad, weight, shape, padding=1)
    result = nnpack.conv2d_input_gradient(grad, weight, shape, padding=1, out=out, accumulate=True)
    assert result is out
    np.testing.assert_allclose(out, expected, atol=1e-2)


def test_no_images_have_no_gradient() -> None:
    grad, weight, _ = _sample()
    result = nnpack.conv2d_input_gradient(grad[:0], weight, (0, 4, 7, 9), padding=1)
    assert result.shape == (0, 4, 7, 9)


def test_an_explanation_names_what_is_used() -> None:
    explanation = nnpack.explain_conv2d_input_gradient((64, 64, 3, 3), (1, 64, 56, 56), padding=1)
    assert explanation.chosen.startswith("winograd")
    assert "implicit_gemm" in str(explanation)


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"accumulate": True}, nnpack.ProblemError, "needs out="),
    ({"accumulate": 1}, nnpack.DtypeError, "must be True or False"),
    ({"input_shape": (2, 4, 8, 9)}, nnpack.ProblemError, r"grad_output.shape.*must be \(2, 5, 8"),
    ({"input_shape": (2, 4, 7)}, nnpack.ProblemError, "4 dimensions"),
    ({"groups": 2}, nnpack.ProblemError, "groups"),
    ({"stride": 0}, nnpack.ProblemError, "stride"),
    ({"algorithm": "magic"}, nnpack.AlgorithmError, "unknown"),
    ({"algorithm": "pointwise"}, nnpack.AlgorithmError, "1x1"),
    ({"accuracy": "best"}, nnpack.ProblemError, "accuracy"),
    ({"out": np.empty((2, 4, 7, 8), np.float32)}, nnpack.ProblemError, "out.shape"),
    ({"grad_output": np.zeros((2, 5, 7, 9))}, nnpack.DtypeError, "grad_output has dtype float64"),
    ({"weight": np.zeros((5, 4, 3, 3))}, nnpack.DtypeError, "weight has dtype float64"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_malformed_arguments_are_one_error(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    grad, weight, shape = _sample()
    words: dict[str, Any] = {
        "grad_output": grad,
        "weight": weight,
        "input_shape": shape,
        "padding": 1,
    }
    with pytest.raises(error, match=message):
        nnpack.conv2d_input_gradient(**(words | change))


def test_out_may_not_overlap_what_is_read() -> None:
    memory = np.zeros((2, 5, 7, 9), np.float32)
    weight = np.zeros((5, 5, 3, 3), np.float32)
    with pytest.raises(nnpack.ProblemError, match="out overlaps grad_output"):
        nnpack.conv2d_input_gradient(memory, weight, memory.shape, padding=1, out=memory)


def test_it_is_what_torch_computes() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(6)
    x, weight = (rng.standard_normal(s, dtype=np.float32) for s in ((2, 6, 11, 12), (8, 3, 3, 2)))
    words: dict[str, Any] = {"stride": (2, 3), "padding": (1, 2), "dilation": (2, 1), "groups": 2}
    tensor = torch.from_numpy(x).requires_grad_()
    y = torch.nn.functional.conv2d(tensor, torch.from_numpy(weight), **words)
    grad = torch.from_numpy(rng.standard_normal(tuple(y.shape), dtype=np.float32))
    y.backward(grad)
    result = nnpack.conv2d_input_gradient(grad, weight, x.shape, **words)
    np.testing.assert_allclose(result, tensor.grad.numpy(), atol=1e-4)
