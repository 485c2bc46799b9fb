"""The authors' image reshaper: their numbers, an oracle away from seams, and each of its quirks."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_models import largest, numbers
from refusals import refused
from torch import nn
from torch.testing import assert_close

import dartok
from dartok.core.quantiles import geometry
from dartok.models.dair import DAIR
from dartok.scorers import Uniform

GOLDEN = Path(__file__).parents[1] / "golden" / "dair_448_14.json"
FLOAT32_ATOL = 3e-3
"""What the authors' own float32 pictures differ from float64 by."""


class Given(nn.Module):
    """A scorer that knows the scores."""

    def __init__(self, scores):
        super().__init__()
        self.scores = nn.Parameter(scores)

    def forward(self, images):
        return self.scores.expand(images.shape[0], -1, -1)


def patches_of(pictures):
    """`(B, 196, C, 16, 16)` of pictures of 224 px, row by row."""
    lattice = pictures.unflatten(2, (14, 16)).unflatten(4, (14, 16))
    return lattice.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def numbers_of(reshaper, scores, images):
    regions = reshaper.cut(geometry(scores.unflatten(1, (14, 14))))
    reshaped = reshaper.reshape(images, regions)
    return {
        "row_heights": regions.row_edges[:, 0].diff() * 224,
        "edges_px": regions.strip_edges * images.shape[-1],
        "patches": patches_of(reshaped),
        "image_rows": reshaped[:, :, ::37],
    }


@pytest.mark.parametrize("name", ["224_14_smooth", "448_14_random", "448_14_smooth"])
def test_pictures_are_the_authors(name, shared_golden, filler):
    golden = numbers(shared_golden / f"dair/dair_{name}.npz")
    side = int(name[:3])
    kind = "noise" if name.endswith("random") else "scene"
    made = filler.batch([(int(seed), kind) for seed in golden["image_seeds"]], side, side)
    assert filler.crc(made) == int(golden["image_crc32"])
    images, scores = torch.from_numpy(made), torch.from_numpy(golden["score"])
    in_float64 = numbers_of(DAIR(Uniform()), scores.double(), images.double())
    in_float32 = numbers_of(DAIR(Uniform()), scores, images)
    for values in (in_float64, in_float32):
        values["patches"] = values["patches"][:, golden["pick"]]
    for quantity, values in in_float64.items():
        assert largest(values, golden[quantity]) < 1e-9, quantity
    assert in_float32["image_rows"].dtype == torch.float32
    for quantity, values in in_float32.items():
        assert largest(values, golden[quantity]) < 1.5e-4, quantity
        assert largest(values, golden[f"{quantity}_f32"]) < FLOAT32_ATOL, quantity


def test_every_golden_file_is_checked(shared_golden):
    assert len(list((shared_golden / "dair").glob("*.npz"))) == 3


def noise_picture(seed, size):
    """White noise in 8 bits, normalised; float32 values."""
    pixels = np.random.RandomState(seed).randint(0, 256, size=(3, size, size)).astype(np.uint8)
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    return torch.from_numpy(((pixels / 255.0 - mean) / std).astype(np.float32)).double()[None]


def test_a_few_numbers_of_the_authors_are_reproduced_without_their_folder():
    golden = json.loads(GOLDEN.read_text())
    images = noise_picture(golden["image_seed"], 448)
    found = numbers_of(
        DAIR(Uniform()), torch.tensor([golden["score"]], dtype=torch.float64), images
    )
    found["row_heights_px"] = found.pop("row_heights") * 2
    found["patches"] = found["patches"][:, golden["picked"]][..., ::5, ::5]
    found["image_rows"] = found["image_rows"][..., ::37]
    for quantity, values in found.items():
        expected = torch.tensor(golden[quantity], dtype=torch.float64)
        assert_close(values[0], expected, rtol=0, atol=1e-9)


def oracle(image, scores):
    """The separable warp that it is away from seams, in NumPy: cells from `np.interp`."""

    def edges(mass):
        cumulative = np.concatenate([[0], np.cumsum(mass)]) / mass.sum()
        return np.interp(np.linspace(0, 1, 15), cumulative, np.arange(len(mass) + 1) / len(mass))

    side = image.shape[-1]
    places = []
    for mass in (scores.sum(1), scores.sum(0)):
        cut = edges(mass) * side
        steps = np.arange(16) / 16
        places.append((cut[:-1, None] + np.diff(cut)[:, None] * steps).ravel())
    first = [np.minimum(np.floor(p).astype(int), side - 1) for p in places]
    second = [np.minimum(f + 1, side - 1) for f in first]
    (down, across), (y, x), (y1, x1) = (
        [p - f for p, f in zip(places, first, strict=True)],
        first,
        second,
    )
    top = image[:, y][..., x] * (1 - across) + image[:, y][..., x1] * across
    bottom = image[:, y1][..., x] * (1 - across) + image[:, y1][..., x1] * across
    return top * (1 - down)[:, None] + bottom * down[:, None]


