"""The authors' weights, pictures and results of whole models, and how ours are held to them."""

import json

import numpy as np
import torch

from dartok.models.checkpoints import from_authors
from dartok.models.named import build_named
from dartok.scorers.weights import load_strictly

__all__ = [
    "authors_model",
    "authors_state",
    "check_layout",
    "check_tokens",
    "golden_images",
    "largest",
    "numbers",
]


def numbers(path):
    """All arrays of a file."""
    with np.load(path) as file:
        return dict(file)


def authors_state(entries, salt, filler, dtype):
    """A state dict in the authors' layout."""
    values = filler.golden_state(entries, salt)
    tensors = {key: torch.from_numpy(np.array(value)) for key, value in values.items()}
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}


def golden_images(golden, size, filler):
    """The pictures of a file, with the check that they are those."""
    kinds = ["noise" if noise else "scene" for noise in golden.get("image_is_noise", [0, 0])]
    seeds = [int(seed) for seed in golden["image_seeds"]]
    images = filler.batch(list(zip(seeds, kinds, strict=True)), size, size)
    assert filler.crc(images) == int(golden["image_crc32"])
    return torch.from_numpy(images)


def layout(folder, name):
    """Entries of the authors' state dict, and their counts of parameters."""
    return json.loads((folder / f"state_dicts/{name}.json").read_text())


def authors_model(name, salt, folder, filler, dtype):
    """One of our models with the authors' weights."""
    model = build_named(name).to(dtype).eval()
    state = authors_state(layout(folder, name)["entries"], salt, filler, dtype)
    load_strictly(model, from_authors(state, model), source=name)
    return model


def check_layout(name, folder):
    """Every entry of the authors' state dict has its place, and the parameters are as many."""
    spec = layout(folder, name)
    model = build_named(name)
    state = {key: torch.zeros(shape) for key, shape, _ in spec["entries"]}
    load_strictly(model, from_authors(state, model), source=name)
    folded = model.embed_dim  # the class token's position is part of the class token
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(p.numel() for p in model.parameters()) == spec["total_params"] - folded
    assert trainable == spec["trainable_params"] - folded


def check_tokens(embed, images, golden):
    """Scores, geometry, tokens and positions, in float64."""
    regions = embed.regions(images)
    assert largest(embed.scorer(images).flatten(1), golden["score"]) < 1e-6
    assert largest(regions.strip_edges * images.shape[-1], golden["edges_px"]) < 1e-6
    assert largest(regions.row_edges[:, 0].diff(dim=-1) * 224, golden["row_heights"]) < 1e-6
    tokens = embed.embed(images, regions)
    positions = regions.to_tokens(embed.pos_embed, measure="strip")
    assert largest((tokens - positions)[:, ::20, ::16], golden["tokens_part"]) < 1e-6
    assert largest(positions[:, ::20, ::16], golden["pos_part"]) < 1e-6


def largest(actual, expected):
    """The largest difference."""
    return float(np.abs(actual.detach().double().numpy() - expected).max())
