"""Models that hold an encoder: the encoder is carried over, the rest is shared."""

import pytest
import timm
import torch
from deterministic import spread
from refusals import refused
from torch import nn

import dartok


class Segmenter(nn.Module):
    """A user's model around an encoder."""

    def __init__(self, encoder):
        super().__init__()
        self.backbone = nn.ModuleDict({"encoder": encoder})
        self.head = nn.Linear(64, 3)
        self.again = self.head

    def forward(self, images):
        return self.head(self.backbone["encoder"].forward_features(images))


@torch.no_grad()
def test_the_encoder_of_a_wrapper_starts_as_the_same_function():
    host = Segmenter(spread(timm.create_model("test_vit"))).eval()
    images = torch.randn(2, 3, 160, 160)
    expected = host(images)
    model = dartok.adapt(host, num_tokens=30, strength=1.0)
    assert model(images).shape == (2, 31, 3)
    dartok.set_strength(model, 0.0)
    dartok.set_num_tokens(model, 100)
    assert float((model(images) - expected).norm() / expected.norm()) < 1e-5
    assert torch.equal(host(images), expected)


def test_the_rest_of_a_wrapper_is_on_the_same_parameters():
    host = Segmenter(timm.create_model("test_vit"))
    model = dartok.adapt(host)
    assert type(model) is Segmenter
    assert model.head is not host.head
    assert model.again is model.head
    assert model.head.weight is host.head.weight
    blocks, others = (m.backbone["encoder"].blocks[0].attn.qkv for m in (model, host))
    assert blocks.weight is others.weight
    model.eval()
    assert host.training


def test_an_encoder_that_goes_by_two_names_is_exchanged_at_both():
    host = Segmenter(timm.create_model("test_vit"))
    host.frozen = [host.backbone["encoder"]]
    model = dartok.adapt(host)
    assert model.frozen[0] is model.backbone["encoder"]
    assert host.frozen[0] is host.backbone["encoder"]


@pytest.mark.refuses
def test_a_wrapper_of_several_encoders_or_of_none_is_refused():
    pair = nn.ModuleDict({"a": timm.create_model("test_vit"), "b": timm.create_model("test_vit2")})
    message = "got 2: a, b; set one in its place, as model.a = dartok.adapt(model.a)"
    with refused(f"adapt must know which encoder of ModuleDict to carry over, {message}"):
        dartok.adapt(pair)
    with pytest.raises(ValueError, match="cannot carry over Linear of 'torch': it knows models of"):
        dartok.adapt(nn.Linear(2, 2))


@pytest.mark.refuses
def test_a_librarys_wrapper_that_may_need_a_grid_is_refused_with_the_remedy():
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48}
    vision = {**small, "num_hidden_layers": 2, "image_size": 32, "patch_size": 8}
    text = {**small, "num_hidden_layers": 1, "vocab_size": 64, "bos_token_id": 0, "eos_token_id": 1}
    config = transformers.CLIPSegConfig(
        vision_config=vision, text_config=text, projection_dim=32, extract_layers=[0, 1]
    )
    host = transformers.CLIPSegForImageSegmentation(config)
    with refused(
        "adapt cannot carry over CLIPSegForImageSegmentation: it may read the tokens of its "
        "encoder as a fixed grid; if it does not, set "
        "model.clip.vision_model = dartok.adapt(model.clip.vision_model)"
    ):
        dartok.adapt(host)
    host.clip.vision_model = dartok.adapt(host.clip.vision_model, num_tokens=9)
    assert dartok.regions(host, torch.randn(1, 3, 40, 40)).num_tokens == 9
