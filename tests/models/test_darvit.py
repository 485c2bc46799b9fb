"""The authors' models: their numbers, their layout, their checkpoints."""

import json
from pathlib import Path

import numpy as np
import oracles
import pytest
import torch
from deterministic import fill, picture
from golden_models import (
    authors_model,
    authors_state,
    check_layout,
    check_tokens,
    golden_images,
    largest,
    numbers,
)
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.testing import assert_close

from dartok.models.checkpoints import from_authors
from dartok.models.families.timm_vit import attach
from dartok.models.patch_embed import RegionPatchEmbed
from dartok.models.presets import DARVIT_PRESETS
from dartok.scorers.build import build_scorer
from dartok.scorers.weights import load_strictly

GOLDEN_LOGITS = Path(__file__).parents[1] / "golden" / "darvit.json"

MODELS = {
    "darvit_tiny": "darvit_tiny",
    "darvit_tiny_b1": "darvit_tiny",
    "darvit_tiny_lowres": "darvit_tiny",
    "darvit_tiny_v2": "darvit_tiny_v2",
    "darvit_tiny_121p": "darvit_tiny_121p",
    "darvit_sm": "darvit_sm",
    "darvit_sm_144p": "darvit_sm_144p",
    "darvit_sm_288p": "darvit_sm_288p",
    "darvit_sm_392p": "darvit_sm_392p",
}


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-6), (torch.float32, 5e-3)])
@pytest.mark.parametrize("file", MODELS)
@torch.no_grad()
def test_logits_are_the_authors(file, dtype, atol, shared_golden, filler):
    golden = numbers(shared_golden / f"models/{file}.npz")
    images = golden_images(golden, 224 if "lowres" in file else 448, filler).to(dtype)
    name = MODELS[file]
    salt = f"public/model/{name if file == 'darvit_tiny_b1' else file}"
    model = authors_model(name, salt, shared_golden, filler, dtype)
    suffix = "" if dtype == torch.float64 else "_f32"
    features = model.forward_features(images)
    pooled = model.forward_head(features, pre_logits=True)
    assert largest(model.forward_head(features), golden[f"logits{suffix}"]) < atol
    assert largest(pooled, golden[f"features{suffix}"]) < atol
    if dtype == torch.float64:
        check_tokens(model.patch_embed, images, golden)


@pytest.mark.parametrize("name", DARVIT_PRESETS)
def test_state_dicts_have_the_authors_layout_and_parameter_counts(name, shared_golden):
    check_layout(name, shared_golden)


def small_darvit(num_tokens=196, dtype=torch.float64):
    """The authors' model at width 32, depth 2, with 10 classes."""
    host = VisionTransformer(embed_dim=32, depth=2, num_heads=2, num_classes=10)
    embed = RegionPatchEmbed(
        img_size=(448, 448),
        scorer=build_scorer(
            "mobilenetv3_small", weights=None, num_channels=3, side_px=None, statistics="batch"
        ),
        proj=host.patch_embed.proj,
        positions=torch.zeros(1, 32, 14, 14),
        num_tokens=num_tokens,
        partition="authors",
        sampling="corner",
    )
    return attach(host, embed).to(dtype)


def test_a_training_step_is_the_authors(shared_golden, filler):
    golden = numbers(shared_golden / "units/darvit_small.npz")
    spec = json.loads(str(golden["spec"]))
    model = small_darvit(int(golden["num_patches"]))
    state = authors_state(spec, "public/unit/darvit", filler, torch.float64)
    load_strictly(model, from_authors(state, model), source="darvit_small")
    images = golden_images(golden, 448, filler).double()
    assert largest(model.eval()(images), golden["logits"]) < 1e-6
    model.train().patch_embed.scorer.features.train()  # the authors' backbone drifts; ours does not
    logits = model(images)
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(golden["labels"]).long())
    loss.backward()
    assert largest(logits, golden["train_logits"]) < 1e-6
    assert largest(loss, golden["train_loss"]) < 1e-6
    check_gradients(model, golden)
    key = "patch_embed.spn.spn.spn.features.0.1.running_mean"
    drifted = model.patch_embed.scorer.features[0][1].running_mean
    assert largest(drifted, golden[f"bn_after/{key}"]) < 1e-6


def check_gradients(model, golden):
    for key in (key.removeprefix("grad/") for key in golden if key.startswith("grad/")):
        name = key.replace("spn.spn.spn.mlp.net.", "scorer.head.mlp.")
        if key == "pos_embed":
            patches = model.patch_embed.pos_embed.grad.flatten(2).transpose(1, 2)
            gradient = torch.cat([model.cls_token.grad, patches], dim=1)
        else:
            gradient = model.get_parameter(name).grad
        assert largest(gradient, golden[f"grad/{key}"]) < 1e-6, key


@torch.no_grad()
def test_a_forward_pass_is_the_oracles_tokens_through_plain_blocks():
    model = fill(small_darvit(num_tokens=30))
    images = torch.stack([picture(64, 64), picture(64, 64, phase=0.7)])
    scores = model.patch_embed.scorer(images).numpy()
    tokens = []
    for image, score in zip(images.numpy(), scores, strict=True):
        cut = oracles.authors_partition(score, 30, 5)
        patches = [oracles.corner_patch(image[None], cut, n, (16, 16)) for n in range(30)]
        weights = oracles.overlaps(cut, (14, 14), measure="strip").reshape(30, -1)
        positions = model.patch_embed.pos_embed[0].flatten(1).numpy().T
        pixels = np.stack([patch.reshape(-1) for patch in patches])
        proj = model.patch_embed.proj
        projected = pixels @ proj.weight.flatten(1).numpy().T + proj.bias.numpy()
        tokens.append(projected + weights @ positions / weights.sum(1, keepdims=True))
    sequence = torch.cat([model.cls_token.expand(2, -1, -1), torch.from_numpy(np.stack(tokens))], 1)
    expected = model.head(model.norm(model.blocks(sequence))[:, 0])
    assert_close(model(images), expected, rtol=0, atol=1e-9)


@torch.no_grad()
def test_logits_are_the_recorded_ones():
    model = fill(small_darvit(num_tokens=30))
    images = torch.stack([picture(64, 64), picture(64, 64, phase=0.7)])
    recorded = torch.tensor(json.loads(GOLDEN_LOGITS.read_text()), dtype=torch.float64)
    assert_close(model(images), recorded, rtol=0, atol=1e-9)
