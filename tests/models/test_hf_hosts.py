"""Hosts of transformers on regions: the same function at the start, and what regions change."""

import copy

import pytest
import torch
from torch.testing import assert_close

import dartok
from dartok.core.tokenizer import Tokenizer
from dartok.models.dials import tokenizer_of

pytest.importorskip("transformers")

import transformers
from hf_hosts import (
    HOSTS,
    IMAGE_TOKEN,
    NUM_PATCHES,
    SIDE_PX,
    WITH_TEXT,
    built,
    inputs_of,
    outputs_of,
)
from transformers.models.siglip2.image_processing_siglip2 import convert_image_to_patches

REFUSED = {
    "BeitModel": "cannot carry over BeitModel: its attention looks up a bias .*; timm's beit_",
    "Data2VecVisionModel": "cannot carry over Data2VecVisionModel: its attention looks up a bias",
    "SwinModel": "cannot carry over SwinModel: its attention runs in windows",
    "ConvNextModel": "cannot carry over ConvNextModel: its stages merge neighbours",
    "MLCDVisionModel": "cannot carry over MLCDVisionModel: its rotary positions count rows",
    "YolosModel": "cannot carry over YolosModel: its detection tokens have positions",
    "PixioBackbone": "cannot carry over PixioBackbone: .*; adapt the PixioModel instead",
    "ViTMAEForPreTraining": "cannot carry over ViTMAEForPreTraining: it paints masked patches",
    "ViTForMaskedImageModeling": "cannot carry over ViTForMaskedImageModeling: it paints masked",
}
CARRIED = [name for name in HOSTS if name not in REFUSED]
NOT_ALONE = {*WITH_TEXT, "VisionEncoderDecoderModel"}
ENCODERS = [
    name for name in CARRIED if name.endswith(("Model", "Transformer")) and name not in NOT_ALONE
]
RECORDING = [
    "ViTModel",
    "Dinov2WithRegistersModel",
    "DINOv3ViTModel",
    "Siglip2VisionModel",
    "CLIPVisionModel",
    "ViTMAEModel",
]


def relative_difference(actual, expected):
    return float((actual - expected).norm() / expected.norm())


def as_the_host_takes_it(name, host, inputs):
    """What of the host's own the adapted model does without: patches, and masks."""
    inputs = dict(inputs)
    if name.startswith("Siglip2"):
        images = inputs["pixel_values"]
        patches = [convert_image_to_patches(image, 8) for image in images]
        inputs["pixel_values"] = torch.stack(patches)
        inputs["pixel_attention_mask"] = torch.ones(len(images), NUM_PATCHES, dtype=torch.long)
        inputs["spatial_shapes"] = torch.tensor([[4, 4]]).expand(len(images), -1)
    if name.startswith("ViTMAE"):
        host.config.mask_ratio = 0.0
        inputs["noise"] = torch.linspace(0, 1, NUM_PATCHES).expand(len(inputs["pixel_values"]), -1)
    return inputs


@pytest.mark.parametrize("name", CARRIED)
@torch.no_grad()
def test_an_adapted_host_starts_as_the_same_function(name):
    host, inputs = built(name), inputs_of(name)
    actual = outputs_of(dartok.adapt(host), inputs)
    expected = outputs_of(host, as_the_host_takes_it(name, host, inputs))
    assert actual.keys() == expected.keys()
    assert actual
    for key in expected.keys() - {"mask", "ids_restore"}:
        assert relative_difference(actual[key], expected[key]) < 1e-5, key


@pytest.mark.refuses
@pytest.mark.parametrize("name", REFUSED)
def test_a_host_that_cannot_be_carried_over_is_refused_by_name(name):
    host = built(name)
    before = copy.deepcopy(host.state_dict())
    with pytest.raises(ValueError, match=REFUSED[name]):
        dartok.adapt(host)
    assert all(torch.equal(before[key], value) for key, value in host.state_dict().items())


@pytest.mark.parametrize("name", CARRIED)
@torch.no_grad()
def test_the_host_is_left_as_it_was_and_shares_its_parameters(name):
    host = built(name).train()
    state, settings = copy.deepcopy(host.state_dict()), host.config.to_dict()
    owned = {id(parameter) for parameter in host.parameters()}
    model = dartok.adapt(host, strength=1.0)
    assert host.training
    assert model.training
    assert host.config.to_dict() == settings
    assert all(torch.equal(state[key], value) for key, value in host.state_dict().items())
    assert sum(id(parameter) in owned for parameter in model.parameters()) > 0.6 * len(owned)
    assert isinstance(model, type(host))
    model.eval()
    assert host.training


