"""An audit of pictures made for it: what the fixed grid cannot tell and an oracle can."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from dartok.bench.ceiling_audit import FIXED, ORACLE, audit_ceilings, model_regions, spread
from dartok.core.partition import partition
from dartok.data.augment import PixelConfig
from dartok.data.label_maps import LabelledPicture
from dartok.scorers import RegionTokenizer, create_scorer
from dartok.tasks.segmentation.ceiling import ceiling, count_regions, join_counts

PIXELS = PixelConfig(size_px=48, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


class Pictures:
    """Grey pictures with a small bright square, which is class 1."""

    class_names = ("ground", "square", "never")
    colours = ((0, 0, 0), (255, 255, 255), (9, 9, 9))

    def __init__(self, count=5, side_px=6, ignored=False):
        self.count, self.side_px, self.ignored = count, side_px, ignored
        self.read = []

    def __len__(self):
        return self.count

    def name(self, index):
        return f"{index}.png"

    def load(self, index):
        self.read.append(index)
        labels = np.full((64, 80), 255 if self.ignored else 0, dtype=np.uint8)
        y, x = 3 + 9 * index % 50, 5 + 31 * index % 70
        if not self.ignored:
            labels[y : y + self.side_px, x : x + self.side_px] = 1
        noise = np.random.default_rng(index).integers(40, size=(64, 80, 3), dtype=np.uint8)
        image = noise + np.uint8(200) * (labels == 1).astype(np.uint8)[..., None]
        return LabelledPicture(Image.fromarray(image), Image.fromarray(labels))


def audited(source=None, *, budgets=(20,), scorer="edge", **options):
    options = {"limit": 100} | options
    return audit_ceilings(
        source or Pictures(),
        budgets=budgets,
        scorer=create_scorer(scorer),
        scorer_name=scorer,
        **options,
    )


def rows_by_kind(audit):
    return {row.kind: row for row in audit.rows}


def test_adaptive_regions_tell_the_square_and_the_fixed_grid_does_not():
    rows = rows_by_kind(audited())
    assert list(rows) == [FIXED, "edge", ORACLE]
    assert rows[ORACLE].ceiling.miou > rows[FIXED].ceiling.miou + 0.1
    assert rows["edge"].ceiling.miou > rows[FIXED].ceiling.miou + 0.1
    assert rows[ORACLE].resolved_share > rows[FIXED].resolved_share
    for row in rows.values():
        assert row.ceiling.attained_miou <= row.ceiling.miou
        assert row.ceiling.highest[2].isnan()
        assert len(row.objects.label) == 10


def test_the_fixed_grid_is_counted_as_by_hand():
    source = Pictures()
    regions = partition(torch.ones(1, 1, 1), num_tokens=20, num_rows=4)
    region_map = regions.label_map((64, 80))[0, 0]
    maps = [torch.from_numpy(np.array(source.load(i).labels)) for i in range(5)]
    counts = join_counts([count_regions(labels, region_map, 20) for labels in maps])
    row = rows_by_kind(audited())[FIXED]
    assert_close(row.ceiling.highest, ceiling(counts, 3).highest, equal_nan=True)


def test_the_uniform_scorer_is_the_fixed_grid():
    rows = rows_by_kind(audited(scorer="uniform"))
    assert_close(rows["uniform"].ceiling, rows[FIXED].ceiling, equal_nan=True)


def test_every_budget_has_its_rows_and_more_tokens_tell_more():
    rows = audited(budgets=(8, 40)).rows
    assert [(row.num_tokens, row.kind) for row in rows[::3]] == [(8, FIXED), (40, FIXED)]
    assert rows[5].ceiling.miou > rows[2].ceiling.miou


def test_the_kept_strength_is_the_best_of_those_tried():
    row = rows_by_kind(audited())["edge"]
    assert row.setting.startswith("strength ")
    kept = float(row.setting.split()[1])
    scorer = create_scorer("edge")
    source = Pictures()
    mean, std = (
        torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    reached = {}
    for strength in (0.25, 0.5, 0.75, 1.0):
        counts = []
        for i in range(5):
            image, labels = source.load(i)
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
            scores = scorer((pixels - mean) / std) ** strength
            region_map = partition(scores, num_tokens=20, num_rows=4).label_map((64, 80))[0, 0]
            counts.append(count_regions(torch.from_numpy(np.array(labels)), region_map, 20))
        reached[strength] = ceiling(join_counts(counts), 3).miou
    assert reached[kept] == max(reached.values()) == pytest.approx(row.ceiling.miou)


def test_a_models_own_regions_are_a_row_more():
    model = RegionTokenizer(embed_dim=4, num_tokens=9, patch_size=4, scorer="uniform").eval()
    rows = rows_by_kind(audited(model_cut=model_regions(model, PIXELS)))
    assert_close(rows["model"].ceiling, rows[FIXED].ceiling, equal_nan=True)
    assert model.num_tokens == 9  # as it was


def test_a_model_is_shown_the_pictures():
    model = RegionTokenizer(embed_dim=4, num_tokens=9, patch_size=4, scorer="edge").eval()
    rows = rows_by_kind(audited(model_cut=model_regions(model, PIXELS)))
    assert rows["model"].ceiling.miou > rows[FIXED].ceiling.miou + 0.1


def test_no_more_pictures_are_read_than_the_limit():
    source = Pictures(count=40)
    assert audited(source, limit=4).num_pictures == 4
    assert set(source.read) == {0, 10, 20, 30}


def test_indices_are_spread_evenly():
    assert spread(7, 100) == list(range(7))
    assert spread(1000, 3) == [0, 333, 666]


def test_pictures_without_a_labelled_pixel_are_refused():
    with pytest.raises(ValueError, match="none of the 5 pictures .* labelled pixel"):
        audited(Pictures(ignored=True))
