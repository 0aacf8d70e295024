"""Batch normalisation, its gradients and its folding against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnpack
from nnpack.algorithms.batch_norm import plan_batch_norm, plan_batch_norm_gradient
from nnpack.batch_norm_problem import BatchNormGradientProblem, BatchNormProblem
from nnpack.execution import Program
from nnpack.runtime.memory import address
from tests import oracle
from tests.guard import Side, guarded_array, guarded_copy, run_guarded
from tests.native import TARGETS, name_of

Array = npt.NDArray[Any]
EPS = 1e-5


def spread(vector: Array, ndim: int) -> Array:
    return vector.astype(np.float64).reshape(-1, *(1,) * (ndim - 2))


def exact(x: Array, gamma: Array, beta: Array, mean: Array, variance: Array) -> Array:
    gamma, beta, mean, variance = (spread(v, x.ndim) for v in (gamma, beta, mean, variance))
    y: Array = (x.astype(np.float64) - mean) / np.sqrt(variance + EPS) * gamma + beta
    return y


def moments(x: Array) -> tuple[Array, Array]:
    axes = (0, *range(2, x.ndim))
    wide = x.astype(np.float64)
    return wide.mean(axes), wide.var(axes)


def exact_gradients(grad: Array, x: Array, gamma: Array) -> tuple[Array, Array, Array]:
    axes = (0, *range(2, x.ndim))
    mean, variance = moments(x)
    inverse = spread(1 / np.sqrt(variance + EPS), x.ndim)
    normal = (x.astype(np.float64) - spread(mean, x.ndim)) * inverse
    wide = grad.astype(np.float64)
    count = x.size // x.shape[1]
    grad_gamma, grad_beta = (wide * normal).sum(axes), wide.sum(axes)
    bias, slope = (spread(v / count, x.ndim) for v in (grad_beta, grad_gamma))
    return spread(gamma, x.ndim) * inverse * (wide - bias - normal * slope), grad_gamma, grad_beta


@st.composite
def inputs(draw: st.DrawFn) -> tuple[Array, ...]:
    shape = draw(
        st.one_of(
            st.tuples(st.integers(2, 600), st.integers(1, 40)),
            st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(2, 5000)),
            st.tuples(*(st.integers(2, 20) for _ in range(4))),
        )
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = rng.standard_normal(shape, dtype=np.float32) + np.float32(draw(st.sampled_from([0, 3])))
    gamma, beta, mean = rng.standard_normal((3, shape[1]), dtype=np.float32)
    variance = rng.uniform(0.3, 2, shape[1]).astype(np.float32)
    return x, gamma, beta, mean, variance


@given(inputs())
def test_inference_training_and_gradients(case: tuple[Array, ...]) -> None:
    x, gamma, beta, mean, variance = case
    y = nnpack.batch_norm(*case)
    assert oracle.max_error(y, exact(*case)) < 1e-6
    batch_mean, batch_variance = moments(x)
    count = x.size // x.shape[1]
    expected_mean = 0.9 * mean.astype(np.float64) + 0.1 * batch_mean
    expected_variance = 0.9 * variance + 0.1 * batch_variance * (count / (count - 1))
    y, found_mean, inverse = nnpack.batch_norm(*case, training=True)
    # Differences of numbers that are close lose digits before they are divided by what is small.
    worst = 1e-6 * (1 + np.abs(x).max() / np.sqrt(batch_variance.min() + EPS))
    assert np.abs(y - exact(x, gamma, beta, batch_mean, batch_variance)).max() < 3 * worst
    np.testing.assert_allclose(found_mean, batch_mean, rtol=0, atol=1e-6 * (1 + np.abs(x).max()))
    np.testing.assert_allclose(inverse, 1 / np.sqrt(batch_variance + EPS), rtol=2e-5)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, expected_variance, rtol=1e-5)
    if batch_variance.min() < 1e-2:
        return
    grad = np.roll(x, 1, axis=0) * np.float32(0.5) - np.float32(0.2)
    expected = exact_gradients(grad, x, gamma)
    for found, truth in zip(
        nnpack.batch_norm_gradient(grad, x, gamma, found_mean, inverse), expected, strict=True
    ):
        scale = np.abs(grad).sum() / x.shape[1] if found.ndim == 1 else np.abs(grad).max()
        limit = 2e-5 * scale * (1 + np.abs(inverse).max()) ** 2
        assert np.abs(found - truth).max() <= limit


def test_gradients_of_inference_treat_the_statistics_as_constants() -> None:
    rng = np.random.default_rng(0)
    x, grad = rng.standard_normal((2, 5, 6, 7, 3), dtype=np.float32)
    gamma, mean = rng.standard_normal((2, 6), dtype=np.float32)
    inverse = rng.uniform(0.5, 2, 6).astype(np.float32)
    found = nnpack.batch_norm_gradient(grad, x, gamma, mean, inverse, training=False)
    axes = (0, 2, 3)
    np.testing.assert_allclose(found[0], grad * spread(gamma * inverse, 4), rtol=1e-6)
    normal = (x - spread(mean, 4)) * spread(inverse, 4)
    np.testing.assert_allclose(found[1], (grad * normal).sum(axes), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[2], grad.sum(axes), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(64, 8), (8, 3, 5000), (300, 2, 5, 5)])
def test_a_great_mean_costs_no_digits_of_the_variance(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32) + np.float32(30000)
    mean, variance = moments(x)
    _, found_mean, inverse = nnpack.batch_norm(x, training=True)
    np.testing.assert_allclose(found_mean, mean, rtol=2e-7)
    np.testing.assert_allclose(inverse, 1 / np.sqrt(variance + EPS), rtol=1e-5)


def test_the_activation_is_applied_last() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 3, 4, 5), dtype=np.float32)
    vectors = [*rng.standard_normal((3, 3), dtype=np.float32), np.ones(3, np.float32)]
    y = nnpack.batch_norm(x, *vectors)
    for activation in (nnpack.Relu(), nnpack.Clip(0, 0.5)):
        expected = np.clip(y, 0, getattr(activation, "high", np.inf))
        found = nnpack.batch_norm(x, *vectors, activation=activation)
        np.testing.assert_array_equal(found, expected)


BEHIND = (nnpack.Relu(), nnpack.Relu(0.25), nnpack.Clip(0, 6), nnpack.HardSigmoid(0.2, 0.5))


@pytest.mark.parametrize("shape", [(33, 70), (5, 4, 3000), (7, 30, 5, 9)])
@pytest.mark.parametrize("activation", [*BEHIND, nnpack.Elu(), nnpack.Silu()], ids=str)
def test_gradients_behind_an_activation_are_those_of_the_two_in_turn(
    shape: tuple[int, ...], activation: Any
) -> None:
    rng = np.random.default_rng(5)
    x, grad = rng.standard_normal((2, *shape), dtype=np.float32)
    gamma, beta = rng.standard_normal((2, shape[1]), dtype=np.float32) * 3
    for vectors in ((gamma, beta), (None, beta), (gamma, None)):
        y, mean, inverse = nnpack.batch_norm(x, *vectors, training=True)
        moments = mean, inverse
        masked = nnpack.activation_gradient(grad, y, activation)
        for training, threads in ((True, 1), (True, 2), (False, 1)):
            words: Any = {"training": training, "threads": threads}
            expected = nnpack.batch_norm_gradient(masked, x, vectors[0], *moments, **words)
            words |= {"beta": vectors[1], "activation": activation}
            found = nnpack.batch_norm_gradient(grad, x, vectors[0], *moments, **words)
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b)
        for number in range(2):
            given = grad.copy(), x.copy()
            out = given[number]
            nnpack.batch_norm_gradient(*given, vectors[0], *moments, **words, out=out)
            np.testing.assert_array_equal(out, found[0])


def test_gradients_behind_slopes_of_channels_are_refused() -> None:
    x, one = np.ones((2, 3), np.float32), np.ones(3, np.float32)
    with pytest.raises(nnpack.ProblemError, match="take prelu_gradient"):
        nnpack.batch_norm_gradient(x, x, None, one, one, activation=nnpack.Prelu(one))
    with pytest.raises(nnpack.DtypeError, match="instance"):
        nnpack.batch_norm_gradient(x[:0], x[:0], None, one, one, activation=nnpack.Relu)  # type: ignore[arg-type]


# Of ten channels one thread does one after the other, and several go through them in stages.
@pytest.mark.parametrize(
    "shape", [(33, 70), (5, 4, 9000), (70, 3, 7, 7), (9, 10, 67, 61), (33, 20, 31, 29)]
)
def test_results_do_not_depend_on_the_number_of_threads(shape: tuple[int, ...]) -> None:
    x, grad = np.random.default_rng(2).standard_normal((2, *shape), dtype=np.float32)
    one = nnpack.batch_norm(x, training=True, threads=1)
    grads = nnpack.batch_norm_gradient(grad, x, None, *one[1:], threads=1)
    for threads in (2, 3, 8):
        again = nnpack.batch_norm(x, training=True, threads=threads)
        found = nnpack.batch_norm_gradient(grad, x, None, *one[1:], threads=threads)
        for a, b in zip((*again, *found), (*one, *grads), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("target", TARGETS, ids=name_of)
def test_every_extent_stays_inside_the_arrays(target: Any, side: Side) -> None:
    shapes = [(2, c, p) for c in (1, 3, 17) for p in (2, 15, 16, 17, 33, 67, 4100)]
    shapes += [(n, c, 1) for n in (2, 300) for c in (1, 15, 16, 17, 33)]
    # Too large for one task, with too few channels to do one after the other.
    shapes += [(1100, 2, 15), (1030, 2, 16), (500, 2, 67), (2, 3, 5500)]

    def check() -> None:
        for shape in shapes:
            _check_guarded(target, side, shape)

    assert run_guarded(check, seconds=200) == 0


def _check_guarded(target: Any, side: Side, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(3)
    channels = shape[1]
    random: dict[str, int | tuple[int, ...]] = {
        "x": shape,
        "grad": shape,
        "gamma": channels,
        "beta": channels,
    }
    made = {name: rng.standard_normal(size, dtype=np.float32) for name, size in random.items()}
    arrays = {name: guarded_copy(array, side) for name, array in made.items()}
    for name in ("mean", "variance", "inverse_std", "grad_gamma", "grad_beta"):
        arrays[name] = guarded_array(channels, side)
    for name in ("running_mean", "running_variance"):
        arrays[name] = guarded_copy(np.zeros(channels, np.float32), side)
    arrays["momentum"] = guarded_copy(np.array([0.75, 0.25, 0.5], np.float32), side)
    arrays["y"] = guarded_array(shape, side)

    def run(plan: Any) -> None:
        arrays["workspace"] = guarded_array(plan.workspace_bytes // 4, side)
        arrays["workspace"].fill(np.nan)
        program = Program(plan.stages, target, 1, 0)
        program.run({name: address(array) for name, array in arrays.items()})

    x, gamma, beta = arrays["x"], arrays["gamma"], arrays["beta"]
    training = BatchNormProblem(*shape, True, True, EPS, None, True, True)
    run(plan_batch_norm(training, target, 1))
    mean, variance = moments(x)
    expected = exact(x, gamma, beta, mean, variance)
    np.testing.assert_allclose(arrays["running_mean"], 0.25 * mean, rtol=0, atol=1e-6)
    np.testing.assert_allclose(arrays["running_variance"], 0.5 * variance, rtol=1e-5)
    np.testing.assert_allclose(arrays["y"], expected, rtol=0, atol=1e-3)
    run(plan_batch_norm(BatchNormProblem(*shape, True, True, EPS), target, 1))
    np.testing.assert_allclose(arrays["y"], expected, rtol=0, atol=1e-3)
    run(plan_batch_norm_gradient(BatchNormGradientProblem(*shape, True, True), target, 1))
    _check_gradients(arrays, arrays["grad"])
    grad = arrays["grad"].copy()
    for activation in (nnpack.Clip(-2, 0.5), nnpack.Silu()):
        masked = nnpack.activation_gradient(grad, expected.astype(np.float32), activation)
        problem = BatchNormGradientProblem(*shape, True, True, True, activation)
        run(plan_batch_norm_gradient(problem, target, 1))
        _check_gradients(arrays, masked)


def _check_gradients(arrays: dict[str, Array], grad: Array) -> None:
    truth = exact_gradients(grad, arrays["x"], arrays["gamma"])
    for name, array in zip(("y", "grad_gamma", "grad_beta"), truth, strict=True):
        np.testing.assert_allclose(
            arrays[name], array, rtol=0, atol=2e-3 * (1 + np.abs(array).max())
        )


def test_in_place_views_and_empty_batches() -> None:
    x = np.random.default_rng(4).standard_normal((4, 6, 5, 5), dtype=np.float32)
    mean, variance = np.zeros(6, np.float32), np.ones(6, np.float32)
    expected = nnpack.batch_norm(x, None, None, mean, variance)
    view = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(nnpack.batch_norm(view, None, None, mean, variance), expected)
    assert nnpack.batch_norm(x, None, None, mean, variance, out=x) is x
    np.testing.assert_array_equal(x, expected)
    assert nnpack.batch_norm(x[:0], None, None, mean, variance).shape == (0, 6, 5, 5)
    grads = nnpack.batch_norm_gradient(x[:0], x[:0], None, mean, variance)
    assert [g.shape for g in grads] == [(0, 6, 5, 5), (6,), (6,)]
    assert not grads[1].any()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, nnpack.ProblemError, "mean and variance must both be given"),
        ({"mean": np.zeros(3, np.float32), "training": True}, nnpack.ProblemError, "both be given"),
        ({"gamma": np.zeros(4, np.float32), "training": True}, nnpack.ProblemError, "one number a"),
        ({"training": True, "eps": -1.0}, nnpack.ProblemError, "eps=-1.0 must be at least 0"),
        ({"training": True, "x": np.zeros((1, 3), np.float32)}, nnpack.ProblemError, "2 numbers a"),
        ({"training": True, "x": np.zeros(3, np.float32)}, nnpack.ProblemError, "must be .N, C."),
        ({"training": True, "x": np.zeros((2, 3))}, nnpack.DtypeError, "float64"),
        ({"training": True, "activation": nnpack.Relu}, nnpack.DtypeError, "an instance"),
        (
            {
                "training": True,
                "mean": np.broadcast_to(np.float32(0), 3),
                "variance": np.ones(3, np.float32),
            },
            nnpack.ProblemError,
            "mean must be a writeable",
        ),
    ],
)
def test_what_is_malformed_is_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        nnpack.batch_norm(**{"x": np.zeros((2, 3, 4), np.float32), **arguments})


@pytest.mark.parametrize(
    ("shape", "transposed", "groups"),
    [
        ((6, 4, 3, 3), False, 1),
        ((6, 2, 3, 3), False, 2),
        ((6, 4, 5), False, 1),
        ((6, 9), False, 1),
        ((4, 6, 3, 2), True, 1),
        ((4, 3, 3, 2), True, 2),
    ],
)
def test_a_folded_layer_gives_what_the_two_gave(
    shape: tuple[int, ...], transposed: bool, groups: int
) -> None:
    rng = np.random.default_rng(5)
    weight = rng.standard_normal(shape, dtype=np.float32)
    bias, gamma, beta, mean = rng.standard_normal((4, 6), dtype=np.float32)
    variance = rng.uniform(0.1, 2, 6).astype(np.float32)
    for given_bias in (bias, None):
        words = (given_bias, gamma, beta, mean, variance)
        folded, shift = nnpack.fold_batch_norm(weight, *words, transposed=transposed, groups=groups)
        assert folded.dtype == shift.dtype == np.float32
        factor = gamma / np.sqrt(variance + EPS, dtype=np.float64)
        channels = np.arange(6)
        if transposed:
            inputs, group = shape[0] // groups, shape[1]
            owner = [slice(c // group * inputs, (c // group + 1) * inputs) for c in channels]
            for c in channels:
                expected = weight[owner[c], c % group] * factor[c]
                np.testing.assert_allclose(folded[owner[c], c % group], expected, rtol=1e-6)
        else:
            np.testing.assert_allclose(folded, (weight.T * factor).T, rtol=1e-6)
        start = 0 if given_bias is None else bias
        np.testing.assert_allclose(shift, (start - mean) * factor + beta, rtol=1e-5, atol=1e-6)


def test_folding_refuses_what_is_malformed() -> None:
    weight, one = np.ones((3, 2), np.float32), np.ones(3, np.float32)
    with pytest.raises(nnpack.ProblemError, match="variance [+] eps must be positive"):
        nnpack.fold_batch_norm(weight, None, one, one, one, -one)
    with pytest.raises(nnpack.ProblemError, match=r"gamma.shape=\(2,\) must be \(3,\)"):
        nnpack.fold_batch_norm(weight, None, one[:2], one, one, one)
    with pytest.raises(nnpack.DtypeError, match="not None"):
        nnpack.fold_batch_norm(weight, None, one, one, None, one)
    with pytest.raises(nnpack.ProblemError, match="groups=2 must divide"):
        nnpack.fold_batch_norm(weight, None, one, one, one, one, transposed=True, groups=2)
