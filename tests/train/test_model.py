"""Models from a configuration: built, frozen, and described so that timm builds them again."""

import json

import pytest
import timm
import torch
from refusals import refused

from dartok.models.mamba.region_vim import RegionVim
from dartok.models.patch_embed import RegionPatchEmbed
from dartok.train.model import build_model, choose_parts, pixels_of, ramp_steps, recipe_of
from dartok.train.model_config import ModelConfig


def built(image_px=None, num_classes=5, **settings):
    config = ModelConfig(**{"model": "test_vit"} | settings)
    recipe = recipe_of(config, num_classes=num_classes, image_px=image_px)
    return build_model(config, recipe)


def learners(model):
    return {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}


def test_without_a_number_of_tokens_a_host_keeps_its_fixed_grid():
    recipe = recipe_of(ModelConfig(model="test_vit"), num_classes=5, image_px=None)
    assert recipe == ("test_vit", {"num_classes": 5})
    model = build_model(ModelConfig(model="test_vit"), recipe)
    assert not isinstance(model.patch_embed, RegionPatchEmbed)
    assert model(torch.randn(2, 3, 160, 160)).shape == (2, 5)


def test_a_fixed_grid_takes_the_size_of_the_pictures():
    assert built(image_px=64)(torch.randn(2, 3, 64, 64)).shape == (2, 5)


def test_a_number_of_tokens_adapts_the_host_at_the_largest_of_the_range():
    model = built(num_tokens="9..30", scorer="edge", partition="grid", drop_path=0.25)
    embed = model.patch_embed
    assert isinstance(embed, RegionPatchEmbed)
    assert (embed.num_tokens, embed.partition, float(embed.strength)) == (30, "grid", 1.0)
    assert type(embed.scorer).__name__ == "EdgeScorer"
    assert model.blocks[-1].drop_path1.drop_prob == 0.25
    assert model.train()(torch.randn(2, 3, 90, 64)).shape == (2, 5)


def test_means_and_bounds_are_options_of_an_adapted_model():
    model = built(num_tokens="30..40", antialias=True, min_region=0.1, max_region=0.25)
    assert (model.patch_embed.antialias, tuple(model.patch_embed.bounds)) == (True, (0.1, 0.25))
    recipe = recipe_of(ModelConfig(model="test_vit", num_tokens="30"), num_classes=5, image_px=None)
    assert not {"antialias", "min_region", "max_region"} & set(recipe.args)


@pytest.mark.refuses
def test_bounds_that_some_number_of_a_range_cannot_keep_are_refused():
    message = "max_region must be at least 0.3334 for 9 regions in 3 rows, got 0.25"
    with pytest.raises(ValueError, match=message):
        built(num_tokens="9..40", max_region=0.25)
    with pytest.raises(ValueError, match="max_region must be above 0 and at most 1"):
        ModelConfig(num_tokens="49", max_region=3.0)


@pytest.mark.refuses
@pytest.mark.parametrize("settings", [{}, {"model": "darvit_tiny", "num_tokens": "49"}])
@pytest.mark.parametrize(
    ("option", "value"), [("antialias", True), ("scorer", "edge"), ("partition", "grid")]
)
def test_options_of_regions_are_refused_where_there_are_none_to_set(settings, option, value):
    with pytest.raises(ValueError, match=f"^{option} needs an adapted model, got {value}; give -"):
        ModelConfig(**settings, **{option: value})


def test_an_authors_model_keeps_its_own_number_unless_another_is_given():
    config = ModelConfig(model="darvit_tiny_121p")
    assert recipe_of(config, num_classes=5, image_px=64) == ("darvit_tiny_121p", {"num_classes": 5})
    config = ModelConfig(model="darvit_tiny", num_tokens="49..60")
    assert recipe_of(config, num_classes=5, image_px=64).args["num_tokens"] == 60


