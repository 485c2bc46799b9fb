"""The shapes that annotations promise hold at run time."""

import subprocess
import sys

import pytest

SCRIPT = """
from jaxtyping import install_import_hook

with install_import_hook("dartok.core", "beartype.beartype"):
    import torch
    from torch import nn
    from dartok.core.overlap import overlap_lengths
    from dartok.core.partition import partition
    from dartok.core.quantiles import quantile_edges
    from dartok.core.sampling import sample_regions
    from dartok.core.tokenizer import Tokenizer

for kind, frames in (("flow", ()), ("flow", (3,)), ("grid", ()), ("grid", (3,)), ("authors", ())):
    for sampling in ("centred", "corner"):
        scores = torch.rand(2, *frames, 5, 7) + 1
        regions = partition(scores, num_tokens=12, num_rows=2, kind=kind)
        images = torch.rand(2, *frames, 3, 20, 31)
        patches = sample_regions(images, regions, (4, 6), sampling=sampling, oversample=2)
        assert patches.shape == (2, 12, 3, 4, 6)
        painted = regions.to_map(patches.flatten(2), (3, 5))
        for measure in ("area", "strip"):
            assert regions.to_tokens(painted, measure=measure).shape == (2, 12, 72)
        regions.areas(), regions.boxes(), regions.pieces(), regions.label_map((8, 9))
        regions.centres(), regions.centre_frames()

scorer = nn.Sequential(nn.Conv2d(3, 1, 8, 8), nn.Softplus(), nn.Flatten(1, 2))
positions = torch.rand(1, 8, 3, 3)
tokenizer = Tokenizer(
    scorer=scorer, proj=nn.Conv2d(3, 8, 4, 4), num_tokens=10, positions=positions
)
assert tokenizer(torch.rand(2, 3, 40, 56)).tokens.shape == (2, 10, 8)

try:
    quantile_edges(torch.ones(4, dtype=torch.int64), 2)
except Exception as error:
    assert "beartype" in str(type(error)) or "jaxtyping" in str(type(error)), type(error)
else:
    raise AssertionError("the annotations were not checked")
"""


@pytest.mark.slow
def test_core_keeps_the_shapes_it_annotates():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
