"""Adapted models behind the decoders of segmentation_models_pytorch."""

import builtins

import pytest
import timm
import torch
from deterministic import spread
from torch.nn import functional as F
from torch.testing import assert_close

import dartok
from dartok.models.features import features
from dartok.models.smp_encoder import SmpEncoder, smp_model

smp = pytest.importorskip("segmentation_models_pytorch")

ARCHITECTURES = [name for name in smp.MODEL_ARCHITECTURES_MAPPING if name != "dpt"]


def backbone(**options):
    host = spread(timm.create_model("test_vit", num_classes=0, **options))
    return dartok.adapt(host, num_tokens=40, strength=1.0)


def discs(count, side_px=64):
    """Pictures of a bright disc on a textured ground, and where the disc is."""
    place = torch.rand(count, 2, 1, 1) * 0.6 + 0.2
    y = torch.linspace(0, 1, side_px)[:, None]
    x = torch.linspace(0, 1, side_px)
    inside = (y - place[:, 0]).square() + (x - place[:, 1]).square() < 0.15**2
    ground = 0.3 * torch.randn(count, 3, side_px, side_px)
    return ground + 2.0 * inside.unsqueeze(1), inside.float()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_every_decoder_takes_the_features(architecture):
    model = smp_model(architecture, backbone(), num_classes=11).eval()
    assert model(torch.randn(2, 3, 128, 192)).shape == (2, 11, 128, 192)


@torch.no_grad()
def test_a_unet_takes_pictures_of_any_size():
    model = smp_model("unet", backbone(), num_classes=3).eval()
    assert model(torch.randn(1, 3, 70, 101)).shape == (1, 3, 70, 101)


@pytest.mark.parametrize(
    ("architecture", "strides"),
    [("fpn", (4, 8, 16, 32)), ("deeplabv3plus", (4, 8, 16, 16)), ("deeplabv3", (4, 8, 8, 8))],
)
@torch.no_grad()
def test_a_decoder_gets_features_at_its_strides(architecture, strides):
    own, images = backbone().eval(), torch.randn(1, 3, 64, 96)
    encoder = smp_model(architecture, own, num_classes=2).encoder
    found = encoder.eval()(images)
    assert encoder.out_channels == [one.shape[1] for one in found] == [3, 0, 64, 64, 64, 64]
    assert encoder.output_stride == strides[-1]
    assert found[0] is images
    assert found[1].shape == (1, 0, 32, 48)
    for one, other in zip(found[2:], features(own, images, strides=strides), strict=True):
        assert torch.equal(one, other)


@torch.no_grad()
def test_layers_and_norm_are_passed_on():
    own, images = backbone().eval(), torch.randn(1, 3, 64, 64)
    encoder = smp_model("fpn", own, num_classes=2, layers=(0, 1, 2, 3), norm=False).encoder
    expected = features(own, images, layers=(0, 1, 2, 3), norm=False)
    assert torch.equal(encoder(images)[-1], expected[-1])


def test_the_model_is_held_and_its_weights_are_kept():
    own = backbone()
    before = {name: value.clone() for name, value in own.state_dict().items()}
    model = smp_model("unet", own, num_classes=2, decoder_channels=(32, 16, 16, 8, 8))
    assert model.encoder.dense.model is own
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())
    dartok.set_strength(model, 0.5)
    assert float(own.patch_embed.strength) == 0.5
    assert smp.encoders.encoders.keys() == {
        name for name in smp.encoders.encoders if not name.startswith("dartok")
    }


@torch.no_grad()
def test_pictures_of_other_channels_follow_from_the_model():
    model = smp_model("fpn", backbone(in_chans=5), num_classes=2).eval()
    assert model(torch.randn(1, 5, 64, 64)).shape == (1, 2, 64, 64)


@torch.no_grad()
def test_a_host_on_its_fixed_grid_serves_for_comparison():
    model = smp_model("fpn", timm.create_model("test_vit"), num_classes=2).eval()
    assert model(torch.randn(1, 3, 160, 160)).shape == (1, 2, 160, 160)


@torch.no_grad()
def test_smps_own_dpt_finds_our_models_at_timm():
    model = smp.DPT("tu-dart_vit", encoder_weights=None, host="test_vit", num_tokens=30).eval()
    assert model(torch.randn(2, 3, 64, 96)).shape == (2, 1, 64, 96)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["fpn", "unet"])
def test_twenty_steps_lower_the_loss_and_the_scorer_learns(architecture):
    model = smp_model(architecture, backbone(), num_classes=1).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scorer = model.encoder.dense.model.patch_embed.scorer
    before = [parameter.clone() for parameter in scorer.parameters()]
    losses = []
    for _ in range(20):
        images, inside = discs(8)
        loss = F.binary_cross_entropy_with_logits(model(images)[:, 0], inside)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    first, last = sum(losses[:4]) / 4, sum(losses[-4:]) / 4
    assert last < 0.75 * first
    assert all(not torch.equal(a, b) for a, b in zip(scorer.parameters(), before, strict=True))


@pytest.mark.slow
def test_a_frozen_encoder_stays_as_it_is():
    model = smp_model("fpn", backbone(), num_classes=1)
    model.freeze_encoder()
    model.train()
    images, inside = discs(2)
    F.binary_cross_entropy_with_logits(model(images)[:, 0], inside).backward()
    assert all(parameter.grad is None for parameter in model.encoder.parameters())
    assert not model.encoder.dense.model.training


@torch.no_grad()
def test_counts_of_each_images_own_reach_the_decoder():
    own = backbone()
    model = smp_model("fpn", own, num_classes=2).eval()
    dartok.set_num_tokens(model.encoder, "auto", least=8, most=80)
    images = torch.randn(3, 3, 64, 64) * torch.tensor([0.1, 1.0, 6.0]).view(3, 1, 1, 1)
    dartok.calibrate_num_tokens(own, images)
    together = model(images)
    for image in range(3):
        assert_close(together[image], model(images[image, None])[0], rtol=1e-4, atol=1e-4)


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("dpt", {}, "architecture 'dpt' makes its encoder itself; use"),
        ("u-net", {}, "architecture must be one of .*unet.*, got 'u-net'"),
        ("unet", {"decoder_chanels": (8,)}, "decoder_chanels must be one of the options encoder_"),
        ("unet", {"in_channels": 4}, "in_channels must not be given, it follows from the model"),
        ("unet", {"encoder_name": "x"}, "encoder_name must not be given, it follows"),
        ("unet", {"encoder_depth": 1}, "depth must be from 2 to 5, strides 4 to 32, got 1"),
        ("unet", {"layers": (0, 1)}, "layers must name one block for each of the 4 maps"),
    ],
)
def test_what_smp_would_pass_over_is_refused(architecture, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        smp_model(architecture, backbone(), num_classes=2, **options)
    assert not any(name.startswith("dartok") for name in smp.encoders.encoders)


@pytest.mark.refuses
def test_an_encoder_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"^output_stride must be 8, 16 or 32, got 4$"):
        SmpEncoder(backbone(), output_stride=4)
    with pytest.raises(ValueError, match=r"^in_channels must stay 3, as the model, got 1"):
        SmpEncoder(backbone()).set_in_channels(1)


@pytest.mark.refuses
def test_without_smp_the_remedy_is_named(monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name == "segmentation_models_pytorch":
            raise ImportError(name)
        return real(name, *rest)

    own = backbone()
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"pip install 'dartok\[dense\]'"):
        smp_model("unet", own, num_classes=2)
