"""What runs of training leave behind, read and compared."""

import json

import torch

MEASURED = ("images_per_second", "waiting", "memory_gb")
"""What depends on the machine's mood."""


def load(out, step):
    """A checkpoint of a run."""
    path = out / "checkpoints" / f"step-{step:08d}.pt"
    return torch.load(path, map_location="cpu", weights_only=True)


def difference(first, second, place="state"):
    """Where two nested states first differ in any bit; an empty text if nowhere."""
    if isinstance(first, tuple) and isinstance(second, list):
        first = list(first)  # a sharded optimiser's settings come back as lists
    if type(first) is not type(second):
        return f"{place}: {type(first)} and {type(second)}"
    if isinstance(first, torch.Tensor):
        same = first.dtype == second.dtype and torch.equal(first, second)
        return "" if same else place
    if isinstance(first, dict):
        if first.keys() != second.keys():
            return f"{place}: other keys"
        parts = [difference(first[key], second[key], f"{place}.{key}") for key in first]
        return next(filter(None, parts), "")
    if isinstance(first, (list, tuple)):
        if len(first) != len(second):
            return f"{place}: {len(first)} and {len(second)} entries"
        pairs = enumerate(zip(first, second, strict=True))
        return next(filter(None, (difference(a, b, f"{place}[{i}]") for i, (a, b) in pairs)), "")
    return "" if first == second else f"{place}: {first} and {second}"


def lines_of(out):
    """Every whole line of a run's metrics."""
    text = (out / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.split("\n")[:-1]]


def steps_of(out, name):
    """The steps at which a metric was written, in the order of the file."""
    return [line["step"] for line in lines_of(out) if name in line]


def losses_of(out):
    """Step to loss, gradient norm, learning rate and accuracy: all but what time decides."""
    found = {}
    for line in lines_of(out):
        kept = {k: v for k, v in line.items() if k not in MEASURED}
        found[line["step"], "eval/top1" in line] = tuple(sorted(kept.items()))
    return found
