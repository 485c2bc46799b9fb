"""`DartokModel`: an adapted model of transformers that transformers itself saves and loads."""

import inspect
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from dartok.models.hf_config import DartokConfig, register_config

if TYPE_CHECKING:  # transformers imports this module to register it: it must not wait for timm
    from dartok.models.patch_embed import RegionPatchEmbed

__all__ = ["DartokModel", "register_model"]

_CLASSIFIER = "ForImageClassification"


class DartokModel(PreTrainedModel):  # type: ignore[misc]
    """An adapted model of transformers, `model`, with what builds it again in its `config`.

    `save_pretrained` and `push_to_hub` keep it in one folder, which `AutoModel.from_pretrained`
    loads wherever dartok is imported. Strength and statistics are buffers and go along. It is
    called as `model` is, by keyword; what else that can do, such as `generate`, is found there.

    Args:
        config: What to build.
        model: The model if there is one already; see `of`.
    Example:
        >>> import dartok
        >>> from transformers import ViTConfig, ViTModel
        >>> host = ViTModel(ViTConfig(hidden_size=24, num_attention_heads=2, num_hidden_layers=1))
        >>> model = DartokModel.of(dartok.adapt(host, num_tokens=20, strength=1.0))
        >>> model(torch.randn(1, 3, 64, 96)).last_hidden_state.shape
        torch.Size([1, 21, 24])
    """

    config_class = DartokConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: DartokConfig, model: nn.Module | None = None) -> None:
        super().__init__(config)
        self.model: Any = _built(config) if model is None else model
        if not any(parameter.is_meta for parameter in self.parameters()):
            for module in self.modules():  # each was initialised by its own constructor
                module._is_hf_initialized = True
        self.post_init()

    @classmethod
    def of(cls, model: nn.Module) -> "DartokModel":
        """What `dartok.adapt` made of a model of transformers, ready to be saved; not copied.

        Raises:
            ValueError: If the model or its scorer cannot be built again from a configuration.
        """
        config = _config_of(model)
        _check_rebuilt(config, model)
        return cls(config, model)

    def forward(
        self,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        **inputs: Any,  # the model's own, which refuses what it does not know
    ) -> Any:
        given = {"pixel_values": pixel_values, "labels": labels}
        inputs |= {name: value for name, value in given.items() if value is not None}
        return self.model(**inputs)

    def get_input_embeddings(self) -> nn.Module:
        """The model's own."""
        embeddings = self.model.get_input_embeddings()
        assert isinstance(embeddings, nn.Module)
        return embeddings


def register_model() -> None:
    """Make the auto classes of transformers know the model; harmless when repeated."""
    from transformers import AutoModel, AutoModelForImageClassification

    register_config()
    for auto in (AutoModel, AutoModelForImageClassification):
        auto.register(DartokConfig, DartokModel, exist_ok=True)


def _built(config: DartokConfig) -> nn.Module:
    """The adapted model of a configuration, not compared with its host: weights follow."""
    from dartok.models.adaptation import carry_over
    from dartok.models.families import family_of
    from dartok.models.families.wrappers import around, encoder_in
    from dartok.scorers.build import build_scorer

    cls = _host_class(config.host_class)
    settings = cls.config_class.from_dict(config.host)
    wanted = config._attn_implementation
    if wanted != "sdpa" or cls._supports_sdpa:  # else it was chosen for us, not by the user
        settings._attn_implementation = wanted
    host = cls(settings, **config.host_args)
    place = encoder_in(host)
    encoder = host.get_submodule(place)
    parts = family_of(encoder).take_apart(encoder)
    channels = parts.proj.in_channels
    model = carry_over(
        encoder,
        parts,
        scorer=build_scorer(config.scorer, num_channels=channels, **config.scorer_args),
        num_tokens=config.num_tokens,
        num_rows=config.num_rows,
        partition=config.partition,
        sampling=config.sampling,
        oversample=config.oversample,
        antialias=config.antialias,
        size_embedding=config.size_embedding,
        min_region=config.min_region,
        max_region=config.max_region,
        strength=0.0,
    )
    return around(host, place, model)


def _config_of(model: Any) -> DartokConfig:
    from dartok.scorers.build import scorer_options

    embed, host = _tokenizer_of(model), _host_of(model)
    scorer = scorer_options(embed.scorer)
    if scorer is None:
        raise ValueError(
            f"scorer must be one by name to be saved, got a {type(embed.scorer).__name__}; see "
            "dartok.scorers.list_scorers()"
        )
    return DartokConfig(
        host=model.config.to_dict(),
        host_class=host.__name__,
        host_args=_host_args(host, model),
        num_tokens=embed.num_tokens,
        num_rows=embed.num_rows,
        scorer=scorer.pop("name"),
        scorer_args=scorer,
        partition=embed.partition,
        sampling=embed.sampling,
        oversample=embed.oversample,
        antialias=embed.antialias,
        size_embedding=embed.size_embed is not None,
        **({} if embed.bounds is None else embed.bounds._asdict()),
        architectures=["DartokModel"],
        attn_implementation=model.config._attn_implementation,
        **_labels_of(host, model),
    )


def _tokenizer_of(model: nn.Module) -> "RegionPatchEmbed":
    from dartok.models.dials import tokenizer_of
    from dartok.models.patch_embed import RegionPatchEmbed

    embed = tokenizer_of(model)
    assert isinstance(embed, RegionPatchEmbed)
    return embed


def _host_of(model: nn.Module) -> Any:
    """The host's class: ours are its subclasses, and not found in transformers."""
    theirs = (cls for cls in type(model).__mro__ if cls.__module__.startswith("transformers."))
    cls = next(theirs, type(model))
    if not isinstance(model, PreTrainedModel) or not hasattr(transformers, cls.__name__):
        raise ValueError(f"model must be one that transformers exports, got a {cls.__name__}")
    return cls


def _host_class(name: str) -> Any:
    cls = getattr(transformers, name, None)
    if not isinstance(cls, type) or not issubclass(cls, PreTrainedModel):
        raise ValueError(f"host_class must be a model of transformers, got {name!r}")
    return cls


def _host_args(cls: Any, model: Any) -> dict[str, Any]:
    """What a constructor was given beside the configuration: whether there is a pooler."""
    takes_pooler = "add_pooling_layer" in inspect.signature(cls.__init__).parameters
    return {"add_pooling_layer": model.pooler is not None} if takes_pooler else {}


def _labels_of(cls: Any, model: Any) -> dict[str, Any]:
    if _CLASSIFIER not in cls.__name__:
        return {}
    return {"id2label": model.config.id2label, "label2id": model.config.label2id}


def _check_rebuilt(config: DartokConfig, model: nn.Module) -> None:
    """Refuse a model that its configuration does not build again, part by part."""
    with torch.device("meta"):
        built = _shapes_of(_built(config))
    shapes = _shapes_of(model)
    if built != shapes:
        name = next(name for name in {**shapes, **built} if built.get(name) != shapes.get(name))
        raise ValueError(
            f"model cannot be built again from its config: {name} is {shapes.get(name)}, and "
            f"{built.get(name)} when built; keep model.state_dict() beside your own code"
        )


def _shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}
