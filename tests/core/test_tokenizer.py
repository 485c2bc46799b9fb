"""`Tokenizer`: that it wires its parts as its formula says, and what it refuses."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from dartok.core.partition import partition
from dartok.core.sampling import sample_regions
from dartok.core.sides import Bounds
from dartok.core.tokenizer import Tokenizer, check_images


class Brightness(nn.Module):
    """Scores of an image alone: its mean square over a lattice of cells."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.adaptive_avg_pool2d(images.square().mean(1), (7, 9)) + 0.1


def tokenizer(**options) -> Tokenizer:
    proj = nn.Conv2d(3, 6, kernel_size=(4, 4), stride=(4, 4))
    parts = {"scorer": Brightness(), "proj": proj, "num_tokens": 12, **options}
    return Tokenizer(**parts)


def images(*size: int) -> torch.Tensor:
    return torch.randn(3, 3, *size) * torch.linspace(0.2, 2, size[1])


@pytest.mark.parametrize("sampling", ["centred", "corner"])
@pytest.mark.parametrize("kind", ["flow", "grid", "authors"])
def test_tokens_are_projected_patches_plus_pooled_positions(kind, sampling):
    norm, positions = nn.LayerNorm(6), torch.randn(1, 6, 5, 4)
    module = tokenizer(
        partition=kind, sampling=sampling, norm=norm, positions=positions, num_rows=3, oversample=2
    )
    pictures = images(30, 44)
    regions = partition(module.scorer(pictures), num_tokens=12, num_rows=3, kind=kind)
    patches = sample_regions(pictures, regions, (4, 4), sampling=sampling, oversample=2)
    projected = patches.flatten(2) @ module.proj.weight.flatten(1).T + module.proj.bias
    measure = "strip" if kind == "authors" else "area"
    expected = norm(projected) + regions.to_tokens(positions, measure=measure)
    tokens, own_regions = module(pictures)
    assert_close(tuple(own_regions), tuple(regions), rtol=0, atol=0)
    assert_close(tokens, expected, rtol=1e-5, atol=1e-5)


