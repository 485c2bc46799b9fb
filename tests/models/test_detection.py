"""Adapted models as backbones of torchvision's detectors."""

import pytest
import timm
import torch
from deterministic import spread
from torch.testing import assert_close
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet

import dartok
from dartok.models.detection import RegionPyramid

ONE_STAGE = (8, 16, 32, 64, 128)
DETECTORS = {
    FasterRCNN: (4, 8, 16, 32, 64),
    MaskRCNN: (4, 8, 16, 32, 64),
    RetinaNet: ONE_STAGE,
    FCOS: ONE_STAGE,
}
SIDE_PX = 96


def backbone(num_tokens=64, **options):
    host = spread(timm.create_model("test_vit", num_classes=0, **options))
    return dartok.adapt(host, num_tokens=num_tokens, strength=1.0)


def detector(cls, **options):
    pyramid = RegionPyramid(backbone(), out_channels=32, strides=DETECTORS[cls])
    size = {"min_size": SIDE_PX, "max_size": 2 * SIDE_PX}
    return cls(pyramid, num_classes=2, **size, **pyramid.pixels, **options)


def rectangles(count, size=(SIDE_PX, SIDE_PX)):
    """Pictures from 0 to 1 of a bright rectangle on a textured ground, and its box and mask."""
    images, targets = [], []
    for _ in range(count):
        height, width = size
        top, left = (int(torch.randint(4, side // 2, ())) for side in size)
        bottom, right = top + height // 3, left + width // 3
        mask = torch.zeros(1, height, width, dtype=torch.uint8)
        mask[:, top:bottom, left:right] = 1
        images.append(0.3 * torch.rand(3, height, width) + 0.6 * mask)
        box = torch.tensor([[left, top, right, bottom]], dtype=torch.float32)
        targets.append({"boxes": box, "labels": torch.tensor([1]), "masks": mask})
    return images, targets


@torch.no_grad()
def test_levels_have_their_strides_and_names():
    pyramid = RegionPyramid(backbone(), out_channels=32).eval()
    levels = pyramid(torch.randn(2, 3, 70, 101))
    assert list(levels) == ["0", "1", "2", "3", "4"]
    for stride, level in zip((4, 8, 16, 32, 64), levels.values(), strict=True):
        assert level.shape == (2, 32, -(-70 // stride), -(-101 // stride))


@pytest.mark.parametrize(
    "cls", [FasterRCNN, pytest.param(MaskRCNN, marks=pytest.mark.slow), RetinaNet, FCOS]
)
def test_a_detector_trains_and_predicts_on_pictures_of_several_sizes(cls):
    model = detector(cls)
    images, targets = rectangles(1, (96, 128))
    others, more = rectangles(1, (120, 90))
    losses = model.train()([*images, *others], [*targets, *more])
    sum(losses.values()).backward()
    learnt = [one for one in model.parameters() if one.grad is not None]
    assert all(one.grad.isfinite().all() for one in learnt)
    scorer = model.backbone.dense.model.patch_embed.scorer
    assert any(one.grad.abs().max() > 0 for one in scorer.parameters())
    with torch.no_grad():
        found = model.eval()([*images, *others])
    assert [one["boxes"].shape[1] for one in found] == [4, 4]


@pytest.mark.slow
@pytest.mark.parametrize("cls", [FasterRCNN, RetinaNet])
def test_twenty_steps_lower_the_loss(cls):
    model = detector(cls).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    losses = []
    for _ in range(20):
        loss = sum(model(*rectangles(4)).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    first, last = sum(losses[:4]) / 4, sum(losses[-4:]) / 4
    assert last < 0.8 * first


@torch.no_grad()
def test_pictures_of_one_size_do_not_depend_on_their_batch():
    model = detector(RetinaNet, score_thresh=0.0).eval()
    images, _ = rectangles(3)
    together = model(images)
    for image, expected in zip(images, together, strict=True):
        (alone,) = model([image])
        assert_close(alone["scores"], expected["scores"], rtol=1e-4, atol=1e-5)


def test_pixels_are_normalised_as_the_model_expects():
    model = backbone()
    model.pretrained_cfg = {**model.pretrained_cfg, "mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 3.0)}
    pyramid = RegionPyramid(model)
    made = RetinaNet(pyramid, num_classes=2, **pyramid.pixels)
    assert made.transform.image_mean == (0.1, 0.2, 0.3)
    assert made.transform.image_std == (1.0, 2.0, 3.0)


@torch.no_grad()
def test_dials_work_on_the_detector():
    model = detector(FCOS)
    dartok.set_strength(model, 0.25)
    dartok.set_num_tokens(model.backbone, "auto", mean=32)
    assert float(model.backbone.dense.model.patch_embed.strength) == 0.25
    assert len(model.eval()(rectangles(2)[0])) == 2


@pytest.mark.refuses
def test_a_model_that_does_not_say_its_pixels_is_refused():
    model = backbone()
    model.pretrained_cfg = {}
    with pytest.raises(ValueError, match="^the model must say how its pixels are normalised"):
        RegionPyramid(model).pixels  # noqa: B018


@pytest.mark.refuses
def test_a_model_without_maps_is_refused():
    with pytest.raises(ValueError, match="got a Linear$"):
        RegionPyramid(torch.nn.Linear(2, 2))
