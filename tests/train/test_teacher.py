"""The teacher of a distillation: frozen, given its own pixels and size, of the same classes."""

import json

import numpy as np
import pytest
import timm
import torch
from refusals import refused
from torch import nn

from dartok.core.tokenizer import Tokenizer
from dartok.data.augment import PixelConfig
from dartok.tasks.loss_config import LossConfig
from dartok.tasks.objective import Seen, objective
from dartok.train.model import build_model, recipe_of
from dartok.train.model_config import ModelConfig
from dartok.train.package import save_package
from dartok.train.teacher import Teacher, build_teacher

CPU = torch.device("cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def config_of(teacher, checkpoint=None):
    return LossConfig(distill="soft", teacher=teacher, teacher_checkpoint=checkpoint)


@pytest.fixture
def weights(tmp_path):
    """A file of weights of a model with five classes, and the model in eval mode."""

    def make(name, **options):
        model = timm.create_model(name, num_classes=5, **options).eval()
        torch.save(model.state_dict(), tmp_path / f"{name}.pth")
        return tmp_path / f"{name}.pth", model

    return make


def packaged(folder, **settings):
    """A run's best model in a folder, with pixels of its own."""
    config = ModelConfig(**{"model": "test_vit"} | settings)
    recipe = recipe_of(config, num_classes=5, image_px=None)
    model = build_model(config, recipe).eval()
    pixels = PixelConfig(size_px=160, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    names = tuple("abcde")
    save_package(model, recipe, folder, pixels=pixels, class_names=names, measures={})
    return model


def test_without_distillation_there_is_no_teacher():
    assert build_teacher(LossConfig(), num_classes=5, device=CPU) is None


def test_a_teacher_says_what_its_checkpoint_says_and_never_learns(weights):
    path, model = weights("test_resnet")
    teacher = build_teacher(config_of("test_resnet", path), num_classes=5, device=CPU)
    images = torch.randn(2, 3, 64, 64, requires_grad=True)
    logits = teacher.train()(images)
    torch.testing.assert_close(logits, model(images).detach())
    assert not logits.requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not any(module.training for module in teacher.modules())


@pytest.mark.parametrize("student_px", [64, 300])
def test_a_fixed_grid_gets_the_images_in_its_own_size(weights, student_px):
    path, model = weights("deit_tiny_patch16_224")
    teacher = build_teacher(config_of("deit_tiny_patch16_224", path), num_classes=5, device=CPU)
    assert teacher.size_px == (224, 224)
    images = torch.randn(1, 3, student_px, student_px)
    resized = nn.functional.interpolate(images, (224, 224), mode="bilinear", antialias=True)
    torch.testing.assert_close(teacher(images), model(resized).detach())


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_teacher_of_any_size_sees_the_images_as_they_are(weights, name):
    path, model = weights(name)
    teacher = build_teacher(config_of(name, path), num_classes=5, device=CPU)
    assert teacher.size_px is None
    images = torch.randn(2, 3, 96, 64)
    torch.testing.assert_close(teacher(images), model(images).detach())


def test_pixels_are_converted_to_the_teachers_normalisation(weights):
    path, model = weights("test_resnet")
    own = model.pretrained_cfg
    assert tuple(own["mean"]) != MEAN
    pictures = np.random.default_rng(0).random((2, 3, 64, 64), dtype=np.float64)

    def normalised(mean, std):
        columns = [np.asarray(values)[:, None, None] for values in (mean, std)]
        return torch.from_numpy((pictures - columns[0]) / columns[1]).float()

    config = config_of("test_resnet", path)
    teacher = build_teacher(config, num_classes=5, device=CPU, mean=MEAN, std=STD)
    expected = model(normalised(own["mean"], own["std"])).detach()
    torch.testing.assert_close(teacher(normalised(MEAN, STD)), expected, rtol=0, atol=1e-5)
    unconverted = build_teacher(config, num_classes=5, device=CPU)
    assert (unconverted(normalised(MEAN, STD)) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("settings", [{}, {"num_tokens": "9", "scorer": "edge"}])
def test_the_best_model_of_a_run_is_a_teacher_by_its_folder(tmp_path, settings):
    model = packaged(tmp_path, **settings)
    config = config_of(f"local-dir:{tmp_path}")
    teacher = build_teacher(config, num_classes=5, device=CPU, mean=(0.1, 0.2, 0.3), std=STD)
    assert teacher.size_px is None
    images = torch.randn(2, 3, 64, 64)
    scale = torch.tensor(STD).view(-1, 1, 1) / torch.tensor([0.4, 0.5, 0.6]).view(-1, 1, 1)
    torch.testing.assert_close(teacher(images), model(images * scale).detach())
    assert isinstance(teacher.model.patch_embed, Tokenizer) == ("num_tokens" in settings)


def test_building_a_teacher_leaves_the_callers_random_numbers_alone(weights):
    path, _ = weights("test_resnet")
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    build_teacher(config_of("test_resnet", path), num_classes=5, device=CPU)
    assert torch.equal(torch.rand(4), expected)


def test_a_student_learns_from_its_teacher(weights):
    path, _ = weights("test_resnet")
    config = LossConfig(
        distill="soft",
        teacher="test_resnet",
        teacher_checkpoint=path,
        distill_weight=1.0,
        distill_temperature=1.0,
    )
    teacher = build_teacher(config, num_classes=5, device=CPU)
    student = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 5))
    optimiser = torch.optim.Adam(student.parameters(), lr=0.01)
    images, labels = torch.randn(8, 3, 64, 64), torch.zeros(8, dtype=torch.long)
    terms, history = objective(config, teacher), []
    for _ in range(60):
        loss = sum(terms(Seen(student(images), images, labels, None)).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(loss.item())
    assert history[-1] < 0.1 * history[0]


def test_autocast_of_the_caller_reaches_the_teacher(weights):
    path, _ = weights("test_resnet")
    teacher = build_teacher(config_of("test_resnet", path), num_classes=5, device=CPU)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert teacher(torch.randn(1, 3, 64, 64)).dtype == torch.bfloat16


@pytest.mark.refuses
def test_an_unknown_teacher_is_refused():
    with refused("teacher 'resnet_18' is unknown; see timm.list_models()"):
        build_teacher(config_of("resnet_18"), num_classes=5, device=CPU)


@pytest.mark.refuses
@pytest.mark.parametrize("name", ["local-dir:/nowhere", "hf-hub:timm/nothing", "test_resnet"])
def test_a_teacher_whose_weights_are_not_there_is_refused_in_one_line(name):
    message = f"teacher '{name}' cannot be built (.*); check the name, or give its weights"
    pattern = message.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=pattern) as caught:
        build_teacher(config_of(name), num_classes=5, device=CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.refuses
def test_a_teacher_of_other_classes_is_refused(tmp_path):
    packaged(tmp_path)
    name = f"local-dir:{tmp_path}"
    with refused(
        f"teacher {name!r} must know the 7 classes of the pictures, got 5; choose a model "
        "trained on them"
    ):
        build_teacher(config_of(name), num_classes=7, device=CPU)
    assert json.loads((tmp_path / "config.json").read_text())["num_classes"] == 5


@pytest.mark.refuses
def test_a_checkpoint_of_other_classes_or_of_another_model_is_refused(weights):
    path, _ = weights("test_resnet")
    for name, num_classes in (("test_resnet", 7), ("resnet18", 5)):
        with pytest.raises(ValueError, match="teacher-checkpoint .* does not fit ResNet") as caught:
            build_teacher(config_of(name, path), num_classes=num_classes, device=CPU)
        assert "\n" not in str(caught.value)


@pytest.mark.refuses
def test_half_a_normalisation_is_refused(weights):
    path, _ = weights("test_resnet")
    config = config_of("test_resnet", path)
    with refused(f"mean and std must be given together, got mean={MEAN}, std=None"):
        build_teacher(config, num_classes=5, device=CPU, mean=MEAN)
    with refused(f"mean and std must be given together, got mean=None, std={STD}"):
        build_teacher(config, num_classes=5, device=CPU, std=STD)


def test_a_teacher_of_ones_own_is_frozen_too():
    teacher = Teacher(nn.Linear(2, 2), size_px=None, scale=(1.0,), shift=(0.0,))
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
