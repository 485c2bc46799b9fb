"""The Hugging Face Hub: what is uploaded when it is asked for, and what comes from the cache."""

from pathlib import Path

import pytest
import torch
from saved_models import SIZE, Constant, adapted

import dartok
from dartok.models.sharing import load_saved


def test_a_name_on_the_hub_is_read_from_the_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    model, commit = adapted(num_tokens=12), "0" * 40
    repository = tmp_path / "models--me--ants"
    dartok.save_pretrained(model, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    images = torch.randn(1, 3, *SIZE)
    for name in ("me/ants", "hf-hub:me/ants"):
        assert torch.equal(dartok.from_pretrained(name)(images), model(images))


class Hub:
    """What `HfApi` would be told."""

    def __init__(self):
        self.told = []
        self.error = None

    def __call__(self, token=None):
        self.told.append(("login", token))
        return self

    def create_repo(self, repo_id, *, private, exist_ok):
        if self.error is not None:
            raise self.error
        self.told.append(("create", repo_id, private, exist_ok))

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        names = sorted(path.name for path in Path(folder_path).iterdir())
        card = (Path(folder_path) / "README.md").read_text()
        self.model = load_saved(f"local-dir:{folder_path}")
        self.told.append(("upload", repo_id, names, commit_message))
        assert f'from_pretrained("{repo_id}")' in card
        return f"https://hub/{repo_id}/commit/1"


@pytest.fixture
def hub(monkeypatch):
    stub = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", stub)
    return stub


def test_a_push_makes_the_repository_and_uploads_the_folder(hub):
    model = adapted()
    address = dartok.push_to_hub(model, "me/ants", private=True, token="t", commit_message="First")
    assert address == "https://hub/me/ants/commit/1"
    files = ["README.md", "config.json", "model.safetensors"]
    assert hub.told == [
        ("login", "t"),
        ("create", "me/ants", True, True),
        ("upload", "me/ants", files, "First"),
    ]
    images = torch.randn(1, 3, *SIZE)
    assert torch.equal(hub.model(images), model(images))


@pytest.mark.refuses
def test_nothing_is_uploaded_of_a_model_that_is_refused(hub):
    with pytest.raises(ValueError, match="scorer must be one by name"):
        dartok.push_to_hub(adapted(scorer=Constant()), "me/ants")
    with pytest.raises(ValueError, match="repo_id must be OWNER/NAME, got 'me//ants'"):
        dartok.push_to_hub(adapted(), "me//ants")
    assert [told for told in hub.told if told[0] != "login"] == []


@pytest.mark.refuses
def test_a_hub_that_cannot_be_reached_is_told_in_one_line(hub):
    hub.error = ConnectionError("no route\nto host")
    with pytest.raises(OSError, match=r"'me/ants' cannot be uploaded \(no route to host\); check"):
        dartok.push_to_hub(adapted(), "me/ants")
