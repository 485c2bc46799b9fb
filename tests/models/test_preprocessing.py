"""Each model knows how its pictures are prepared, and notices when nobody did."""

import warnings

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from refusals import refused
from timm.models.vision_transformer import VisionTransformer

import dartok
from dartok.core.notices import say_once
from dartok.models.pixel_range import PixelRange
from dartok.models.preprocessing import data_config

IMAGENET = PixelRange.of((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = PixelRange.of((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def adapted(**options):
    return dartok.adapt(timm.create_model("test_vit", num_classes=3, **options), num_tokens=9)


def said(model, images):
    """What a forward pass has to say about the pictures."""
    say_once.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model(images)
    return [str(warning.message) for warning in caught]


def photograph(size=(128, 128)):
    """A picture in [0, 1] with dark and bright places, `(1, 3, height, width)`."""
    ramp = torch.linspace(0.02, 0.97, size[0] * size[1]).reshape(1, 1, *size)
    return torch.cat([ramp, ramp.flip(-1), ramp.flip(-2)], dim=1)


def normalised(images, config):
    mean, std = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
    return (images - mean) / std


@pytest.mark.parametrize(
    "make",
    [adapted, lambda: dartok.create_model("darvit_tiny"), lambda: timm.create_model("test_vit")],
)
def test_the_transform_is_timms_for_the_model(make):
    model = make()
    picture = Image.fromarray(np.random.randint(0, 255, (300, 400, 3), dtype=np.uint8))
    config = timm.data.resolve_model_data_config(model)
    expected = timm.data.create_transform(**config, is_training=False)(picture)
    assert torch.equal(dartok.transform(model)(picture), expected)


def test_the_size_is_that_which_the_model_is_meant_for():
    model = adapted(img_size=(64, 96))
    picture = Image.new("RGB", (300, 200))
    assert dartok.transform(model)(picture).shape == (3, 64, 96)
    model.set_input_size(img_size=(32, 48))
    assert dartok.transform(model)(picture).shape == (3, 32, 48)


@pytest.mark.refuses
def test_a_model_that_does_not_say_how_is_refused():
    nameless = VisionTransformer(img_size=32, embed_dim=16, depth=1, num_heads=1)
    model = dartok.adapt(nameless)
    with refused(
        "the model must say how its pixels are normalised, got a RegionViT without mean and std; "
        "set model.pretrained_cfg = {'mean': ..., 'std': ...}"
    ):
        dartok.transform(model)
    assert said(model, photograph()) == []
    model.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    assert dartok.transform(model)(Image.new("RGB", (40, 40))).min() == -1


@pytest.mark.refuses
def test_a_mean_for_other_channels_is_refused():
    with pytest.raises(ValueError, match="a mean for each channel, got 3 for a model of 1"):
        dartok.transform(adapted(in_chans=1))


@pytest.mark.parametrize("scale", [1, 255])
@pytest.mark.parametrize("make", [adapted, lambda: dartok.create_model("darvit_tiny")])
def test_raw_pictures_are_noticed_once_and_normalised_ones_are_not(make, scale):
    model = make()
    config = data_config(model) | {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    model.pretrained_cfg |= config
    dartok.models.preprocessing.note_pixels(model)
    (message,) = said(model, scale * photograph())
    assert message.startswith("images look un-normalised: no pixel is negative")
    assert "dartok.transform(model)" in message
    assert said(model, normalised(photograph(), config)) == []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        say_once.cache_clear()
        for _ in range(2):
            dartok.regions(model, scale * photograph())
    assert len(caught) == 1


@pytest.mark.parametrize("pixels", [IMAGENET, HALF])
def test_no_picture_is_taken_for_raw_that_the_transform_made(pixels):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    config = (
        {"mean": mean, "std": std}
        if pixels is IMAGENET
        else dict.fromkeys(("mean", "std"), (0.5,) * 3)
    )
    for low, high in [
        (0, 1),
        (0, 0.1),
        (0.9, 1),
        (0.5, 1),
        (0.45, 0.75),
        (0.49, 0.6),
        (0.485, 0.631),
        (1, 1),
    ]:
        images = normalised(low + (high - low) * photograph(), config)
        assert not pixels.are_raw(images), (low, high)


@pytest.mark.parametrize("make", [torch.zeros, torch.ones, torch.randn])
@pytest.mark.parametrize("pixels", [IMAGENET, HALF])
def test_what_warms_a_model_up_is_not_taken_for_raw(pixels, make):
    assert not pixels.are_raw(make(2, 3, 64, 64))


def test_where_black_is_no_lower_than_in_a_bright_picture_only_bytes_are_noticed():
    assert not HALF.are_raw(photograph())
    assert HALF.are_raw(255 * photograph())


def test_nothing_is_read_under_a_compiler_or_off_the_cpu(monkeypatch):
    IMAGENET.say_if_raw(photograph().to("meta"))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        IMAGENET.say_if_raw(photograph())


def test_a_negative_pixel_anywhere_says_that_somebody_normalised():
    images = photograph()
    images[0, 1, 17, 33] = -0.01
    assert not IMAGENET.are_raw(images)


def test_the_models_of_other_libraries_are_prepared_as_is_usual_there():
    torchvision = pytest.importorskip("torchvision")
    host = torchvision.models.vit_b_32(image_size=64)
    assert data_config(host)["mean"] == (0.485, 0.456, 0.406)
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    vit = transformers.ViTModel(transformers.ViTConfig(**small, intermediate_size=16))
    assert data_config(vit)["std"] == (0.5, 0.5, 0.5)
    assert data_config(vit)["input_size"] == (3, 224, 224)
    unknown = transformers.SwinModel(
        transformers.SwinConfig(embed_dim=8, depths=[1], num_heads=[1])
    )
    with pytest.raises(ValueError, match="must say how its pixels are normalised, got a SwinModel"):
        data_config(unknown)
