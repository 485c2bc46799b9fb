"""What a reshaped host gives: timm's methods on the warped picture, maps and boxes on its own."""

import pytest
import timm
import torch
from decays import decayed
from deterministic import spread
from refusals import refused
from timm.models import group_parameters
from torch import nn
from torch.testing import assert_close

import dartok

HOSTS = ["test_convnext", "test_efficientnet", "test_resnet", "test_vit"]


class Corner(nn.Module):
    """Scores that are high at the top left, whatever the picture."""

    def forward(self, images):
        ramp = torch.linspace(2, -1, 12).exp()
        return (ramp[:, None] * ramp).expand(images.shape[0], -1, -1)


def reshaped(name="test_convnext", **options):
    chosen = {"scorer": Corner(), "strength": 1.0} | options
    return dartok.reshape(spread(timm.create_model(name)), **chosen).eval()


def pictures(height=96, width=128):
    return torch.randn(2, 3, height, width)


@pytest.mark.parametrize("name", HOSTS)
@torch.no_grad()
def test_features_and_head_make_the_logits_of_the_warped_picture(name):
    model, images = reshaped(name), pictures()
    logits = model.forward_head(model.forward_features(images))
    assert torch.equal(logits, model(images))
    assert torch.equal(logits, model.host(model.reshaper(images).images))
    final, maps = model.forward_intermediates(images, indices=2)
    assert len(maps) == 2
    assert final.isfinite().all()


@pytest.mark.parametrize("name", HOSTS)
def test_the_head_and_what_timm_says_are_the_hosts(name):
    model = reshaped(name)
    host = model.host
    for attribute in ("num_classes", "num_features", "head_hidden_size", "pretrained_cfg"):
        assert getattr(model, attribute) == getattr(host, attribute)
    assert model.default_cfg == host.pretrained_cfg
    assert model.feature_info is host.feature_info
    assert model.get_classifier() is host.get_classifier()
    model.reset_classifier(7)
    assert model(pictures()).shape == (2, 7)
    assert model.num_classes == host.num_classes == 7
    model.set_grad_checkpointing(True)
    model.train()(pictures()).sum().backward()
    with pytest.raises(AttributeError, match="no_such_thing"):
        model.no_such_thing  # noqa: B018


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("name", HOSTS)
def test_every_parameter_is_in_its_hosts_group_and_the_scorer_in_the_first(name, coarse):
    model = reshaped(name, scorer="conv")
    found = group_parameters(model, model.group_matcher(coarse=coarse))
    expected = group_parameters(model.host, model.host.group_matcher(coarse=coarse))
    of_host = {
        key: [one.removeprefix("host.") for one in names if one.startswith("host.")]
        for key, names in found.items()
    }
    assert of_host == {key: list(names) for key, names in expected.items()}
    scorer = {one for names in found.values() for one in names if one.startswith("reshaper.")}
    assert scorer
    assert scorer <= set(found[0])


def test_what_the_host_does_not_decay_is_not_decayed():
    model = reshaped("test_vit", scorer="conv")
    assert model.no_weight_decay() == {f"host.{one}" for one in model.host.no_weight_decay()}
    assert not decayed(model) & model.no_weight_decay()
    assert "host.blocks.0.attn.qkv.weight" in decayed(model)
    assert reshaped("test_resnet").no_weight_decay() == set()


class Pyramid(nn.Module):
    """Averages over squares of 4, 8, 16 and 32 px: features whose place is known."""

    def forward(self, images):
        return [nn.functional.avg_pool2d(images, side) for side in (4, 8, 16, 32)]


def ramp(height, width):
    """A picture whose channels are x, y and x * y, in [0, 1]."""
    y, x = ((torch.arange(n) + 0.5) / n for n in (height, width))
    flat = torch.ones(height, width)
    return torch.stack([x * flat, y[:, None] * flat, x * y[:, None]])[None]


