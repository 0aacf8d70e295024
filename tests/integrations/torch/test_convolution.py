"""nnpack.torch's convolutions agree with PyTorch's, in every mode that PyTorch has."""

from __future__ import annotations

import functools
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: N812

import nnpack
from nnpack.integrations.torch import convolution
from tests.integrations.torch.tensors import (
    assert_close,
    assert_same_gradients,
    gradients,
    randn,
    recorded_calls,
)

nt = nnpack.torch

# PyTorch uses what it deprecates itself, and warns of what its own operators do.
_PYTORCH_WARNS = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

CONVOLUTIONS: list[dict[str, Any]] = [
    {"input": (2, 3, 9, 8), "weight": (4, 3, 3, 3), "padding": 1},
    {"input": (2, 4, 9, 8), "weight": (6, 4, 3, 3), "stride": 2, "padding": (1, 0)},
    {"input": (1, 4, 12, 11), "weight": (6, 2, 5, 3), "groups": 2, "padding": (2, 1)},
    {"input": (3, 4, 10, 10), "weight": (4, 1, 3, 3), "groups": 4, "stride": (2, 1)},
    {"input": (2, 4, 13, 13), "weight": (5, 4, 3, 3), "dilation": 2, "padding": 2},
    {"input": (2, 8, 7, 7), "weight": (16, 8, 1, 1)},
    {"input": (2, 8, 7, 7), "weight": (16, 8, 1, 1), "stride": 2},
    {"input": (2, 3, 23, 23), "weight": (8, 3, 11, 11), "stride": 4, "padding": 2},
    {"input": (1, 2, 6, 6), "weight": (3, 2, 3, 3), "padding": "same"},
    {"input": (1, 2, 6, 6), "weight": (3, 2, 3, 1), "padding": "same", "dilation": 2},
    {"input": (1, 2, 6, 6), "weight": (3, 2, 3, 3), "padding": "valid"},
    {"input": (1, 1, 1, 1), "weight": (1, 1, 1, 1)},
]
TRANSPOSED: list[dict[str, Any]] = [
    {"input": (2, 3, 5, 6), "weight": (3, 4, 3, 3)},
    {"input": (2, 4, 5, 6), "weight": (4, 3, 4, 4), "stride": 2, "padding": 1},
    {"input": (2, 4, 5, 6), "weight": (4, 2, 3, 3), "stride": 2, "groups": 2, "output_padding": 1},
    {"input": (1, 2, 5, 5), "weight": (2, 3, 3, 3), "dilation": 2, "output_padding": (1, 0)},
]


def _tensors(case: dict[str, Any], outputs: int) -> tuple[Any, Any, Any, dict[str, Any]]:
    words = {name: value for name, value in case.items() if name not in ("input", "weight")}
    return randn(*case["input"]), randn(*case["weight"]), randn(outputs), words


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("with_bias", [True, False])
def test_conv2d_and_its_gradients_agree_with_pytorch(case: dict[str, Any], with_bias: bool) -> None:
    x, weight, bias, words = _tensors(case, case["weight"][0])
    tensors = (x, weight, bias if with_bias else None)
    assert_same_gradients(
        lambda *t: nt.conv2d(*t, **words), lambda *t: F.conv2d(*t, **words), *tensors
    )


@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
def test_conv_transpose2d_and_its_gradients_agree_with_pytorch(case: dict[str, Any]) -> None:
    x, weight, bias, words = _tensors(case, case["weight"][1] * case.get("groups", 1))
    assert_same_gradients(
        lambda *t: nt.conv_transpose2d(*t, **words),
        lambda *t: F.conv_transpose2d(*t, **words),
        x,
        weight,
        bias,
    )


