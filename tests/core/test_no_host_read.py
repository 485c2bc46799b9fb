"""Nothing in core reads a value on the host: that would stall a GPU at every step."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from dartok.core.partition import partition
from dartok.core.reshaper import GridReshaper
from dartok.core.sampling import sample_regions
from dartok.core.sides import Bounds
from dartok.core.tokenizer import Tokenizer

aten = torch.ops.aten
READS = {
    aten._local_scalar_dense,  # .item(), bool(), float(), .tolist()
    aten.equal,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.repeat_interleave,  # the form whose length is a sum of a tensor
    aten.bincount,
}


class NoHostRead(TorchDispatchMode):
    """Raises where an operation has to wait for a value, or indexes by a mask."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        packet = func.overloadpacket
        masked = packet in (aten.index, aten.index_put, aten.index_put_) and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if packet in READS or masked:
            raise AssertionError(f"{func} reads a value on the host")
        return func(*args, **(kwargs or {}))


def scores_and_pictures(num_frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    frames = (num_frames,) if num_frames > 1 else ()
    scores = torch.rand(2, *frames, 5, 7) + 0.1
    return scores.requires_grad_(), torch.randn(2, *frames, 3, 18, 26)


def use_everything(kind: str, sampling: str, scores: torch.Tensor, images: torch.Tensor) -> None:
    """Every question core answers, forward and backward."""
    bounds = None if kind == "authors" else Bounds(0.02, 0.7)
    regions = partition(scores, num_tokens=8, num_rows=2, kind=kind, bounds=bounds)
    options = {"oversample": 2, "antialias": sampling == "centred"}
    patches = sample_regions(images, regions, (4, 4), sampling=sampling, **options)
    tokens = patches.flatten(2).to(regions.strip_edges.dtype)
    painted = regions.to_map(tokens, (6, 5))
    pooled = regions.to_tokens(painted), regions.to_tokens(painted, measure="strip")
    boxes = regions.boxes(), regions.centres(), regions.areas(), regions.pieces().boxes_xyxy
    regions.label_map((9, 11)), regions.centre_frames()
    sum(values.sum() for values in (*pooled, *boxes)).backward()


@pytest.mark.parametrize("sampling", ["centred", "corner"])
@pytest.mark.parametrize(("kind", "num_frames"), [("flow", 1), ("grid", 2), ("authors", 1)])
def test_regions_patches_and_maps_wait_for_no_value(kind, num_frames, sampling):
    scores, images = scores_and_pictures(num_frames)
    with NoHostRead():
        use_everything(kind, sampling, scores, images)
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("sampling", ["centred", "corner"])
@pytest.mark.parametrize(("kind", "num_frames"), [("flow", 2), ("grid", 1), ("authors", 1)])
def test_shapes_follow_from_shapes_alone(kind, num_frames, sampling):
    with FakeTensorMode():  # tensors without values: whoever asks for one is refused
        use_everything(kind, sampling, *scores_and_pictures(num_frames))


@pytest.mark.parametrize("positions", [None, torch.ones(1, 8, 3, 3)], ids=["bare", "positions"])
def test_a_tokenizer_runs_where_no_value_exists(positions):
    tokenizer = Tokenizer(
        scorer=nn.Sequential(nn.Conv2d(3, 1, 8, 8), nn.Softplus(), nn.Flatten(1, 2)),
        proj=nn.Conv2d(3, 8, 4, 4),
        num_tokens=10,
        positions=positions,
        antialias=True,
        max_region=0.5,
    )
    tokens, regions = tokenizer.to("meta")(torch.empty(2, 3, 40, 56, device="meta"))
    assert tokens.shape == (2, 10, 8)
    assert regions.strip_edges.device.type == "meta"


def reshaper() -> GridReshaper:
    net = nn.Sequential(nn.Conv2d(3, 1, 8, 8), nn.Softplus(), nn.Flatten(1, 2))
    return GridReshaper(scorer=net, grid=(3, 4), size_px=(20, 24), max_region=0.9)


def test_a_warp_and_its_inverse_wait_for_no_value(monkeypatch):
    module, images = reshaper(), torch.randn(2, 3, 40, 56)
    # Pictures are looked at on the CPU only.
    monkeypatch.setattr("dartok.core.scoring.readable", lambda values: False)
    with NoHostRead():
        warped, lattice = module(images)
        points = lattice.to_image(lattice.to_warped(torch.rand(2, 5, 2)))
        boxes = [torch.rand(3, 4), torch.rand(0, 4)]
        moved = lattice.boxes_to_warped(boxes, image_px=(40, 56), warped_px=(20, 24))
        total = lattice.unwarp(warped, (40, 56)).sum() + points.sum() + moved[0].sum()
        total.backward()
    assert module.scorer[0].weight.grad.isfinite().all()


def test_a_reshaper_runs_where_no_value_exists():
    warped, lattice = reshaper().to("meta")(torch.empty(2, 3, 40, 56, device="meta"))
    assert lattice.unwarp(warped, (9, 8)).shape == (2, 3, 9, 8)


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.equal(x, x),
        lambda x: x.long().repeat_interleave(x.long()),
    ],
)
def test_the_guard_itself_goes_off(read):
    with NoHostRead(), pytest.raises(AssertionError, match="reads a value"):
        read(torch.ones(3))
