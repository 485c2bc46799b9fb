"""The authors' mode against numbers made by running their code."""

import importlib.util
import json
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from dartok.core.partition import authors_partition
from dartok.core.regions import Regions
from dartok.core.sampling import sample_regions

FOLDER = Path(__file__).parents[1] / "golden"

TOKENIZER_FILES = [
    *(f"tok_224_196_14_{style}" for style in ("random", "smooth", "uniform")),
    "tok_224_392_20_smooth",
    *(
        f"tok_448_{n}_{style}"
        for n in ("121_11", "144_12", "288_17")
        for style in ("random", "smooth")
    ),
    *(f"tok_448_196_14_{style}" for style in ("peaked", "random", "smooth", "uniform")),
    *(f"tok_448_392_20_{style}" for style in ("peaked", "random", "smooth")),
]

QUANTITIES = ("rows_px", "edges_px", "pos", "patches", "tokens")
FLOAT64_ATOL = dict.fromkeys(QUANTITIES, 1e-6)
FLOAT32_ATOL = FLOAT64_ATOL | {"patches": 5e-4, "tokens": 5e-4}  # the geometry stays float64
# Constant scores: every edge ties with a cell border, and rounding picks the side.
TIES_ATOL = {"edges_px": 1e-4, "pos": 1e-5, "tokens": 1e-4}
# What the authors' own float32 run differs from their float64 run by: the note beside the files,
# where tokens of noise stand as 1e-2; in one file they reach 1.2e-2.
AUTHORS_FLOAT32_ATOL = {
    "scene": {"rows_px": 4e-5, "edges_px": 6e-3, "pos": 1e-4, "patches": 6e-3, "tokens": 3e-3},
    "random": {"rows_px": 4e-5, "edges_px": 6e-3, "pos": 1e-4, "patches": 2e-2, "tokens": 1.3e-2},
    "peaked": {"rows_px": 7e-3, "edges_px": 0.3, "pos": 2e-3, "patches": 0.2, "tokens": 0.07},
}


class Outputs(NamedTuple):
    """What the authors' tokenizer gives."""

    regions: Regions
    patches: Tensor
    positions: Tensor
    tokens: Tensor


def authors_tokenizer(
    scores: Tensor,
    images: Tensor,
    num_tokens: int,
    num_rows: int,
    weights: dict[str, Tensor],
) -> Outputs:
    """Their tokenizer, of the parts of `dartok.core`; positions apart from the tokens."""
    regions = authors_partition(
        scores.unflatten(1, (14, 14)), num_tokens=num_tokens, num_rows=num_rows
    )
    patches = sample_regions(images, regions, (16, 16), sampling="corner")
    positions = weights["pos_embed"].unflatten(1, (14, 14)).permute(0, 3, 1, 2)
    return Outputs(
        regions,
        patches,
        regions.to_tokens(positions, measure="strip"),
        F.linear(patches.flatten(2), weights["proj.weight"].flatten(1), weights["proj.bias"]),
    )


class Case(NamedTuple):
    """One file of the golden folder, with its inputs made from the recipe."""

    name: str
    style: str
    size: int
    num_tokens: int
    num_rows: int
    numbers: dict[str, np.ndarray]
    images: Tensor
    weights: dict[str, Tensor]
    filler: object


