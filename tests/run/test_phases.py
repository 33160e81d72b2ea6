"""What a search tells of its phases, and that its memory changes nothing of its result."""

from __future__ import annotations

import pytest
import torch

from nasprune.common.phases import PhaseStep
from nasprune.refit import reconstruct as reconstruction
from nasprune.run import fitting
from nasprune.run.reporting import markdown
from nasprune.run.search import search
from tests.nets import EXAMPLE, TinyResNet

PHASES = ["tracing", "scoring units", "pricing harms", "refitting", "searching", "proving", "measuring"]


def test_phases_are_told_and_reported_and_memory_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of four images, which a small memory puts into files."""
    monkeypatch.setattr(fitting, "image_limit", lambda _: 4)
    told: list[PhaseStep] = []
    states = []
    for memory in ("2GiB", 2**28):
        monkeypatch.setattr(reconstruction, "SHARE", 4 if memory == "2GiB" else 2**40)
        torch.manual_seed(0)
        data = torch.randn(60, *EXAMPLE.shape[1:]), torch.arange(60) % 4
        result = search(TinyResNet(), EXAMPLE, "60%", data=data, memory=memory, on_phase=told.append, allow_chance=True)
        states.append(result.model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))
    assert [cost.phase for cost in result.report.phases] == PHASES
    assert {step.phase for step in told} == set(PHASES)
    assert any(step.phase == "refitting" and step.done == step.of > 1 for step in told)
    assert "| refitting |" in markdown(result.report)