@pytest.mark.parametrize("name", CARRIED)
@torch.no_grad()
def test_any_image_any_budget(name):
    model = dartok.adapt(built(name), strength=1.0)
    for size, num_tokens in [((8, 8), 1), ((20, 90), 23)]:
        dartok.set_num_tokens(model, num_tokens)
        found = outputs_of(model, inputs_of(name, num_tokens=num_tokens, size=size))
        assert all(value.isfinite().all() for value in found.values())


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_tokens_of_an_image_ignore_its_batch_mates(name):
    model = dartok.adapt(built(name), num_tokens=9, strength=1.0)
    images = inputs_of(name, batch=3)["pixel_values"]
    together = model(images).last_hidden_state
    alone = torch.cat([model(image[None]).last_hidden_state for image in images])
    assert_close(alone, together, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_scorer_and_the_positions_learn_through_the_regions(name):
    model = dartok.adapt(built(name), num_tokens=9, strength=1.0).train()
    embed = tokenizer_of(model)
    model(torch.randn(2, 3, 48, 40)).last_hidden_state.square().mean().backward()
    assert embed.scorer.gain.grad.abs() > 0
    assert embed.proj.weight.grad.abs().sum() > 0
    if embed.pos_embed is not None and embed.pos_embed.requires_grad:
        assert embed.pos_embed.grad.abs().sum() > 0


@pytest.mark.parametrize("name", CARRIED)
@torch.no_grad()
def test_a_picture_is_cut_once_in_each_call(name, monkeypatch):
    model, calls, cut = dartok.adapt(built(name), num_tokens=9), [], Tokenizer.regions
    monkeypatch.setattr(Tokenizer, "regions", lambda *given: calls.append(1) or cut(*given))
    model(**inputs_of(name, num_tokens=9))
    assert calls == [1]


@pytest.mark.parametrize("name", RECORDING)
@torch.no_grad()
def test_hidden_states_and_attentions_are_recorded_for_host_and_model_apart(name):
    host = built(name)
    host.set_attn_implementation("eager")
    model = dartok.adapt(host, num_tokens=9)
    images = inputs_of(name)["pixel_values"]
    wanted = {"output_hidden_states": True, "output_attentions": True}
    for _ in range(2):
        host(**as_the_host_takes_it(name, host, {"pixel_values": images}), **wanted)
        found = model(images, **wanted)
        length = found.last_hidden_state.shape[1]
        assert [value.shape for value in found.hidden_states] == [(2, length, 32)] * 3
        assert [value.shape for value in found.attentions] == [(2, 2, length, length)] * 2
    assert model(images, return_dict=False)[0].shape == (2, length, 32)


@torch.no_grad()
def test_attention_is_chosen_for_each_model_alone():
    host = built("Dinov2ForImageClassification")
    model = dartok.adapt(host, num_tokens=9, strength=1.0)
    images = torch.randn(1, 3, 40, 40)
    expected = model(images).logits
    model.set_attn_implementation("eager")
    assert_close(model(images).logits, expected, rtol=0, atol=1e-5)
    assert model.dinov2.config is model.config
    assert host.config._attn_implementation == "sdpa"


def test_gradient_checkpointing_changes_nothing_but_memory():
    model = dartok.adapt(built("DINOv3ViTModel"), num_tokens=9, strength=1.0).train()
    images, gradients = torch.randn(1, 3, 40, 40), []
    for _ in range(2):
        model.zero_grad()
        torch.manual_seed(1)  # the host's rotary angles are jittered while it trains
        model(images).last_hidden_state.square().mean().backward()
        gradients.append(model.embeddings.tokenizer.scorer.gain.grad.clone())
        model.activation_checkpointing_enable()
    assert_close(*gradients, rtol=1e-4, atol=1e-9)


@torch.no_grad()
def test_rotary_angles_follow_the_regions():
    model = dartok.adapt(built("DINOv3ViTModel"), scorer="edge").eval()
    images = torch.randn(1, 3, SIDE_PX, SIDE_PX)
    images[..., :16] *= 0.01
    at_rest = model(images).last_hidden_state
    dartok.set_strength(model, 1.0)
    regions = dartok.regions(model, images)
    moved = model(images).last_hidden_state
    tokens = model.embeddings.embed(images, regions)
    fixed = transformers.DINOv3ViTModel(model.config).rope_embeddings(images)
    elsewhere = model.norm(model.model(tokens, position_embeddings=fixed).last_hidden_state)
    assert relative_difference(moved, at_rest) > 0.01
    assert relative_difference(elsewhere, moved) > 0.01


@pytest.mark.parametrize(
    "name", ["Dinov2Backbone", "Dinov2WithRegistersBackbone", "DINOv3ViTBackbone"]
)
@torch.no_grad()
def test_a_backbone_paints_its_maps_from_the_regions(name):
    model = dartok.adapt(built(name), num_tokens=5, strength=1.0)
    images = torch.randn(2, 3, 24, 44)
    found = model(images, output_hidden_states=True)
    assert [values.shape for values in found.feature_maps] == [(2, 32, 3, 5)] * 2
    tokens = found.hidden_states[-1][:, -5:]
    normed = getattr(model, "norm", None) or model.layernorm
    expected = dartok.regions(model, images).to_map(normed(tokens), (3, 5))
    assert_close(found.feature_maps[-1], expected, rtol=0, atol=1e-5)
    assert model(images).hidden_states is None
    model.config.reshape_hidden_states = False
    flat = model(images).feature_maps[-1][:, -15:]
    assert_close(flat.transpose(1, 2).unflatten(2, (3, 5)), expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="attention_mask must be None on regions"):
        model(images, attention_mask=torch.ones(2, 6))


@torch.no_grad()
def test_a_backbone_returns_its_class_tokens_when_asked():
    host = built("DINOv3ViTBackbone")
    host.config.return_class_token = True
    images = torch.randn(2, 3, SIDE_PX, SIDE_PX)
    expected = host(images).cls_tokens
    assert_close(dartok.adapt(host)(images).cls_tokens, expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_vision_language_model_answers_with_one_placeholder_for_each_region():
    name = "LlavaForConditionalGeneration (SigLIP)"
    model = dartok.adapt(built(name), num_tokens=7, strength=1.0)
    inputs = inputs_of(name, num_tokens=7, size=(24, 80), batch=1)
    answer = model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert answer.shape[1] in (inputs["input_ids"].shape[1] + n for n in (1, 2))
    with pytest.raises(ValueError, match="Image features and image tokens do not match"):
        model(**inputs_of(name, num_tokens=9, size=(24, 80), batch=1))
    assert (inputs["input_ids"] == IMAGE_TOKEN).sum() == 7


@pytest.mark.refuses
def test_masks_of_a_fixed_grid_are_refused():
    images = torch.randn(1, 3, 32, 32)
    mask = torch.zeros(1, NUM_PATCHES, dtype=torch.bool)
    for name, option in [
        ("ViTModel", "bool_masked_pos"),
        ("Dinov2Model", "bool_masked_pos"),
        ("DINOv3ViTModel", "bool_masked_pos"),
        ("ViTMAEModel", "noise"),
        ("Siglip2VisionModel", "pixel_attention_mask"),
        ("Siglip2VisionModel", "spatial_shapes"),
    ]:
        with pytest.raises(ValueError, match=f"{option} must be None on regions"):
            dartok.adapt(built(name))(images, **{option: mask})


@pytest.mark.refuses
@torch.no_grad()
def test_a_border_that_the_host_ignores_is_refused_with_the_remedy():
    settings = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.SiglipVisionConfig(**settings, patch_size=8, image_size=36)
    message = r"ignores the border beyond its last \(8, 8\) px patch; load it with image_size=32"
    with pytest.raises(ValueError, match=message):
        dartok.adapt(transformers.SiglipVisionModel(config))
    config.image_size = 32
    dartok.adapt(transformers.SiglipVisionModel(config))


@pytest.mark.refuses
def test_positions_computed_from_the_size_are_refused():
    settings = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Aimv2VisionConfig(**settings, patch_size=8, image_size=32, is_native=True)
    with pytest.raises(ValueError, match="Aimv2VisionModel: its embeddings compute positions"):
        dartok.adapt(transformers.Aimv2VisionModel(config))


def test_frozen_parts_stay_frozen():
    model = dartok.adapt(built("ViTMAEModel"))
    assert not model.embeddings.tokenizer.pos_embed.requires_grad
    assert model.config.mask_ratio == 0
    with torch.no_grad():
        frozen = dartok.adapt(built("Siglip2VisionModel").requires_grad_(False), scorer="edge")
    assert not [name for name, value in frozen.named_parameters() if value.requires_grad]


@torch.no_grad()
def test_a_host_in_half_precision_stays_in_it():
    host = built("CLIPVisionModel").to(torch.bfloat16)
    model = dartok.adapt(host, num_tokens=9, strength=1.0)
    assert model(torch.randn(1, 3, 40, 60)).last_hidden_state.dtype == torch.bfloat16


def test_the_sizes_that_a_host_interpolates_for_need_no_option():
    model = dartok.adapt(built("ViTModel"), num_tokens=9).eval()
    images = torch.randn(1, 3, 40, 72)
    plain = model(images).last_hidden_state
    assert torch.equal(model(images, interpolate_pos_encoding=True).last_hidden_state, plain)


def test_input_embeddings_are_the_tokenizer():
    for name in ("ViTModel", "CLIPVisionModel", "SiglipForImageClassification", "DINOv3ViTModel"):
        model = dartok.adapt(built(name))
        assert model.get_input_embeddings() is tokenizer_of(model)


@pytest.mark.refuses
def test_a_subclass_of_a_host_is_refused():
    class Another(transformers.ViTModel):
        """It may compute anything."""

    config = HOSTS["ViTModel"]().config
    with pytest.raises(ValueError, match="cannot carry over Another"):
        dartok.adapt(Another(config))
