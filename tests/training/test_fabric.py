import json
from pathlib import Path

import pytest
import torch

from graphpruning.common.errors import UserError
from graphpruning.latency import device_of
from graphpruning.training import fabric as fabrics
from graphpruning.training.fabric import make_fabric


@pytest.mark.parametrize(
    ("seconds", "chosen"), [((1.2, 1.0), "bf16-mixed"), ((1.19, 1.0), "32-true")]
)
def test_the_timing_decides_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: tuple[float, float],
    chosen: str,
) -> None:
    cache = tmp_path / "checkpoints" / "precision.json"
    cache.parent.mkdir()
    cache.write_text('{"another machine": {"precision": "32-true"}}')
    monkeypatch.setattr(fabrics, "time_training_step", lambda: seconds)
    assert fabrics.cpu_precision(cache) == chosen
    # From now on the timing could say anything.
    monkeypatch.setattr(fabrics, "time_training_step", lambda: seconds[::-1])
    fabric = make_fabric("auto", accelerator="cpu", cache=cache)
    assert fabrics.precision(fabric) == chosen
    assert fabric.world_size == 1
    assert len(json.loads(cache.read_text())) == 2


def test_the_timing_times_and_draws_nothing() -> None:
    state = torch.get_rng_state()
    assert all(0 < seconds < 10 for seconds in fabrics.time_training_step())
    assert torch.equal(torch.get_rng_state(), state)


def test_torchrun_must_start_as_many_processes_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "5", "LOCAL_WORLD_SIZE": "2"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="2 of 5 processes here"):
        make_fabric("32-true", accelerator="cpu")


def test_apples_gpus_which_have_no_64_bit_numbers_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert make_fabric("32-true").device.type == "cpu"
    with pytest.raises(UserError, match="device 'meta': networks run and are timed on cpu or cuda"):
        device_of("meta")


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'bf16-mixed'"):
        make_fabric("bf16")
    with pytest.raises(UserError, match="accelerator 'abacus'"):
        make_fabric("32-true", accelerator="abacus")
