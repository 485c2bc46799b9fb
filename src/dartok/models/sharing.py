"""A folder with a model, in timm's layout: saved, loaded again, and pushed to the hub."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from dartok.core.files import write_beside
from dartok.models.cards import Card, Measures
from dartok.models.hf_folders import is_of_transformers, load_hf, save_hf
from dartok.models.hosts import host_config
from dartok.models.preprocessing import data_config
from dartok.models.presets import AUTHORS_PRESETS
from dartok.models.recipes import Recipe, check_recipe, derive_recipe
from dartok.models.registry import ADAPTED, SEGMENTER
from dartok.scorers.weights import write_state

__all__ = [
    "LOADING_ERRORS",
    "from_pretrained",
    "load_saved",
    "push_to_hub",
    "save_pretrained",
    "write_folder",
]

SOURCES = ("local-dir:", "hf-hub:")
"""What timm writes before the name of a folder, and of a model on the hub."""

LOADING_ERRORS = (
    OSError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    ValueError,
    SafetensorError,
)
"""What is raised for a folder that is missing, incomplete, damaged or of an unknown model."""


def save_pretrained(
    model: nn.Module,
    folder: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    measures: Measures = (),
    license: str | None = None,
    host_args: Mapping[str, Any] | None = None,
) -> None:
    """Write a model into a folder that `from_pretrained` and timm load, and that can be shared.

    It holds the weights, how to build the model, its preprocessing, and a model card. Before
    anything is written, the model is built again from what would be, and must give the same logits.
    A model of transformers is written in its own layout, as a `DartokModel`, which
    `AutoModel.from_pretrained` loads too.

    Args:
        model: What `dartok.adapt` made of a model of timm, torchvision or transformers, or one of
            the authors' models.
        folder: Made if missing; its files are replaced one by one, each at once.
        class_names: What its outputs mean; None for the names that the model came with.
        measures: Of one evaluation, or the rows of `dartok eval --json`; for the card.
        license: Of the weights, by its SPDX name; None for the one that the model came with.
        host_args: Options of `timm.create_model` that the host was created with, where it does not
            tell them itself.
    Raises:
        ValueError: If the model cannot be built again, naming what differs and the remedy, or if
            the names of the classes are not one for each output.
    Example:
        >>> import dartok, timm
        >>> from tempfile import mkdtemp
        >>> model = dartok.adapt(timm.create_model("test_vit"), num_tokens=20)
        >>> folder = mkdtemp()
        >>> save_pretrained(model, folder)
        >>> from_pretrained(folder).patch_embed.num_tokens
        20
    """
    folder = Path(folder)
    _save(model, folder, folder.name, class_names, measures, license, host_args)


def push_to_hub(
    model: nn.Module,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    commit_message: str = "Upload the model",
    class_names: Sequence[str] | None = None,
    measures: Measures = (),
    license: str | None = None,
    host_args: Mapping[str, Any] | None = None,
) -> str:
    """Upload what `save_pretrained` writes to the Hugging Face Hub.

    Args:
        model: As of `save_pretrained`, like the last four.
        repo_id: OWNER/NAME; made if missing.
        private: Whether a repository that is made is private.
        token: Of the hub; None for the one of `hf auth login`.
        commit_message: Of the upload.
        class_names: What the outputs mean.
        measures: For the card.
        license: Of the weights.
        host_args: Options that the host was created with.
    Returns:
        The address of the commit.
    Raises:
        ValueError: If `repo_id` is no name of a repository, or as of `save_pretrained`; nothing is
            uploaded then.
        OSError: If the hub cannot be reached or refuses the upload.
    Example:
        >>> push_to_hub(model, "me/vit-tiny-dart", license="mit")  # doctest: +SKIP
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(
            f"repo_id must be OWNER/NAME, got {repo_id!r} ({_one_line(error)})"
        ) from error
    api = HfApi(token=token)
    with TemporaryDirectory() as folder:
        _save(model, Path(folder), repo_id, class_names, measures, license, host_args)
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message=commit_message
            )
        except OSError as error:
            raise OSError(
                f"{repo_id!r} cannot be uploaded ({_one_line(error)}); check the network, and log "
                "in with 'hf auth login' or pass token="
            ) from error
    return str(commit)


