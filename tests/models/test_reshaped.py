"""`reshape`: any model behind a warp, the same function at the start, or a refusal by name."""

import copy
import pickle

import pytest
import timm
import torch
from deterministic import spread
from refusals import refused
from torch import nn
from torch.testing import assert_close

import dartok
import dartok.scorers
from dartok.models.host_maps import tensors_in
from dartok.models.reshaped_hosts import ReshapedModel, ReshapedTimm

SMALL = [
    "test_byobnet",
    "test_coatnet",  # takes one size only
    "test_convnext",
    "test_convnext2",
    "test_efficientnet",
    "test_efficientnet_gn",
    "test_mambaout",  # features in NHWC
    "test_maxvit",  # takes one size only
    "test_nfnet",
    "test_resnet",
    "test_vit",
    "test_vit_relpos",
]

LARGE = [
    "convnext_atto",
    "edgenext_xx_small",
    "mobilenetv3_small_050",
    "mvitv2_tiny",
    "pvt_v2_b0",
    "regnety_002",
    "resnet18",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
]

ONE_SIZE = ["test_coatnet", "test_maxvit", "test_vit", "test_vit_relpos"]


def small(name="test_convnext", **options):
    return timm.create_model(name, **options)


def relative_difference(actual, expected):
    return float((actual - expected).norm() / expected.norm())


def check_start(name):
    host = spread(small(name)).eval()
    images = torch.randn(2, *host.pretrained_cfg["input_size"])
    model = dartok.reshape(host)
    assert relative_difference(model(images), host(images)) < 1e-5
    features = model.forward_features(images)
    assert relative_difference(features, host.forward_features(images)) < 1e-5
    dartok.set_strength(model, 1.0)
    assert relative_difference(model(images), host(images)) > 1e-3


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_a_reshaped_host_starts_as_the_same_function(name):
    check_start(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
@torch.no_grad()
def test_a_reshaped_host_of_usual_size_starts_as_the_same_function(name):
    check_start(name)


@pytest.mark.parametrize("name", ["test_convnext", "test_efficientnet", "test_maxvit", "test_vit"])
@torch.no_grad()
def test_a_feature_extractor_starts_as_the_same_function(name):
    host = small(name, features_only=True).eval()
    images = torch.randn(2, 3, 160, 160)
    model = dartok.reshape(host)
    for actual, expected in zip(model(images), host(images), strict=True):
        assert relative_difference(actual, expected) < 1e-5


@pytest.mark.parametrize("name", ONE_SIZE)
@torch.no_grad()
def test_a_host_that_takes_one_size_gets_it_whatever_the_picture(name):
    model = dartok.reshape(small(name), strength=1.0).eval()
    assert model.reshaper.size_px == (160, 160)
    assert model.reshaper.grid == (10, 10)
    for size in [(64, 300), (500, 333), (7, 5)]:
        assert model(torch.randn(1, 3, *size)).isfinite().all()


@torch.no_grad()
def test_other_hosts_get_the_size_of_the_picture_or_the_one_asked_for():
    host, images = small().eval(), torch.randn(1, 3, 100, 140)
    assert dartok.reshape(host).forward_features(images).shape[-2:] == (3, 4)
    model = dartok.reshape(host, size_px=(64, 96), grid=(5, 6))
    assert model.forward_features(images).shape[-2:] == (2, 3)
    assert dartok.regions(model, images).num_tokens == 30
    assert dartok.reshape(host, size_px=64, grid=5).reshaper.grid == (5, 5)


@torch.no_grad()
def test_a_reduction_to_the_host_at_strength_zero_is_the_area_average():
    host, images = small("test_resnet").eval(), torch.randn(1, 3, 320, 320)
    halved = nn.functional.avg_pool2d(images, 2)
    assert relative_difference(dartok.reshape(host, size_px=160)(images), host(halved)) < 1e-5


@torch.no_grad()
def test_any_module_of_pictures_is_taken():
    class Net(nn.Module):
        """Maps in a dict, as torchvision's segmentation models return them."""

        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(5, 4, 3, padding=1, stride=2)

        def forward(self, images):
            features = self.body(images)
            return {"out": features[:, :2], "aux": features[:, 2:]}

    net, images = Net(), torch.randn(2, 5, 224, 224)
    model = dartok.reshape(net)
    assert type(model) is ReshapedModel
    for actual, expected in zip(tensors_in(model(images)), tensors_in(net(images)), strict=True):
        assert relative_difference(actual, expected) < 1e-5
    assert not hasattr(model, "forward_features")
    assert not hasattr(model, "num_classes")
    without_weights = dartok.reshape(nn.AvgPool2d(2))
    assert without_weights(images[:, :3]).shape == (2, 3, 112, 112)


def test_the_host_is_held_and_left_as_it_was():
    host = spread(small("test_resnet")).train()
    host.bn1.eval()  # frozen statistics stay frozen
    state = copy.deepcopy(host.state_dict())
    model = dartok.reshape(host, strength=0.5, oversample=2)
    assert model.host is host
    assert model.training
    assert host.training
    assert not host.bn1.training
    assert all(torch.equal(state[key], value) for key, value in host.state_dict().items())
    assert float(model.reshaper.strength) == 0.5
    assert model.reshaper.oversample == 2


def test_the_check_draws_nothing_from_the_callers_seed():
    host = small()
    torch.manual_seed(3)
    dartok.reshape(host, scorer="edge")
    drawn = torch.randn(2)
    torch.manual_seed(3)
    assert torch.equal(torch.randn(2), drawn)


def test_it_can_be_saved_copied_and_pickled():
    model = dartok.reshape(small(), strength=0.7, size_px=96).eval()
    images = torch.randn(1, 3, 100, 60)
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert torch.equal(again(images), model(images))
    other = dartok.reshape(small(), size_px=96).eval()
    other.load_state_dict(model.state_dict())
    assert_close(other(images), model(images))


def test_the_scorer_learns_through_the_picture():
    model = dartok.reshape(spread(small()), strength=1.0).train()
    model(torch.randn(2, 3, 96, 128)).square().sum().backward()
    assert model.reshaper.scorer.gain.grad.abs() > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@torch.no_grad()
def test_the_dials_work_on_it():
    model = dartok.reshape(small(), scorer="edge").eval()
    images = torch.zeros(1, 3, 160, 160)
    images[:, :, 30:80, 30:80] = torch.rand(3, 50, 50)
    assert dartok.regions(model, images).areas().std() < 1e-12
    dartok.set_strength(model, 1.0)
    before = dartok.regions(model, images).areas().std()
    assert before > 1e-4
    with dartok.steer(model, [torch.tensor([[0.7, 0.7, 0.9, 0.9]])], weight=3.0):
        steered, logits = dartok.regions(model, images), model(images)
    assert (steered.row_edges > 0.7).sum() > (dartok.regions(model, images).row_edges > 0.7).sum()
    assert relative_difference(logits, model(images)) > 1e-3
    pictures = dartok.draw(images, dartok.regions(model, images))
    assert pictures[0].size == (320, 320)
    assert dartok.transform(model) is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@torch.no_grad()
def test_other_dtypes_are_taken(dtype):
    model = dartok.reshape(small().to(dtype), strength=1.0).eval()
    assert model(torch.randn(1, 3, 96, 96, dtype=dtype)).dtype == dtype


def test_reshaping_under_autocast_is_not_mistaken_for_another_function():
    with torch.autocast("cpu", torch.bfloat16):
        model = dartok.reshape(small(), strength=1.0)
        assert model(torch.randn(2, 3, 64, 64)).isfinite().all()


@pytest.mark.slow
def test_it_compiles_and_exports():
    model = dartok.reshape(small(), strength=1.0, size_px=64).eval()
    images = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        expected = model(images)
        exported = torch.export.export(model, (images,)).module()(images)
        compiled = torch.compile(model, backend="eager", fullgraph=True)(images)
    assert_close(compiled, expected, rtol=0, atol=1e-4)
    assert_close(exported, expected, rtol=0, atol=1e-2)  # float32 geometry


def test_timms_models_keep_their_class_of_methods():
    assert type(dartok.reshape(small())) is ReshapedTimm


@pytest.mark.refuses
def test_what_cannot_be_reshaped_is_refused_by_name():
    model = dartok.reshape(small())
    with refused("backbone is adapted already, got ReshapedTimm; reshape the original model"):
        dartok.reshape(model)
    with refused("host is adapted already, got ReshapedTimm; adapt the original model"):
        dartok.adapt(model)
    with refused("backbone is adapted already, got RegionViT; reshape the original model"):
        dartok.reshape(dartok.adapt(small("test_vit")))
    with refused("backbone must be an nn.Module, got 'resnet18'; give a model itself"):
        dartok.reshape("resnet18")
    with torch.device("meta"):
        host = nn.Conv2d(3, 4, 3)
    with refused("reshape cannot check Conv2d on the meta device: load it first"):
        dartok.reshape(host)
    with pytest.raises(ValueError, match=r"^Linear cannot take a picture \(1, 3, 224, 224\) \("):
        dartok.reshape(nn.Linear(3, 2))
    with pytest.raises(ValueError, match="unknown scorer 'convv'; did you mean conv"):
        dartok.reshape(small(), scorer="convv")
    with pytest.raises(ValueError, match="cannot take a picture .* give the size that it takes as"):
        dartok.reshape(small("test_maxvit"), size_px=(100, 100))


@pytest.mark.refuses
def test_a_host_whose_function_changes_is_refused_by_the_check():
    class Restless(nn.Module):
        """Another function each time it is called."""

        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, images):
            self.calls += 1
            return images + 0.1 * self.calls

    with pytest.raises(ValueError, match="in front of Restless: on the even grid its feat"):
        dartok.reshape(Restless())


