"""The authors' RMTs behind their reshaper: their numbers, their layout, and what they learn."""

import argparse
import re
from dataclasses import replace

import pytest
import torch
from deterministic import fill
from golden_models import authors_state, golden_images, largest, layout, numbers
from refusals import refused
from safetensors import safe_open

import dartok
from dartok.models.checkpoints import convert_checkpoint, from_authors
from dartok.models.darmt import build_darmt
from dartok.models.named import build_named
from dartok.models.presets import DARMT_PRESETS, PRESETS, DarmtPreset
from dartok.models.rmt.host import RMT
from dartok.scorers.weights import load_strictly

THEIRS = {"darmt_s": "DARMT_S", "darmt_l6": "DARMT_L6"}
FLOAT32_ATOL = {False: 2e-4, True: 4e-3}
"""What the authors' own float32 run differs from float64 by: on a scene, on white noise."""

each = pytest.mark.parametrize("name", DARMT_PRESETS)


SMALL = {
    "embed_dims": (8, 16, 32, 64),
    "depths": (1, 1, 2, 1),
    "num_heads": (2, 2, 4, 4),
    "mlp_ratios": (3, 3, 3, 3),
    "decay_ranges": (4, 4, 6, 6),
    "num_factorised": 3,
}


def small():
    """The authors' model at a few channels."""
    return build_darmt(DarmtPreset(title="small", **SMALL), num_classes=10)


@pytest.fixture
def _few_blocks(monkeypatch):
    """The models have no option for it."""
    for name in ("rmt_s", "darmt_s"):
        monkeypatch.setitem(PRESETS, name, replace(PRESETS[name], depths=(1, 1, 3, 1)))


def filled(name, folder, filler):
    """One of our models with the golden weights, in float64; its constants are its own."""
    model = build_named(name).double().eval()
    entries = layout(folder, THEIRS[name])["entries"]
    state = authors_state(entries, f"public/model/{THEIRS[name]}", filler, torch.float64)
    state |= {key: value for key, value in model.state_dict().items() if ".Relpos." in key}
    load_strictly(model, from_authors(state, model), source=name)
    return model


@pytest.mark.slow
@each
@torch.no_grad()
def test_logits_and_pictures_are_the_authors(name, shared_golden, filler):
    golden = numbers(shared_golden / f"models/{THEIRS[name]}.npz")
    images = golden_images(golden, 448, filler)
    model = filled(name, shared_golden, filler)
    wide = images.double()
    regions = dartok.regions(model, wide)
    assert largest(model.pre_image.scorer(wide).flatten(1), golden["score"]) < 1e-9
    assert largest(regions.strip_edges * 448, golden["edges_px"]) < 1e-9
    assert largest(regions.row_edges[:, 0].diff(dim=-1) * 224, golden["row_heights"]) < 1e-9
    assert largest(model.pre_image(wide)[:, :, ::28, ::28], golden["image_part"]) < 1e-9
    features = model.forward_features(wide)
    assert largest(model.forward_head(features, pre_logits=True), golden["features"]) < 1e-9
    assert largest(model.forward_head(features), golden["logits"]) < 1e-9
    logits = model.float()(images)
    for image, noise in enumerate(golden["image_is_noise"].tolist()):
        assert largest(logits[image], golden["logits"][image]) < FLOAT32_ATOL[noise]


@each
def test_state_dicts_have_the_authors_layout_and_parameter_counts(name, shared_golden):
    spec = layout(shared_golden, THEIRS[name])
    with torch.device("meta"):
        model = build_named(name)
        state = {key: torch.empty(shape) for key, shape, _ in spec["entries"]}
    renamed = from_authors(state, model)
    ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert {key: tuple(value.shape) for key, value in renamed.items()} == ours
    extra = {key for key in renamed if re.search(r"\.(strength|statistics\.\w+)$", key)}
    assert len(renamed) - len(extra) == len(spec["entries"])
    assert sum(p.numel() for p in model.parameters()) == spec["total_params"]
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert learning == spec["trainable_params"]


def theirs(state):
    """A state dict of ours in the authors' layout."""
    kept = {k: v for k, v in state.items() if "statistics" not in k and "strength" not in k}
    renamed = {k.replace("scorer.head.mlp.", "scorer.mlp.net."): v for k, v in kept.items()}
    return {k.replace("pre_image.scorer.", "pre_image.spn.spn.spn."): v for k, v in renamed.items()}


