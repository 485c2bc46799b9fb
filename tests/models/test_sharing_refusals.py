"""A model that cannot be built again is refused in one line, before anything is written."""

from pathlib import Path

import pytest
import timm
import torch
from refusals import refused
from saved_models import SIZE, Constant, adapted, of_transformers
from torch import nn

import dartok


def saved_nothing(folder):
    return not folder.exists()


@pytest.mark.refuses
def test_a_scorer_of_the_users_own_cannot_be_saved(tmp_path):
    with refused(
        "scorer must be one by name to be saved, got a Constant; see "
        "dartok.scorers.list_scorers(), or keep model.state_dict() beside your own code"
    ):
        dartok.save_pretrained(adapted(scorer=Constant()), tmp_path / "a")
    assert saved_nothing(tmp_path / "a")


@pytest.mark.refuses
def test_a_model_without_regions_and_one_without_a_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must hold a dartok tokenizer"):
        dartok.save_pretrained(timm.create_model("test_vit"), tmp_path / "a")
    from timm.models.vision_transformer import VisionTransformer

    nameless = VisionTransformer(img_size=32, embed_dim=16, depth=1, num_heads=1)
    with pytest.raises(ValueError, match="a model to save must come from timm.create_model"):
        dartok.save_pretrained(dartok.adapt(nameless), tmp_path / "a")
    assert saved_nothing(tmp_path / "a")


def without_timms_notes(model):
    """As older timm leaves it, which does not note what a model was created with."""
    vars(model).pop("_model_args", None)
    return model


@pytest.mark.refuses
def test_a_recipe_that_lacks_an_entry_names_it_and_the_remedy(tmp_path):
    model = without_timms_notes(adapted(host_args={"depth": 3}))
    with pytest.raises(
        ValueError, match=r"model cannot be built again as dart_vit: that"
    ) as raised:
        dartok.save_pretrained(model, tmp_path / "a")
    assert "blocks." in str(raised.value)
    assert str(raised.value).endswith("pass what its host was created with as host_args={...}")
    assert "\n" not in str(raised.value)
    assert saved_nothing(tmp_path / "a")
    dartok.save_pretrained(model, tmp_path / "a", host_args={"depth": 3})
    images = torch.randn(1, 3, *SIZE)
    assert torch.equal(dartok.from_pretrained(tmp_path / "a")(images), model(images))


@pytest.mark.refuses
def test_a_recipe_of_the_same_shapes_but_another_function_is_refused(tmp_path):
    model = adapted()
    model.blocks[0].mlp.act = nn.ReLU()
    with pytest.raises(ValueError, match=r"outputs .* differ by .* host_args"):
        dartok.save_pretrained(model, tmp_path / "a")
    assert saved_nothing(tmp_path / "a")


@pytest.mark.refuses
def test_a_scorer_that_was_changed_is_refused_also_at_strength_0(tmp_path):
    model = adapted(scorer="edge")
    dartok.set_strength(model, 0.0)
    model.patch_embed.scorer.cell_px = 16
    with pytest.raises(ValueError, match=r"outputs .* differ"):
        dartok.save_pretrained(model, tmp_path / "a")


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host_args": {"act_layer": nn.ReLU}}, "host_args must be what JSON can hold"),
        ({"host_args": {"dept": 3}}, "unexpected keyword argument 'dept'"),
        ({"class_names": ["a"]}, "class_names must be one for each of the 3 outputs, got 1"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(ValueError, match=message) as raised:
        dartok.save_pretrained(adapted(), tmp_path / "a", **options)
    assert "\n" not in str(raised.value)
    assert saved_nothing(tmp_path / "a")


@pytest.mark.refuses
def test_options_that_a_model_of_transformers_does_not_take_are_refused(tmp_path):
    model = of_transformers()
    with pytest.raises(ValueError, match="host_args and class_names must be None for a model of"):
        dartok.save_pretrained(model, tmp_path / "a", class_names=["a", "b", "c"])
    assert saved_nothing(tmp_path / "a")
    dartok.save_pretrained(model, tmp_path / "a")
    with pytest.raises(ValueError, match="num_classes must be None for a model of transformers"):
        dartok.from_pretrained(tmp_path / "a", num_classes=3)


@pytest.mark.refuses
@pytest.mark.parametrize("name", ["runs/nowhere/best", "nowhere", Path("a/b"), "me/nowhere"])
def test_a_model_that_is_not_there_is_refused_in_one_line(name):
    with pytest.raises(ValueError, match=f"'{name}' cannot be loaded") as raised:
        dartok.from_pretrained(name)
    assert "\n" not in str(raised.value)
