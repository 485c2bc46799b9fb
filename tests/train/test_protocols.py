"""Protocols: the authors' pixels and batch statistics, and nothing left of them afterwards."""

import warnings

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from refusals import refused
from torch import nn

import dartok
from dartok.data.transforms import eval_transform
from dartok.scorers.statistics import ScoreStatistics
from dartok.train.protocols import EvalProtocol, batch_statistics

PAPER = EvalProtocol("paper", 448, 0.875, "bicubic", batch_statistics=True)


def adapted(scorer):
    return dartok.adapt(timm.create_model("test_vit"), num_tokens=20, scorer=scorer).eval()


def test_maps_are_standardised_over_the_batch_and_then_by_the_kept_values_again():
    statistics = ScoreStatistics().eval()
    statistics.freeze(3.0, 4.0)
    maps = torch.randn(5, 7, 7, dtype=torch.float64) * 6 + 2
    values = maps.numpy()
    expected = (values - values.mean()) / (values.std(ddof=1) + 1e-8)
    with batch_statistics(statistics):
        np.testing.assert_allclose(statistics(maps), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(statistics(maps), (values - 3) / (2 + 1e-8), rtol=0, atol=1e-12)
    assert (statistics.source, bool(statistics.frozen)) == ("running", True)


def test_the_statistics_are_restored_also_after_an_error():
    model = nn.Sequential(ScoreStatistics(), ScoreStatistics("batch"))
    model[1].freeze(1.0, 2.0)
    with pytest.raises(KeyError), batch_statistics(model):
        raise KeyError
    assert [statistics.source for statistics in model] == ["running", "batch"]
    assert [bool(statistics.frozen) for statistics in model] == [False, True]


def test_scores_depend_on_batch_mates_only_inside():
    model = adapted("pixels")
    dartok.set_strength(model, 1.0)
    images = torch.rand(2, 3, 160, 160)
    images[1] *= 0.1

    def difference():
        with torch.no_grad():
            return (model(images)[0] - model(images[:1])[0]).abs().max()

    assert difference() < 1e-5
    with batch_statistics(model):
        assert difference() > 1e-3
    assert difference() < 1e-5


def test_the_paper_resizes_the_shorter_side_to_512_px_and_crops_448():
    pixels = PAPER.pixels(adapted("conv"))
    picture = Image.fromarray(np.random.default_rng(0).integers(256, size=(90, 70, 3), dtype="u1"))
    middle = (512 - 448) // 2
    resized = picture.resize((512, 658), Image.Resampling.BICUBIC)  # 90 / 70 x 512, cut off
    cropped = np.asarray(resized)[105:553, middle : middle + 448] / 255
    expected = (cropped - pixels.mean) / pixels.std
    found = eval_transform(pixels)(picture).permute(1, 2, 0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_our_protocol_leaves_all_to_the_model():
    model = adapted("conv")
    assert EvalProtocol("ours").pixels(model).size_px == 160
    assert EvalProtocol("ours", 96).pixels(model).size_px == 96


def test_it_is_said_once_that_a_score_net_standardises_nothing():
    model = adapted("conv")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        PAPER.check(model)
        PAPER.check(model)
    (message,) = (str(warning.message) for warning in said)
    assert "of the paper protocol only the pixels apply" in message
    EvalProtocol("ours").check(nn.Linear(1, 1))
    PAPER.check(adapted("pixels"))


@pytest.mark.refuses
def test_batch_statistics_of_a_fixed_grid_are_refused():
    with refused("model must hold a dartok tokenizer, got Linear; see dartok.adapt"):
        PAPER.check(nn.Linear(1, 1))
