"""Results on the Hub: what is pushed is a run with a card, what is fetched is loaded; without a network, on folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import nasprune
from nasprune.run import hub
from tests.toys import tiny_net, tiny_outcome, tiny_report

huggingface_hub = pytest.importorskip("huggingface_hub")


@pytest.fixture(scope="module")
def outcome():
    net = tiny_net()
    return tiny_outcome(nasprune.trace(net, torch.zeros(1, 1, 8, 8)), net)


@pytest.fixture
def remote(monkeypatch, tmp_path):
    """A hub that is a folder."""
    place = tmp_path / "hub"

    class Api:
        def __init__(self, token=None) -> None:
            self.token = token

        def create_repo(self, repo_id, *, private, exist_ok):
            if "/" not in repo_id:
                raise ValueError("a name has an owner")
            (place / repo_id).mkdir(parents=True, exist_ok=exist_ok)
            return f"https://hub/{repo_id}"

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, place / repo_id, dirs_exist_ok=True)

    def download(repo_id, *, revision, token, allow_patterns):
        if not (place / repo_id).is_dir():
            raise ValueError("no such repository")
        return str(place / repo_id)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return place


def test_pushed_and_fetched(remote, outcome):
    assert nasprune.push_to_hub(outcome, "me/small") == "https://hub/me/small"
    small = nasprune.from_pretrained("me/small", tiny_net(seed=5))
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(small(images), outcome.model.eval()(images))
    text = (remote / "me" / "small" / "README.md").read_text()
    assert text.startswith('---\nlibrary_name: "nasprune"\n')
    assert 'small = nasprune.from_pretrained("me/small", model=tiny_net())' in text
    assert "The cut is proved" in text


def test_a_folder_in_the_place_of_a_repository(outcome, tmp_path):
    nasprune.save(outcome, tmp_path / "run")
    small = nasprune.from_pretrained(tmp_path / "run", tiny_net())
    assert [p.shape for p in small.parameters()] == [p.shape for p in outcome.model.parameters()]


def test_what_the_hub_refuses_is_one_sentence(remote, outcome):
    with pytest.raises(nasprune.InputError, match="cannot push to 'small': a name has an owner; check its name"):
        nasprune.push_to_hub(outcome, "small")
    with pytest.raises(nasprune.InputError, match=r"`repo_id` must be a text such as 'user/name', got None"):
        nasprune.push_to_hub(outcome, None)
    with pytest.raises(nasprune.InputError, match=r"cannot fetch 'me/other' .*: no such repository; check the name"):
        nasprune.from_pretrained("me/other", tiny_net())


def test_a_missing_package_is_said(monkeypatch, outcome):
    monkeypatch.setattr(hub, "find_spec", lambda name: None)
    with pytest.raises(nasprune.InputError, match=r"pip install 'nasprune\[hub\]'"):
        nasprune.push_to_hub(outcome, "me/small")


def test_a_card_is_the_report():
    text = hub.card(tiny_report(), "me/small")
    assert "# tests.toys:tiny_net within 50% of FLOPs" in text
    assert Path("me/small").name in text
