"""utils/distributed.py: one rank, several ranks, ranks that are started again."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.builders.programs import ROOT, run_process, run_script
from utils import distributed
from utils.errors import SettingError

LAUNCHER_SETS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

TWO_RANKS = """
import json, sys
import torch.distributed as dist
from pathlib import Path
from utils import distributed, run_directory
from utils.errors import InputError
from utils.progress import print0

folder = Path(sys.argv[1])
before = [distributed.rank(), distributed.world_size(), distributed.is_main()]
device = distributed.setup("cpu", timeout_minutes=1)
rank = distributed.rank()
name = run_directory.random_name()
run = run_directory.open_run_directory(folder / "run", name)
run_directory.write_run_files(run, {"seed": 1})
exists = (folder / "run").is_dir()
run.metrics.write(1, {"loss": rank})
print0("a line of the run")
found = {
    "before": before,
    "device": device.type,
    "backend": dist.get_backend(),
    "name": name,
    "exists": exists,
    "gathered": distributed.all_gather_object({"rank": rank}),
    "from_0": distributed.broadcast_object(f"value of {rank}"),
    "from_1": distributed.broadcast_object(f"value of {rank}", source=1),
    "asked": distributed.from_main(lambda: f"answer of {rank}"),
}
def refuse():
    raise OSError("no such file")
try:
    distributed.from_main(refuse)
except InputError as error:
    found["refused"] = str(error)
distributed.barrier()
distributed.teardown()
found["after"] = [distributed.rank(), distributed.world_size(), dist.is_initialized()]
(folder / f"{rank}.json").write_text(json.dumps(found))
"""


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHER_SETS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("alone")
def test_alone_everything_does_the_obvious_without_a_group() -> None:
    assert distributed.setup("cpu") == torch.device("cpu")
    assert not dist.is_initialized()
    assert (distributed.rank(), distributed.local_rank(), distributed.world_size()) == (0, 0, 1)
    assert distributed.is_main()
    distributed.barrier()
    value = object()
    assert distributed.broadcast_object(value) is value
    assert distributed.all_gather_object(value) == [value]
    distributed.teardown()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("variable", ["SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "JSM_NAMESPACE_SIZE"])
def test_several_processes_of_another_launcher_are_refused(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "4")
    with pytest.raises(SettingError, match=f"4 tasks.*{variable}"):
        distributed.setup("cpu")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")  # of a step, which says more than the job
    monkeypatch.setenv(variable, "1" if variable != "SLURM_NTASKS" else "4")
    assert distributed.setup("cpu").type == "cpu"


@pytest.mark.usefixtures("alone")
def test_a_name_of_this_machine_without_an_address_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "machine.invalid", "MASTER_PORT": "0"}
    for name, value in ranks.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingError, match="machine.invalid has no address"):
        distributed.setup("cpu")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # all ranks are here
    distributed.setup("cpu")
    assert distributed.all_gather_object(7) == [7]
    distributed.teardown()


@pytest.mark.usefixtures("alone")
def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert distributed.setup("auto").type == "cpu"
    with pytest.raises(SettingError, match="device=cuda, but PyTorch finds no CUDA device"):
        distributed.setup("cuda")


@pytest.mark.usefixtures("alone")
def test_half_a_launcher_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SettingError, match="WORLD_SIZE=4, but MASTER_ADDR, MASTER_PORT not set"):
        distributed.setup("cpu")


def test_more_ranks_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(LAUNCHER_SETS, ("2", "3", "2", "3", "localhost", "1"), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert not distributed.is_main()
    with pytest.raises(SettingError, match="2 GPUs and at least 3 ranks: start torchrun with --nproc-per-node 2"):
        distributed.setup("auto")


def test_two_ranks_under_torchrun(tmp_path: Path) -> None:
    script = tmp_path / "two_ranks.py"
    script.write_text(TWO_RANKS)
    done = run_process(str(script), str(tmp_path), ranks=2, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for rank, found in enumerate(ranks):
        assert found["before"] == [rank, 2, rank == 0]
        assert found["device"] == "cpu"
        assert found["backend"] == "gloo"
        assert found["gathered"] == [{"rank": 0}, {"rank": 1}]
        assert (found["from_0"], found["from_1"]) == ("value of 0", "value of 1")
        assert (found["asked"], found["refused"]) == ("answer of 0", "no such file")
        assert found["exists"]
        assert found["after"] == [rank, 2, False]
    assert ranks[0]["name"] == ranks[1]["name"]
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == '{"step": 1, "loss": 0}\n'
    assert done.stdout.count("a line of the run") == 1


COMPILED_RANKS = """
import functools, sys
from pathlib import Path
import torch
from models.act import ACTStep, Slots, initial_carry, refill
from models.arch import ArchConfig
from models.network import Network
from utils import collectives, distributed

