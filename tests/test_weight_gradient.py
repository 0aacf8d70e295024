"""Weight gradients: adjoints of the convolution in its weights, on any problem, any view."""

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
LAYOUTS = st.sampled_from(["dense", "channels last", "flipped", "crop", "channel slice"])


def _words(case: ConvCase | TransposedCase) -> dict[str, Any]:
    names = (*GEOMETRY, "output_padding") if isinstance(case, TransposedCase) else GEOMETRY
    return {name: getattr(case, name) for name in names}


def _grad(case: ConvCase | TransposedCase, layout: str = "dense") -> Float32Array:
    rng = np.random.default_rng(case.weight.size)
    return laid_out(rng.standard_normal(case.reference().shape, dtype=np.float32), layout)


@given(case=conv_problems(epilogues=False), layout=LAYOUTS)
def test_any_weight_gradient_agrees_with_the_oracle(case: ConvCase, layout: str) -> None:
    grad = _grad(case, layout)
    shape = case.weight.shape
    result = nnpack.conv2d_weight_gradient(case.x, grad, shape, **_words(case))
    expected = gradient_oracle.weight_gradient(case.x, grad, shape, **_words(case))
    assert result.shape == expected.shape
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    bound = np.abs(case.x).max(initial=0.0) * np.abs(grad).sum(dtype=np.float64)
    assert np.all(np.abs(result - expected) <= 5e-5 * bound)


@given(case=conv_transpose_problems(epilogues=False), layout=LAYOUTS)
def test_that_of_any_transposed_convolution_is_the_adjoint(
    case: TransposedCase, layout: str
) -> None:
    """<A w, g> = <w, A' g>, in float64 but for the gradient."""
    grad = _grad(case, layout)
    result = nnpack.conv_transpose2d_weight_gradient(
        case.x, grad, case.weight.shape, **_words(case)
    )
    assert result.shape == case.weight.shape
    left = float(np.vdot(case.reference(), grad.astype(np.float64)))
    right = float(np.vdot(case.weight.astype(np.float64), result))
    sums = oracle.conv_transpose2d(np.abs(case.x), np.abs(case.weight), **_words(case))
    assert abs(left - right) <= 1e-5 * float(np.vdot(sums, np.abs(grad))) + 1e-4


@settings(max_examples=problem_count(0.2))
@given(case=conv_problems(epilogues=False), threads=st.sampled_from([1, 2]))
def test_nothing_beyond_the_arguments_is_touched(case: ConvCase, threads: int) -> None:
    grad, shape, words = _grad(case), case.weight.shape, _words(case)

    def run(x: Float32Array, grad: Float32Array, **more: Any) -> Float32Array:
        return nnpack.conv2d_weight_gradient(x, grad, shape, **words, **more)

    expected = run(case.x, grad)

    def check(side: Any) -> None:
        operands = guarded_copy(case.x, side), guarded_copy(grad, side)
        out = guarded_array(shape, side)
        assert run(*operands, out=out, threads=threads) is out
        np.testing.assert_array_equal(out, expected)
        run(*operands, out=out, threads=threads, accumulate=True)
        np.testing.assert_array_equal(out, 2 * expected)

    assert all_survive([partial(check, "before"), partial(check, "after")])


@settings(max_examples=problem_count(0.3))
@given(case=conv_problems(epilogues=False))
def test_results_are_the_same_for_any_number_of_threads(case: ConvCase) -> None:
    grad = _grad(case)
    one, *others = (
        nnpack.conv2d_weight_gradient(
            case.x, grad, case.weight.shape, **_words(case), threads=threads
        )
        for threads in (1, 2, 3, 8)
    )
    for other in others:
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("algorithm", ["fourier_8", "fourier_16", "winograd_2", "winograd_4"])
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (2, 6)])
def test_transforms_are_the_adjoint_and_the_same_for_any_number_of_threads(
    algorithm: str, kernel: tuple[int, int]
) -> None:
    """<A w, g> = <w, A' g>, in float64 but for the gradient."""
    rng = np.random.default_rng(8)
    x = rng.standard_normal((5, 35, 30, 27), dtype=np.float32)
    weight = rng.standard_normal((33, 35, *kernel), dtype=np.float32)
    y = oracle.conv2d(x, weight, padding=2)
    grad = rng.standard_normal(y.shape, dtype=np.float32)
    run = partial(nnpack.conv2d_weight_gradient, x, grad, weight.shape, padding=2)
    one, *others = (run(algorithm=algorithm, threads=threads) for threads in (1, 2, 3, 8))
    for other in others:
        np.testing.assert_array_equal(one, other)
    left, right = np.vdot(y, grad.astype(np.float64)), np.vdot(weight.astype(np.float64), one)
    assert abs(left - right) <= 1e-5 * np.linalg.norm(y) * np.linalg.norm(grad)


@pytest.mark.parametrize("accuracy", ["fast", "exact"])
def test_large_kernels_go_by_fourier_tiles(accuracy: Any) -> None:
    explanation = nnpack.explain_conv2d_weight_gradient(
        (64, 64, 7, 7), (16, 64, 56, 56), padding=3, accuracy=accuracy
    )
    assert explanation.chosen == "fourier_16"


def _sample() -> tuple[Float32Array, Float32Array, tuple[int, ...]]:
    rng = np.random.default_rng(3)
    return integers(rng, (2, 4, 7, 9)), integers(rng, (2, 5, 7, 9)), (5, 4, 3, 3)


