"""RMT: the authors' numbers, any size of picture, one picture at a time, and its refusals."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_models import largest, numbers
from refusals import refused
from torch.testing import assert_close

from dartok.bench.cost import measure_cost
from dartok.models.named import build_named
from dartok.models.presets import RMT_PRESETS
from dartok.models.rmt.host import RMT

FILE = Path(__file__).parents[2] / "golden" / "rmt_trunk.json"
SALT = "public/unit/rmt"
SMALL = {
    "embed_dims": (8, 16, 32, 64),
    "depths": (1, 1, 2, 1),
    "num_heads": (2, 2, 4, 4),
    "mlp_ratios": (4, 4, 3, 3),
    "decay_ranges": (4, 4, 6, 6),
    "num_scaled": 2,
    "head_width": 32,
    "num_classes": 10,
}
"""Options of the model that the golden numbers are of."""


def small(**options):
    return RMT(**SMALL | options).double().eval()


def drawn(key, shape):
    """A weight whose bits are given by its name, as the golden numbers have them: float32."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    state = np.random.RandomState(zlib.crc32(f"{SALT}|{key}".encode()))
    noise = 2.0 * state.random_sample(shape) - 1.0
    leaf = key.rsplit(".", 1)[-1]
    if leaf in ("bias", "running_mean"):
        return (0.1 * noise).astype(np.float32)
    if leaf == "running_var":
        return (1.0 + 0.5 * noise).astype(np.float32)
    if leaf.startswith("gamma"):
        return (0.3 * (1.0 + 0.2 * noise)).astype(np.float32)
    if noise.ndim == 1:
        return (1.0 + 0.2 * noise).astype(np.float32)
    gain = 0.04 if ".pos.conv." in key else 1.7 if noise.ndim == 4 else 1.0
    return (noise * np.sqrt(3.0 * gain / noise[0].size)).astype(np.float32)


def with_golden_weights():
    model = small()
    state = model.state_dict()
    for key, value in state.items():
        if "Relpos" not in key:  # constants of the model
            state[key] = torch.from_numpy(np.asarray(drawn(key, tuple(value.shape))))
    model.load_state_dict(state)
    return model


def noise_picture(seed, size):
    """White noise in 8 bits, normalised; float32 values."""
    pixels = np.random.RandomState(seed).randint(0, 256, size=(3, size, size)).astype(np.uint8)
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    return torch.from_numpy(((pixels / 255.0 - mean) / std).astype(np.float32)).double()[None]


@torch.no_grad()
def maps_of(model, images):
    """Behind the stem, and behind each stage and its downsampling; channels last."""
    x = model.patch_embed(images)
    maps = {"stem": x[:, ::5, ::5]}
    for index, stage in enumerate(model.layers):
        x = stage(x)
        x = x if stage.downsample is None else stage.downsample(x)
        maps[f"stage{index}"] = x[:, ::3, ::3]
    return maps


@torch.no_grad()
def test_maps_and_logits_are_the_authors(shared_golden, filler):
    golden = numbers(shared_golden / "units/rmt_trunk.npz")
    seeds = zip(golden["image_seeds"].tolist(), ("scene", "noise"), strict=True)
    pictures = filler.batch(list(seeds), 64, 64)
    assert filler.crc(pictures) == int(golden["image_crc32"])
    images = torch.from_numpy(pictures)
    model = with_golden_weights()
    for name, values in maps_of(model, images.double()).items():
        assert largest(values, golden[name]) < 1e-9, name
    assert largest(model(images.double()), golden["logits"]) < 1e-9
    for name in ("angle", "decay"):
        for stage in range(4):
            own = getattr(model.layers[stage].Relpos, name).float().numpy()
            assert np.array_equal(own, golden[f"buffer/layers.{stage}.Relpos.{name}"])
    assert largest(model.float()(images), golden["logits"]) < 3e-6