@pytest.mark.parametrize("side", [224, 448])
@pytest.mark.parametrize("cells", [(14, 14), (7, 9)])
def test_it_is_a_separable_warp_but_for_the_first_patch_and_the_last_column(side, cells):
    scores = torch.rand(cells, dtype=torch.float64) + 0.2
    y, x = torch.meshgrid(*[torch.linspace(0, 1, side, dtype=torch.float64)] * 2, indexing="ij")
    image = torch.stack([x, y, (7 * x + 5 * y).sin()])
    found = DAIR(Given(scores)).double()(image[None])[0]
    expected = torch.from_numpy(oracle(image.numpy(), scores.numpy()))
    away = (found - expected).abs()
    away[:, :16, :16] = 0  # the strip starts late
    away[:, :, -16:] = 0  # may blend with the next row
    assert away.max() < 1e-5  # their epsilons


def test_the_first_patch_starts_one_of_224_pixels_late():
    ramp = torch.arange(224.0, dtype=torch.float64).expand(1, 1, 224, 224)
    reshaped = DAIR(Uniform(), num_channels=1)(ramp)
    first = 1 + 15 / 16 * torch.arange(16, dtype=torch.float64)
    assert_close(reshaped[0, 0, 0, :16], first, rtol=0, atol=1e-4)
    assert_close(reshaped[0, 0, 16:, :16], ramp[0, 0, 16:, :16], rtol=0, atol=1e-4)
    assert_close(reshaped[..., 16:], ramp[..., 16:], rtol=0, atol=1e-4)


def test_there_are_as_many_columns_as_rows_and_the_strip_has_196_edges_but_the_first():
    regions = DAIR(Uniform()).regions(torch.randn(2, 3, 448, 448))
    assert (regions.num_rows, regions.num_tokens) == (14, 196)
    assert_close(regions.strip_edges[:, 0] * 448, torch.full((2,), 2.0, dtype=torch.float64))
    assert_close(regions.strip_edges[:, -1], torch.full((2,), 14.0, dtype=torch.float64))


def test_right_of_the_last_pixel_a_narrow_column_fades_to_the_next_row_then_to_zero():
    scores = torch.full((14, 14), 0.01, dtype=torch.float64)
    scores[:, -1] = 1.0  # the last column is cut into many of a few pixels
    image = torch.ones(1, 1, 224, 224, dtype=torch.float64)
    image[..., 0] = 100.0
    reshaped = DAIR(Given(scores), num_channels=1)(image)
    assert (reshaped[0, 0, :-16, -1] > 1.5).all()
    assert (reshaped[0, 0, -16:, -1] < 1).all()


@pytest.mark.refuses
@pytest.mark.parametrize("size", [(896, 896), (320, 320), (448, 224), (64, 96)])
def test_what_they_compute_wrongly_is_refused(size):
    height, width = size
    with refused(
        "images must be 448 x 448 or 224 x 224 px for the authors' reshaper, got "
        f"{height} x {width} px; resize them"
    ):
        DAIR(Uniform())(torch.zeros(1, 3, *size))
    with pytest.raises(ValueError, match="images must have 3 channels, as the model, got 1"):
        DAIR(Uniform())(torch.zeros(1, 1, 448, 448))


def test_the_dials_of_a_tokenizer_turn_it_too():
    scores = torch.rand(14, 14) + 0.1
    reshaper, images = DAIR(Given(scores)), torch.randn(1, 3, 224, 224)
    even = dartok.regions(DAIR(Uniform()), images)
    moved = dartok.regions(reshaper, images)
    assert (moved.row_edges - even.row_edges).abs().max() > 1e-3
    with dartok.steer(reshaper, [torch.tensor([[0.0, 0.0, 1.0, 0.5]])], weight=2.0):
        steered = dartok.regions(reshaper, images)
    assert steered.row_edges[0, 0, 7] < moved.row_edges[0, 0, 7] - 0.05
    dartok.set_strength(reshaper, 0.0)
    assert_close(dartok.regions(reshaper, images), even, rtol=0, atol=1e-6)


def test_gradients_of_scores_are_those_of_finite_differences():
    reshaper = DAIR(Uniform(), num_channels=1)
    y, x = torch.meshgrid(*[torch.linspace(0, 3, 224, dtype=torch.float64)] * 2, indexing="ij")
    image = (x.sin() * y.cos())[None, None]
    scores = torch.rand(1, 3, 3, dtype=torch.float64) + 0.5
    weight = torch.randn(1, 1, 224, 224, dtype=torch.float64)

    def total(scores):
        return (reshaper.reshape(image, reshaper.cut(scores)) * weight)[..., 16:, 16:-16].sum()

    scores.requires_grad_()
    total(scores).backward()
    step = 1e-7
    for cell in [(0, 0, 0), (0, 1, 2)]:
        nudge = torch.zeros_like(scores)
        nudge[cell] = step
        slope = (total(scores.detach() + nudge) - total(scores.detach() - nudge)) / (2 * step)
        assert abs(float(scores.grad[cell] - slope)) < 2e-3 * float(slope.abs())


def test_half_precision_keeps_its_dtype():
    images = torch.randn(1, 3, 224, 224).to(torch.bfloat16)
    assert DAIR(Uniform())(images).dtype == torch.bfloat16
