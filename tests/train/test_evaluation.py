"""Evaluation: each readable picture once, however many processes and budgets."""

import pytest
import timm
import torch
from PIL import Image
from torch import nn

import dartok
from dartok.data.loading import BadSamples
from dartok.train.evaluation import evaluate, evaluate_budgets
from dartok.train.world import World


class Grey:
    """Pictures of one grey each, which is also their number; some are damaged."""

    class_names = ("even", "odd", "never")

    def __init__(self, count, damaged=()):
        self.count, self.damaged = count, damaged

    def __len__(self):
        return self.count

    def label(self, index):
        return index % 2

    def name(self, index):
        return f"picture {index}"

    def load(self, index):
        if index in self.damaged:
            raise ValueError(f"picture {index} is damaged")
        return Image.new("RGB", (4, 4), (index, index, index))


class Recorder(nn.Module):
    """Answers "even" always; notes the numbers and the modes it is called in."""

    def __init__(self):
        super().__init__()
        self.seen, self.modes = [], []

    def forward(self, images):
        self.seen += images[:, 0, 0, 0].int().tolist()
        self.modes.append((self.training, torch.is_grad_enabled()))
        return torch.tensor([2.0, 0.0, 0.0]).expand(len(images), 3)


class Peer(World):
    """A process among several that notes what it would have sent to the others."""

    def add_up(self, *tensors):
        assert self.size > 1

    def gather(self, value):
        return [value]


def number_of(picture):
    return torch.full((3, 2, 2), float(picture.getpixel((0, 0))[0]))


def measure(model, source, world=None, **settings):
    usual = {"batch_size": 3, "bad": BadSamples(num_samples=len(source), max_share=0.5)}
    world = World() if world is None else world
    return evaluate(model, source, number_of, world=world, **usual | settings)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_each_picture_is_seen_once_in_order(batch_size):
    model = Recorder()
    tally = measure(model, Grey(7), batch_size=batch_size)
    assert model.seen == list(range(7))
    assert tally.measures()["images"] == 7
    assert tally.measures()["top1"] == pytest.approx(4 / 7)
    assert tally.confusion.tolist() == [[4, 0, 0], [3, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("count", [7, 6, 2, 1])
def test_processes_see_each_picture_once_together(size, count):
    """More processes than pictures too; the sums of the parts are those of the whole."""
    source, seen, parts = Grey(count), [], []
    for rank in range(size):
        model = Recorder()
        parts.append(measure(model, source, Peer(rank=rank, size=size)).parts())
        seen += model.seen
    assert sorted(seen) == list(range(count))
    whole = measure(Recorder(), source).parts()
    for expected, *found in zip(whole, *parts, strict=True):
        torch.testing.assert_close(sum(found), expected, rtol=1e-12, atol=1e-12)


def test_damaged_pictures_are_left_out_and_named():
    model, bad = Recorder(), BadSamples(num_samples=7, max_share=0.5)
    tally = measure(model, Grey(7, damaged={1, 6}), bad=bad, batch_size=1)
    assert model.seen == [0, 2, 3, 4, 5]
    assert tally.measures()["images"] == 5
    assert set(bad.reasons) == {"picture 1", "picture 6"}


def test_each_process_counts_the_damaged_pictures_of_all():
    class Two(Peer):
        def gather(self, value):
            return [value, [*value, ("picture 99", "elsewhere")]]

    bad = BadSamples(num_samples=7, max_share=0.5)
    measure(Recorder(), Grey(7, damaged={2}), Two(rank=0, size=2), bad=bad)
    assert set(bad.reasons) == {"picture 2", "picture 99"}


@pytest.mark.parametrize("training", [True, False])
def test_a_model_is_measured_in_eval_mode_without_gradients_and_keeps_its_mode(training):
    model = Recorder().train(training)
    measure(model, Grey(2))
    assert model.modes == [(False, False)]
    assert model.training is training


def test_bfloat16_is_used_where_it_is_asked_for():
    dtypes = []

    class Model(nn.Linear):
        def forward(self, images):
            logits = super().forward(images[:, :, 0, 0])
            dtypes.append(logits.dtype)
            return logits

    tally = measure(Model(3, 3), Grey(2), precision=torch.bfloat16)
    assert dtypes == [torch.bfloat16]
    assert tally.measures()["loss"] < 1000


def test_each_budget_is_measured_and_the_models_own_set_again():
    model = dartok.adapt(timm.create_model("test_vit"), num_tokens=30, num_rows=3)
    tokenizer = model.patch_embed
    measured = evaluate_budgets(model, [9, 50], lambda: (tokenizer.num_tokens, tokenizer.num_rows))
    assert measured == {9: (9, None), 50: (50, None)}
    assert (tokenizer.num_tokens, tokenizer.num_rows) == (30, 3)


def test_each_batch_is_shown_with_its_logits_and_its_damaged_pictures():
    seen, source = [], Grey(6, damaged={1, 3, 4, 5})
    bad = BadSamples(num_samples=6, max_share=1.0)
    measure(Recorder(), source, bad=bad, on_batch=lambda *each: seen.append(each))
    assert [batch.names for batch, _ in seen] == [("picture 0", "picture 2"), ()]
    assert [[bad.name for bad in batch.bad] for batch, _ in seen] == [
        ["picture 1"],
        ["picture 3", "picture 4", "picture 5"],
    ]
    assert [logits.tolist() for _, logits in seen] == [[[2.0, 0.0, 0.0]] * 2, []]
    assert seen[1][1].shape == (0, 3)


@pytest.mark.refuses
def test_too_many_damaged_pictures_stop_the_evaluation():
    source = Grey(7, damaged={0, 1, 2, 3})
    with pytest.raises(ValueError, match="4 of 7 pictures are damaged"):
        measure(Recorder(), source)


@pytest.mark.refuses
def test_a_source_without_a_readable_picture_is_no_measure():
    bad = BadSamples(num_samples=2, max_share=1.0)
    tally = measure(Recorder(), Grey(2, damaged={0, 1}), bad=bad)
    with pytest.raises(ValueError, match="nothing was evaluated: no picture could be read"):
        tally.measures()


@pytest.mark.refuses
def test_budgets_of_a_fixed_grid_are_refused():
    with pytest.raises(ValueError, match="must hold a dartok tokenizer"):
        evaluate_budgets(nn.Linear(1, 1), [9], lambda: None)


def test_a_budget_for_each_image_is_there_again_after_other_numbers():
    tokenizer = dartok.RegionTokenizer(embed_dim=4, num_tokens=20)
    dartok.set_num_tokens(tokenizer, "auto", mean=12)
    budget = tokenizer.budget
    seen = evaluate_budgets(tokenizer, [5, 9], lambda: (tokenizer.num_tokens, tokenizer.budget))
    assert seen == {5: (5, None), 9: (9, None)}
    assert tokenizer.budget is budget
    assert tokenizer.num_tokens == 12
