"""GPUs that cannot, by stand-ins: training/prepare/precision.py, utils/distributed.py."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch

from models.arch import ArchConfig
from tests.builders.programs import run_script
from tests.conftest import SMALL
from training.config import PretrainConfig
from training.launch.cli import run_once
from training.prepare import precision
from training.prepare.precision import choose_dtype, replace_emulated, slow_because
from utils import distributed
from utils.errors import SettingError

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
BUILT = ["sm_75", "sm_80", "sm_86", "sm_90", "compute_120"]


def stand_in(monkeypatch: pytest.MonkeyPatch, *capabilities: tuple[int, int], built: list[str] | None = None) -> None:
    """GPUs of these compute capabilities."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device=0: capabilities[getattr(device, "index", device)]
    )
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=0: "Tesla X")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: BUILT if built is None else built)
    monkeypatch.setattr(torch.version, "hip", None)


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 9), (9, 0), (12, 0), (12, 1)])
def test_a_gpu_that_pytorch_was_built_for(capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, capability)
    distributed.check_capability(CUDA)


@pytest.mark.parametrize(
    ("capability", "built"),
    [
        ((6, 0), BUILT),  # P100
        ((7, 0), BUILT),  # V100
        ((10, 0), BUILT),
        ((8, 0), ["sm_86"]),
        ((12, 0), ["sm_90", "sm_90a"]),
        ((11, 0), ["sm_90", "compute_120"]),
    ],
)
def test_a_gpu_that_pytorch_was_not_built_for(
    capability: tuple[int, int], built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, capability, built=built)
    with pytest.raises(SettingError, match=r"Tesla X has compute capability \d+\.\d, .* set device=cpu"):
        distributed.setup("auto")


def test_a_build_that_does_not_say_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    for built in ([], ["gfx90a", "gfx942"]):
        stand_in(monkeypatch, (6, 0), built=built)
        distributed.check_capability(CUDA)


def test_a_run_on_such_a_gpu_ends_in_a_sentence_before_it_writes(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, (6, 0))
    settings = [word for word in SMALL if word != "device=cpu"]
    done = run_script(
        "pretrain_no_eval.py", f"data_paths=[{small_data}]", f"checkpoint_path={tmp_path / 'run'}", *settings
    )
    assert done.returncode == 2 and "error: Tesla X has compute capability 6.0" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [([(7, 5)], "float32"), ([(8, 0)], "bfloat16"), ([(9, 0), (7, 5)], "float32"), ([(8, 9), (12, 0)], "bfloat16")],
)
def test_auto_takes_what_every_gpu_computes_in(
    capabilities: list[tuple[int, int]], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, *capabilities)
    assert choose_dtype(ArchConfig(forward_dtype="auto"), CUDA).forward_dtype == dtype
    for fixed in ("float32", "bfloat16"):
        assert choose_dtype(ArchConfig(forward_dtype=fixed), CUDA).forward_dtype == fixed  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [({"avx2"}, "float32"), ({"avx512_bf16"}, "bfloat16"), ({"amx_bf16"}, "bfloat16"), (set(), "float32")],
)
def test_auto_on_a_cpu(flags: set[str], dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset(flags))
    assert choose_dtype(ArchConfig(forward_dtype="auto"), CPU).forward_dtype == dtype


def test_an_emulated_bfloat16_is_said_with_the_setting_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, (7, 5))
    assert "Tesla X has no bfloat16" in slow_because(ArchConfig(), CUDA)
    assert "arch.forward_dtype=float32, or auto" in slow_because(ArchConfig(), CUDA)
    assert slow_because(ArchConfig(forward_dtype="float32"), CUDA) == ""
    stand_in(monkeypatch, (8, 0))
    assert slow_because(ArchConfig(), CUDA) == ""
    for flags, dtype in (({"avx2"}, "float32"), ({"avx512_bf16"}, "bfloat16")):
        monkeypatch.setattr(precision, "cpu_flags", lambda flags=flags: frozenset(flags))
        assert ("this processor has no bfloat16" in slow_because(ArchConfig(), CPU)) == (dtype == "float32")
        assert replace_emulated(ArchConfig(), CPU).forward_dtype == dtype
        assert replace_emulated(ArchConfig(forward_dtype="float32"), CPU).forward_dtype == "float32"


@pytest.mark.parametrize("asked", ["auto", "bfloat16"])
def test_a_run_gets_float32_where_bfloat16_is_emulated(
    asked: Literal["auto", "bfloat16"], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    got: list[PretrainConfig] = []
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset({"avx2"}))
    config = PretrainConfig(arch=ArchConfig(forward_dtype=asked), device="cpu")
    run_once(got.append, config)
    assert f"{asked} is float32 here" in capsys.readouterr().out
    assert got[0].arch.dtype == torch.float32 and got[0].model_copy(update={"arch": config.arch}) == config
    run_once(got.append, config.model_copy(update={"dry_run_hardware": "8 x H100", "dry_run": True}))
    assert got[1].arch.dtype == torch.bfloat16, "a plan for other hardware is in what that hardware computes in"


def test_auto_trains_on_this_machine(small_data: Path, tmp_path: Path) -> None:
    words = [word for word in SMALL if "forward_dtype" not in word]
    done = run_script(
        *(
            "pretrain_no_eval.py",
            f"data_paths=[{small_data}]",
            "arch.forward_dtype=auto",
            "epochs=1",
            "eval_interval=1",
        ),
        *(f"checkpoint_path={tmp_path / 'run'}", *words),
    )
    assert done.returncode == 0, done.stderr
    assert "forward_dtype: auto" not in (tmp_path / "run" / "config.yaml").read_text()
