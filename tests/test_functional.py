"""conv2d on any problem, any view, any kind of argument; errors before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnpack
from nnpack.execution import Program
from tests import oracle
from tests.guard import guarded_array, guarded_copy
from tests.plans import all_survive, integers
from tests.problems import ConvCase, conv_problems, problem_count

Float32Array = npt.NDArray[np.float32]


def _rng() -> np.random.Generator:
    return np.random.default_rng(7)


def assert_close(y: Float32Array, case: ConvCase) -> None:
    """Errors within what ``accuracy="fast"`` allows of the greatest sum of absolute values."""
    reference = case.reference()
    extent = [(k - 1) * d + 1 for k, d in zip(case.weight.shape[2:], case.dilation, strict=True)]
    sums = oracle.conv2d_magnitude(
        case.x,
        case.weight,
        padding=(2 * extent[0], 2 * extent[1]),
        dilation=case.dilation,
        groups=case.groups,
    )
    scale = 1.0 if case.scale is None else float(np.abs(case.scale).max())
    bias = 0.0 if case.bias is None else float(np.abs(case.bias).max())
    added = 0.0 if case.residual is None else float(np.max(np.abs(case.residual), initial=0.0))
    assert y.shape == reference.shape
    assert np.all(np.abs(y - reference) <= 5e-5 * (scale * sums + bias + added + 1))


@given(case=conv_problems())
def test_any_convolution_agrees_with_the_oracle(case: ConvCase) -> None:
    y = nnpack.conv2d(case.x, case.weight, case.bias, **case.arguments)
    assert y.dtype == np.float32
    assert y.flags.c_contiguous
    assert y.flags.writeable
    assert_close(y, case)


@settings(max_examples=problem_count(0.2))
@given(case=conv_problems(), threads=st.sampled_from([1, 2]))
def test_nothing_beyond_the_arguments_is_touched(case: ConvCase, threads: int) -> None:
    arrays = (case.x, case.weight, case.bias, case.scale, case.residual)
    shape = case.reference().shape

    def check(side: Any) -> None:
        copies = [None if a is None else guarded_copy(a, side) for a in arrays]
        x, weight, bias, scale, residual = copies
        out = guarded_array(shape, side)
        words = {**case.arguments, "scale": scale, "residual": residual}
        y = nnpack.conv2d(x, weight, bias, **words, threads=threads, out=out)
        assert y is out
        assert_close(y, case)

    nnpack.conv2d(*arrays[:3], **case.arguments)  # compiled here, for the children too
    assert all_survive([partial(check, "before"), partial(check, "after")])


@settings(max_examples=problem_count(0.2))
@given(case=conv_problems(), threads=st.sampled_from([1, 2]))
def test_a_residual_may_be_the_output(case: ConvCase, threads: int) -> None:
    if case.residual is not None:
        out = np.array(case.residual, order="C")
        words = {**case.arguments, "residual": out, "threads": threads, "out": out}
        assert nnpack.conv2d(case.x, case.weight, case.bias, **words) is out
        assert_close(out, case)


@settings(max_examples=problem_count(0.2))
@given(case=conv_problems())
def test_results_are_the_same_for_any_number_of_threads(case: ConvCase) -> None:
    one, *others = (
        nnpack.conv2d(case.x, case.weight, case.bias, **case.arguments, threads=n)
        for n in (1, 2, 3, 8)
    )
    for other in others:
        np.testing.assert_array_equal(one, other)


SMALL = {"x": (2, 4, 7, 9), "weight": (5, 4, 3, 3)}


def _small() -> tuple[Float32Array, Float32Array, oracle.Float64Array]:
    x, weight = integers(_rng(), SMALL["x"]), integers(_rng(), SMALL["weight"])
    return x, weight, oracle.conv2d(x, weight, padding=1)


def assert_same(y: Float32Array, reference: oracle.Float64Array) -> None:
    """Of integer data: rounding aside, whatever algorithm computed them."""
    np.testing.assert_allclose(y, reference, rtol=0, atol=1e-2)


def _read_only(x: Float32Array) -> Float32Array:
    x = x.copy()
    x.setflags(write=False)
    return x


VIEWS: dict[str, Callable[[Float32Array], Float32Array]] = {
    "rows backwards": lambda x: x[:, :, ::-1],
    "everything backwards": lambda x: x[::-1, ::-1, ::-1, ::-1],
    "every second channel": lambda x: x[:, ::2],
    "every second column": lambda x: x[..., ::2],
    "transposed planes": lambda x: x.transpose(0, 1, 3, 2),
    "images and channels exchanged": lambda x: x.transpose(1, 0, 2, 3),
    "a channel slice": lambda x: x[:, 1:3],
    "one image for all": lambda x: np.broadcast_to(x[:1], (3, *x.shape[1:])),
    "one channel for all": lambda x: np.broadcast_to(x[:, :1], x.shape),
    "one row for all": lambda x: np.broadcast_to(x[:, :, :1], x.shape),
    "one pixel for all": lambda x: np.broadcast_to(x[..., :1, :1], x.shape),
    "read-only": _read_only,
    "one column": lambda x: x[..., 4:5],
    "Fortran order": np.asfortranarray,
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("kernel", [1, 3])
def test_views_of_any_strides_are_read(
    view: Callable[[Float32Array], Float32Array], kernel: int
) -> None:
    x = view(integers(_rng(), SMALL["x"]))
    weight = integers(_rng(), (5, x.shape[1], kernel, kernel))
    assert_same(nnpack.conv2d(x, weight, padding=1), oracle.conv2d(x, weight, padding=1))


def test_weights_and_vectors_may_be_views() -> None:
    x, weight = integers(_rng(), SMALL["x"]), integers(_rng(), (3, 3, 4, 5)).transpose(3, 2, 1, 0)
    bias, scale = integers(_rng(), (10,))[::-2], np.broadcast_to(np.float32(2), (5,))
    y = nnpack.conv2d(x, weight, bias, scale=scale)
    assert_same(y, oracle.conv2d(x, weight, bias, scale=scale))


def test_unaligned_arrays_are_read() -> None:
    x, weight, reference = _small()
    raw = np.zeros(x.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(np.float32).reshape(x.shape)
    unaligned[...] = x
    assert not unaligned.flags.aligned
    assert_same(nnpack.conv2d(unaligned, weight, padding=1), reference)


def test_anything_with_the_buffer_protocol_or_dlpack_is_an_array() -> None:
    class OnlyDlpack:
        def __init__(self, array: Float32Array) -> None:
            self._array = array

        def __dlpack__(self, **options: Any) -> Any:
            return self._array.__dlpack__(**options)

        def __dlpack_device__(self) -> tuple[int, int]:
            return self._array.__dlpack_device__()

    x, weight, reference = _small()
    assert_same(nnpack.conv2d(x.data, weight.data, padding=1), reference)
    assert_same(nnpack.conv2d(OnlyDlpack(x), OnlyDlpack(weight), padding=1), reference)


def test_torch_tensors_are_arrays() -> None:
    torch = pytest.importorskip("torch")
    x, weight, reference = _small()
    tensor = torch.from_numpy(x).to(memory_format=torch.channels_last)
    y = nnpack.conv2d(tensor, torch.from_numpy(weight), padding=1)
    assert isinstance(y, np.ndarray)
    assert_same(y, reference)


def test_no_images_give_no_images() -> None:
    x = np.zeros((0, 4, 7, 9), np.float32)
    weight = np.zeros(SMALL["weight"], np.float32)
    assert nnpack.conv2d(x, weight).shape == (0, 5, 5, 7)
    out = np.empty((0, 5, 5, 7), np.float32)
    assert nnpack.conv2d(x, weight, out=out) is out


def test_out_is_returned_filled() -> None:
    x, weight, reference = _small()
    out = np.full(reference.shape, np.nan, np.float32)
    assert nnpack.conv2d(x, weight, padding=1, out=out) is out
    assert_same(out, reference)


def test_large_results_are_arrays_of_their_own() -> None:
    x, weight = np.ones((1, 1, 512, 512), np.float32), np.ones((2, 1, 1, 1), np.float32)
    first = nnpack.conv2d(x, weight)
    second = nnpack.conv2d(2 * x, weight)
    assert not np.may_share_memory(first, second)
    assert (first == 1).all()
    assert (second == 2).all()


@pytest.mark.parametrize("algorithm", ["direct", "implicit_gemm", "winograd", "winograd_4"])
def test_a_named_algorithm_is_used(algorithm: str) -> None:
    x, weight, reference = _small()
    assert_same(nnpack.conv2d(x, weight, padding=1, algorithm=algorithm), reference)


# Errors


def _overlapping() -> dict[str, Any]:
    memory = np.zeros(2 * 5 * 7 * 9 + 2 * 4 * 7 * 9, np.float32)
    x = memory[: 2 * 4 * 7 * 9].reshape(SMALL["x"])
    out = memory[2 * 4 * 7 * 9 - 1 : -1].reshape(2, 5, 7, 9)
    return {"x": x, "out": out}


def _shifted_residual() -> dict[str, Any]:
    memory = np.zeros(2 * 5 * 7 * 9 + 1, np.float32)
    return {"residual": memory[1:].reshape(2, 5, 7, 9), "out": memory[:-1].reshape(2, 5, 7, 9)}


def _out(**changes: Any) -> dict[str, Any]:
    shape, dtype = changes.get("shape", (2, 5, 7, 9)), changes.get("dtype", np.float32)
    return {"out": np.zeros(shape, dtype)}


def _read_only_out() -> dict[str, Any]:
    return {"out": _read_only(np.zeros((2, 5, 7, 9), np.float32))}


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "x of float64": ({"x": np.zeros(SMALL["x"])}, nnpack.DtypeError, "x has dtype float64"),
    "x a list": ({"x": [[[[1.0]]]]}, nnpack.DtypeError, "x is of type list"),
    "x without images": ({"x": np.zeros((4, 7, 9), np.float32)}, nnpack.ProblemError, "x.shape"),
    "weight of float16": (
        {"weight": np.zeros(SMALL["weight"], np.float16)},
        nnpack.DtypeError,
        "weight has dtype float16",
    ),
    "weight of integers": (
        {"weight": np.zeros(SMALL["weight"], np.int32)},
        nnpack.DtypeError,
        "weight has dtype int32",
    ),
    "weight byte-swapped": (
        {"weight": np.zeros(SMALL["weight"], np.dtype(np.float32).newbyteorder())},
        nnpack.DtypeError,
        "byte-swapped",
    ),
    "too many channels": (
        {"weight": np.zeros((5, 3, 3, 3), np.float32)},
        nnpack.ProblemError,
        r"weight.shape\[1\]=3 must be 4",
    ),
    "kernel too large": (
        {"weight": np.zeros((5, 4, 30, 3), np.float32)},
        nnpack.ProblemError,
        "pad more",
    ),
    "bias too long": ({"bias": np.zeros(6, np.float32)}, nnpack.ProblemError, "bias.shape"),
    "bias of rank 2": ({"bias": np.zeros((1, 5), np.float32)}, nnpack.ProblemError, "bias.shape"),
    "scale a number": ({"scale": 2.0}, nnpack.DtypeError, "scale is of type float"),
    "stride 0": ({"stride": 0}, nnpack.ProblemError, "stride=0"),
    "stride a float": ({"stride": 1.5}, nnpack.ProblemError, "stride"),
    "padding negative": ({"padding": -1}, nnpack.ProblemError, "padding=-1"),
    "padding unknown": ({"padding": "full"}, nnpack.ProblemError, "'full'"),
    "dilation of three": ({"dilation": (1, 1, 1)}, nnpack.ProblemError, "dilation"),
    "groups": ({"groups": 3}, nnpack.ProblemError, "groups=3 must divide"),
    "groups true": ({"groups": True}, nnpack.ProblemError, "groups"),
    "activation a name": ({"activation": "relu"}, nnpack.DtypeError, "activation='relu'"),
    "accuracy": ({"accuracy": "double"}, nnpack.ProblemError, "accuracy='double'"),
    "threads 0": ({"threads": 0}, nnpack.ProblemError, "threads=0"),
    "threads a float": ({"threads": 2.0}, nnpack.DtypeError, "threads=2.0"),
    "algorithm": ({"algorithm": "magic"}, nnpack.AlgorithmError, "choose one of auto, .*winograd,"),
    "pointwise 3x3": (
        {"algorithm": "pointwise"},
        nnpack.AlgorithmError,
        "algorithm='pointwise' needs a 1x1 kernel, got 3x3; use algorithm='auto'",
    ),
    "winograd in strides": (
        {"algorithm": "winograd", "stride": 2, "dilation": 2},
        nnpack.AlgorithmError,
        "needs stride 1 or dilation 1, got",
    ),
    "out of float64": (_out(dtype=np.float64), nnpack.DtypeError, "out of float64"),
    "out a list": ({"out": [0.0]}, nnpack.DtypeError, "out"),
    "out too small": (_out(shape=(2, 5, 7, 8)), nnpack.ProblemError, "out.shape"),
    "out a view": (
        {"out": np.zeros((2, 5, 9, 7), np.float32).transpose(0, 1, 3, 2)},
        nnpack.ProblemError,
        "C-contiguous",
    ),
    "out read-only": (_read_only_out(), nnpack.ProblemError, "writeable"),
    "out overlapping x": (_overlapping(), nnpack.ProblemError, "out overlaps x"),
    "residual of float64": (
        {"residual": np.zeros((2, 5, 7, 9))},
        nnpack.DtypeError,
        "residual has dtype float64",
    ),
    "residual of one image": (
        {"residual": np.zeros((1, 5, 7, 9), np.float32)},
        nnpack.ProblemError,
        "residual.shape=.* must be",
    ),
    "residual in between": (
        {"residual_position": "between"},
        nnpack.ProblemError,
        "residual_position='between'",
    ),
    "out overlapping the residual": (
        _shifted_residual(),
        nnpack.ProblemError,
        "out overlaps residual; .* or residual itself",
    ),
}


@pytest.mark.parametrize(("changes", "error", "message"), BAD.values(), ids=BAD)
def test_malformed_arguments_are_one_clear_error_of_ours(
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("something was computed")

    monkeypatch.setattr(Program, "run", refuse)
    arguments: dict[str, Any] = {
        "x": np.zeros(SMALL["x"], np.float32),
        "weight": np.zeros(SMALL["weight"], np.float32),
        "padding": 1,
        **changes,
    }
    out = arguments.get("out")
    before = out.copy() if isinstance(out, np.ndarray) else out
    with pytest.raises(error, match=message) as raised:
        nnpack.conv2d(**arguments)
    assert isinstance(raised.value, nnpack.NnpackError)
    assert isinstance(raised.value, ValueError | TypeError)
    np.testing.assert_array_equal(out, before)