def test_an_authors_vision_mamba_is_built_as_their_vit():
    config = ModelConfig(model="darvim_tiny", num_tokens="9..16", drop_path=0.25)
    recipe = recipe_of(config, num_classes=5, image_px=64)
    args = {"num_classes": 5, "drop_path_rate": 0.25, "num_tokens": 16}
    assert recipe == ("darvim_tiny", args)
    model = build_model(config, recipe)
    assert (model.patch_embed.num_tokens, model.drop_path.drop_prob) == (16, 0.25)
    assert model.train()(torch.randn(2, 3, 90, 64)).shape == (2, 5)


def test_a_vision_mamba_is_a_host_with_a_number_of_tokens_and_a_grid_without():
    config = ModelConfig(model="vim_tiny", num_tokens="16")
    recipe = recipe_of(config, num_classes=5, image_px=64)
    assert (recipe.name, recipe.args["host"]) == ("dart_vit", "vim_tiny")
    model = build_model(config, recipe)
    assert isinstance(model, RegionVim)
    assert float(model.patch_embed.strength) == 1.0
    assert model.train()(torch.randn(2, 3, 90, 64)).shape == (2, 5)
    grid = built(model="videomamba_tiny", image_px=64)
    assert grid(torch.randn(2, 3, 64, 64)).shape == (2, 5)
    assert pixels_of(grid, 64).size_px == 64
    assert pixels_of(grid, None).size_px == 224


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_tokens": "9"},
        {"drop_path": 0.1},
        {"model": "vim_tiny"},
        {"model": "vim_tiny", "num_tokens": "9", "drop_path": 0.1},
        {"model": "darvim_tiny"},
    ],
)
def test_a_recipe_is_json_and_builds_the_same_layers(settings):
    config = ModelConfig(**{"model": "test_vit"} | settings)
    recipe = recipe_of(config, num_classes=5, image_px=64)
    args = json.loads(json.dumps(recipe.args))
    assert args == recipe.args
    again = timm.create_model(recipe.name, **args).state_dict()
    first = build_model(config, recipe).state_dict()
    assert {k: v.shape for k, v in again.items()} == {k: v.shape for k, v in first.items()}


@pytest.mark.parametrize("settings", [{}, {"num_tokens": "9"}])
def test_a_checkpoint_gives_the_first_weights(tmp_path, settings):
    torch.manual_seed(1)
    state = built(**settings).state_dict()
    torch.save(state, tmp_path / "a.pth")
    loaded = built(checkpoint=tmp_path / "a.pth", **settings).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


@pytest.mark.parametrize(
    ("parts", "learning"),
    [("head", {"head"}), ("tokenizer", {"head", "patch_embed"})],
)
def test_what_is_not_to_learn_is_frozen(parts, learning):
    model = built(num_tokens="9", parts=parts)
    assert learners(model) == learning
    assert learners(built(num_tokens="9")) > learning


def test_an_rmt_is_trained_as_it_is_or_behind_its_reshaper():
    recipe = recipe_of(ModelConfig(model="rmt_t3"), num_classes=5, image_px=96)
    assert recipe == ("rmt_t3", {"num_classes": 5})  # takes any size
    recipe = recipe_of(ModelConfig(model="darmt_s"), num_classes=5, image_px=224)
    assert recipe == ("darmt_s", {"num_classes": 5, "img_size": 224})
    assert learners(built(model="rmt_t3", parts="head")) == {"head"}
    with refused("model darmt_s takes no num-tokens, got 9; drop it"):
        built(model="darmt_s", num_tokens="9")
    model = built(model="rmt_t3", image_px=75)
    assert pixels_of(model, 75).size_px == 75
    assert pixels_of(built(model="darmt_s", image_px=224), None).size_px == 448


def test_parts_of_a_vision_mamba_can_be_chosen():
    model = built(model="vim_tiny", num_tokens="9", parts="tokenizer")
    assert learners(model) == {"head", "patch_embed"}
    assert model.patch_embed.pos_embed.requires_grad
    assert learners(built(model="darvim_tiny", parts="head")) == {"head"}
    assert learners(built(model="vim_tiny", parts="head")) == {"head"}


