"""Training and evaluating on videos: through the same run as pictures, and by hand."""

import pytest
import torch
from clip_folders import CLASSES, write_clips
from PIL import Image
from run_configs import make_config
from torch import nn
from torch.testing import assert_close

from dartok.data.clips.clip_config import ClipConfig
from dartok.data.clips.opening import open_clips
from dartok.data.clips.transforms import eval_clip_transform
from dartok.data.loading import BadSamples
from dartok.models.dials import tokenizer_of
from dartok.tasks.score_map import by_clip
from dartok.train.clip_prediction import predict_clips
from dartok.train.evaluation import evaluate, view_logits
from dartok.train.model import region_args
from dartok.train.model_config import ModelConfig
from dartok.train.package import load_package
from dartok.train.pictures import find_videos
from dartok.train.prediction import PredictJob
from dartok.train.records import read_records
from dartok.train.run import Run, _of_frames
from dartok.train.world import World


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"))


_REGIONS = {"num_tokens": "24", "scorer": "motion/conv"}
_GRID = {"num_tokens": None, "scorer": "conv"}


def config_of(clips, out, **settings):
    usual = {
        "task": "video",
        "num_frames": 4,
        **_REGIONS,
        "image_px": 32,
        "batch_size": 4,
        "warmup_steps": 1,
        "learning_rate": 2e-3,
        "hflip": 0.0,
        "min_crop": 0.9,
    }
    return make_config(clips, **{**usual, "out": out, **settings})


def run(clips, out, **settings):
    found = []
    config = config_of(clips, out, **settings)
    Run(config=config, world=World(), on_result=found.append).train()
    return found


def test_a_run_is_evaluated_and_the_best_model_says_which_frames_it_wants(clips, tmp_path):
    (result,) = run(clips, tmp_path / "run", steps=3, eval_every=3, num_clips=2)
    assert result.measures["images"] == 6
    package = load_package(tmp_path / "run/best")
    assert package.class_names == CLASSES
    assert package.clip == ClipConfig(num_frames=4, num_clips=2)
    assert tokenizer_of(package.model).num_tokens == 24
    assert package.model(torch.zeros(1, 4, 3, 32, 32)).shape == (1, 2)
    health = list(read_records(tmp_path / "run/metrics.jsonl"))
    assert any("score/entropy" in record for record in health)


def test_a_broken_off_run_goes_on_bit_for_bit(clips, tmp_path):
    settings = {"save_every": 2, "eval_every": 10, "mixup": 0.8, "cutmix": 1.0, "drop_path": 0.1}
    run(clips, tmp_path / "whole", steps=4, **settings)
    config = config_of(clips, tmp_path / "parts", steps=4, **settings)

    def stop(progress):
        if progress.report.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Run(config=config, world=World(), on_step=stop).train()
    run(clips, tmp_path / "parts", steps=4, resume=True, **settings)
    whole, parts = (load_package(tmp_path / name / "best").model for name in ("whole", "parts"))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        (_GRID, 4 * 4),
        ({"num_tokens": "10..30"}, 30),
        pytest.param(_GRID | {"model": "videomamba_tiny_video"}, None, marks=pytest.mark.slow),
        pytest.param({"model": "videomamba_tiny_video"}, 24, marks=pytest.mark.slow),
    ],
    ids=["fixed grid", "elastic", "VideoMamba's grid", "VideoMamba on regions"],
)
def test_hosts_of_images_and_of_clips_train_with_and_without_regions(
    clips, tmp_path, settings, tokens
):
    run(clips, tmp_path / "run", steps=1, eval_every=1, **settings)
    model = load_package(tmp_path / "run/best").model
    assert model(torch.zeros(1, 4, 3, 32, 32)).shape == (1, 2)
    if tokens is not None:
        assert tokenizer_of(model).num_tokens == tokens


def test_a_damaged_video_is_named_and_another_stands_in(clips, tmp_path):
    folder = write_clips(tmp_path / "clips", train=4, val=2)
    path = folder / "train/left/1.mp4"
    path.write_bytes(path.read_bytes()[:900])
    (folder / "val/right/0.mp4").write_bytes(b"no video")
    named = []
    config = config_of(folder, tmp_path / "run", steps=4, eval_every=4, max_bad_share=0.5)
    results = []
    Run(
        config=config,
        world=World(),
        on_step=lambda progress: named.extend(progress.new_bad),
        on_result=results.append,
    ).train()
    assert named == ["left/1.mp4"]
    assert results[0].measures["images"] == 3


class Counting(nn.Module):
    """The brightest frame of a clip decides, more surely the brighter it is."""

    def forward(self, clips):
        values = clips.mean((2, 3, 4)).amax(1)
        return torch.stack([values, -values], dim=1)


