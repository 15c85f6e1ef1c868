"""training/checkpoint/sources/tensor_files.py, hub.py: what other programs save, and weights from the hub."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.builders.programs import run_script
from tests.builders.states import state_of, trained
from tests.conftest import SMALL
from training import checkpoint
from training.checkpoint import CheckpointRecord, locate_weights
from training.checkpoint.sources import hub
from utils.errors import CheckpointError, SettingError

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    """The weights of a network under their published names."""
    trained_state = trained(2)
    assert trained_state.table is not None
    return {**trained_state.network.state_dict(), "puzzle_emb.weights": trained_state.table.weights.clone()}


def assert_loads(path: Path, state: State) -> None:
    """The weights at `path` are those of the state, and a network starts from them."""
    loaded = checkpoint.load_weights(path)
    assert loaded.puzzle_rows is not None and torch.equal(loaded.puzzle_rows, state["puzzle_emb.weights"])
    fresh = state_of(seed=9)
    checkpoint.initialise_network(fresh.network, loaded)
    for key, value in fresh.network.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert checkpoint.record_of(path) == CheckpointRecord()


@pytest.mark.parametrize("inner", ["state_dict", "model_state_dict", "model_state", "model"])
@pytest.mark.parametrize("prefix", ["", "_orig_mod.model.inner.", "net.", "trainer.net._orig_mod.model.inner."])
def test_weights_one_level_down(inner: str, prefix: str, state: State, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    weights = {prefix + key: value for key, value in state.items()}
    torch.save({"epoch": 3, inner: weights, "optimizer": {"lr": 0.1, "state": {0: torch.zeros(1)}}}, path)
    assert_loads(path, state)


def parts_of(state: State, count: int) -> list[State]:
    keys = sorted(state)
    return [{key: state[key] for key in keys[i::count]} for i in range(count)]


def save_parts(folder: Path, state: State, kind: str, index: bool) -> list[Path]:
    """Writes a state dict in three parts, as large models are published."""
    stem, save = ("pytorch_model", torch.save) if kind == "bin" else ("model", save_file)
    paths, names = [], {}
    for i, part in enumerate(parts_of(state, 3), start=1):
        paths.append(folder / f"{stem}-{i:05}-of-00003.{kind}")
        save(part, paths[-1])  # type: ignore[operator]
        names |= dict.fromkeys(part, paths[-1].name)
    if index:
        (folder / f"{stem}.{kind}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
        paths.append(folder / f"{stem}.{kind}.index.json")
    return paths


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("index", [True, False])
def test_weights_in_several_parts(kind: str, index: bool, state: State, tmp_path: Path) -> None:
    paths = save_parts(tmp_path, state, kind, index)
    (tmp_path / "config.json").write_text('{"model_type": "trm"}')
    for path in (tmp_path, paths[1], paths[-1]):
        assert_loads(path, state)
    paths[0].unlink()
    for path in (paths[1], paths[-1]):
        with pytest.raises(CheckpointError, match=f"{paths[0].name} is missing, one of 3 files"):
            checkpoint.load_weights(path)


@pytest.mark.parametrize("name", ["model.safetensors", "x.pt", "step_1000"])
def test_a_folder_with_one_file(name: str, state: State, tmp_path: Path) -> None:
    (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)  # type: ignore[operator]
    (tmp_path / "all_config.yaml").write_text("arch: {}")
    assert_loads(tmp_path, state)


def test_a_folder_with_several_is_not_guessed(state: State, tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        save_file(state, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"2 files of weights \(a.safetensors, b.safetensors\): name one"):
        checkpoint.load_weights(tmp_path)


def test_a_run_stays_a_run(small_run: Path) -> None:
    assert checkpoint.load_weights(small_run).record.step is not None


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            lambda path: torch.save({"state_dict": {"a": 1}}, path),
            "a dictionary of state_dict, not a dictionary of tens",
        ),
        (lambda path: torch.save([torch.zeros(1)], path), "contains list"),
        (lambda path: torch.save({"epoch": 1, "lr": 0.1}, path), "a dictionary of epoch, lr"),
        (lambda path: torch.save({}, path), "not a dictionary of tensors"),
        (lambda path: path.write_bytes(b"\x80nothing"), "not a file of plain tensors"),
        (
            lambda path: torch.save(
                {"transformer.h.0.attn.c_attn.weight": torch.zeros(2), "wte": torch.zeros(2)}, path
            ),
            "is not a network like TRM: of what every one has, embed_tokens.embedding_weight, lm_head.weight, "
            "q_head.weight are missing; it has transformer.h.0.attn.c_attn.weight, wte, .. (2 tensors)",
        ),
    ],
)
def test_what_is_not_weights_of_trm_is_named(made: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    made(path)
    with pytest.raises(CheckpointError) as error:
        checkpoint.load_weights(path)
    assert said in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_network_without_a_halting_head_is_named_by_what_differs(state: State, tmp_path: Path) -> None:
    save_file({key: value for key, value in state.items() if "q_head" not in key}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"every one has, q_head\.weight is missing"):
        checkpoint.load_weights(tmp_path / "x.safetensors")


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_objects_one_level_down_are_not_unpickled(state: State, tmp_path: Path) -> None:
    sung = tmp_path / "sung"
    torch.save({"model": state, "args": Canary(sung)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="not a file of plain tensors and was not loaded"):
        checkpoint.load_weights(tmp_path / "x.pt")
    assert not sung.exists()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"weight_map": []}', '{"weight_map": {"a": "../x"}}', '{"weight_map": {"a": 1}}']
)
def test_an_index_that_is_none_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"model.safetensors.index.json (is not an index|names)"):
        checkpoint.load_weights(path)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache of the hub, and no network."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub is not installed")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub._fetch.cache_clear()
    yield tmp_path / "hub"
    hub._fetch.cache_clear()


def put(cache: Path, repository: str, files: dict[str, Path], revision: str = "main") -> Path:
    """Lays files into the cache as the hub's client does."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    commit = ("0" if revision == "main" else "1") * 40
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / revision).write_text(commit)
    for name, path in files.items():
        target = folder / "snapshots" / commit / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder / "snapshots" / commit


