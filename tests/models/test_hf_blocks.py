"""The layers of encoders of transformers one by one, against what the encoders themselves do."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import dartok
from dartok.models.families.wrappers import encoder_in
from dartok.models.features import DenseEncoder, features, region_tokens
from dartok.models.hf_blocks import TransformersBlocks, is_encoder

pytest.importorskip("transformers")

from hf_hosts import HOSTS, SIDE_PX, built, inputs_of

REFUSED = {
    *("BeitModel", "Data2VecVisionModel", "SwinModel", "ConvNextModel", "MLCDVisionModel"),
    *("YolosModel", "PixioBackbone", "ViTMAEForPreTraining", "ViTForMaskedImageModeling"),
}
CARRIED = [name for name in HOSTS if name not in REFUSED]
OWN_INPUT = [name for name in CARRIED if name.startswith(("Siglip2", "ViTMAE"))]
"""Hosts that take patches, or mask some."""
GRID = (4, 4)


def blocks_of(model):
    (encoder,) = [module for module in model.modules() if is_encoder(module)]
    return TransformersBlocks(encoder)


def layers_outputs(encoder, call):
    """What the layers of an encoder return in one call, found by the names of their classes."""
    lists = [module for module in encoder.modules() if isinstance(module, nn.ModuleList)]
    (layers,) = [one for one in lists if re.search(r"Layer$", type(one[0]).__name__)]
    found = []

    def note(layer, inputs, output):
        found.append(output if isinstance(output, torch.Tensor) else output[0])

    hooks = [layer.register_forward_hook(note) for layer in layers]
    call()
    for hook in hooks:
        hook.remove()
    return found


def relative(actual, expected):
    return float((actual - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", [name for name in CARRIED if name not in OWN_INPUT])
@torch.no_grad()
def test_features_start_as_the_outputs_of_the_hosts_layers(name):
    host, inputs = built(name), inputs_of(name)
    encoder = host.get_submodule(encoder_in(host))
    expected = layers_outputs(encoder, lambda: host(**inputs))
    model, count = dartok.adapt(host), len(expected)
    maps = features(
        model, inputs["pixel_values"], strides=(8,) * count, layers=range(count), norm=False
    )
    num_patches = GRID[0] * GRID[1]
    for ours, tokens in zip(maps, expected, strict=True):
        own = tokens[:, -num_patches:].transpose(1, 2).unflatten(2, GRID)
        assert relative(ours, own) < 1e-5


@pytest.mark.parametrize("name", CARRIED)
@torch.no_grad()
def test_the_tokens_are_those_that_the_adapted_encoder_computes(name):
    model = dartok.adapt(built(name), num_tokens=13, strength=1.0)
    blocks, images = blocks_of(model), torch.randn(2, 3, 40, 56)
    expected = layers_outputs(blocks.encoder, lambda: blocks.encoder(images))
    _, tokens = region_tokens(model, images, range(len(expected)), norm=False)
    for ours, theirs in zip(tokens, expected, strict=True):
        assert ours.shape == (2, 13, 32)
        assert torch.equal(ours, theirs[:, blocks.num_prefix :])


@pytest.mark.parametrize("name", ["ViTModel", "Dinov2WithRegistersModel", "DINOv3ViTModel"])
@torch.no_grad()
def test_behind_the_last_norm_is_what_the_encoder_returns(name):
    model, images = (
        dartok.adapt(built(name), num_tokens=13, strength=1.0),
        torch.randn(2, 3, 40, 56),
    )
    (last,) = region_tokens(model, images).tokens
    whole = model(images).last_hidden_state
    assert torch.equal(last, whole[:, whole.shape[1] - 13 :])


@torch.no_grad()
def test_threads_may_share_an_encoder():
    model = dartok.adapt(built("Dinov2Model"), num_tokens=13, strength=1.0)
    jobs = [(torch.randn(1, 3, 40, 40), torch.rand(1, 5, 5)) for _ in range(24)]

    def run(job):
        return features(model, job[0], strides=(8,), priority=job[1])[0]

    expected = [run(job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(pool.map(run, jobs), expected, strict=True):
            assert torch.equal(one, other)


def test_gradients_reach_scorer_and_layers():
    model = dartok.adapt(built("ViTForImageClassification"), num_tokens=13, strength=1.0).train()
    encoder = DenseEncoder(model, strides=(4, 8))
    assert encoder.channels == (32, 32)
    images = torch.randn(2, 3, SIDE_PX, SIDE_PX)
    sum(one.square().mul(torch.rand(())).sum() for one in encoder(images)).backward()
    blocks = blocks_of(model)
    parts = [blocks.tokenizer.scorer, blocks.layers]
    for part in parts:
        assert any(one.grad is not None and one.grad.abs().max() > 0 for one in part.parameters())


@pytest.mark.refuses
def test_a_count_for_each_image_is_refused_as_by_the_model():
    model = dartok.adapt(built("ViTModel"))
    with pytest.raises(ValueError, match="^num_tokens='auto' cannot be used in ViTModel"):
        dartok.set_num_tokens(model, "auto")


@pytest.mark.refuses
def test_an_encoder_without_a_last_norm_has_no_normed_features():
    model = dartok.adapt(built("ViTModel"))
    model.layernorm = None
    with pytest.raises(ValueError, match="^norm must be False for ViTModel, which has no last"):
        features(model, torch.randn(1, 3, 32, 32))
    assert len(features(model, torch.randn(1, 3, 32, 32), norm=False)) == 4


@pytest.mark.refuses
def test_an_encoder_whose_layers_are_not_found_is_refused():
    model = dartok.adapt(built("ViTModel"))
    model.blocks_elsewhere, model.layers = model.layers, None
    with pytest.raises(ValueError, match="^features need the layers of an encoder one by one"):
        features(model, torch.randn(1, 3, 32, 32))