def from_pretrained(
    name: str | Path,
    *,
    num_tokens: int | None = None,
    num_rows: int | None = None,
    num_classes: int | None = None,
) -> Any:
    """The model that `save_pretrained` or `dartok train` wrote, in eval mode.

    Args:
        name: A folder, or OWNER/NAME of the Hugging Face Hub, which is downloaded once; with
            "local-dir:" or "hf-hub:" before it to say which is meant.
        num_tokens: Regions per image; None for the model's own.
        num_rows: Rows of regions; None for the model's own, or about square regions where
            `num_tokens` is given.
        num_classes: Outputs of a new head; None for the model's own head.
    Raises:
        ValueError: If there is no such model, or it is damaged.
    Example:
        >>> from_pretrained("runs/nowhere/best")
        Traceback (most recent call last):
        ValueError: 'runs/nowhere/best' cannot be loaded (there is no such folder); it must hold ...
    """
    from dartok.models.dials import tokenizer_of

    try:
        model = load_saved(_source_of(name), num_classes=num_classes)
    except LOADING_ERRORS as error:
        raise ValueError(
            f"{str(name)!r} cannot be loaded ({_one_line(error)}); it must hold config.json and "
            "model.safetensors, such as best/ of a run"
        ) from error
    if num_tokens is None and num_rows is None:
        return model
    tokenizer = tokenizer_of(model)
    if num_tokens is None and tokenizer.budget is not None:
        tokenizer.set_budget(tokenizer.budget, num_rows)
    else:
        tokens = tokenizer.num_tokens if num_tokens is None else num_tokens
        tokenizer.set_num_tokens(tokens, num_rows)
    return model


def load_saved(source: str, *, num_classes: int | None = None) -> Any:
    """The model of "local-dir:FOLDER" or "hf-hub:NAME", in eval mode.

    Raises:
        LOADING_ERRORS: Whichever the library below meets.
    """
    import timm

    model = load_hf(source)
    if model is not None:
        if num_classes is not None:
            raise ValueError(
                f"num_classes must be None for a model of transformers, got {num_classes}"
            )
        return model
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    return timm.create_model(source, pretrained=True, **options).eval()


def write_folder(
    state: Mapping[str, Tensor],
    folder: Path,
    card: Card,
    *,
    class_names: Sequence[str],
    known: Mapping[str, Any],
    extras: Mapping[str, Any] | None = None,
) -> None:
    """Write weights, configuration and card of a model.

    Args:
        state: The weights.
        folder: Made if missing; its files are replaced one by one, each at once.
        card: What the model is.
        class_names: What its outputs mean; none where that is not known.
        known: timm's settings of the model, for the names of its first and last layer.
        extras: More entries of the configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architecture": card.recipe.name,
        "num_classes": card.num_classes,
        "model_args": card.recipe.args,
        "pretrained_cfg": _pretrained_config(card, class_names, known),
        "measures": card.measures,
        **(extras or {}),
    }
    texts = {"config.json": json.dumps(config, indent=2) + "\n", "README.md": card.text()}
    write_state(state, folder / "model.safetensors", metadata={"format": "pt"})
    for name, text in texts.items():
        write_beside(folder / name, partial(Path.write_bytes, data=text.encode()))


def _save(
    model: nn.Module,
    folder: Path,
    name: str,
    class_names: Sequence[str] | None,
    measures: Measures,
    license_name: str | None,
    host_args: Mapping[str, Any] | None,
) -> None:
    if is_of_transformers(model):
        if host_args or class_names is not None:
            raise ValueError(
                "host_args and class_names must be None for a model of transformers, whose config "
                "holds both; set model.config.id2label"
            )
        save_hf(model, folder, name=name, measures=measures, license_name=license_name)
        return
    recipe = derive_recipe(model, host_args)
    known: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or _config_of_host(recipe)
    num_classes = int(recipe.args["num_classes"])
    names = _class_names(class_names, known.get("label_names"), num_classes)
    card = Card(
        name=name,
        recipe=recipe,
        data=data_config(model),
        num_classes=num_classes,
        measures=measures,
        license=license_name or known.get("license"),
    )
    check_recipe(model, recipe)
    write_folder(model.state_dict(), folder, card, class_names=names, known=known)


def _config_of_host(recipe: Recipe) -> Mapping[str, Any]:
    return host_config(recipe.args["host"]) if recipe.name == ADAPTED else {}


def _class_names(
    given: Sequence[str] | None, known: Sequence[str] | None, num_classes: int
) -> Sequence[str]:
    if given is None:
        return known if known is not None and len(known) == num_classes else ()
    if len(given) != num_classes:
        raise ValueError(
            f"class_names must be one for each of the {num_classes} outputs, got {len(given)}"
        )
    return given


def _pretrained_config(
    card: Card, class_names: Sequence[str], known: Mapping[str, Any]
) -> dict[str, Any]:
    kept = {name: known[name] for name in ("first_conv", "classifier") if name in known}
    adaptive = card.recipe.name in {ADAPTED, SEGMENTER, *AUTHORS_PRESETS}
    return {
        **kept,
        "num_classes": card.num_classes,
        **({"label_names": list(class_names)} if class_names else {}),
        # Regions take any size, whatever the host's grid did.
        "fixed_input_size": not adaptive and bool(known.get("fixed_input_size", False)),
        **{name: _plain(value) for name, value in card.data.items()},
        **({"license": card.license} if card.license else {}),
        "pool_size": None,
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _source_of(name: str | Path) -> str:
    text = str(name)
    if text.startswith(SOURCES):
        return text
    if Path(name).is_dir():
        return f"local-dir:{name}"
    if isinstance(name, Path) or text.count("/") != 1 or text.startswith((".", "/", "~")):
        raise FileNotFoundError("there is no such folder")
    return f"hf-hub:{text}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
