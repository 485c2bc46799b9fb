"""Entropy, token cost and health of score maps against NumPy, and what gradient they leave."""

import numpy as np
import pytest
import torch
from refusals import refused
from torch import nn

from dartok.core.regions import Regions
from dartok.models import adapt
from dartok.scorers import RegionTokenizer
from dartok.tasks.score_map import (
    entropy_penalty,
    expected_tokens,
    score_entropy,
    score_health,
    share_on_object,
    token_penalty,
    watch_scores,
)

ATOL = 1e-6


def maps(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype).exp()


def oracle_entropy(scores):
    """Of one map, from the definition, as a share of that of the uniform map."""
    shares = scores.numpy().astype(np.float64).ravel()
    shares = shares / shares.sum()
    return -(shares * np.log(shares)).sum() / np.log(shares.size)


def scorer_gradients(tokenizer, images, term):
    with watch_scores(tokenizer) as seen:
        tokenizer.regions(images)
    term(seen[0]).backward()
    return dict(tokenizer.scorer.named_parameters())


def test_the_entropy_is_the_definition():
    scores = maps(3, 5, 7)
    expected = [oracle_entropy(scores[b]) for b in range(3)]
    np.testing.assert_allclose(score_entropy(scores), expected, atol=1e-12)
    assert 0 < min(expected) < max(expected) < 1


def test_the_entropy_ignores_the_scale_and_ends_at_one_and_zero():
    scores = maps(2, 4, 4)
    torch.testing.assert_close(score_entropy(37 * scores), score_entropy(scores))
    torch.testing.assert_close(score_entropy(torch.full((1, 3, 9), 0.2)), torch.ones(1))
    peak = torch.full((1, 4, 4), 1e-30)
    peak[0, 2, 1] = 1e6
    assert score_entropy(peak) < 1e-30
    assert torch.equal(score_entropy(maps(2, 1, 1, dtype=torch.float32)), torch.ones(2))


@pytest.mark.parametrize("target", [0.0, 0.6, 1.0])
def test_the_entropy_penalty_is_the_mean_of_squares_per_image(target):
    scores = maps(4, 6, 6) ** torch.tensor([0.1, 0.5, 1.0, 3.0]).view(-1, 1, 1)
    expected = np.mean([(oracle_entropy(one) - target) ** 2 for one in scores])
    penalty = entropy_penalty(scores, target=target)
    assert penalty.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("target", "sign"), [(0.99, 1), (0.3, -1)])
def test_a_step_against_the_penalty_moves_the_entropy_towards_the_target(target, sign):
    logits = torch.randn(1, 6, 6, dtype=torch.float64, requires_grad=True)
    entropy_penalty(logits.exp(), target=target).backward()
    moved = (logits - 0.1 * logits.grad / logits.grad.norm()).detach()
    change = score_entropy(moved.exp()) - score_entropy(logits.detach().exp())
    assert sign * change > 1e-4


def test_the_gradients_of_the_penalties_are_exact():
    scores = maps(2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: entropy_penalty(s, target=0.5), scores)
    assert torch.autograd.gradcheck(lambda s: token_penalty(s, target=0.1), scores)


def test_expected_tokens_are_the_mean_score_over_the_mass_of_a_token():
    scores = maps(3, 5, 4)
    expected = [scores[b].numpy().sum() / 20 * 49 for b in range(3)]
    np.testing.assert_allclose(expected_tokens(scores, mass_per_token=1 / 49), expected)
    assert expected_tokens(torch.ones(1, 7, 2), mass_per_token=1 / 196).item() == 196


def test_the_token_penalty_is_the_mean_over_the_batch_beyond_the_target():
    scores = torch.tensor([0.2, 1.0])[:, None, None].expand(2, 3, 3)
    assert token_penalty(scores).item() == pytest.approx(0.6, abs=ATOL)
    assert token_penalty(scores, target=0.5).item() == pytest.approx(0.1, abs=ATOL)
    assert token_penalty(scores, target=0.7).item() == 0  # though one image is above it