collectives.DistributedDataParallel = functools.partial(collectives.DistributedDataParallel, bucket_cap_mb=0.02)
device = distributed.setup("cpu", timeout_minutes=2)
arch = ArchConfig(hidden_size=32, num_heads=4, H_cycles=2, L_cycles=1, puzzle_emb_ndim=32, puzzle_emb_len=2,
                  halt_max_steps=3, forward_dtype="float32", expansion=1.0, no_ACT_continue=False)
found = []
for compiled in (False, True):
    step = ACTStep(Network(arch, 12, 20, torch.Generator().manual_seed(0)), ignore_label=0).train()
    if compiled:
        step.compile(backend="aot_eager", dynamic=False)
    module = collectives.data_parallel(step, device)
    generator = torch.Generator().manual_seed(distributed.rank())
    slots = Slots(torch.randint(0, 12, (3, 20), generator=generator).to(torch.uint8),
                  torch.randint(0, 12, (3, 20), generator=generator).to(torch.uint8),
                  torch.arange(3, dtype=torch.int32))
    carry = initial_carry(step.network, slots)
    for _ in range(2):
        rows = torch.randn(3, 32, generator=generator).requires_grad_()
        carry = refill(carry, slots, step.network.initial_latents())
        carry, loss, _, _ = module(carry, rows)
        loss.backward()
    named = {name: p.grad for name, p in step.network.named_parameters()} | {"rows": rows.grad}
    assert all(gradient is not None for gradient in named.values()), [n for n, g in named.items() if g is None]
    found.append(named)
for name, gradient in found[0].items():
    error = float((gradient - found[1][name]).abs().max() / gradient.abs().max())
    assert error < 1e-4, (name, error)
(Path(sys.argv[1]) / f"{distributed.rank()}.ok").write_text(str(len(found[0])))
distributed.teardown()
"""


@pytest.mark.slow
def test_compiled_ranks_have_the_eager_gradients(tmp_path: Path) -> None:
    """Of every weight and of the puzzle rows, though the gradients travel in several buckets."""
    script = tmp_path / "ranks.py"
    script.write_text(COMPILED_RANKS)
    done = run_script(str(script), str(tmp_path), ranks=2)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.glob("*.ok")) == ["0.ok", "1.ok"]


def test_ranks_that_are_started_again_meet_in_a_place_of_their_own() -> None:
    """Over one store, as torchrun keeps it, with what ranks that died at any point have left in it."""
    store = dist.TCPStore("localhost", 0, is_master=True, timeout=timedelta(seconds=20))

    def client() -> dist.TCPStore:
        return dist.TCPStore("localhost", store.port, is_master=False, timeout=timedelta(seconds=20))

    def agree(ranks: int) -> set[int]:
        with ThreadPoolExecutor(ranks) as pool:
            return set(pool.map(lambda rank: distributed.meet(client(), rank, ranks, 20), reversed(range(ranks))))

    generations = [agree(3), agree(3), agree(2), agree(4)]
    assert all(len(agreed) == 1 for agreed in generations)
    store.set("hello/1", "of one that died before it was answered")
    with pytest.raises(TimeoutError, match=r"of 2 ranks \[1\] did not come within 0 s"):
        distributed.meet(client(), 0, 2, 0.1)
    generations += [agree(2), agree(3)]
    numbers = [number for agreed in generations for number in agreed]
    assert numbers == sorted(set(numbers)) and len(numbers) == 6