def test_at_strength_0_tokens_are_those_of_plain_patch_embedding():
    positions = torch.randn(1, 6, 4, 6)
    module = tokenizer(num_tokens=24, strength=0.0, positions=positions)
    pictures = images(16, 24)
    expected = (module.proj(pictures) + positions).flatten(2).transpose(1, 2)
    assert_close(module(pictures).tokens, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_strength_is_a_power_of_the_scores(strength):
    module, pictures = tokenizer(num_rows=2), images(20, 20)
    module.set_strength(strength)
    scores = module.scorer(pictures).double() ** module.strength.double()
    expected = partition(scores, num_tokens=12, num_rows=2)
    assert_close(tuple(module.regions(pictures)), tuple(expected), rtol=0, atol=1e-12)


def test_strength_is_part_of_the_state():
    module = tokenizer(strength=0.25)
    other = tokenizer()
    other.load_state_dict(module.state_dict())
    assert other.strength == 0.25


@pytest.mark.parametrize(("size", "num_rows"), [((20, 20), 3), ((20, 80), 2), ((80, 20), 7)])
def test_rows_follow_the_aspect_unless_they_are_given(size, num_rows):
    module = tokenizer()
    assert module.regions(images(*size)).num_rows == num_rows
    module.set_num_tokens(12, 5)
    assert module.regions(images(*size)).num_rows == 5


def test_the_budget_changes_at_run_time():
    module, pictures = tokenizer(positions=torch.randn(1, 6, 3, 3)), images(20, 20)
    for num_tokens in (1, 7, 100):
        module.set_num_tokens(num_tokens)
        tokens, regions = module(pictures)
        assert tokens.shape == (3, num_tokens, 6)
        assert regions.num_tokens == num_tokens


def test_an_image_alone_gives_the_tokens_it_has_in_a_batch():
    module, pictures = tokenizer(positions=torch.randn(1, 6, 3, 3)).eval(), images(33, 25)
    together, alone = module(pictures), module(pictures[1:2])
    assert torch.equal(together.regions.strip_edges[1:2], alone.regions.strip_edges)
    assert torch.equal(together.regions.row_edges[1:2], alone.regions.row_edges)
    assert_close(together.tokens[1:2], alone.tokens, rtol=0, atol=1e-6)


def test_gradients_reach_scores_projection_and_positions_but_no_batch_mate():
    module, pictures = tokenizer(positions=torch.randn(1, 6, 3, 3)), images(33, 25)
    pictures.requires_grad_()
    module(pictures).tokens[0].square().sum().backward()
    assert pictures.grad[0].count_nonzero() > 0
    assert pictures.grad[1:].count_nonzero() == 0
    for parameter in module.parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad.count_nonzero() > 0


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_geometry_stays_float64_under_bf16_autocast(strength):
    module = tokenizer(positions=torch.randn(1, 6, 3, 3), strength=strength)
    pictures = images(32, 32)
    scores = module.scorer(pictures)
    expected = module(pictures)
    module.scorer = Fixed(scores)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens, regions = module(pictures)
    assert tokens.dtype == torch.bfloat16
    assert regions.strip_edges.dtype == regions.row_edges.dtype == torch.float64
    assert torch.equal(regions.strip_edges, expected.regions.strip_edges)
    assert_close(tokens.float(), expected.tokens, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_tokenizer_in_half_precision_keeps_its_geometry_exact(dtype):
    module = tokenizer(positions=torch.randn(1, 6, 3, 3)).to(dtype)
    tokens, regions = module(images(32, 32).to(dtype))
    assert tokens.dtype == dtype
    assert tokens.isfinite().all()
    assert regions.strip_edges.dtype == torch.float64


class Fixed(nn.Module):
    """The scores it was given, whatever the images."""

    def __init__(self, scores: torch.Tensor) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scores


def test_options_of_sampling_and_bounds_are_those_of_its_parts():
    module = tokenizer(antialias=True, min_region=0.1, max_region=0.5, num_rows=3)
    pictures = images(60, 88)
    bounds = Bounds(0.1, 0.5)
    regions = partition(module.scorer(pictures), num_tokens=12, num_rows=3, bounds=bounds)
    patches = sample_regions(pictures, regions, (4, 4), antialias=True)
    expected = patches.flatten(2) @ module.proj.weight.flatten(1).T + module.proj.bias
    tokens, own_regions = module(pictures)
    assert_close(tuple(own_regions), tuple(regions), rtol=0, atol=0)
    assert_close(tokens, expected, rtol=1e-5, atol=1e-5)


def test_its_description_says_what_it_does():
    description = repr(tokenizer(num_rows=4, partition="grid", sampling="corner", oversample=2))
    for part in ("num_tokens=12", "num_rows=4", "'grid'", "'corner'", "oversample=2"):
        assert part in description
    assert "antialias=False" in description
    assert "max_region" not in description
    assert "antialias=True, max_region=0.5" in repr(tokenizer(antialias=True, max_region=0.5))


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_tokens": 0}, r"^num_tokens must be >= 1, got 0$"),
        ({"num_rows": 13}, r"^num_rows must be from 1 to num_tokens = 12, got 13$"),
        ({"num_rows": 0}, r"^num_rows must be from 1 to num_tokens = 12, got 0$"),
        ({"strength": 1.5}, r"^strength must be from 0 \(fixed grid\) to 1 \(DART\), got 1.5$"),
        ({"strength": -0.1}, r"^strength must be from 0 \(fixed grid\) to 1 \(DART\), got -0.1$"),
        ({"strength": float("nan")}, r"^strength must be from 0 .* to 1 \(DART\), got nan$"),
        ({"partition": "ring"}, r"^partition must be one of flow, grid, authors, got 'ring'$"),
        ({"sampling": "random"}, r"^sampling must be one of centred, corner, got 'random'$"),
        ({"oversample": 0}, r"^oversample must be >= 1, got 0$"),
        ({"antialias": True, "sampling": "corner"}, r"^antialias needs sampling='centred', got"),
        ({"max_region": 2}, r"^max_region must be above 0 and at most 1, .* side, got 2$"),
        ({"min_region": 0.1, "partition": "authors"}, r"need partition='flow' or 'grid', got"),
        (
            {"proj": nn.Conv2d(3, 6, 16, stride=8)},
            r"^proj must be a patch projection \(a plain Conv2d or Conv3d, kernel equal to stride, "
            r"one group, no padding or dilation\), "
            r"got Conv2d\(3, 6, kernel_size=\(16, 16\), stride=\(8, 8\)\)$",
        ),
        ({"proj": nn.Conv2d(3, 6, 4, stride=4, groups=3)}, r"^proj .* got Conv2d\(.*groups=3\)$"),
        ({"proj": nn.Conv2d(3, 6, 4, stride=4, padding=1)}, r"^proj .* got Conv2d\(.*padding=\("),
        ({"proj": nn.Conv2d(3, 6, 4, stride=4, dilation=2)}, r"^proj .* got Conv2d\(.*dilation=\("),
    ],
    ids=str,
)
def test_what_cannot_run_is_refused_when_it_is_built(options, message):
    with pytest.raises(ValueError, match=message):
        tokenizer(**options)


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("num_tokens", "num_rows", "message"),
    [
        (0, None, r"^num_tokens must be >= 1, got 0$"),
        (3, 4, r"^num_rows must be from 1 to num_tokens = 3, got 4$"),
    ],
)
def test_a_refused_budget_leaves_the_old_one(num_tokens, num_rows, message):
    module = tokenizer(num_rows=2)
    with pytest.raises(ValueError, match=message):
        module.set_num_tokens(num_tokens, num_rows)
    assert (module.num_tokens, module.num_rows) == (12, 2)


