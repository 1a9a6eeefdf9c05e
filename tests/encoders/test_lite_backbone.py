"""LiteBackbone: what computes while it is frozen is the network, folded."""

import copy
import pickle

import pytest
import torch

from encoders import create_encoder, lite_backbone
from encoders.lite_backbone import _features
from encoders.onednn import PackedConvolution, has_onednn, quicken


@pytest.fixture(scope="module")
def shared(make_encoder):
    return make_encoder("technical_lite").backbone  # skips where there are no weights


@pytest.fixture
def backbone(shared):
    return copy.deepcopy(shared).requires_grad_(False)


PIXELS = torch.randint(
    0, 256, (5, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


def flat(features):
    stages, *others = features
    return [*stages, *others]


def packed(module):
    return isinstance(module, PackedConvolution)


def near(found, expected):
    return all(
        (a - b).abs().max() <= 1e-5 * b.abs().max()
        for a, b in zip(flat(found), flat(expected), strict=True)
    )


def test_folded_it_gives_what_the_network_gives(backbone):
    before = copy.deepcopy(backbone.state_dict())
    with torch.no_grad():
        expected = _features(backbone.network, PIXELS)
    found = backbone(PIXELS)
    assert near(found, expected)
    (folded,) = backbone._folded
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    assert backbone.state_dict().keys() == before.keys()
    assert all(torch.equal(backbone.state_dict()[name], before[name]) for name in before)
    for twin in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        assert twin._folded is None
        assert all(map(torch.equal, flat(twin(PIXELS)), flat(found)))


def test_frozen_it_has_a_gradient_by_its_images(backbone):
    expected = backbone(PIXELS[:1])
    pixels = PIXELS[:1].float().requires_grad_()
    found = backbone(pixels)
    assert near(found, expected)
    (gradient,) = torch.autograd.grad(found[1].sum(), pixels)
    assert torch.isfinite(gradient).all() and gradient.any()


def test_a_batch_gives_what_its_images_give(backbone):
    for cuts in ([2, 3], [1, 1, 1, 1, 1], [4, 1]):
        whole = flat(backbone(PIXELS))
        parts = zip(*(flat(backbone(part)) for part in PIXELS.split(cuts)))
        assert all(torch.equal(a, torch.cat(b)) for a, b in zip(whole, parts))


def change(backbone):
    with torch.no_grad():
        for value in backbone.network.parameters():
            value.mul_(1.01)


def trained(backbone):
    backbone.requires_grad_(True)
    backbone(PIXELS[:1])
    change(backbone)
    backbone.requires_grad_(False)


def loaded(backbone):
    other = copy.deepcopy(backbone)
    change(other)
    torch.nn.ModuleDict({"it": backbone}).load_state_dict(
        {f"it.{name}": value for name, value in other.state_dict().items()}
    )


@pytest.mark.parametrize("changed", [trained, loaded])
def test_other_weights_are_folded_anew(backbone, changed):
    old = backbone(PIXELS)
    changed(backbone)
    with torch.no_grad():
        expected = _features(backbone.network, PIXELS)
    assert near(backbone(PIXELS), expected) and not near(old, expected)


def test_compiled_it_asks_no_parameter_and_weights_that_may_change_are_folded_anew(
    backbone, monkeypatch
):
    """Dynamo would follow the search through all parameters, which takes seconds."""
    backbone(PIXELS[:1])
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        patch.setattr(backbone, "parameters", lambda: pytest.fail("parameters are asked"))
        with torch.no_grad():
            backbone(PIXELS[:1])
        assert backbone._folded is not None
        backbone(PIXELS[:1])
        assert backbone._folded is None and backbone._last is None


def test_another_type_is_folded_anew_and_gives_float32(backbone):
    small = PIXELS[:1, :, :64, :64]  # PyTorch takes its time with such types
    expected = backbone(small)
    assert backbone.double()._folded is None
    with torch.no_grad():
        found = _features(backbone.network, small)
    assert near(found, expected)
    assert all(value.dtype == torch.float32 for value in flat(found))


def test_without_onednn_it_is_the_same(backbone, monkeypatch):
    found = backbone(PIXELS)
    (packed,) = backbone._folded
    other = copy.deepcopy(backbone)
    monkeypatch.setattr(lite_backbone, "has_onednn", lambda: False)
    assert near(other(PIXELS), found)
    assert not any(isinstance(m, PackedConvolution) for m in other._folded[0].modules())
    if has_onednn():  # every convolution, and with it every activation
        kinds = [type(m) for m in packed.modules()]
        assert kinds.count(PackedConvolution) == sum(
            isinstance(m, torch.nn.Conv2d) for m in backbone.network.modules()
        )
        assert torch.nn.ReLU6 not in kinds


@pytest.mark.skipif(not has_onednn(), reason="oneDNN isn't what computes here")
def test_in_bfloat16_it_is_nearly_the_same_and_others_stay_exact(backbone):
    encoders = [torch.nn.ModuleDict({"backbone": backbone}) for _ in range(2)]
    encoders.append(torch.nn.ModuleDict({"other": torch.nn.Linear(1, 1)}))
    exact = backbone(PIXELS)
    quicken(encoders)
    quick = encoders[0]["backbone"]
    assert quick is encoders[1]["backbone"] and quick is not backbone
    found = quick(PIXELS)
    kinds = {m.convolution.weight.dtype for m in quick._folded[0].modules() if packed(m)}
    assert kinds == {torch.float32, torch.bfloat16}
    assert all(value.dtype == torch.float32 for value in [*flat(found), *quick.parameters()])
    assert all((a - b).abs().max() < 0.05 * b.abs().max() for a, b in zip(flat(found), flat(exact)))
    assert all(map(torch.equal, found[0][:2], exact[0][:2]))  # of the first blocks
    assert not torch.equal(found[1], exact[1])
    parts = zip(*(flat(quick(part)) for part in PIXELS.split([2, 3])))
    assert all(torch.equal(a, torch.cat(b)) for a, b in zip(flat(found), parts))
    backbone._last = None
    assert all(map(torch.equal, flat(backbone(PIXELS)), flat(exact)))


def test_on_another_device_encoders_share_a_copy_and_others_stay_where_they_are(shared):
    stays = create_encoder("technical_lite")
    moved = [create_encoder(f"{kind}_lite").to("meta") for kind in ("technical", "semantic")]
    assert {value.device.type for value in moved[0].state_dict().values()} == {"meta"}
    assert moved[0].backbone is moved[1].backbone is not stays.backbone
    assert {value.device.type for value in stays.state_dict().values()} == {"cpu"}
    half = create_encoder("technical_lite").half()
    assert {value.dtype for value in half.backbone.parameters()} == {torch.float16}
    assert {value.dtype for value in stays.backbone.parameters()} == {torch.float32}
    assert half.float().backbone is stays.backbone
    own = copy.deepcopy(stays)
    assert own.backbone is own.half().backbone is not stays.backbone
