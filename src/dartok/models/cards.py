"""The model card of a saved model: `README.md` with the front matter that the hub reads."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dartok.models.presets import AUTHORS_PRESETS, DARMT_PRESETS, RMT_PRESETS, VIM_PRESETS
from dartok.models.recipes import Recipe
from dartok.models.registry import ADAPTED, SEGMENTER

__all__ = ["OF_TRANSFORMERS", "Card", "Measures"]

OF_TRANSFORMERS = "DartokModel"
"""Name of the recipe of a model that transformers builds."""

Measures = Mapping[str, float] | Sequence[Mapping[str, float | str]]
"""Of one evaluation, or the rows of `dartok eval --json`."""

_COLUMNS = {
    "protocol": "protocol",
    "num_tokens": "tokens",
    "images": "pictures",
    "top1": "top-1",
    "top5": "top-5",
    "mean_class_top1": "mean class top-1",
    "miou": "mIoU",
    "pixel_accuracy": "pixels right",
    "mean_class_accuracy": "mean class",
    "loss": "loss",
    "ece": "ECE",
}
"""Name of a measure, and what heads its column. Others follow under their own names."""

_SHARES = {
    *("top1", "top5", "mean_class_top1"),
    *("miou", "pixel_accuracy", "mean_class_accuracy"),
}


class Card(NamedTuple):
    """What a card says."""

    name: str
    """What loads it: a name on the hub, or of a folder."""
    recipe: Recipe
    data: Mapping[str, Any]
    """timm's data settings."""
    num_classes: int
    measures: Measures
    license: str | None

    def text(self) -> str:
        """The whole file."""
        parts = [_front_matter(self), f"# {self.name}", _summary(self.recipe), _use(self)]
        parts += [_preprocessing(self.data), _table_of_measures(self.measures), _CITATION]
        return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(card: Card) -> str:
    ours = {ADAPTED, SEGMENTER, OF_TRANSFORMERS, *AUTHORS_PRESETS, *DARMT_PRESETS}
    library = "transformers" if card.recipe.name == OF_TRANSFORMERS else "timm"
    adaptive = ["dartok", "adaptive-tokens"] if card.recipe.name in ours else []
    tags = [library, "vision", *adaptive]
    task = "image-classification" if card.num_classes else "image-feature-extraction"
    if card.recipe.name == SEGMENTER:
        task = "image-segmentation"
    lines = ["---", "library_name: dartok", f"pipeline_tag: {task}", "tags:"]
    lines += [f"- {tag}" for tag in tags]
    if card.license is not None:
        lines.append(f"license: {json.dumps(card.license)}")
    if any("top1" in row for row in _rows(card.measures)):
        lines += ["metrics:", "- accuracy"]
    return "\n".join([*lines, "---"])


def _summary(recipe: Recipe) -> str:
    args = recipe.args
    if recipe.name == SEGMENTER:
        whole = _summary(Recipe(ADAPTED, args["encoder"]))
        return f"A {args['decoder']} decoder that tells the class of each pixel, on {whole}"
    if recipe.name in AUTHORS_PRESETS:
        what, scorer = f"The model `{recipe.name}` of DART's authors", None
    elif recipe.name in (ADAPTED, OF_TRANSFORMERS):
        host = args["host"]
        of_transformers = recipe.name == OF_TRANSFORMERS
        whose = f"transformers' `{host}`" if of_transformers else _origin(host)
        what, scorer = f"{whose} on adaptive regions", args.get("scorer", "conv")
    elif recipe.name in {**RMT_PRESETS, **DARMT_PRESETS}:
        return _summary_of_rmt(recipe.name)
    else:
        return f"{_origin(recipe.name)} on its fixed grid of patches."
    tokens = args.get("num_tokens")
    count = "a number of" if tokens is None else str(tokens)
    net = "a small network" if scorer is None else f"the scorer `{scorer}`"
    return (
        f"{what}, after DART ([arXiv:2506.10390](https://arxiv.org/abs/2506.10390)): {net} scores "
        f"the picture, and quantiles of the score cut it into {count} regions of equal score mass, "
        "each of which becomes one token. Pictures of any size work, and the number of tokens can "
        "be changed at any time: `dartok.set_num_tokens(model, 121)`."
    )