def test_both_heads_of_a_distilled_host_learn():
    model = built(model="deit_tiny_distilled_patch16_224", parts="head")
    assert learners(model) == {"head", "head_dist"}


def test_the_frozen_backbone_of_a_score_net_stays_frozen():
    model = built(num_tokens="9", scorer="squeezenet", parts="tokenizer")
    scorer = model.patch_embed.scorer
    assert not any(parameter.requires_grad for parameter in scorer.features.parameters())
    assert all(parameter.requires_grad for parameter in scorer.head.parameters())


def test_pixels_are_what_timm_says_of_the_model():
    pixels = pixels_of(built(num_tokens="9"), None)
    host = timm.data.resolve_model_data_config(timm.create_model("test_vit"))
    assert pixels.size_px == host["input_size"][-1] == 160
    assert (pixels.mean, pixels.std) == (host["mean"], host["std"])
    assert (pixels.interpolation, pixels.crop_share) == (host["interpolation"], host["crop_pct"])
    assert pixels_of(built(num_tokens="9"), 65).size_px == 65


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, 0),
        ({"num_tokens": "9"}, 0),
        ({"num_tokens": "9", "pretrained": True}, 25),
        ({"pretrained": True}, 0),
        ({"num_tokens": "9", "pretrained": True, "strength_ramp": 0}, 0),
        ({"num_tokens": "9", "strength_ramp": 7}, 7),
        ({"num_tokens": "9", "model": "darvit_tiny"}, 0),
        ({"num_tokens": "9", "model": "darvim_tiny", "pretrained": True}, 0),
    ],
)
def test_a_pretrained_host_ramps_over_a_quarter_of_the_run(settings, steps):
    assert ramp_steps(ModelConfig(**{"model": "test_vit"} | settings), 100) == steps


@pytest.mark.refuses
def test_an_unknown_model_is_refused():
    with pytest.raises(ValueError, match="model 'vitt' is unknown; see dartok models"):
        built(model="vitt")


@pytest.mark.refuses
def test_a_model_that_cannot_be_adapted_is_refused():
    with pytest.raises(ValueError, match="cannot carry over ResNet"):
        built(model="test_resnet", num_tokens="9")


@pytest.mark.refuses
def test_options_that_the_model_does_not_take_are_refused_in_one_line():
    with pytest.raises(ValueError, match="model 'test_resnet' cannot be built .*img_size") as e:
        built(model="test_resnet", image_px=64)
    assert "\n" not in str(e.value)


@pytest.mark.refuses
def test_parts_that_the_model_does_not_have_are_refused():
    with pytest.raises(ValueError, match="parts tokenizer needs regions; give --num-tokens too"):
        built(parts="tokenizer")
    with pytest.raises(ValueError, match="parts tokenizer needs regions; give --num-tokens too"):
        built(model="vim_tiny", parts="tokenizer")
    with refused("parts head needs a timm ViT, a Vision Mamba or an RMT, got a ResNet; give all"):
        built(model="test_resnet", parts="head")
    choose_parts(timm.create_model("test_resnet"), "all")