def load_filler(folder: Path):
    spec = importlib.util.spec_from_file_location("golden_filler", folder / "golden_filler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_case(folder: Path, name: str) -> Case:
    filler = load_filler(folder)
    size, num_tokens, num_rows = (int(part) for part in name.split("_")[1:4])
    style = name.rsplit("_", 1)[-1]
    with np.load(folder / "tokenizer" / f"{name}.npz") as file:
        numbers = dict(file)
    kind = "noise" if style == "random" else "scene"
    images = filler.batch([(int(seed), kind) for seed in numbers["image_seeds"]], size, size)
    assert filler.crc(images) == numbers["image_crc32"]
    width = numbers["tokens"].shape[-1]
    shapes = {
        "pos_embed": (1, 196, width),
        "proj.weight": (width, 3, 16, 16),
        "proj.bias": (width,),
    }
    weights = {
        key: torch.from_numpy(filler.golden_tensor(key, shape, f"public/{name}"))
        for key, shape in shapes.items()
    }
    return Case(
        name, style, size, num_tokens, num_rows, numbers, torch.from_numpy(images), weights, filler
    )


def run(case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
    outputs = authors_tokenizer(
        torch.from_numpy(case.numbers["score"]).to(dtype),
        case.images.to(dtype),
        case.num_tokens,
        case.num_rows,
        {key: weight.to(dtype) for key, weight in case.weights.items()},
    )
    rows_px = outputs.regions.row_edges[:, 0].diff(dim=-1) * 224  # the file counts logical pixels
    return {
        "rows_px": rows_px,
        "edges_px": outputs.regions.strip_edges * case.size,
        "pos": outputs.positions,
        "patches": outputs.patches[:, case.numbers["pick"]],
        "tokens": outputs.tokens,
    }


def assert_numbers(actual: dict[str, Tensor], case: Case, suffix: str, atol: dict) -> None:
    for quantity, values in actual.items():
        key = {"rows_px": "row_heights"}.get(quantity, quantity) + suffix
        golden = torch.from_numpy(case.numbers[key]).double()
        off = (values.double() - golden).abs().max().item()
        assert off <= atol[quantity], f"{quantity} differ by {off:.2g}"


@pytest.mark.parametrize("name", TOKENIZER_FILES)
def test_the_authors_tokenizer_is_reproduced(shared_golden, name):
    case = load_case(shared_golden, name)
    ties = TIES_ATOL if case.style == "uniform" else {}
    assert_numbers(run(case, torch.float64), case, "", FLOAT64_ATOL | ties)
    in_float32 = run(case, torch.float32)
    assert_numbers(in_float32, case, "", FLOAT32_ATOL | ties | {"tokens": 5e-4})
    authors_atol = AUTHORS_FLOAT32_ATOL.get(case.style, AUTHORS_FLOAT32_ATOL["scene"])
    assert_numbers(in_float32, case, "_f32", authors_atol)


def test_every_golden_tokenizer_file_is_checked(shared_golden):
    found = sorted(path.stem for path in (shared_golden / "tokenizer").glob("*.npz"))
    assert found == sorted(TOKENIZER_FILES)


@pytest.mark.parametrize("name", ["tok_448_196_14_smooth", "tok_448_392_20_smooth"])
def test_the_gradients_of_the_authors_tokenizer_are_reproduced(shared_golden, name):
    case = load_case(shared_golden, name)
    with np.load(shared_golden / "grads" / f"{name}.npz") as file:
        expected = {key: torch.from_numpy(file[key]) for key in file.files}
    scores = torch.from_numpy(case.numbers["score"]).double().requires_grad_()
    images = case.images.double().requires_grad_()
    weights = {key: weight.double().requires_grad_() for key, weight in case.weights.items()}
    outputs = authors_tokenizer(scores, images, case.num_tokens, case.num_rows, weights)

    def weighted_sum(values: Tensor, key: str) -> Tensor:
        factors = case.filler.golden_tensor(key, tuple(values.shape), f"public/{name}")
        return (values * torch.from_numpy(factors).double()).sum()

    loss = weighted_sum(outputs.tokens, "grad.tokens_bias.bias")
    loss = loss + weighted_sum(outputs.positions, "grad.pos_bias.bias")
    loss.backward()
    actual = {
        "loss": loss.detach(),
        "d_score": scores.grad,
        "d_pos_embed": weights["pos_embed"].grad,
        "d_proj_weight": weights["proj.weight"].grad,
        "d_proj_bias": weights["proj.bias"].grad,
        "d_image_crop": images.grad[:, :, 200:216, 208:224],
        "d_image_sum": images.grad.sum((2, 3)),
    }
    assert_close(actual, expected, rtol=0, atol=1e-6)


def noise_image(seed: int, size: int) -> Tensor:
    """White noise in 8 bits, normalised as the authors' models expect; float32 values."""
    pixels = np.random.RandomState(seed).randint(0, 256, size=(3, size, size))
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    return torch.from_numpy(((pixels / 255.0 - mean) / std).astype(np.float32)).double()[None]


def uniform_weight(key: str, shape: tuple[int, ...], scale: float) -> Tensor:
    """A weight uniform in [-scale, scale), its bits given by its name; float32 values."""
    state = np.random.RandomState(zlib.crc32(f"public/tok_448_121_11_random|{key}".encode()))
    values = (2.0 * state.random_sample(shape) - 1.0) * scale
    return torch.from_numpy(values.astype(np.float32)).double()


def test_a_few_numbers_of_the_authors_are_reproduced_without_their_folder():
    expected = json.loads((FOLDER / "tokenizer_448_121_11.json").read_text())
    weights = {
        "pos_embed": uniform_weight("pos_embed", (1, 196, 8), 0.5),
        "proj.weight": uniform_weight("proj.weight", (8, 3, 16, 16), np.sqrt(3 * 1.7 / 768)),
        "proj.bias": uniform_weight("proj.bias", (8,), 0.1),
    }
    scores = torch.tensor([expected["score"]]).double()
    outputs = authors_tokenizer(scores, noise_image(1300, 448), 121, 11, weights)
    picked = expected["picked"]
    actual = {
        "row_heights_px": outputs.regions.row_edges[0, 0].diff() * 448,
        "edges_px": outputs.regions.strip_edges[0] * 448,
        "patches": outputs.patches[0, picked][:, :, ::5, ::5],
        "positions": outputs.positions[0, picked],
        "tokens": outputs.tokens[0, picked],
    }
    for quantity, values in actual.items():
        golden = torch.tensor(expected[quantity], dtype=torch.float64)
        assert_close(values, golden, rtol=0, atol=1e-8)
