"""`DartokModel`: saved by transformers, and loaded by its auto classes in another process."""

import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

import dartok

pytest.importorskip("transformers")

import transformers
from hf_hosts import HOSTS, built, inputs_of, outputs_of

from dartok.models.dials import tokenizer_of
from dartok.models.hf import DartokModel
from dartok.models.hf_config import DartokConfig

SAVED = [
    "ViTForImageClassification",
    "DINOv3ViTModel",
    "Siglip2VisionModel",
    "ViTMAEModel",
    "BlipVisionModel",
    "CLIPModel",
    "VisionEncoderDecoderModel",
    "LlavaForConditionalGeneration (SigLIP)",
]

PROBE = """
import sys
import dartok
assert "transformers" not in sys.modules
from transformers import AutoConfig, AutoModel
assert "timm" not in sys.modules
import torch
folder = sys.argv[1]
inputs = torch.load(folder + "/inputs.pt")
assert AutoConfig.from_pretrained(folder).model_type == "dartok"
model, found = AutoModel.from_pretrained(folder, output_loading_info=True)
assert not any(found.values()), found
assert not model.training
with torch.no_grad():
    torch.save(model(**inputs)[0], folder + "/outputs.pt")
"""


def run_probe(folder, code=PROBE):
    command = [sys.executable, "-c", textwrap.dedent(code), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


@torch.no_grad()
def test_another_process_loads_the_same_function_by_auto_model(tmp_path):
    model = DartokModel.of(dartok.adapt(built("DINOv3ViTModel"), num_tokens=9, strength=0.7))
    inputs = inputs_of("DINOv3ViTModel", size=(40, 56))
    model.save_pretrained(tmp_path)
    torch.save(inputs, tmp_path / "inputs.pt")
    run_probe(tmp_path)
    assert torch.equal(torch.load(tmp_path / "outputs.pt"), model(**inputs)[0])


@pytest.mark.slow
def test_the_auto_classes_know_the_model_whichever_is_imported_first(tmp_path):
    """Asking where a module lies imports nothing, and must not keep it from registering."""
    DartokModel.of(dartok.adapt(built("ViTModel"))).save_pretrained(tmp_path)
    load = "import sys; AutoModel.from_pretrained(sys.argv[1])"
    run_probe(tmp_path, f"from transformers import AutoModel; import dartok; {load}")
    look = (
        "import importlib.util; importlib.util.find_spec('transformers.models.auto.modeling_auto')"
    )
    run_probe(tmp_path, f"import dartok; {look}; from transformers import AutoModel; {load}")


@pytest.mark.parametrize("name", SAVED)
@torch.no_grad()
def test_a_saved_model_is_the_same_function_when_loaded(name, tmp_path):
    model = DartokModel.of(dartok.adapt(built(name), num_tokens=9, strength=0.7))
    inputs = inputs_of(name, num_tokens=9, size=(40, 56))
    expected = outputs_of(model, inputs)
    model.save_pretrained(tmp_path)
    loaded, found = DartokModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(found.values())
    assert float(tokenizer_of(loaded).strength) == pytest.approx(0.7)
    assert type(loaded.model) is type(model.model)
    for key, value in outputs_of(loaded, inputs).items():
        assert torch.equal(value, expected[key])


@torch.no_grad()
def test_every_option_of_adapt_is_kept(tmp_path):
    options = {"num_tokens": 12, "num_rows": 3, "partition": "grid", "sampling": "corner"}
    model = dartok.adapt(built("ViTModel"), **options, oversample=2, scorer="pixels", strength=1.0)
    images = inputs_of("ViTModel", size=(40, 56))["pixel_values"]
    DartokModel.of(model).save_pretrained(tmp_path)
    loaded = transformers.AutoModel.from_pretrained(tmp_path)
    assert (loaded.config.num_rows, loaded.config.partition) == (3, "grid")
    assert (loaded.config.sampling, loaded.config.oversample) == ("corner", 2)
    assert torch.equal(loaded(images)[0], model(images)[0])


@torch.no_grad()
def test_means_and_bounds_are_kept(tmp_path):
    options = {"antialias": True, "min_region": 0.1, "max_region": 0.5, "strength": 1.0}
    model = dartok.adapt(built("ViTModel"), num_tokens=12, **options)
    images = inputs_of("ViTModel", size=(80, 96))["pixel_values"]
    DartokModel.of(model).save_pretrained(tmp_path)
    loaded = transformers.AutoModel.from_pretrained(tmp_path)
    embed = tokenizer_of(loaded)
    assert (embed.antialias, tuple(embed.bounds)) == (True, (0.1, 0.5))
    assert torch.equal(loaded(images)[0], model(images)[0])


@torch.no_grad()
def test_a_host_without_its_pooler_is_built_without_it(tmp_path):
    host = transformers.ViTModel(HOSTS["ViTModel"]().config, add_pooling_layer=False)
    DartokModel.of(dartok.adapt(host)).save_pretrained(tmp_path)
    _, found = DartokModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(found.values())


@torch.no_grad()
def test_a_classifier_keeps_its_labels_and_its_loss(tmp_path):
    host = built("ViTForImageClassification")
    host.config.id2label = dict(enumerate("abcde"))
    DartokModel.of(dartok.adapt(host, num_tokens=9)).save_pretrained(tmp_path)
    loaded = transformers.AutoModelForImageClassification.from_pretrained(tmp_path)
    assert loaded.config.id2label == dict(enumerate("abcde"))
    labels = torch.tensor([1, 2])
    found = loaded(**inputs_of("ViTForImageClassification"), labels=labels)
    assert found.loss.isfinite()


@torch.no_grad()
def test_a_model_made_from_its_configuration_starts_as_adapt_starts_it():
    model = dartok.adapt(built("ViTModel"), num_tokens=9)
    config = DartokModel.of(model).config
    fresh = DartokModel(config)
    gains = [tokenizer_of(one).scorer.gain for one in (model, fresh)]
    assert torch.equal(*gains)
    assert fresh(torch.randn(1, 3, 40, 40)).last_hidden_state.isfinite().all()


@torch.no_grad()
def test_wrapping_a_model_neither_copies_nor_changes_it():
    model = dartok.adapt(built("CLIPVisionModel"), num_tokens=9, strength=1.0)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    wrapped = DartokModel.of(model)
    assert wrapped.model is model
    assert wrapped.get_input_embeddings() is tokenizer_of(model)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


@torch.no_grad()
def test_attention_and_precision_are_chosen_when_loading(tmp_path):
    DartokModel.of(dartok.adapt(built("Dinov2Model"), num_tokens=9)).save_pretrained(tmp_path)
    loaded = transformers.AutoModel.from_pretrained(
        tmp_path, attn_implementation="eager", dtype=torch.bfloat16
    )
    assert loaded.model.config._attn_implementation == "eager"
    found = loaded(torch.randn(1, 3, 40, 40), output_attentions=True)
    assert found.last_hidden_state.dtype == torch.bfloat16
    assert [value.shape for value in found.attentions] == [(1, 2, 10, 10)] * 2


@pytest.mark.refuses
def test_what_cannot_be_built_again_is_refused():
    class Darkness(nn.Module):
        def forward(self, images):
            return (-images.mean(1)).exp()

    with pytest.raises(ValueError, match="scorer must be one by name to be saved, got a Darkness"):
        DartokModel.of(dartok.adapt(built("ViTModel"), scorer=Darkness()))
    tower = dartok.adapt(built("Kosmos2VisionTransformer"))
    with pytest.raises(ValueError, match="one that transformers exports, got a Kosmos2VisionTrans"):
        DartokModel.of(tower)
    with pytest.raises(ValueError, match="model must hold a dartok tokenizer, got ViTModel"):
        DartokModel.of(built("ViTModel"))
    with pytest.raises(ValueError, match="host_class must be a model of transformers, got 'Vit'"):
        DartokModel(DartokConfig(host_class="Vit"))
    changed = dartok.adapt(built("ViTForImageClassification"))
    changed.classifier = nn.Linear(32, 7)
    message = r"classifier.weight is \(7, 32\), and \(5, 32\) when built"
    with pytest.raises(ValueError, match=message):
        DartokModel.of(changed)
