"""The authors' Vision Mambas: their numbers, their layout, and a record for those without them."""

import json
from pathlib import Path

import mamba_oracles
import numpy as np
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
from torch.testing import assert_close

from dartok.models.checkpoints import from_authors
from dartok.models.darvim import build_darvim
from dartok.models.presets import DARVIM_PRESETS, DarvimPreset
from dartok.scorers.weights import load_strictly

GOLDEN_LOGITS = Path(__file__).parents[1] / "golden" / "darvim.json"

FLOAT32_ATOL = {False: 5e-4, True: 5e-3}
"""What the authors' own float32 run differs from float64 by: on a scene, on white noise."""


@pytest.mark.parametrize("name", DARVIM_PRESETS)
@torch.no_grad()
def test_logits_and_tokens_are_the_authors(name, shared_golden, filler):
    golden = numbers(shared_golden / f"models/{name}.npz")
    images = golden_images(golden, 448, filler)
    model = authors_model(name, f"public/model/{name}", shared_golden, filler, torch.float64)
    features = model.forward_features(images.double())
    assert largest(model.forward_head(features), golden["logits"]) < 1e-6
    assert largest(model.forward_head(features, pre_logits=True), golden["features"]) < 1e-6
    check_tokens(model.patch_embed, images.double(), golden)
    logits = model.float()(images)
    for image, noise in enumerate(golden["image_is_noise"].tolist()):
        assert largest(logits[image], golden["logits"][image]) < FLOAT32_ATOL[noise]


@pytest.mark.parametrize("name", DARVIM_PRESETS)
def test_state_dicts_have_the_authors_layout_and_parameter_counts(name, shared_golden):
    check_layout(name, shared_golden)


def small_darvim(num_tokens=196):
    """The authors' model at width 32, depth 2, with 10 classes."""
    preset = DarvimPreset(embed_dim=32, depth=2, scorer="mobilenetv3_small_v2")
    return build_darvim(preset, num_classes=10, num_tokens=num_tokens).double().eval()


@torch.no_grad()
def test_a_small_model_gives_the_authors_logits(shared_golden, filler):
    golden = numbers(shared_golden / "units/darvim_small.npz")
    model = small_darvim(int(golden["num_patches"]))
    spec = json.loads(str(golden["spec"]))
    state = authors_state(spec, "public/unit/darvim", filler, torch.float64)
    load_strictly(model, from_authors(state, model), source="darvim_small")
    images = golden_images(golden, 448, filler)
    assert largest(model(images.double()), golden["logits"]) < 1e-6
    assert largest(model.float()(images), golden["logits"]) < FLOAT32_ATOL[False]


@torch.no_grad()
def test_a_forward_pass_is_the_tokens_through_the_written_down_blocks():
    model = fill(small_darvim(num_tokens=31))
    images = torch.stack([picture(64, 64), picture(64, 64, phase=0.7)])
    weights = mamba_oracles.weights_of(model)
    logits = []
    for tokens in model.patch_embed(images).numpy():
        sequence = np.concatenate([tokens[:15], weights["cls_token"][0], tokens[15:]])
        found = mamba_oracles.encoder(weights, sequence, depth=2, halve=True)
        logits.append(weights["head.weight"] @ found[15] + weights["head.bias"])
    assert_close(model(images), torch.from_numpy(np.stack(logits)), rtol=0, atol=1e-9)


@torch.no_grad()
def test_logits_are_the_recorded_ones():
    model = fill(small_darvim(num_tokens=30))
    images = torch.stack([picture(64, 64), picture(64, 64, phase=0.7)])
    recorded = torch.tensor(json.loads(GOLDEN_LOGITS.read_text()), dtype=torch.float64)
    assert_close(model(images), recorded, rtol=0, atol=1e-9)