@pytest.mark.refuses
def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    torch.save(built(num_tokens="9").state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a.pth as test_vit does not fit .*missing: pos_embed"):
        built(checkpoint=tmp_path / "a.pth")


@pytest.mark.refuses
def test_pictures_that_do_not_fit_the_fixed_grid_are_refused():
    with pytest.raises(
        ValueError, match="image-px must be a multiple of 16, .* got 65; give --num"
    ):
        pixels_of(built(image_px=64), 65)
    with pytest.raises(ValueError, match="image-px must be a multiple of 16, .* got 65"):
        pixels_of(built(model="vim_tiny", image_px=64), 65)


@pytest.mark.refuses
def test_pretrained_weights_of_an_authors_model_are_not_timms_to_load():
    for name in ("darvit_tiny", "darvim_tiny", "vim_tiny"):
        with pytest.raises(ValueError, match=f"{name} has no weights that timm can download"):
            built(model=name, pretrained=True)
    with pytest.raises(ValueError, match="vim_tiny has no weights that timm can download"):
        built(model="vim_tiny", pretrained=True, num_tokens="9")


def test_the_authors_checkpoint_is_one_to_start_from(tmp_path):
    config = ModelConfig(model="darvit_tiny", checkpoint=tmp_path / "authors.pth")
    recipe = recipe_of(config, num_classes=5, image_px=None)
    state = build_model(ModelConfig(model="darvit_tiny"), recipe).state_dict()
    weight = torch.rand_like(state["norm.weight"])
    positions = state.pop("patch_embed.pos_embed").flatten(2).transpose(1, 2)
    state["pos_embed"] = torch.cat([torch.zeros(1, 1, 192), positions], dim=1)
    for name in [name for name in state if name.startswith("patch_embed.scorer.")]:
        theirs = "patch_embed.spn.spn.spn." + name.removeprefix("patch_embed.scorer.")
        state[theirs.replace("head.mlp.", "mlp.net.")] = state.pop(name)
    torch.save({"model": state | {"norm.weight": weight}}, tmp_path / "authors.pth")
    assert torch.equal(build_model(config, recipe).state_dict()["norm.weight"], weight)


@pytest.mark.parametrize("settings", [{}, {"num_tokens": "9"}])
@pytest.mark.parametrize("name", ["vim_tiny", "videomamba_tiny"])
def test_an_official_vision_mamba_is_one_to_start_from_on_regions_too(tmp_path, name, settings):
    state = built(model=name).state_dict()
    state["pos_embed"] = torch.randn_like(state["pos_embed"])
    torch.save({"model": state}, tmp_path / "official.pth")
    model = built(model=name, checkpoint=tmp_path / "official.pth", **settings)
    found = model.state_dict()
    assert torch.equal(found["layers.5.mixer.A_b_log"], state["layers.5.mixer.A_b_log"])
    if not settings:
        assert torch.equal(found["pos_embed"], state["pos_embed"])
        return
    place = 98 if name == "vim_tiny" else 0
    one = state["pos_embed"][:, [place]]
    others = torch.cat([state["pos_embed"][:, :place], state["pos_embed"][:, place + 1 :]], dim=1)
    assert torch.equal(found["cls_token"], state["cls_token"] + one)
    positions = found["patch_embed.pos_embed"].flatten(2).transpose(1, 2)
    assert torch.equal(positions, others)
    torch.save(found, tmp_path / "ours.pth")
    again = built(model=name, checkpoint=tmp_path / "ours.pth", **settings).state_dict()
    assert all(torch.equal(again[key], value) for key, value in found.items())


@pytest.mark.filterwarnings("ignore:.*the head starts anew")
def test_a_checkpoint_of_other_classes_keeps_all_but_its_head(tmp_path):
    state = built(model="vim_tiny").state_dict()
    state["head.weight"], state["head.bias"] = torch.ones(7, 192), torch.ones(7)
    torch.save(state, tmp_path / "seven.pth")
    model = built(model="vim_tiny", checkpoint=tmp_path / "seven.pth")
    assert torch.equal(model.layers[3].mixer.D, state["layers.3.mixer.D"])
    assert len(model.head.weight) != 7
    assert not torch.equal(model.head.bias, torch.ones(len(model.head.bias)))


@pytest.mark.refuses
def test_a_checkpoint_of_no_vision_mamba_is_refused(tmp_path):
    torch.save(built(model="test_vit").state_dict(), tmp_path / "a.pth")
    message = r"a.pth as vim_tiny does not fit RegionVim: missing: .*layers.0.mixer.A_log"
    with pytest.raises(ValueError, match=message):
        built(model="vim_tiny", num_tokens="9", checkpoint=tmp_path / "a.pth")
