"""utils/collectives.py and utils/consensus.py on one rank and on three."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.builders.programs import run_script
from utils import collectives
from utils.consensus import FlagConsensus

THREE_RANKS = """
import json, sys
from pathlib import Path
import numpy as np
import torch
from torch import nn
from utils import collectives, distributed
from utils.consensus import FlagConsensus
from utils.errors import SettingError

distributed.setup("cpu", timeout_minutes=1)
rank = distributed.rank()
rows = torch.arange(12).reshape(6, 2)
mine = collectives.local_slice(rows)
found = {
    "slice": mine.tolist(),
    "array": collectives.local_slice(np.arange(3)).tolist(),
    "all": collectives.all_gather_rows(mine).tolist(),
    "main": collectives.gather_rows_to_main(mine).tolist(),
    "bool": collectives.gather_rows_to_main(mine > 4).tolist(),
    "sum": collectives.all_reduce_sum(torch.tensor([rank + 1.0])).tolist(),
    "only": collectives.all_reduce_sum(collectives.only_on_main(torch.tensor([rank + 1.0]))).tolist(),
    "objects": collectives.gather_objects_to_main({"rank": rank}),
}
try:
    collectives.local_range(7)
except SettingError as error:
    found["refused"] = str(error)

# Two backward passes whose gradients are exchanged once.
model = collectives.data_parallel(nn.Linear(1, 1, bias=False), torch.device("cpu"))
with collectives.unsynced(model):
    model(torch.tensor([[1.0 + rank]])).sum().backward()
found["alone"] = model.module.weight.grad.item()
model(torch.tensor([[10.0 * rank]])).sum().backward()
found["averaged"] = model.module.weight.grad.item()

consensus = FlagConsensus(every=4)
found["delay"] = consensus.delay
found["exchanged"] = []
for step in range(1, 17):
    result = consensus.exchange(int(rank == 1 and step == 6), rank * step)
    found["exchanged"].append(result)
consensus.close()
distributed.teardown()
(Path(sys.argv[1]) / f"{rank}.json").write_text(json.dumps(found))
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """What each of three ranks has found."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "three.py").write_text(THREE_RANKS)
    done = run_script(str(folder / "three.py"), str(folder), ranks=3)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(3)]


def test_rows_are_sliced_and_gathered_in_rank_order(ranks: list[dict[str, object]]) -> None:
    rows = torch.arange(12).reshape(6, 2)
    for rank, found in enumerate(ranks):
        own = rows[2 * rank : 2 * rank + 2]
        assert found["slice"] == own.tolist() and found["array"] == [rank]
        assert found["all"] == rows.tolist()
        assert found["main"] == (rows if rank == 0 else own).tolist()
        assert found["bool"] == ((rows if rank == 0 else own) > 4).tolist()


def test_sums_and_objects(ranks: list[dict[str, object]]) -> None:
    for rank, found in enumerate(ranks):
        assert found["sum"] == [6.0] and found["only"] == [1.0]
        assert found["objects"] == ([{"rank": r} for r in range(3)] if rank == 0 else None)


def test_rows_that_do_not_divide_are_refused(ranks: list[dict[str, object]]) -> None:
    assert all("7 rows" in str(found["refused"]) and "3 ranks" in str(found["refused"]) for found in ranks)


def test_gradients_add_up_unsynced_and_are_then_exchanged_once(ranks: list[dict[str, object]]) -> None:
    """The mean over ranks of the sums of both passes; before it each rank has its own."""
    assert [found["alone"] for found in ranks] == [1.0, 2.0, 3.0]
    mean = np.mean([1 + rank + 10 * rank for rank in range(3)])
    assert [found["averaged"] for found in ranks] == [pytest.approx(mean)] * 3


def test_every_rank_gets_the_largest_value_one_exchange_later(ranks: list[dict[str, object]]) -> None:
    """The values of steps 4, 8 and 12 arrive at 8, 12 and 16; a flag of one step between two exchanges is not seen."""
    for found in ranks:
        exchanged = found["exchanged"]
        assert isinstance(exchanged, list)
        arrived = {step: values for step, values in enumerate(exchanged, start=1) if values is not None}
        assert arrived == {8: [0, 8], 12: [0, 16], 16: [0, 24]}
        assert found["delay"] == 7


def test_one_rank_alone_needs_no_exchange() -> None:
    rows = torch.arange(6).reshape(3, 2)
    assert torch.equal(collectives.local_slice(rows), rows)
    assert collectives.all_gather_rows(rows) is rows and collectives.all_reduce_sum(rows) is rows
    assert collectives.gather_objects_to_main("x") == ["x"]
    module = torch.nn.Linear(1, 1)
    assert collectives.data_parallel(module, torch.device("cpu")) is module
    with collectives.unsynced(module):
        pass
    consensus = FlagConsensus(every=4)
    assert [consensus.exchange(n, 1) for n in range(3)] == [(0, 1), (1, 1), (2, 1)] and consensus.delay == 0
