"""Scorers by name, their weights, and what is refused."""

import pytest
import torch
from torch import nn

from dartok.scorers import RegionTokenizer, create_scorer, list_scorers
from dartok.scorers.build import build_scorer


def backbone(**options):
    defaults = {"weights": None, "num_channels": 3, "side_px": 64, "statistics": "running"}
    return build_scorer("squeezenet", **{**defaults, **options})


def test_every_listed_name_is_one_of_the_promised():
    names = list_scorers()
    assert {"conv", "edge", "uniform", "mnasnet_v2", "efficientnet_b0"} <= set(names)


def test_weights_of_a_whole_scorer_load_from_a_file(tmp_path):
    for name in ("conv", "pixels"):
        scorer = create_scorer(name).eval()
        torch.save(scorer.state_dict(), tmp_path / "scorer.pth")
        again = create_scorer(name, weights=tmp_path / "scorer.pth").eval()
        image = torch.rand(1, 3, 50, 50)
        assert torch.equal(scorer(image), again(image))


def test_a_backbones_own_checkpoint_loads_from_a_file(tmp_path):
    import torchvision

    classifier = torchvision.models.squeezenet1_1(weights=None)
    torch.save(classifier.state_dict(), tmp_path / "squeezenet.pth")
    scorer = backbone(weights=tmp_path / "squeezenet.pth")
    assert torch.equal(scorer.features[0].weight, classifier.features[0].weight)
    torch.save(scorer.state_dict(), tmp_path / "scorer.pth")
    again = backbone(weights=tmp_path / "scorer.pth")
    assert torch.equal(again.head.mlp[0].weight, scorer.head.mlp[0].weight)


def test_a_module_is_a_scorer_of_its_own():
    class Left(nn.Module):
        def forward(self, images):
            return torch.tensor([[[8.0, 1.0]]]).expand(len(images), 1, 2)

    tokens, regions = RegionTokenizer(embed_dim=4, num_tokens=9, num_rows=1, scorer=Left())(
        torch.rand(2, 3, 32, 32)
    )
    assert tokens.shape == (2, 9, 4)
    assert (regions.centres()[..., 0] < 0.5).sum(1).tolist() == [8, 8]


@pytest.mark.refuses
def test_bad_names_and_weights_are_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"unknown scorer 'mobilnetv3_small'; did you mean mobile"):
        create_scorer("mobilnetv3_small")
    with pytest.raises(ValueError, match="num_channels must be 3 for scorer 'squeezenet', got 1"):
        create_scorer("squeezenet", num_channels=1)
    with pytest.raises(ValueError, match="timm has no model 'resnett'"):
        create_scorer("timm/resnett")
    with pytest.raises(ValueError, match="needs a pretrained backbone, got scorer 'edge'"):
        create_scorer("edge", weights="imagenet")
    with pytest.raises(ValueError, match=r"nowhere.pth is not a file"):
        create_scorer("conv", weights=tmp_path / "nowhere.pth")
    with pytest.raises(ValueError, match="needs a scorer by name, got a module"):
        RegionTokenizer(embed_dim=4, num_tokens=4, scorer=nn.Identity(), scorer_weights="a.pth")
    torch.save({"a": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not fit ConvScorer: missing: gain, residual"):
        create_scorer("conv", weights=tmp_path / "other.pth")