@pytest.mark.refuses
def test_what_it_is_not_made_for_is_refused_with_a_remedy(tmp_path):
    model = dartok.reshape(small())
    with refused(
        "ReshapedTimm has no number of tokens, got 100: its reshaper only warps the picture; "
        "dartok.reshape(host, size_px=...) sets how large it becomes"
    ):
        dartok.set_num_tokens(model, 100)
    for save in (
        lambda: dartok.save_pretrained(model, tmp_path / "saved"),
        lambda: dartok.export(model.eval(), tmp_path / "model.onnx"),
    ):
        with refused(
            "model must hold a dartok tokenizer, got ReshapedTimm, which only has a reshaper; to "
            "keep it, save its state_dict() and load that into dartok.reshape of the same host"
        ):
            save()
    assert list(tmp_path.iterdir()) == []


def test_its_scorer_can_be_calibrated():
    scorer = dartok.scorers.create_scorer("pixels", statistics="batch")
    model = dartok.reshape(small(), scorer=scorer, strength=1.0).eval()
    images = torch.rand(4, 3, 64, 64)
    dartok.calibrate(model, images)
    together, alone = dartok.regions(model, images), dartok.regions(model, images[:1])
    assert_close(together.row_edges[:1], alone.row_edges, rtol=0, atol=1e-6)
    dartok.calibrate(dartok.reshape(small()), images)  # has nothing to freeze, and says nothing
