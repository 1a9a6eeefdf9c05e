"""What is inside of other libraries: the quick way and the one without it give the same.

A failure names the library and its version.
"""

import copy
import os
from importlib import metadata

import pytest
import torch
from torch import nn

from encoders import decoding, lite_backbone, onednn, raft
from encoders.library_internals import activation_of, decord_errors, forget_correlations
from encoders.video import VideoError, read_video

from tests import media


@pytest.fixture
def version(request):
    name = request.param
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize("version", ["torch"], indirect=True)
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="a PyTorch without oneDNN")
def test_onednn_operators_are_as_we_know_them(version):
    onednn.has_onednn.cache_clear()
    assert onednn.has_onednn(), f"{version}: torch.ops.mkldnn has changed; layers are slower"


@pytest.mark.parametrize("version", ["timm"], indirect=True)
def test_timm_s_norms_carry_their_activation(version):
    import timm

    network = timm.create_model("tf_efficientnet_lite0").eval()
    torch.manual_seed(0)
    for norm in network.modules():  # as trained ones: fresh ones are nearly the identity
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(std=0.1)
            norm.running_var.uniform_(0.5, 2)
    assert isinstance(activation_of(network.bn1), nn.ReLU6), version
    pixels = torch.randint(0, 256, (2, 3, 224, 224))
    with torch.no_grad():
        quick = lite_backbone._quickest(network, pixels[:1])
        assert quick is not network, f"{version}: folding gives something else"
        expected = lite_backbone._flat(lite_backbone._features(network, pixels))
        found = lite_backbone._flat(lite_backbone._features(quick, pixels))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-3 * float(other.abs().max()), rtol=1e-3)


@pytest.mark.parametrize("version", ["timm"], indirect=True)
def test_without_the_activation_nothing_is_folded(version, monkeypatch):
    import timm

    network = timm.create_model("tf_efficientnet_lite0").eval()
    monkeypatch.setattr(lite_backbone, "activation_of", lambda norm: nn.Identity())
    with torch.no_grad():
        pixels = torch.randint(0, 256, (1, 3, 224, 224))
        assert lite_backbone._quickest(network, pixels) is network, version


@pytest.mark.parametrize("version", ["torchvision"], indirect=True)
def test_raft_keeps_nothing(version):
    network = raft.Raft("small", weights="random")
    frames = torch.randint(0, 256, (2, 128, 128, 3), dtype=torch.uint8).numpy()
    (flow,) = network.flows(frames, [(0, 1)])
    assert flow.shape == (128, 128, 2)
    assert network.network.corr_block.corr_pyramid == [], version
    copy.deepcopy(network)
    forget_correlations(nn.Identity())  # another version may keep it elsewhere


@pytest.mark.parametrize("version", ["decord"], indirect=True)
def test_decord_s_ffmpeg_is_heard(version, tmp_path):
    import decord

    errors, _ = decord_errors(os.path.dirname(decord.__file__))
    before = len(errors)
    reader = decord.VideoReader(str(media.flipped_bits(tmp_path / "a.mp4", 30)))
    for _ in range(len(reader)):
        reader.next()
    assert len(errors) > before, f"{version} hides damage, and its FFmpeg says nothing of it"


@pytest.mark.parametrize("version", ["decord"], indirect=True)
def test_decord_is_not_used_where_it_can_t_be_heard(version, tmp_path, monkeypatch):
    def changed(folder):
        raise OSError("another layout")

    path = media.sound(tmp_path / "a.mp4")
    assert read_video(path, backend="decord").info.backend == "decord", version
    monkeypatch.setattr(decoding, "decord_errors", changed)
    with pytest.raises(VideoError, match="decord can't read it"):
        read_video(path, backend="decord")