def test_accumulation_adds_to_out() -> None:
    x, grad, shape = _sample()
    out = integers(np.random.default_rng(5), shape)
    expected = out + gradient_oracle.weight_gradient(x, grad, shape, padding=1)
    result = nnpack.conv2d_weight_gradient(x, grad, shape, padding=1, out=out, accumulate=True)
    assert result is out
    np.testing.assert_allclose(out, expected, atol=1e-2)


def test_no_images_give_zeros_or_leave_the_sum_as_it_is() -> None:
    x, grad, shape = _sample()
    out = np.ones(shape, np.float32)
    run = partial(nnpack.conv2d_weight_gradient, x[:0], grad[:0], shape, padding=1)
    np.testing.assert_array_equal(run(), np.zeros(shape))
    np.testing.assert_array_equal(run(out=out, accumulate=True), np.ones(shape))
    np.testing.assert_array_equal(run(out=out), np.zeros(shape))


def test_sums_over_very_many_pixels_stay_exact() -> None:
    """Chunks keep what a running sum would lose: here every term is the same."""
    x, grad = np.full((8, 1, 256, 256), 0.1, np.float32), np.ones((8, 2, 256, 256), np.float32)
    result = nnpack.conv2d_weight_gradient(x, grad, (2, 1, 1, 1))
    np.testing.assert_allclose(result, np.float32(0.1) * 8 * 256 * 256, rtol=1e-5)


def test_an_explanation_names_what_is_used() -> None:
    explanation = nnpack.explain_conv2d_weight_gradient((64, 64, 3, 3), (4, 64, 56, 56), padding=1)
    assert explanation.chosen in {candidate.algorithm for candidate in explanation.candidates}
    assert "implicit_gemm" in str(explanation)


@pytest.mark.parametrize("algorithm", ["direct_rows", "direct_dots"])
def test_algorithms_that_are_of_weight_gradients_alone_have_names(algorithm: str) -> None:
    x, grad, shape = _sample()
    result = nnpack.conv2d_weight_gradient(x, grad, shape, padding=1, algorithm=algorithm)
    expected = gradient_oracle.weight_gradient(x, grad, shape, padding=1)
    np.testing.assert_allclose(result, expected, atol=1e-5 * np.abs(expected).max())
    words: dict[str, Any] = {"padding": 1, "algorithm": algorithm}
    assert nnpack.explain_conv2d_weight_gradient(shape, x.shape, **words).chosen == algorithm
    with pytest.raises(nnpack.AlgorithmError, match="is unknown"):
        nnpack.conv2d(x, np.ones(shape, np.float32), algorithm=algorithm)


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"accumulate": True}, nnpack.ProblemError, "needs out="),
    ({"accumulate": None}, nnpack.DtypeError, "must be True or False"),
    ({"weight_shape": (4, 4, 3, 3)}, nnpack.ProblemError, r"grad_output.shape.*must be \(2, 4, 7"),
    ({"weight_shape": (5, 3, 3, 3)}, nnpack.ProblemError, "weight.shape"),
    ({"weight_shape": (5, 4, 3)}, nnpack.ProblemError, "4 dimensions"),
    ({"groups": 2}, nnpack.ProblemError, "groups"),
    ({"stride": 0}, nnpack.ProblemError, "stride"),
    ({"threads": 0}, nnpack.ProblemError, "threads"),
    ({"algorithm": "magic"}, nnpack.AlgorithmError, "unknown"),
    ({"algorithm": "pointwise"}, nnpack.AlgorithmError, "does not compute weight gradients"),
    ({"accuracy": "best"}, nnpack.ProblemError, "accuracy"),
    ({"out": np.empty((5, 4, 3, 4), np.float32)}, nnpack.ProblemError, "out.shape"),
    ({"grad_output": np.zeros((2, 5, 7, 9))}, nnpack.DtypeError, "grad_output has dtype float64"),
    ({"x": np.zeros((2, 4, 7, 9))}, nnpack.DtypeError, "x has dtype float64"),
    ({"x": np.zeros((2, 4, 7), np.float32)}, nnpack.ProblemError, "4 dimensions"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_malformed_arguments_are_one_error(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    x, grad, shape = _sample()
    words: dict[str, Any] = {"x": x, "grad_output": grad, "weight_shape": shape, "padding": 1}
    with pytest.raises(error, match=message):
        nnpack.conv2d_weight_gradient(**(words | change))


def test_out_may_not_overlap_what_is_read() -> None:
    memory = np.zeros((5, 5, 3, 3), np.float32)
    with pytest.raises(nnpack.ProblemError, match="out overlaps x"):
        nnpack.conv2d_weight_gradient(memory, memory, memory.shape, padding=1, out=memory)


def test_it_is_what_torch_computes() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(6)
    x, weight = (rng.standard_normal(s, dtype=np.float32) for s in ((2, 6, 11, 12), (8, 3, 3, 2)))
    words: dict[str, Any] = {"stride": (2, 3), "padding": (1, 2), "dilation": (2, 1), "groups": 2}
    tensor = torch.from_numpy(weight).requires_grad_()
    y = torch.nn.functional.conv2d(torch.from_numpy(x), tensor, **words)
    grad = torch.from_numpy(rng.standard_normal(tuple(y.shape), dtype=np.float32))
    y.backward(grad)
    result = nnpack.conv2d_weight_gradient(x, grad, weight.shape, **words)
    np.testing.assert_allclose(result, tensor.grad.numpy(), atol=1e-4)
