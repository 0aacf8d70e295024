"""A converted module is the module it was, and computes what it computed."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.nn.utils import prune

import nnpack
from nnpack.integrations.torch import convolution
from tests.integrations.torch.networks import NETWORKS, make
from tests.integrations.torch.tensors import assert_close, randn, recorded_calls

convert = nnpack.torch.convert


def _images() -> Any:
    return randn(4, 3, 32, 32, grad=False)


def _step(module: Any, images: Any, optimizer: Any) -> Any:
    optimizer.zero_grad()
    loss = module(images).square().mean()
    loss.backward()
    optimizer.step()
    return loss.detach()


@pytest.mark.parametrize("name", NETWORKS)
def test_training_goes_as_it_went(name: str) -> None:
    plain, converted = make(name), convert(make(name))
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.05) for m in (plain, converted)]
    for _ in range(3):
        losses = [
            _step(m, _images(), o) for m, o in zip((plain, converted), optimizers, strict=True)
        ]
        assert_close(losses[1], losses[0], 1e-4)
    for got, want in zip(converted.parameters(), plain.parameters(), strict=True):
        assert_close(got.grad, want.grad, 1e-3)
    for key, want in plain.state_dict().items():
        assert_close(converted.state_dict()[key].float(), want.float(), 1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_inference_gives_what_it_gave(name: str) -> None:
    plain = make(name).eval()
    converted = convert(plain)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert_close(converted(_images()), plain(_images()), 2e-4)


def test_every_layer_is_replaced_by_a_subclass_of_what_it_was() -> None:
    plain = make("small_resnet")
    converted = convert(plain)
    for was, layer in zip(plain.modules(), converted.modules(), strict=True):
        assert isinstance(layer, type(was))
        if isinstance(was, (nn.Conv2d, nn.ConvTranspose2d)):
            assert type(layer).__module__.startswith("nnpack.")
            assert repr(layer) == f"nnpack.{was!r}"


def test_a_copy_shares_parameters_and_buffers_and_leaves_the_module_alone() -> None:
    plain = make("small_resnet")
    before = repr(plain)
    converted = convert(plain)
    assert repr(plain) == before != repr(converted)
    ours, theirs = converted.state_dict(keep_vars=True), plain.state_dict(keep_vars=True)
    assert list(ours) == list(theirs)
    assert all(ours[key] is theirs[key] for key in ours)


def test_in_place_the_modules_stay_the_objects_they_are() -> None:
    module = make("autoencoder")
    layers = list(module.modules())
    assert convert(module, inplace=True) is module
    assert all(a is b for a, b in zip(module.modules(), layers, strict=True))
    assert isinstance(module[0], nnpack.torch.Conv2d)


def test_a_single_layer_is_a_module_too() -> None:
    layer = nn.Conv2d(3, 4, 3)
    assert type(convert(layer)) is nnpack.torch.Conv2d
    assert type(layer) is nn.Conv2d


def test_converting_twice_is_converting_once() -> None:
    once = convert(make("small_resnet"))
    types = [type(layer) for layer in once.modules()]
    assert convert(once, inplace=True) is once
    assert [type(layer) for layer in once.modules()] == types


def test_hooks_modes_and_gradients_are_kept() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)).eval()
    module[0].train()
    seen = []
    handle = module[0].register_forward_hook(lambda *_: seen.append("hook"))
    module[1].weight.requires_grad_(False)
    module[0].weight.grad = torch.ones_like(module[0].weight)
    converted = convert(module)
    assert [layer.training for layer in converted] == [True, False]
    converted(_images())
    assert seen == ["hook"]
    assert not converted[1].weight.requires_grad
    assert converted[0].weight.grad is module[0].weight.grad
    convert(module, inplace=True)
    handle.remove()
    module(_images())
    assert seen == ["hook"]


def test_subclasses_of_others_are_left_alone() -> None:
    class Special(nn.Conv2d):
        def forward(self, x: Any) -> Any:
            return super().forward(x) + 1

    module = nn.Sequential(nn.LazyConv2d(4, 3), Special(4, 4, 3))
    converted = convert(module)
    assert [type(layer) for layer in converted] == [nn.LazyConv2d, Special]
    converted(_images())
    assert type(convert(converted)[0]) is nnpack.torch.Conv2d  # no longer lazy


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("kind", ["weight_norm", "parametrized", "pruned", "spectral"])
def test_weights_that_are_computed_at_each_call_are_used_as_they_are_then(kind: str) -> None:
    layer = nn.Conv2d(3, 4, 3)
    if kind == "weight_norm":
        nn.utils.weight_norm(layer)
    elif kind == "parametrized":
        nn.utils.parametrizations.weight_norm(layer)
    elif kind == "pruned":
        prune.l1_unstructured(layer, "weight", 0.5)
    else:
        nn.utils.spectral_norm(layer)
    layer.eval()
    converted = convert(layer)
    for _ in range(3):
        with torch.no_grad():
            assert_close(converted(_images()), layer(_images()))
            next(iter(layer.parameters())).mul_(1.5)


@pytest.mark.parametrize("mode", ["pickle", "torch.save", "deepcopy"])
def test_copies_and_files_hold_the_converted_module(mode: str) -> None:
    module = convert(make("autoencoder")).eval()
    with torch.no_grad():
        want = module(_images())  # packs
        if mode == "pickle":
            again = pickle.loads(pickle.dumps(module))
        elif mode == "deepcopy":
            again = copy.deepcopy(module)
        else:
            file = io.BytesIO()
            torch.save(module, file)
            file.seek(0)
            again = torch.load(file, weights_only=False)
        assert [type(layer) for layer in again] == [type(layer) for layer in module]
        assert torch.equal(again(_images()), want)
        again[0].weight.zero_()
        assert torch.equal(module(_images()), want)


def test_state_dicts_are_exchanged_with_plain_modules() -> None:
    plain, converted = make("small_resnet", seed=1).eval(), convert(make("small_resnet")).eval()
    with torch.no_grad():
        converted(_images())  # packs what is now replaced
        converted.load_state_dict(plain.state_dict())
        assert_close(converted(_images()), plain(_images()), 2e-4)
    make("small_resnet").load_state_dict(converted.state_dict())


def test_an_accuracy_is_taken_and_may_be_changed() -> None:
    module = convert(make("autoencoder"), accuracy="exact")
    assert {layer.accuracy for layer in module if hasattr(layer, "accuracy")} == {"exact"}
    module = convert(module, accuracy="fast", inplace=True)
    assert {layer.accuracy for layer in module if hasattr(layer, "accuracy")} == {"fast"}
    with pytest.raises(nnpack.ProblemError, match="accuracy"):
        convert(module, accuracy="perfect")  # type: ignore[arg-type]


@pytest.mark.parametrize("other", [3, None, nn.Conv2d, "model", torch.ones(2)], ids=repr)
def test_what_is_no_module_is_refused(other: Any) -> None:
    with pytest.raises(nnpack.DtypeError, match="Module"):
        convert(other)


class TestPacking:
    """In eval mode and without gradients, weights are packed once for each version."""

    @pytest.fixture
    def layer(self) -> Any:
        return convert(nn.Conv2d(3, 8, 3, padding=1)).eval()

    @pytest.fixture
    def packings(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        return recorded_calls(monkeypatch, nnpack.torch.Conv2d, "_make_layer")

    def _check(self, layer: Any) -> None:
        with torch.no_grad():
            want = nn.functional.conv2d(
                _images(), layer.weight, layer.bias, layer.stride, layer.padding
            )
            assert_close(layer(_images()), want)

    def test_one_version_is_packed_once(self, layer: Any, packings: list[str]) -> None:
        self._check(layer)
        self._check(layer)
        assert len(packings) == 1

    def test_a_step_of_an_optimizer_packs_again(self, layer: Any, packings: list[str]) -> None:
        self._check(layer)
        _step(layer, _images(), torch.optim.Adam(layer.parameters()))
        self._check(layer)
        self._check(layer)
        assert len(packings) == 2

    @pytest.mark.parametrize("name", ["weight", "bias"])
    def test_any_change_of_a_parameter_is_seen(self, layer: Any, name: str) -> None:
        self._check(layer)
        with torch.no_grad():
            getattr(layer, name).mul_(2)
        self._check(layer)
        getattr(layer, name).data = randn(*getattr(layer, name).shape, grad=False)
        self._check(layer)
        setattr(layer, name, nn.Parameter(randn(*getattr(layer, name).shape, seed=3)))
        self._check(layer)
        getattr(layer, name).data.mul_(3)
        self._check(layer)

    def test_a_change_of_an_attribute_is_seen(self, layer: Any) -> None:
        self._check(layer)
        layer.stride = (2, 2)
        self._check(layer)

    def test_a_number_of_threads_is_seen(self, layer: Any, packings: list[str]) -> None:
        before = torch.get_num_threads()
        try:
            for threads in (1, 2):
                torch.set_num_threads(threads)
                self._check(layer)
        finally:
            torch.set_num_threads(before)
        assert len(packings) == len({min(n, nnpack.get_num_threads()) for n in (1, 2)})

    def test_training_and_recorded_calls_pack_nothing(
        self, layer: Any, packings: list[str]
    ) -> None:
        layer(_images()).sum().backward()
        layer.train()
        self._check(layer)
        assert packings == []

    def test_parameters_without_versions_are_not_kept(self, packings: list[str]) -> None:
        with torch.inference_mode():
            layer = convert(nn.Conv2d(3, 8, 3, padding=1)).eval()
            self._check(layer)
            layer.weight.mul_(2)
            self._check(layer)
        assert packings == []

    def test_functional_calls_swap_parameters(self, layer: Any) -> None:
        self._check(layer)
        other = {"weight": randn(8, 3, 3, 3, seed=8), "bias": randn(8, seed=8)}
        with torch.no_grad():
            got = torch.func.functional_call(layer, other, (_images(),))
            want = nn.functional.conv2d(_images(), other["weight"], other["bias"], padding=1)
        assert_close(got, want)
        self._check(layer)


def test_channels_last_modules_stay_pytorch_s(monkeypatch: pytest.MonkeyPatch) -> None:
    packings = recorded_calls(monkeypatch, nnpack, "Conv2d")
    calls = recorded_calls(monkeypatch, convolution, "prepare_convolution")
    plain = make("small_resnet").to(memory_format=torch.channels_last)[:-1]  # all but the linear
    images = _images().contiguous(memory_format=torch.channels_last)
    assert torch.equal(convert(plain)(images), plain(images))
    assert calls == packings == []


def test_other_dtypes_stay_pytorch_s() -> None:
    plain = make("small_resnet").double()
    assert torch.equal(convert(plain)(_images().double()), plain(_images().double()))


@pytest.mark.parametrize("name", NETWORKS)
def test_symbolic_tracing_sees_whole_layers(name: str) -> None:
    converted = convert(make(name))
    traced = torch.fx.symbolic_trace(converted)
    called = [traced.get_submodule(n.target) for n in traced.graph.nodes if n.op == "call_module"]
    layers = [m for m in converted.modules() if "nnpack" in repr(type(m))]
    assert {type(m) for m in layers} - {nnpack.torch.Sequential} <= {type(m) for m in called}
    assert_close(traced(_images()), make(name)(_images()))


def test_a_layer_by_itself_is_traced_as_what_pytorch_computes() -> None:
    layer = convert(nn.Conv2d(3, 4, 3))
    traced = torch.fx.symbolic_trace(layer)
    assert "call_module" not in {node.op for node in traced.graph.nodes}
    assert_close(traced(_images()), layer(input=_images()))


@pytest.mark.parametrize("training", [True, False])
def test_exported_programs_compute_the_same(training: bool) -> None:
    converted = convert(make("small_resnet")).train(training)
    with torch.set_grad_enabled(training):
        program = torch.export.export(copy.deepcopy(converted), (_images(),))
        assert_close(program.module()(_images()), converted(_images()), 1e-4)