@torch.no_grad()
def test_a_few_numbers_of_the_authors_are_reproduced_without_their_folder():
    golden = json.loads(FILE.read_text())
    model, images = with_golden_weights(), noise_picture(golden["image_seed"], 64)
    for name, values in maps_of(model, images).items():
        expected = torch.tensor(golden[name], dtype=torch.float64)
        assert_close(values[0, ..., :4], expected, rtol=0, atol=1e-9)
    logits = torch.tensor([golden["logits"]], dtype=torch.float64)
    assert_close(model(images), logits, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("rmt_t3", 14_334_216), ("rmt_s", 26_967_240), ("rmt_m2", 54_154_896), ("rmt_l6", 95_464_864)],
)
def test_each_model_has_the_parameters_of_its_kind(name, parameters):
    """14, 27, 54 and 95 million in RMT's paper; S and L6 as the authors' less their scorer."""
    with torch.device("meta"):
        model = build_named(name)
    assert sum(p.numel() for p in model.parameters()) == parameters
    factorised = [stage.Relpos.factorised for stage in model.layers]
    assert factorised == [True, True, name != "rmt_t3", False]
    scaled = [stage.blocks[0].gamma_1 is not None for stage in model.layers]
    assert scaled == ([False, False, True, True] if name in ("rmt_m2", "rmt_l6") else [False] * 4)
    assert [len(stage.blocks) for stage in model.layers] == list(RMT_PRESETS[name].depths)


def test_the_cost_is_that_of_the_paper_within_a_twentieth():
    """2.5 and 4.5 G in RMT's paper, of products alone here."""
    for name, published in (("rmt_t3", 2.5e9), ("rmt_s", 4.5e9)):
        cost = measure_cost(build_named(name), (224, 224))
        assert abs(cost.multiply_adds / published - 1) < 0.07, cost


@pytest.mark.parametrize("size", [(64, 64), (33, 70), (97, 40), (1, 1), (8, 200)])
@torch.no_grad()
def test_any_size_works_and_an_image_is_its_own(size):
    model = small()
    images = torch.randn(3, 3, *size, dtype=torch.float64)
    together = model(images)
    assert together.shape == (3, 10)
    alone = torch.cat([model(image[None]) for image in images])
    assert_close(together, alone, rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_picture_lies_on_its_side_as_well():
    """Rows and columns are not mixed up: the sizes of the maps follow the picture's."""
    maps = small().forward_intermediates(
        torch.randn(1, 3, 40, 100, dtype=torch.float64), intermediates_only=True
    )
    assert [tuple(m.shape[-2:]) for m in maps] == [(10, 25), (5, 13), (3, 7), (2, 4)]


@torch.no_grad()
def test_stages_are_normalised_as_they_stand_in_the_state_dict():
    """Layer scale starts at 1e-6, so a block is then nearly its first convolution alone."""
    block = small(depths=(1, 1, 1, 1)).layers[3].blocks[0]
    x = torch.randn(1, 2, 3, 64, dtype=torch.float64)
    table = small().layers[3].Relpos.tables((2, 3), x.dtype)
    assert_close(block(x, table), x + block.pos(x), rtol=0, atol=1e-5)
    assert set(block.state_dict()) >= {"gamma_1", "gamma_2"}


def test_stochastic_depth_grows_over_all_blocks():
    model = small(drop_path_rate=0.4)
    rates = [getattr(b.drop_path, "drop_prob", 0.0) for s in model.layers for b in s.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.refuses
def test_options_that_do_not_fit_are_refused():
    with refused(
        "embed_dims, depths, num_heads, mlp_ratios and decay_ranges must be one for each stage, "
        "got 4, 3, 4, 4, 4"
    ):
        small(depths=(1, 1, 1))
    with refused("num_heads must divide the width 8, got 3"):
        small(num_heads=(3, 2, 4, 4))
    with refused("embed_dims must start with an even number, got 9"):
        small(embed_dims=(9, 16, 32, 64))
    with refused("drop_path_rate must be from 0 to below 1, got 1.0"):
        small(drop_path_rate=1.0)
    with pytest.raises(ValueError, match="global_pool must be one of"):
        small(global_pool="token")
    with pytest.raises(TypeError, match="unexpected keyword argument 'num_tokens'"):
        small(num_tokens=3)


def test_the_picture_here_is_that_of_the_golden_numbers(filler):
    made = filler.batch([(10501, "noise")], 64, 64)
    assert torch.equal(torch.from_numpy(made).double(), noise_picture(10501, 64))
