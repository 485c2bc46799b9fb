"""Scorers on frozen features: against an oracle, the authors' numbers, and what frozen means."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from deterministic import fill
from torch import nn
from torch.testing import assert_close

from dartok.scorers import FeatureScorer, GatedHead, LocalHead, create_scorer
from dartok.scorers.build import build_scorer
from dartok.scorers.features import TORCHVISION_FEATURES


def numpy_mlp(values, mlp):
    first, _, second = mlp
    hidden = values @ first.weight.detach().numpy().T + first.bias.detach().numpy()
    erf = torch.erf(torch.from_numpy(hidden / np.sqrt(2))).numpy()
    hidden = hidden * (1 + erf) / 2
    return hidden @ second.weight.detach().numpy().T + second.bias.detach().numpy()


def numpy_sigmoid(values):
    return 1 / (1 + np.exp(-values))


def numpy_upsampled(maps, size):
    """Bilinear with half-pixel centres, border repeated, one cell at a time."""
    height, width = maps.shape[1:]
    result = np.empty((len(maps), *size))
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * height / size[0] - 0.5, 0), height - 1)
            x = min(max((j + 0.5) * width / size[1] - 0.5, 0), width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = maps[:, top, left] * (1 - x + left) + maps[:, top, right] * (x - left)
            lower = maps[:, bottom, left] * (1 - x + left) + maps[:, bottom, right] * (x - left)
            result[:, i, j] = upper * (1 - y + top) + lower * (y - top)
    return result


@pytest.mark.parametrize("kind", ["local", "gated"])
def test_scores_are_those_of_the_oracle(kind):
    head = LocalHead(6, 5) if kind == "local" else GatedHead(6, 5)
    scorer = fill(FeatureScorer(nn.AvgPool2d(4), head, side_px=None, statistics="batch"))
    images = torch.randn(2, 6, 28, 28, dtype=torch.float64)
    features = nn.functional.avg_pool2d(images, 4).permute(0, 2, 3, 1).numpy()
    if kind == "local":
        logits = numpy_mlp(features, head.mlp)[..., 0]
    else:
        gate = numpy_sigmoid(numpy_mlp(features.mean((1, 2)), head.mlp))
        logits = np.einsum("bc,bhwc->bhw", gate, features)
    logits = numpy_upsampled(logits, (14, 14))
    standard = (logits - logits.mean()) / (logits.std(ddof=1) + 1e-8)
    expected = numpy_sigmoid(standard) + 0.1 if kind == "local" else numpy_sigmoid(2 * standard)
    assert_close(scorer(images).detach().numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [*TORCHVISION_FEATURES, "mnasnet_v2", "squeezenet_v2"])
def test_every_backbone_gives_positive_scores_on_the_grid(name):
    scores = create_scorer(name).eval()(torch.randn(2, 3, 70, 130))
    assert scores.shape == (2, 14, 14)
    assert (scores > 0).all()


def test_any_timm_feature_extractor_is_a_scorer():
    assert create_scorer("timm/resnet10t").eval()(torch.randn(1, 3, 64, 64)).shape == (1, 14, 14)


def test_a_timm_extractor_may_give_channels_last_and_take_weights_from_a_file(tmp_path):
    import timm

    assert (
        create_scorer("timm/swin_tiny_patch4_window7_224").eval()(torch.randn(1, 3, 9, 9)).ndim == 3
    )
    trained = timm.create_model("resnet10t")
    torch.save(trained.state_dict(), tmp_path / "resnet.pth")
    scorer = create_scorer("timm/resnet10t", weights=tmp_path / "resnet.pth")
    loaded = scorer.features.net.state_dict()
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in loaded.items())


def test_the_backbone_stays_frozen_while_training():
    scorer = build_scorer(
        "mobilenetv3_small", weights=None, num_channels=3, side_px=64, statistics="running"
    ).train()
    before = {name: value.clone() for name, value in scorer.features.state_dict().items()}
    scorer(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(torch.equal(before[k], v) for k, v in scorer.features.state_dict().items())
    assert all(parameter.grad is None for parameter in scorer.features.parameters())
    assert all(parameter.grad is not None for parameter in scorer.head.parameters())


def test_a_random_scorer_that_is_meant_to_be_pretrained_says_so_once():

    with pytest.warns(UserWarning, match="starts from random weights; pass scorer_weights="):
        create_scorer("squeezenet")
    create_scorer("squeezenet")


def test_building_a_frozen_backbone_does_not_shift_the_callers_seed():
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    build_scorer("squeezenet", weights=None, num_channels=3, side_px=64, statistics="running")
    torch.manual_seed(5)
    assert torch.equal(torch.randn(3), expected)


VARIANTS = {
    "small_v1": "mobilenetv3_small",
    "small_v2": "mobilenetv3_small_v2",
    "large_v1": "mobilenetv3_large",
    "large_v2": "mobilenetv3_large_v2",
    "effb0_v1": "efficientnet_b0",
    "effb0_v2": "efficientnet_b0_v2",
    "default": "pixels",
}


@pytest.fixture(scope="module")
def golden(shared_golden):
    with np.load(shared_golden / "spn.npz") as numbers:
        return dict(numbers)


@pytest.fixture(scope="module")
def filler(shared_golden):
    spec = importlib.util.spec_from_file_location("filler", shared_golden / "golden_filler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def authors_scorer(variant, shared_golden, filler, dtype):
    spec = json.loads((shared_golden / f"state_dicts/spn_{variant}.json").read_text())["entries"]
    values = filler.golden_state(spec, f"public/spn/{variant}")
    scorer = build_scorer(
        VARIANTS[variant], weights=None, num_channels=3, side_px=None, statistics="batch"
    )
    state = scorer.state_dict()
    for key, value in values.items():
        name = key.removeprefix("spn.").removeprefix("spn.").replace("mlp.net.", "head.mlp.")
        state[name].copy_(torch.from_numpy(np.asarray(value)))
    return scorer.to(dtype)


def golden_images(golden, run, filler):
    size = int(golden[f"{run}/size"])
    kinds = ["noise" if noise else "scene" for noise in golden[f"{run}/image_is_noise"]]
    seeds = [int(seed) for seed in golden[f"{run}/image_seeds"]]
    images = filler.batch(list(zip(seeds, kinds, strict=True)), size, size)
    assert filler.crc(images) == int(golden[f"{run}/image_crc32"])
    return torch.from_numpy(images)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_score_maps_are_the_authors(variant, dtype, atol, shared_golden, golden, filler):
    scorer = authors_scorer(variant, shared_golden, filler, dtype).eval()
    for run in ("run0", "run1", "run2"):
        scores = scorer(golden_images(golden, run, filler).to(dtype)).flatten(1).double().numpy()
        suffix = "" if dtype == torch.float64 else "_f32"
        assert np.abs(scores - golden[f"{variant}/{run}{suffix}"]).max() < atol


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_scores_and_gradients_are_the_authors(variant, shared_golden, golden, filler):
    prefix = f"{variant}/train_run0"
    if prefix not in golden:
        pytest.skip(f"no training numbers of {variant}")
    scorer = authors_scorer(variant, shared_golden, filler, torch.float64).train()
    scorer.features.train()  # the authors' backbone drifts while training; ours stays frozen
    scores = scorer(golden_images(golden, "run0", filler).double()).flatten(1)
    assert np.abs(scores.detach().numpy() - golden[prefix]).max() < 1e-6
    salt = f"public/spn/{variant}"
    weights = filler.golden_tensor("grad.score_bias.bias", scores.shape, salt)
    (scores * torch.from_numpy(weights)).sum().backward()
    buffers = dict(scorer.features.named_buffers())
    for key in (key for key in golden if key.startswith(prefix + "/")):
        leaf = key.removeprefix(prefix + "/").removeprefix("grad/")
        leaf = leaf.removeprefix("spn.").removeprefix("spn.")
        if "mlp.net." in leaf:
            actual = scorer.get_parameter(leaf.replace("mlp.net.", "head.mlp.")).grad
        else:
            actual = buffers[leaf.removeprefix("features.")]
        assert np.abs(actual.double().numpy() - golden[key]).max() < 1e-6, key