@torch.no_grad()
def test_dense_features_lie_on_the_picture_at_any_size():
    model = dartok.reshape(Pyramid(), scorer=Corner(), strength=1.0, grid=8, size_px=256)
    images = ramp(300, 400)
    sizes = [(64, 96), (30, 40), (17, 16), (8, 8)]
    found = model.dense_features(images, sizes)
    warped = model(images)
    assert [tuple(one.shape) for one in found] == [(1, 3, *size) for size in sizes]
    for one, stage, size, cells in zip(found, warped, sizes, (64, 32, 16, 8), strict=True):
        expected = ramp(*size)
        margin = slice(size[0] // 4, -size[0] // 4), slice(size[1] // 4, -size[1] // 4)
        error = (one - expected)[..., margin[0], margin[1]].abs().max()
        assert error < 1 / cells  # a cell averages over a place, and what it sees bends at edges
        stretched = nn.functional.interpolate(stage, size, mode="bilinear")
        naive = (stretched - expected)[..., margin[0], margin[1]].abs().max()
        assert naive > 2 * error


@torch.no_grad()
def test_dartok_features_are_the_models_own():
    model, images = reshaped("test_resnet", size_px=64), pictures()
    found = dartok.features(model, images, strides=(4, 8, 16, 32))
    sizes = [(24, 32), (12, 16), (6, 8), (3, 4)]
    for actual, expected in zip(found, model.dense_features(images, sizes), strict=True):
        assert torch.equal(actual, expected)


@torch.no_grad()
def test_at_strength_zero_dense_features_are_the_hosts():
    host = timm.create_model("test_convnext", features_only=True).eval()
    model, images = dartok.reshape(host), pictures(160, 160)
    sizes = [(40, 40), (20, 20), (10, 10), (5, 5)]
    for actual, expected in zip(model.dense_features(images, sizes), host(images), strict=True):
        assert_close(actual, expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_features_only_models_in_nhwc_give_nchw_maps():
    model = dartok.reshape(timm.create_model("test_mambaout", features_only=True)).eval()
    (found,) = model.dense_features(pictures(), [(24, 32)])
    assert found.shape == (2, 64, 24, 32)
    with refused(
        "FeatureListNet returns maps with channels last, not (B, D, h, w); use dense_features"
    ):
        model.dense_outputs(pictures())


class Paint(nn.Module):
    """The picture itself as logits, as a map and in a dict."""

    def forward(self, images):
        return {"out": images, "score": images.mean((1, 2, 3)), "aux": [images[:, :1]]}


@torch.no_grad()
def test_dense_outputs_come_back_to_the_picture():
    model = dartok.reshape(Paint(), scorer=Corner(), strength=1.0, size_px=(240, 320), grid=6)
    images = ramp(150, 200)
    found = model.dense_outputs(images)
    inside = (..., slice(4, -4), slice(4, -4))
    assert_close(found["out"][inside], images[inside], rtol=0, atol=2e-3)
    assert_close(found["aux"][0][inside], images[:, :1][inside], rtol=0, atol=2e-3)
    assert found["score"].shape == (1,)
    assert model.dense_outputs(images, (30, 40))["out"].shape[-2:] == (30, 40)
    assert (model(images)["out"].shape[-2:]) == (240, 320)


def test_a_loss_in_the_picture_teaches_host_and_scorer():
    net = nn.Conv2d(3, 2, 1)
    model = dartok.reshape(net, strength=1.0, size_px=32)
    logits = model.dense_outputs(pictures(48, 40))
    labels = torch.randint(2, (2, 48, 40))
    nn.functional.cross_entropy(logits, labels).backward()
    assert net.weight.grad.abs().sum() > 0
    assert model.reshaper.scorer.gain.grad.abs() > 0


@torch.no_grad()
def test_what_is_found_in_the_warped_picture_lies_there_in_the_picture():
    model = dartok.reshape(Paint(), scorer=Corner(), strength=1.0, size_px=(200, 300), grid=7)
    images = torch.zeros(1, 3, 100, 120)
    images[..., 20:60, 30:90] = 1.0
    warped, lattice = model.reshaper(images)
    rows, columns = (warped[0, 0].amax(dim) > 0.5 for dim in (1, 0))
    seen = [int(one.nonzero()[n]) + (n != 0) for n in (0, -1) for one in (columns, rows)]
    box_px = torch.tensor([seen], dtype=torch.float32)
    (box,) = lattice.boxes_to_image([box_px], image_px=(100, 120), warped_px=(200, 300))
    expected = torch.tensor([[30.0, 20.0, 90.0, 60.0]], dtype=torch.float64)
    assert_close(box, expected, rtol=0, atol=1.5)  # px: pixels of the warped picture are whole
    (back,) = lattice.boxes_to_warped([expected], image_px=(100, 120), warped_px=(200, 300))
    assert_close(back, box_px.double(), rtol=0, atol=1.5)


@pytest.mark.refuses
def test_a_classifier_has_no_maps_to_unwarp():
    with refused(
        "ConvNeXt returns no maps (B, D, h, w) to unwarp; call the model for its outputs, or "
        "dense_features for its features"
    ):
        reshaped().dense_outputs(pictures())
    for sizes in ([], [(4, 4), (0, 4)]):
        with refused(f"sizes must be (height, width) of at least 1, got {sizes}"):
            reshaped().dense_features(pictures(), sizes)
