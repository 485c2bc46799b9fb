"""Decoders and the whole model: shapes, equal functions, gradients, and independence."""

import pytest
import timm
import torch
from refusals import refused
from torch.testing import assert_close

import dartok
from dartok.tasks.segmentation.decoders import LinearDecoder, MaskTransformer
from dartok.tasks.segmentation.inference import sliding_logits, windows
from dartok.tasks.segmentation.segmenter import segmenter

KINDS = ("linear", "mask", "upernet")


def encoder(num_tokens=30, **options):
    host = timm.create_model("test_vit", num_classes=0)
    return dartok.adapt(host, num_tokens=num_tokens, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_any_picture_gets_the_logits_of_its_pixels_or_of_any_size(kind):
    model = segmenter(encoder(strength=1.0), num_classes=5, decoder=kind).eval()
    with torch.no_grad():
        assert model(torch.randn(2, 3, 90, 132)).shape == (2, 5, 90, 132)
        assert model(torch.randn(1, 3, 160, 70), (33, 21)).shape == (1, 5, 33, 21)


@pytest.mark.parametrize("kind", KINDS)
def test_in_train_mode_logits_come_for_each_nth_pixel(kind):
    model = segmenter(encoder(), num_classes=5, decoder=kind)
    model.train_stride = 4
    assert model.train()(torch.randn(2, 3, 90, 130)).shape == (2, 5, 23, 33)
    assert model.eval()(torch.randn(2, 3, 90, 130)).shape == (2, 5, 90, 130)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_ignores_its_batch_mates_and_the_order(kind):
    model = segmenter(encoder(strength=1.0), num_classes=5, decoder=kind).eval()
    images = torch.randn(3, 3, 80, 96)
    with torch.no_grad():
        both = model(images)
        assert_close(model(images[1:2]), both[1:2], rtol=0, atol=2e-4)
        assert_close(model(images.flip(0)), both.flip(0), rtol=0, atol=2e-4)


def test_on_the_fixed_grid_a_linear_decoder_is_a_convolution_of_the_patch_grid():
    model = segmenter(encoder(100), num_classes=5, detail=16).eval()
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        (tokens,) = model.encoder.forward_intermediates(
            images, indices=1, norm=False, output_fmt="NLC", intermediates_only=True
        )
        logits = model.decoder.head(model.decoder.norms[0](tokens))
        laid = torch.nn.functional.pixel_shuffle(
            logits.unflatten(1, (10, 10)).permute(0, 3, 1, 2), 16
        )
        assert_close(model(images), laid, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_of_decoder_and_scorer_learns(kind):
    model = segmenter(encoder(scorer="conv", strength=1.0), num_classes=5, decoder=kind)
    model(torch.randn(2, 3, 64, 64)).square().mean().backward()
    scorer = list(model.encoder.patch_embed.scorer.parameters())
    without = [p for p in (*model.decoder.parameters(), *scorer) if p.grad is None]
    assert not without
    assert any(p.grad.abs().sum() > 0 for p in scorer)


def test_padding_of_images_with_fewer_tokens_is_not_looked_at_by_the_mask_transformer():
    model = segmenter(encoder(strength=1.0), num_classes=4, decoder="mask").eval()
    dartok.set_num_tokens(model, "auto", mean=30, least=10, most=60, step=5)
    images = torch.cat([torch.randn(1, 3, 96, 96), torch.zeros(1, 3, 96, 96)])
    with torch.no_grad():
        assert_close(model(images)[1:], model(images[1:]), rtol=0, atol=2e-4)


def test_a_decoder_of_several_layers_reads_each_by_its_own_norm():
    decoder = LinearDecoder(8, num_classes=3, detail=2, num_layers=2)
    tokens = [torch.randn(1, 5, 8), torch.randn(1, 5, 8)]
    with torch.no_grad():
        expected = sum(
            norm(one) @ weight.mT
            for norm, one, weight in zip(
                decoder.norms, tokens, decoder.head.weight.split(8, dim=1), strict=True
            )
        )
        assert_close(decoder(tokens).flatten(2), expected + decoder.head.bias)


def test_windows_cover_every_pixel_and_a_picture_of_one_window_is_read_at_once():
    seen = torch.zeros(50, 37)
    for rows, columns in windows((50, 37), (16, 20)):
        assert seen[rows, columns].shape == (16, 20)
        seen[rows, columns] += 1
    assert seen.min() >= 1
    model = torch.nn.Conv2d(3, 4, 1)
    images = torch.randn(1, 3, 12, 14)
    with torch.no_grad():
        once = sliding_logits(model, images, (16, 16)).softmax(1)
        assert_close(once, model(images).softmax(1), rtol=0, atol=1e-5)


def test_windows_of_a_pointwise_model_agree_with_the_whole_picture():
    model = torch.nn.Conv2d(3, 4, 1)
    images = torch.randn(2, 3, 50, 37)
    with torch.no_grad():
        found = sliding_logits(model, images, (16, 20)).exp()
        assert_close(found, model(images).softmax(1), rtol=0, atol=1e-5)


def test_a_saved_segmenter_is_loaded_by_timms_name(tmp_path):
    from dartok.data.augment import PixelConfig
    from dartok.models.recipes import Recipe
    from dartok.models.registry import SEGMENTER
    from dartok.train.package import load_package, save_package

    args = {
        "encoder": {"host": "test_vit", "num_tokens": 20, "scorer": "edge"},
        "num_classes": 3,
        "decoder": "mask",
        "detail": 2,
    }
    model = timm.create_model(SEGMENTER, **args).eval()
    pixels = PixelConfig(size_px=64, width_px=80, mean=(0.5,) * 3, std=(0.5,) * 3)
    save_package(
        model,
        Recipe(SEGMENTER, args),
        tmp_path,
        pixels=pixels,
        class_names=("a", "b", "c"),
        measures={"miou": 0.5},
        extras={"label_colours": [[0, 0, 0], [1, 2, 3], [9, 9, 9]]},
    )
    package = load_package(tmp_path)
    images = torch.randn(1, 3, 64, 80)
    with torch.no_grad():
        assert_close(package.model(images), model(images))
    card = (tmp_path / "README.md").read_text()
    assert "pipeline_tag: image-segmentation" in card
    assert "A mask decoder that tells the class of each pixel, on timm's `test_vit`" in card
    assert "50.00%" in card
    assert package.colours == ((0, 0, 0), (1, 2, 3), (9, 9, 9))
    assert (package.pixels.size_px, package.pixels.width_px) == (64, 80)


@pytest.mark.refuses
def test_a_decoder_of_tokens_cannot_be_exported_and_says_why(tmp_path):
    model = segmenter(encoder(), num_classes=2).eval()
    with pytest.raises(ValueError, match="graphs have no search for the region of a pixel"):
        dartok.export(model, tmp_path / "model.onnx")


@pytest.mark.refuses
def test_what_cannot_be_built_is_refused_by_name():
    with refused("num_classes must be >= 2, got 1"):
        segmenter(encoder(), num_classes=1)
    with refused("detail must be >= 1, got 0"):
        segmenter(encoder(), num_classes=2, detail=0)
    with refused("head_width must divide the width 8, got 64"):
        MaskTransformer(8, num_classes=2)
    with pytest.raises(ValueError, match="model must hold a dartok tokenizer"):
        segmenter(timm.create_model("test_vit"), num_classes=2)


def test_the_mask_transformer_says_the_same_whatever_lies_behind_an_images_tokens():
    decoder = MaskTransformer(64, num_classes=3, detail=2).eval()
    torch.nn.init.normal_(decoder.class_tokens)
    tokens = torch.randn(2, 9, 64)
    is_region = torch.arange(9)[None] < torch.tensor([9, 5])[:, None]
    garbage = torch.where(is_region[..., None], tokens, 5 + 3 * torch.randn(2, 9, 64))
    with torch.no_grad():
        found = decoder([garbage], is_region)
        assert_close(found[1:, :5], decoder([tokens[1:, :5]]), rtol=0, atol=1e-4)
        assert_close(found[:1], decoder([tokens[:1]]), rtol=0, atol=1e-4)
        assert not torch.allclose(decoder([garbage])[1:, :5], found[1:, :5], rtol=0, atol=1e-2)
