"""Results on the Hugging Face Hub: the folder of a run with a model card, pushed and fetched. Nothing is unpickled."""

from __future__ import annotations

import json
import tempfile
from importlib.util import find_spec
from pathlib import Path

from torch import nn

from nasprune.common.arguments import path as as_path
from nasprune.common.factories import one_line
from nasprune.common.inputs import ExampleInputs
from nasprune.errors import InputError
from nasprune.registry import Plugins
from nasprune.run.checkpoint import FILES, Saveable, load, save
from nasprune.run.report import SearchReport
from nasprune.run.reporting import markdown

CARD = "README.md"


def push_to_hub(
    result: Saveable,
    repo_id: str,
    *,
    model: nn.Module | None = None,
    private: bool = False,
    token: str | None = None,
    message: str = "Upload a pruned network",
) -> str:
    """Uploads what `nasprune.save` writes, and a model card made of the report, to the Hugging Face Hub.

    Args:
        result: what `nasprune.search` returned.
        repo_id: "user/name"; made where it does not exist.
        model: the small network with other weights, such as a fine-tuned one.
        private, token, message: as huggingface_hub takes them; by default the token of `hf auth login`.

    Returns:
        The address of the repository.

    Raises:
        InputError: huggingface_hub is missing, or the Hub refuses.
    """
    if not isinstance(repo_id, str):
        raise InputError(f"`repo_id` must be a text such as 'user/name', got {repo_id!r}")
    _check_package()
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        save(result, folder, model=model)
        (Path(folder) / CARD).write_text(card(result.report, repo_id), encoding="utf-8")
        try:
            made = api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message)
        except Exception as error:  # of the network, of the Hub, of its rules for names
            raise InputError(
                f"cannot push to {repo_id!r}: {one_line(error)}; check its name and `hf auth login`, or save the run "
                "with nasprune.save and upload the folder yourself"
            ) from error
    return str(made)


def from_pretrained(
    source: str | Path,
    model: nn.Module,
    *,
    revision: str | None = None,
    token: str | None = None,
    example_inputs: ExampleInputs | None = None,
    plugins: Plugins = None,
) -> nn.Module:
    """The small network in a repository of the Hugging Face Hub, or in a folder, as `nasprune.load` gives it.

    Args:
        source: a folder, or "user/name" on the Hub.
        model: the dense network that the search started from, with any weights; left as it is.
        revision, token: as huggingface_hub takes them. example_inputs, plugins: as for `nasprune.load`.

    Raises:
        InputError: huggingface_hub is missing, or nothing can be fetched. Otherwise as `nasprune.load`.
    """
    folder = as_path("source", source, "write nasprune.from_pretrained('user/name', model=the_dense_model)")
    if not folder.is_dir():
        folder = _fetched(str(source), revision, token)
    return load(folder, model, example_inputs=example_inputs, plugins=plugins)


def card(report: SearchReport, repo_id: str) -> str:
    """A model card: what the Hub reads, and the report for people."""
    head = {"library_name": "nasprune", "tags": ["pruning", "neural-architecture-search", "pytorch"]}
    front = "\n".join(f"{name}: {json.dumps(value)}" for name, value in head.items())
    return f"---\n{front}\n---\n\n{markdown(report, folder=repo_id, load='from_pretrained')}"


def _fetched(repo_id: str, revision: str | None, token: str | None) -> Path:
    _check_package()
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo_id, revision=revision, token=token, allow_patterns=list(FILES)))
    except Exception as error:  # of the network, of the Hub, of its rules for names
        raise InputError(
            f"cannot fetch {repo_id!r} from the Hugging Face Hub: {one_line(error)}; check the name, or give a folder"
        ) from error


def _check_package() -> None:
    if find_spec("huggingface_hub") is None:
        raise InputError("the Hub needs huggingface_hub; install it with: pip install 'nasprune[hub]'")