BAD_IMAGES = [
    (
        torch.ones(3, 8, 8),
        r"^images must be \(B, C, H, W\).* with at least one image, got shape \(3, 8, 8\)$",
    ),
    (
        torch.ones(1, 0, 3, 8, 8),
        r"^images must be \(B, C, H, W\).* with at least one image, got shape \(1, 0, 3, 8, 8\)$",
    ),
    (
        torch.ones(1, 3, 8, 8, dtype=torch.uint8),
        r"^images must be floating point, normalised as the model expects, got torch.uint8; "
        r"convert with images.float\(\) / 255 and normalise$",
    ),
    (torch.ones(1, 3, 8, 8, dtype=torch.int64), r"^images must be floating .* got torch.int64"),
    (torch.ones(1, 4, 8, 8), r"^images must have 3 channels, as the model, got 4; convert"),
    (torch.ones(1, 1, 8, 8), r"^images must have 3 channels, as the model, got 1; convert"),
    (
        torch.ones(1, 3, 3, 8),
        r"^images must be at least one patch \(4 x 4 px\) in size, got 3 x 8 px; enlarge them$",
    ),
    (torch.ones(1, 3, 8, 3), r"^images must be at least one patch .* got 8 x 3 px; enlarge them$"),
    *(
        (
            torch.ones(2, 3, 8, 8).index_fill(3, torch.tensor(5), bad),
            r"^images must be finite, got NaN or infinite pixels; clean the input$",
        )
        for bad in (float("nan"), float("inf"), float("-inf"))
    ),
]


@pytest.mark.refuses
@pytest.mark.parametrize(("bad", "message"), BAD_IMAGES, ids=[m[:40] for _, m in BAD_IMAGES])
def test_images_that_cannot_be_cut_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        check_images(bad, 3, (4, 4))
    with pytest.raises(ValueError, match=message):
        tokenizer()(bad)


@pytest.mark.refuses
def test_infinities_of_both_signs_do_not_cancel():
    bad = torch.ones(1, 3, 8, 8)
    bad[0, 0, 0, :2] = torch.tensor([float("inf"), float("-inf")])
    with pytest.raises(ValueError, match="finite"):
        check_images(bad, 3, (4, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_half_precision_images_are_not_mistaken_for_infinite(dtype):
    check_images(torch.full((2, 3, 64, 64), 100.0, dtype=dtype), 3, (4, 4))


@pytest.mark.refuses
def test_a_budget_that_is_not_whole_or_that_a_grid_cannot_fill_is_refused():
    with pytest.raises(ValueError, match=r"num_tokens must be a whole number, got 3.5"):
        tokenizer().set_num_tokens(3.5)
    with pytest.raises(ValueError, match=r"must be a multiple of frames \* num_rows = 7 for"):
        tokenizer(partition="grid").set_num_tokens(50, 7)


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (-torch.ones(1, 2, 2), "scorer must give positive finite scores, got -1 to -1; end it in"),
        (torch.full((1, 2, 2), torch.nan), "scorer must give positive finite scores, got nan"),
        (
            torch.ones(1, 1, 2, 2),
            r"scorer must give scores \(1, h, w\), .* got \(1, 1, 2",
        ),
        (
            torch.ones(3, 2, 2),
            r"scorer must give scores \(1, h, w\), .* got \(3, 2, 2\)",
        ),
    ],
)
def test_a_scorer_that_breaks_the_rules_is_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        tokenizer(scorer=Fixed(scores))(torch.rand(1, 3, 32, 32))


@pytest.mark.refuses
def test_images_that_are_no_batch_of_tensors_are_refused():
    with pytest.raises(ValueError, match=r"images must be a tensor \(B, C, H, W\), got a list"):
        tokenizer()([1.0])
    with pytest.raises(ValueError, match="with at least one image, got shape"):
        tokenizer()(torch.rand(0, 3, 32, 32))


def test_the_number_that_is_set_already_keeps_its_rows_for_a_while_and_another_does_not():
    cutter = tokenizer(num_tokens=12, num_rows=2)
    with cutter.at_num_tokens(12):
        assert cutter.regions(images(16, 24)).num_rows == 2
    with cutter.at_num_tokens(24):
        assert cutter.regions(images(16, 24)).num_rows == 4
    assert (cutter.num_tokens, cutter.num_rows) == (12, 2)