def test_names_on_the_hub_come_from_the_cache(cache: Path, state: State, tmp_path: Path) -> None:
    save_file(state, tmp_path / "x.safetensors")
    torch.save(state, tmp_path / "x")
    folder = put(
        cache, "some-one/trm.arc", {"model.safetensors": tmp_path / "x.safetensors", "a/step_10": tmp_path / "x"}
    )
    other = put(cache, "some-one/trm.arc", {"model.safetensors": tmp_path / "x.safetensors"}, revision="v2")
    for name, path in {
        "hf://some-one/trm.arc": folder,
        "hf://some-one/trm.arc/": folder,
        "hf://some-one/trm.arc@v2": other,
        f"hf://some-one/trm.arc@{other.name}": other,
        "hf://some-one/trm.arc/model.safetensors": folder / "model.safetensors",
        "hf://some-one/trm.arc/a/step_10": folder / "a" / "step_10",
        "hf://some-one/trm.arc/model.safetensors@v2": other / "model.safetensors",
    }.items():
        assert locate_weights(name) == path, name
        assert_loads(locate_weights(name), state)


def test_a_folder_of_a_repository(cache: Path, small_run: Path) -> None:
    step = next(iter(small_run.glob("step_*")))
    put(cache, "a/b", {f"run/{step.name}/{path.name}": path for path in step.iterdir()})
    assert checkpoint.load_weights(locate_weights(f"hf://a/b/run/{step.name}")).record.step == int(step.name[5:])
    assert checkpoint.load_weights(locate_weights("hf://a/b/run")).record.step == int(step.name[5:])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hf://nothing", "is not a name on the hub: write hf://OWNER/NAME"),
        ("hf://", "is not a name on the hub"),
        ("hf://a/b/c d@", "is not a name on the hub"),
        ("hf://no/where", "was not fetched ("),
        ("hf://no/where/step_1", "was not fetched ("),
    ],
)
def test_names_that_lead_nowhere(cache: Path, name: str, said: str) -> None:
    with pytest.raises((SettingError, CheckpointError)) as error:
        locate_weights(name)
    assert f"load_checkpoint={name} " in str(error.value) and said in str(error.value) and "\n" not in str(error.value)


def test_a_repository_without_safetensors_asks_for_the_file(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    put(cache, "a/b", {"config.json": tmp_path / "config.json"})
    with pytest.raises(CheckpointError, match=r"hf://a/b has no .safetensors: name its file of weights"):
        locate_weights("hf://a/b")


def test_without_the_package_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    hub._fetch.cache_clear()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r'load_checkpoint=hf://a/b needs the package .*pip install -e "\.\[hub\]"'):
        locate_weights("hf://a/b")


def test_the_scripts_start_from_a_name_on_the_hub(
    cache: Path, small_run: Path, small_data: Path, tmp_path: Path
) -> None:
    exported = tmp_path / "exported"
    assert run_script("-m", "training.export", str(small_run), str(exported), "--format", "folder").returncode == 0
    folder = put(cache, "a/trm", {path.name: path for path in exported.iterdir()})
    words = (f"data_paths=[{small_data}]", "epochs=1", "eval_interval=1", "ema=True", *SMALL)
    for script, more in (("pretrain_no_eval.py", ("puzzle_rows=mean",)), ("eval_arc_k10.py", ())):
        path = f"checkpoint_path={tmp_path / script}"
        done = run_script(script, *words, *more, path, "load_checkpoint=hf://a/trm@main")
        assert done.returncode == 0, done.stderr
        assert f"weights of {folder}" in done.stdout
        refused = run_script(script, *words, *more, f"{path}2", "load_checkpoint=hf://a/none")
        assert refused.returncode == 2 and "error: load_checkpoint=hf://a/none was not fetched" in refused.stderr
        assert not (tmp_path / f"{script}2").exists()