def test_the_softmax_values_of_all_views_are_averaged(clips):
    views = torch.randn(3, 5, 4, 3, 8, 8)
    each = torch.stack([Counting()(views[:, view]).softmax(-1) for view in range(5)], dim=1)
    assert_close(view_logits(Counting(), views).exp(), each.mean(1))
    config = ClipConfig(num_frames=4, num_clips=2, num_crops=3)
    package_pixels = config_of(clips, "unused").data
    assert package_pixels.image_px == 32
    source = open_clips(str(clips / "val"))
    from dartok.data.augment import PixelConfig

    pixels = PixelConfig(size_px=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    transform = eval_clip_transform(pixels, config)
    bad = BadSamples(num_samples=6, max_share=0)
    tally = evaluate(Counting(), source, transform, batch_size=2, bad=bad, world=World())
    by_hand = [
        view_logits(Counting(), transform(source.load(index))[None]).argmax().item()
        for index in range(6)
    ]
    right = [guess == source.label(index) for index, guess in enumerate(by_hand)]
    assert tally.measures()["top1"] == pytest.approx(sum(right) / 6)


def test_mixing_gives_all_frames_of_a_clip_the_same_box():
    def paste(images, labels):
        images[:, :, :4, :4] = images.flip(0)[:, :, :4, :4]
        return images, labels

    clips = torch.randn(2, 5, 3, 8, 8)
    mixed, _ = _of_frames(paste)(clips.clone(), torch.tensor([0, 1]))
    assert mixed.shape == clips.shape
    assert torch.equal(mixed[0, :, :, :4, :4], clips[1, :, :, :4, :4])
    assert torch.equal(mixed[0, :, :, 4:], clips[0, :, :, 4:])


def test_scores_of_frames_are_those_of_their_clips():
    scores, clips = torch.rand(6, 2, 2), torch.zeros(2, 3, 3, 8, 8)
    assert torch.equal(by_clip(scores, clips)[1, 0], scores[3])
    assert by_clip(scores, clips[:, 0]) is scores
    assert by_clip(None, clips) is None


def test_predictions_are_those_of_the_evaluation_and_damaged_files_are_named(clips, tmp_path):
    run(clips, tmp_path / "run", steps=1, eval_every=1, num_clips=2)
    package = load_package(tmp_path / "run/best")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    good = clips / "val/left/0.mp4"
    job = PredictJob(tmp_path / "run/best", top=2)
    found, bad = predict_clips(package, [good, broken], job, looks=True)
    source = open_clips(str(clips / "val"))
    views = eval_clip_transform(package.pixels, package.clip)(source.load(0))[None]
    with torch.no_grad():
        shares = view_logits(package.model, views).exp()[0]
    assert dict(zip(found.classes, found.shares, strict=True)) == pytest.approx(
        dict(zip(CLASSES, shares.tolist(), strict=True)), abs=1e-6
    )
    assert found.look.image.shape == (4, 3, 32, 32)
    assert found.look.regions.num_frames == 4
    assert bad.name == str(broken)
    assert "broken.mp4" in bad.reason


def test_bounds_are_those_of_regions_in_a_frame():
    config = ModelConfig(model="test_vit", num_tokens="784", min_region=0.06)
    assert region_args(config, num_frames=8)["min_region"] == 0.06
    with pytest.raises(ValueError, match="min_region must be at most"):
        region_args(config)


def test_a_folder_of_frames_is_a_video(clips, tmp_path):
    frames = tmp_path / "new" / "one"
    frames.mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (20, 20)).save(frames / f"{number}.png")
    assert find_videos([str(tmp_path / "new")]) == find_videos([str(frames)]) == [frames]
    assert len(find_videos([str(clips / "val")])) == 6
    with pytest.raises(ValueError, match="name no video; check the path"):
        find_videos([str(tmp_path / "nothing")])


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stream": True}, "^stream is not for videos, got True; drop --stream$"),
        ({"on_device": True}, "^on-device is not for videos, got True; drop --on-device$"),
        ({"channels_last": True}, "^channels-last is not for videos, got True; drop --channels-l"),
        ({"image_column": "img"}, "^image-column is not for videos, got img; drop --image-column$"),
        (_GRID | {"parts": "tokenizer"}, "^parts tokenizer needs regions; give --num-"),
        (
            {"task": "classification", "num_frames": 16, "model": "videomamba_tiny_video"},
            "^model videomamba_tiny_video sees clips; give --task video$",
        ),
        (
            {"model": "darvit_tiny", "scorer": "conv"},
            "darvit_tiny sees pictures; for --task video give a timm ViT",
        ),
        ({"decoder": "mask"}, "decoder needs --task segmentation, got mask for video"),
        ({"task": "classification", "num_frames": 8}, "^num-frames needs --task video, got 8$"),
        (
            {"task": "classification", "num_frames": 16, "root": "x"},
            "^root is not for pictures, got x",
        ),
        ({"num_frames": 0}, "num-frames must be >= 1, got 0"),
    ],
)
def test_what_does_not_go_together_is_refused(clips, settings, message):
    with pytest.raises(ValueError, match=message):
        config_of(clips, "unused", **settings)