@pytest.mark.usefixtures("_few_blocks")
@torch.no_grad()
def test_the_official_file_and_its_converted_form_load_strictly(tmp_path):
    source = build_named("darmt_s")
    state = theirs(source.state_dict())
    whole = {"model": state, "model_ema": state, "epoch": 3, "args": argparse.Namespace(lr=1.0)}
    torch.save(whole, tmp_path / "a.pth")
    assert convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors") == "darmt_s"
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata()["model"] == "darmt_s"
    expected = source.state_dict()
    for file in ("a.pth", "a.safetensors"):
        model = dartok.create_model("darmt_s", checkpoint=tmp_path / file)
        assert not model.training
        assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    del state["layers.2.Relpos.decay"]
    torch.save({"model": state}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"does not fit RegionRMT: missing: layers.2.Relpos.decay"):
        dartok.create_model("darmt_s", checkpoint=tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"a.pth as rmt_s does not fit RMT: unexpected: pre_image"):
        dartok.create_model("rmt_s", checkpoint=tmp_path / "a.pth")


def test_the_scorer_learns_from_the_logits_and_its_features_do_not():
    model = small().double().eval()
    images = torch.randn(2, 3, 224, 224, dtype=torch.float64)
    model(images).square().sum().backward()
    head = [p for name, p in model.named_parameters() if "pre_image.scorer.head" in name]
    assert len(head) == 4
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head)
    assert any(p.grad.abs().max() > 0 for p in head)
    features = [p for name, p in model.named_parameters() if "scorer.features" in name]
    assert all(p.grad is None for p in features)


@torch.no_grad()
def test_an_image_depends_on_its_batch_until_calibrated():
    model = small().double().eval()
    fill(model.pre_image.scorer)  # the features of a net drawn at random hardly differ
    images = (
        torch.randn(3, 3, 224, 224, dtype=torch.float64)
        * torch.tensor([1.0, 0.2, 3.0])[:, None, None, None]
    )

    def difference():
        together = dartok.regions(model, images).strip_edges[:1]
        return (together - dartok.regions(model, images[:1]).strip_edges).abs().max()

    assert difference() > 1e-5
    dartok.calibrate(model, images)
    assert difference() < 1e-9


@torch.no_grad()
def test_what_it_sees_is_the_picture_reshaped():
    model, images = small().eval(), torch.randn(2, 3, 448, 448)
    plain = RMT(**SMALL, num_classes=10).eval()
    state = model.state_dict().items()
    plain.load_state_dict({k: v for k, v in state if not k.startswith("pre_image.")})
    assert torch.equal(plain(model.pre_image(images)), model(images))


@pytest.mark.usefixtures("_few_blocks")
@torch.no_grad()
def test_a_saved_model_comes_back(tmp_path):
    model = dartok.create_model("darmt_s", num_classes=3, score_size=224).eval()
    dartok.save_pretrained(model, tmp_path / "kept")
    again = dartok.from_pretrained(tmp_path / "kept")
    images = torch.randn(1, 3, 224, 224)
    assert torch.equal(again(images), model(images))
    assert "14 parts of equal score mass" in (tmp_path / "kept" / "README.md").read_text()


@pytest.mark.refuses
def test_options_that_it_cannot_follow_are_refused():
    for option in ("num_tokens", "num_rows"):
        with refused(
            f"darmt_s always has 14 x 14 regions and takes no {option}; leave it out, or use a "
            "darvit_* or darvim_* model"
        ):
            dartok.create_model("darmt_s", **{option: 9})
    with refused(
        "rmt_s sees a picture as it is and takes no scorer_weights; darmt_s, darmt_l6 have a "
        "reshaper in front"
    ):
        dartok.create_model("rmt_s", scorer_weights="imagenet")
    with refused("img_size must be 448 or 224, got (448, 224)"):
        build_named("darmt_s", img_size=(448, 224))
    with pytest.raises(ValueError, match="must hold a dartok tokenizer, got RegionRMT"):
        dartok.set_num_tokens(small(), 100)