def _summary_of_rmt(name: str) -> str:
    if name in RMT_PRESETS:
        return (
            f"`{name}`: {RMT_PRESETS[name].title} "
            "([arXiv:2309.11523](https://arxiv.org/abs/2309.11523)), for pictures of any size."
        )
    return (
        f"The model `{name}` of DART's authors, after DART "
        "([arXiv:2506.10390](https://arxiv.org/abs/2506.10390)): the scorer "
        f"`{DARMT_PRESETS[name].scorer}` scores a picture of 448 x 448 px, its rows and columns "
        "are cut into 14 parts of equal score mass each, and the picture is resampled to 224 x 224 "
        f"px with these cells equally large, for {DARMT_PRESETS[name].title}."
    )


def _origin(host: str) -> str:
    """A host by its name, and whose it is."""
    if host in VIM_PRESETS:
        return f"The Vision Mamba `{host}` ({VIM_PRESETS[host].title})"
    library = "torchvision" if host.startswith("torchvision.") else "timm"
    return f"{library}'s `{host.removeprefix('torchvision.')}`"


def _use(card: Card) -> str:
    result, other = (
        "logits",
        (
            '`timm.create_model` loads it too: as `"hf-hub:NAME"` from the hub, as\n'
            '`"local-dir:FOLDER"` from a folder, with `pretrained=True`.'
        ),
    )
    if card.recipe.name == OF_TRANSFORMERS:
        result, other = "outputs", "`AutoModel.from_pretrained` of transformers loads it too."
    return f"""## Use

```python
import dartok
model = dartok.from_pretrained({json.dumps(card.name)})
{result} = model(dartok.transform(model)(picture)[None])  # a PIL picture in RGB
```

Once `dartok` is imported, {other}"""


def _preprocessing(data: Mapping[str, Any]) -> str:
    height, width = data["input_size"][1:]
    rows = [
        ("size", f"{height} x {width} px"),
        ("resized by", f"{data['interpolation']}, then cropped to a share of {data['crop_pct']}"),
        ("mean", ", ".join(f"{value:g}" for value in data["mean"])),
        ("standard deviation", ", ".join(f"{value:g}" for value in data["std"])),
    ]
    lines = ["| pixels | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join(["## Preprocessing", "", *lines])


def _table_of_measures(measures: Measures) -> str:
    rows = _rows(measures)
    if not rows:
        return ""
    seen = dict.fromkeys(name for row in rows for name in row)
    names = [name for name in _COLUMNS if name in seen]
    names += [name for name in seen if name not in _COLUMNS]
    head = " | ".join(_COLUMNS.get(name, name) for name in names)
    lines = [f"| {head} |", "| " + " | ".join(["---"] * len(names)) + " |"]
    for row in rows:
        lines.append("| " + " | ".join(_cell(name, row.get(name, "")) for name in names) + " |")
    return "\n".join(["## Measures", "", "As `dartok eval` gives them.", "", *lines])


def _rows(measures: Measures) -> list[Mapping[str, Any]]:
    rows = [measures] if isinstance(measures, Mapping) else list(measures)
    return [row for row in rows if row]


def _cell(name: str, value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.2%}" if name in _SHARES else f"{value:.5g}"


_CITATION = """## Citation

The method is DART, [arXiv:2506.10390](https://arxiv.org/abs/2506.10390).

```bibtex
@misc{dart2025,
  eprint = {2506.10390},
  archivePrefix = {arXiv},
  url = {https://arxiv.org/abs/2506.10390}
}
```"""