@_PYTORCH_WARNS
def test_borders_that_differ_are_pytorch_s(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = recorded_calls(monkeypatch, convolution, "prepare_convolution")
    x, weight = randn(1, 2, 6, 6), randn(3, 2, 2, 4)
    assert_close(nt.conv2d(x, weight, padding="same"), F.conv2d(x, weight, padding="same"))
    assert calls == []


@pytest.mark.parametrize("wanted", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1)])
def test_only_the_gradients_that_are_wanted_are_computed(
    wanted: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnpack.integrations.torch import convolution_gradients as module

    names = ("_input_gradient", "_weight_gradient", "_bias_gradient")
    calls = recorded_calls(monkeypatch, module, *names)
    shapes = ((2, 3, 6, 6), (4, 3, 3, 3), (4,))
    tensors = [randn(*shape, grad=bool(w)) for shape, w in zip(shapes, wanted, strict=True)]
    assert_same_gradients(nt.conv2d, F.conv2d, *tensors)
    assert calls == [name for name, want in zip(names, wanted, strict=True) if want]


def test_strided_views_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = recorded_calls(monkeypatch, convolution, "prepare_convolution")
    x = randn(3, 8, 20, 12, grad=False)[:, ::2, 1:15:3, 2:]
    weight = randn(5, 4, 3, 3)
    assert_close(nt.conv2d(x, weight), F.conv2d(x, weight))
    assert calls == ["prepare_convolution"]


def _fallbacks() -> dict[str, tuple[Any, Any]]:
    x, weight = randn(2, 4, 6, 6, grad=False), randn(4, 4, 3, 3, grad=False)
    return {
        "float64": (x.double(), weight.double()),
        "bfloat16": (x.bfloat16(), weight.bfloat16()),
        "channels last": (x.contiguous(memory_format=torch.channels_last), weight),
        "columns apart": (x.transpose(2, 3), weight),
        "weights that are not dense": (x, weight.transpose(2, 3)),
        "one image without its batch": (x[0], weight),
        "negated view": (torch._neg_view(x), weight),
    }


@pytest.mark.parametrize("name", _fallbacks())
def test_other_tensors_go_to_pytorch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = recorded_calls(monkeypatch, convolution, "prepare_convolution")
    x, weight = _fallbacks()[name]
    got, want = nt.conv2d(x, weight), F.conv2d(x, weight)
    assert torch.equal(got, want)
    assert got.stride() == want.stride()
    assert calls == []


def test_tensors_without_memory_get_a_shape() -> None:
    x, weight = torch.empty(2, 3, 8, 8, device="meta"), torch.empty(4, 3, 3, 3, device="meta")
    assert nt.conv2d(x, weight).shape == (2, 4, 6, 6)
    assert nt.conv2d(x, weight).is_meta


@_PYTORCH_WARNS
def test_nested_tensors_are_not_taken_for_dense_ones() -> None:
    with pytest.raises(RuntimeError):
        nt.conv2d(torch.nested.nested_tensor([randn(2, 4, 4)]), randn(2, 2, 1, 1))


def test_sparse_tensors_are_not_taken_for_dense_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = recorded_calls(monkeypatch, convolution, "prepare_convolution")
    x, weight = randn(1, 2, 4, 4, grad=False), randn(2, 2, 1, 1, grad=False)
    assert_close(nt.conv2d(x.to_mkldnn(), weight).to_dense(), F.conv2d(x, weight))
    with pytest.raises(RuntimeError):
        nt.conv2d(x.to_sparse(), weight)
    assert calls == []


def test_subclasses_of_tensors_are_pytorch_s(monkeypatch: pytest.MonkeyPatch) -> None:
    class Marked(torch.Tensor):  # type: ignore[name-defined]
        pass

    calls = recorded_calls(monkeypatch, convolution, "prepare_convolution")
    x = randn(1, 2, 4, 4, grad=False).as_subclass(Marked)
    assert type(nt.conv2d(x, randn(2, 2, 1, 1, grad=False))) is Marked
    assert calls == []


def test_autocast_is_pytorch_s() -> None:
    x, weight = randn(1, 2, 4, 4), randn(2, 2, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert nt.conv2d(x, weight).dtype is torch.bfloat16


def test_an_ill_formed_call_raises_what_pytorch_raises() -> None:
    x, weight = randn(1, 2, 4, 4), randn(2, 3, 1, 1)
    with pytest.raises(RuntimeError, match="channels"):
        nt.conv2d(x, weight)
    with pytest.raises(RuntimeError, match="[Kk]ernel size"):
        nt.conv2d(randn(1, 3, 2, 2), randn(2, 3, 5, 5))


def test_four_borders_are_no_padding_of_pytorch_s() -> None:
    x, weight = randn(1, 2, 4, 4), randn(2, 2, 1, 1)
    for function in (nt.conv2d, nt.conv_transpose2d):
        with pytest.raises((RuntimeError, TypeError), match="padding"):
            function(x, weight, padding=(1, 1, 1, 1))


def test_an_empty_batch_is_computed_and_has_gradients() -> None:
    assert_same_gradients(nt.conv2d, F.conv2d, randn(0, 2, 4, 4), randn(3, 2, 3, 3), randn(3))


@_PYTORCH_WARNS
def test_transforms_of_functions_see_pytorch_s_operator() -> None:
    x, weight = randn(3, 2, 5, 5, grad=False), randn(4, 2, 3, 3, grad=False)

    def total(images: Any) -> Any:
        return nt.conv2d(images, weight).square().sum()

    def expected(images: Any) -> Any:
        return F.conv2d(images, weight).square().sum()

    assert_close(torch.func.grad(total)(x), torch.func.grad(expected)(x))
    batched = x.unsqueeze(1)
    assert_close(torch.func.vmap(total)(batched), torch.func.vmap(expected)(batched))
    got = torch.func.jvp(total, (x,), (torch.ones_like(x),))
    want = torch.func.jvp(expected, (x,), (torch.ones_like(x),))
    assert_close(got[1], want[1])


@_PYTORCH_WARNS
def test_forward_mode_differentiation_keeps_its_tangents() -> None:
    from torch.autograd import forward_ad

    x, weight = randn(1, 2, 5, 5, grad=False), randn(4, 2, 3, 3, grad=False)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        tangent = forward_ad.unpack_dual(nt.conv2d(dual, weight)).tangent
        assert_close(tangent, F.conv2d(torch.ones_like(x), weight))


def test_gradients_have_gradients() -> None:
    def curvature(function: Any) -> list[Any]:
        x, weight = randn(1, 2, 5, 5), randn(3, 2, 3, 3)
        first = torch.autograd.grad(
            function(x, weight).pow(3).sum(), (x, weight), create_graph=True
        )
        return list(torch.autograd.grad(sum(g.square().sum() for g in first), (x, weight)))

    for got, want in zip(curvature(nt.conv2d), curvature(F.conv2d), strict=True):
        assert_close(got, want, 2e-4)


@_PYTORCH_WARNS
def test_many_gradients_at_once() -> None:
    def jacobian(function: Any) -> Any:
        x = randn(1, 2, 4, 4)
        y = function(x, randn(2, 2, 3, 3, grad=False))
        units = torch.eye(y.numel()).reshape(-1, *y.shape)
        return torch.autograd.grad(y, x, units, is_grads_batched=True)[0]

    assert_close(jacobian(nt.conv2d), jacobian(F.conv2d))


def test_gradients_of_any_strides_are_taken() -> None:
    x, weight = randn(2, 3, 6, 6), randn(4, 3, 3, 3)

    def total(function: Any) -> Any:
        return lambda *tensors: function(*tensors).permute(0, 3, 1, 2).contiguous()

    assert_same_gradients(total(nt.conv2d), total(F.conv2d), x, weight)
    sums = [torch.autograd.grad(f(x, weight).sum(), x)[0] for f in (nt.conv2d, F.conv2d)]
    assert_close(*sums)


def test_biases_of_any_strides_are_taken() -> None:
    x, weight = randn(2, 5, 7, 5), randn(5, 5, 3, 3)
    for bias in (randn(10)[::2], randn(1).expand(5)):
        for ours, theirs, w in (
            (nt.conv2d, F.conv2d, weight),
            (nt.conv_transpose2d, F.conv_transpose2d, weight),
            (nt.linear, F.linear, weight[:, :, 0, 0].contiguous()),
        ):
            assert_close(ours(x, w, bias), theirs(x, w, bias))


def test_what_was_saved_must_not_be_overwritten() -> None:
    x, weight = randn(1, 2, 4, 4, grad=False), randn(2, 2, 3, 3)
    y = nt.conv2d(x, weight)
    x.add_(1)
    with pytest.raises(RuntimeError, match="inplace"):
        y.sum().backward()


def test_results_may_be_written_to() -> None:
    assert_same_gradients(
        lambda *t: nt.conv2d(*t).mul_(2).relu_(),
        lambda *t: F.conv2d(*t).mul_(2).relu_(),
        randn(1, 2, 6, 6),
        randn(2, 2, 3, 3),
    )


def test_checkpoints_recompute() -> None:
    from torch.utils.checkpoint import checkpoint

    assert_same_gradients(
        lambda *t: checkpoint(nt.conv2d, *t, use_reentrant=False),
        F.conv2d,
        randn(1, 2, 6, 6),
        randn(2, 2, 3, 3),
    )


def test_the_number_of_threads_is_pytorch_s_and_changes_no_bit() -> None:
    from nnpack.integrations.torch.threads import num_threads

    before = torch.get_num_threads()
    tensors = randn(4, 16, 20, 20), randn(16, 16, 3, 3), randn(16)
    conv2d = functools.partial(nt.conv2d, padding=1)
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert num_threads() == min(threads, nnpack.get_num_threads())
            results.append(gradients(conv2d, *tensors)[:2])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_operators_are_what_pytorch_asks_of_operators(transposed: bool, dtype: Any) -> None:
    shape = (4, 6, 3, 3) if transposed else (6, 4, 3, 3)
    x, weight = randn(2, 4, 9, 9).to(dtype).detach(), randn(*shape).to(dtype).detach()
    bias = randn(6).to(dtype).detach()
    surplus = [1, 1] if transposed else [0, 0]
    call = ([2, 2], [1, 1], surplus, [1, 1], 1, transposed, "fast")
    operators = torch.ops.nnpack
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    torch.library.opcheck(operators.convolution.default, (*leaves, *call))
    torch.library.opcheck(operators.convolution.default, (leaves[0], weight, None, *call))
    grad = operators.convolution(x, weight, bias, *call)
    torch.library.opcheck(operators.conv_input_gradient.default, (grad, weight, [*x.shape], *call))
    torch.library.opcheck(operators.conv_weight_gradient.default, (grad, x, [*shape], *call))
    torch.library.opcheck(operators.conv_bias_gradient.default, (grad,))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_graphs_hold_the_operator_and_give_the_same(dynamic: bool) -> None:
    tensors = randn(2, 3, 8, 8), randn(4, 3, 3, 3), randn(4)

    def block(x: Any, weight: Any, bias: Any) -> Any:
        return nt.conv2d(x, weight, bias, 2, 1).relu()

    compiled = torch.compile(block, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    assert_same_gradients(compiled, block, *tensors)