@pytest.mark.parametrize("autocast", [False, True])
def test_narrow_scores_are_measured_in_float32(autocast):
    scores = maps(2, 28, 28, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        entropy = score_entropy(scores)
        tokens = expected_tokens(scores, mass_per_token=0.01)
    assert entropy.dtype == tokens.dtype == torch.float32
    expected = [oracle_entropy(one.float()) for one in scores]
    np.testing.assert_allclose(entropy, expected, atol=1e-5)
    np.testing.assert_allclose(tokens, 100 * scores.double().mean((1, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    "term", [lambda scores: entropy_penalty(scores, target=0.5), token_penalty]
)
def test_the_gradient_reaches_every_weight_of_the_conv_scorer(term):
    tokenizer = RegionTokenizer(embed_dim=4, num_tokens=6, patch_size=8)
    parameters = scorer_gradients(tokenizer, torch.rand(2, 3, 48, 64), term)
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in parameters.values())


def test_the_token_penalty_lowers_the_bias_of_the_conv_scorer():
    tokenizer = RegionTokenizer(embed_dim=4, num_tokens=6, patch_size=8)
    bias = scorer_gradients(tokenizer, torch.rand(2, 3, 48, 64), token_penalty)["residual.4.bias"]
    assert bias.grad > 0.1


def test_standardised_scorers_feel_neither_shift_nor_scale_of_their_logits():
    tokenizer = RegionTokenizer(embed_dim=4, num_tokens=6, patch_size=8, scorer="pixels")
    images = torch.rand(2, 3, 48, 64, dtype=torch.float64)
    head = scorer_gradients(tokenizer.double().train(), images, token_penalty)
    weight, bias = head["head.mlp.2.weight"], head["head.mlp.2.bias"]
    felt = weight.grad.norm() * weight.norm()
    assert felt > 1e-4  # the shape of their distribution
    assert (weight.grad * weight).sum().abs() < 1e-5 * felt  # along the weight: the scale
    assert bias.grad.abs() < 1e-5 * weight.grad.norm()  # the shift


@pytest.mark.parametrize("strength", [1.0, 0.3, 0.0])
def test_watching_shows_the_scores_after_strength_that_cut_the_regions(strength):
    tokenizer = RegionTokenizer(embed_dim=4, num_tokens=12, patch_size=8, strength=strength)
    images = torch.rand(2, 3, 48, 64)
    with watch_scores(nn.Sequential(tokenizer)) as seen:
        tokenizer(images)
        tokenizer(images[:1])
    raw = tokenizer.scorer(images).detach()
    tokenizer(images)  # no longer watched
    assert [scores.shape[0] for scores in seen] == [2, 1]
    expected = raw.numpy().astype(np.float64) ** strength
    np.testing.assert_allclose(seen[0].detach(), expected, rtol=1e-5)
    assert seen[0].requires_grad
    assert seen[0].dtype == torch.float32


def test_a_dial_may_turn_between_forward_and_backward():
    tokenizer = RegionTokenizer(embed_dim=4, num_tokens=6, patch_size=8, strength=0.5)
    with watch_scores(tokenizer) as seen:
        tokenizer.regions(torch.rand(1, 3, 16, 16))
    tokenizer.set_strength(1.0)
    seen[0].sum().backward()


def test_watching_an_adapted_model_sees_its_tokenizer_and_a_plain_one_none():
    import timm

    host = timm.create_model("test_vit")
    images = torch.rand(2, 3, 160, 160)
    with watch_scores(host) as seen:
        host(images)
    assert seen == []
    model = adapt(host, num_tokens=9)
    with watch_scores(model) as seen:
        model(images)
    assert len(seen) == 1


def test_watching_ends_also_after_an_error():
    tokenizer = RegionTokenizer(embed_dim=4, num_tokens=6, patch_size=8)
    with pytest.raises(RuntimeError, match="stop"), watch_scores(tokenizer) as seen:
        raise RuntimeError("stop")
    tokenizer(torch.rand(1, 3, 16, 16))
    assert seen == []


@pytest.mark.parametrize(("kind", "rows"), [("flow", None), ("flow", 2), ("grid", None)])
def test_health_is_of_the_regions_that_the_tokenizer_cuts(kind, rows):
    tokenizer = RegionTokenizer(
        embed_dim=4, num_tokens=12, patch_size=8, partition=kind, num_rows=rows, strength=0.8
    )
    images = torch.rand(3, 3, 40, 96)
    with watch_scores(tokenizer) as seen:
        areas = tokenizer.regions(images).areas().detach().numpy()
    health = score_health(seen[0], tokenizer, (40, 96))
    assert health == {
        "score/entropy": pytest.approx(
            np.mean([oracle_entropy(one) for one in seen[0].detach()]), abs=1e-5
        ),
        "score/smallest_region": pytest.approx(areas.min(), abs=1e-6),
        "score/largest_region": pytest.approx(areas.max(), abs=1e-6),
    }
    assert areas.min() < 0.9 / 12 < 1.1 / 12 < areas.max()


def test_health_of_a_uniform_map_is_that_of_the_fixed_grid():
    tokenizer = RegionTokenizer(embed_dim=4, num_tokens=12, patch_size=8)
    health = score_health(torch.ones(2, 5, 5), tokenizer, (48, 64))
    assert health == pytest.approx(
        {
            "score/entropy": 1.0,
            "score/smallest_region": 1 / 12,
            "score/largest_region": 1 / 12,
        },
        abs=ATOL,
    )


def test_the_share_on_the_object_counts_centres_in_each_images_box():
    regions = Regions(
        torch.tensor([[[0.0, 0.5, 1.0]]]).expand(2, -1, -1),
        torch.arange(9.0).expand(2, -1) / 4,  # 4 columns by 2 rows
    )
    boxes = torch.tensor([[0.1, 0.0, 0.4, 1.0], [0.5, 0.5, 1.0, 1.0]])
    assert share_on_object(regions, boxes) == pytest.approx((4 / 8 + 2 / 8) / 2)
    assert share_on_object(regions, boxes.flip(0)) == pytest.approx(3 / 8)
    edge = torch.tensor([[0.125, 0.25, 0.375, 0.75]] * 2)  # centres on all four of its sides
    assert share_on_object(regions, edge) == pytest.approx(1 / 8)


@pytest.mark.refuses
def test_boxes_of_other_images_are_refused():
    regions = Regions(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[0.0, 1.0]]))
    with refused("boxes_xyxy must be (1, 4), one box per image, got (2, 4)"):
        share_on_object(regions, torch.rand(2, 4))


@pytest.mark.refuses
@pytest.mark.parametrize("mass", [0.0, -1.0, float("nan")])
def test_a_token_without_mass_is_refused(mass):
    with refused(f"mass_per_token must be > 0, got {mass}"):
        expected_tokens(torch.ones(1, 2, 2), mass_per_token=mass)
