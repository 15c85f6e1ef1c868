"""The settings that pretraining and fine-tuning share, by topic."""

from __future__ import annotations

from typing import Literal

from models.arch import ArchConfig
from training.config.roles import setting
from training.config.section import Section
from utils.trackers import TrackerConfig


class NetworkSettings(Section):
    """The network itself has settings of its own: `arch.*`."""

    topic = "Network"

    arch: ArchConfig = setting(ArchConfig(), "architecture, recursion and halting", resume="fixed")


class DataSettings(Section):
    """What the run trains on."""

    topic = "Data"

    data_paths: list[str] = setting(
        ["data/arc-agi-2"], "data set folders; the run trains on their train splits", resume="silent", min_length=1
    )
    verify_data: bool = setting(
        True, "compare every file of the data sets with its checksum before the run starts", resume="reported"
    )
    canvases: Literal["fitted"] | list[tuple[int, int]] | None = setting(
        None,
        "canvas sizes [[height,width],..]; each example is computed on the smallest one that it fits on. fitted: the "
        "sizes are chosen from the data. null: the whole canvas, as published",
        resume="fixed",
        recipe=True,
        condition=True,
        solver="accepted",
    )


class LengthSettings(Section):
    """How long the run trains, and on how many examples at once."""

    topic = "Length and batch"

    epochs: int = setting(
        100_000,
        "how often every task is visited",
        resume="silent",
        recipe=True,
        instead="the argument finetune_steps of predict, or --steps of solve.py",
        ge=0,
    )
    eval_interval: int | None = setting(
        10_000,
        "epochs per interval; a checkpoint, and in eval_arc_k10.py an evaluation, ends each interval. null: one "
        "interval",
        resume="fixed",  # compared as `epochs_per_interval`: see `training.checkpoint.resume`
        ge=1,
    )
    global_batch_size: int = setting(
        768, "examples per optimizer step, over all ranks", resume="fixed", recipe=True, solver="accepted", ge=1
    )
    micro_batch_size: int | None = setting(
        None,
        "examples per forward pass, over all ranks (gradient accumulation): fewer need less memory. With several "
        "canvases it counts examples on the largest one. null: the whole batch, or an eighth of it with several "
        "canvases",
        resume="fixed",
        solver="accepted",
        ge=1,
    )
    seed: int = setting(
        0,
        "seed of the first weights, of the batches and of the exploration of halting",
        resume="fixed",
        recipe=True,
        instead="the argument seed of predict, or --seed of solve.py",
        ge=0,
    )


class FreezeSettings(Section):
    """A frozen network does not learn; only the puzzle rows do. One setting freezes it in all steps, the other in the
    first part of them."""

    topic = "Freezing the network"

    freeze_weights: bool = setting(
        False, "freeze the network in all steps: only the puzzle rows learn", resume="fixed", solver="accepted"
    )
    freeze_trunk: float = setting(
        0.0,
        "fraction of the steps, from the first one on, in which the network is frozen; after them it learns as usual",
        resume="reported",
        solver="accepted",
        ge=0,
        le=1,
    )


class AverageSettings(Section):
    """An exponential moving average (EMA) of the weights."""

    topic = "Averaged weights"

    ema: bool = setting(
        False,
        "average the weights over the steps; evaluations, exports and runs that start from this one use the average",
        resume="fixed",
        recipe=True,
        solver="accepted",
    )
    ema_rate: float = setting(
        0.999,
        "after each step average = ema_rate * average + (1 - ema_rate) * weight",
        resume="reported",
        recipe=True,
        solver="accepted",
        gt=0,
        lt=1,
    )
    ema_more_rates: list[float] = setting(
        [],
        "rates of further averages, such as [0.99,0.9999]; eval_arc_k10.py counts the votes of each beside those of "
        "ema_rate",
        resume="fixed",
        recipe=True,
        condition=True,
    )
    ema_puzzle_rows: bool = setting(
        False, "average the puzzle rows too, at the same rate; needs ema=true", resume="fixed", solver="accepted"
    )


class StartSettings(Section):
    """What the run starts from: its own last checkpoint, the weights of another run, or fresh weights."""

    topic = "Start"

    resume: Literal["auto", "never"] = setting(
        "auto",
        "auto: continue from the last checkpoint in the run's folder, if there is one. never: start a new run, and "
        "refuse a folder that has checkpoints",
        resume="silent",
    )
    load_checkpoint: str | None = setting(
        None,
        "start a new run from the weights of this checkpoint: a folder, a file, or hf://OWNER/NAME[/FILE][@REVISION] "
        "on the Hugging Face hub; this does not resume its run",
        resume="fixed",
        condition=True,
    )
    puzzle_rows: Literal["keep", "mean", "noise", "zero"] | None = setting(
        None,
        "what the puzzle rows start from with load_checkpoint. keep: its rows, which must be of the same puzzles. "
        "mean: the mean of its trained rows. noise: that mean plus noise of their spread. zero: zero. null: mean when "
        "fine-tuning, else keep",
        resume="fixed",
        solver="accepted",
    )
    dry_run: bool = setting(
        False, "do everything up to the first step, then print a plan; nothing is written", resume="silent"
    )
    dry_run_hardware: str | None = setting(
        None,
        "the GPUs that the plan of dry_run is for, such as H100 or 8 x H100; null: the devices of this command",
        resume="silent",
    )


class CheckpointSettings(Section):
    """Where the run's folder is, and when checkpoints are written into it."""

    topic = "Run folder and checkpoints"

    project_name: str | None = setting(
        None, "folder between checkpoints/ and the run's own; null: trm", resume="silent"
    )
    run_name: str | None = setting(None, "name of the run; null: drawn at random, such as brisk-otter", resume="silent")
    checkpoint_path: str | None = setting(None, "the run's folder; null: checkpoints/PROJECT/RUN", resume="silent")
    checkpoint_steps: int | None = setting(
        None,
        "write a checkpoint every so many steps too; null: only as the other settings say",
        resume="reported",
        ge=1,
    )
    checkpoint_minutes: float | None = setting(
        30.0,
        "write a checkpoint every so many minutes too; null: only as the other settings say",
        resume="reported",
        gt=0,
    )
    keep_last: int = setting(
        2,
        "how many checkpoints to keep of those within an interval; those that end an interval are all kept",
        resume="reported",
        ge=1,
    )


class LogSettings(Section):
    """What the run writes down about itself."""

    topic = "Log"

    log_every: int = setting(50, "steps between two lines of metrics.jsonl", resume="silent", ge=1)
    tracker: TrackerConfig | None = setting(None, "where metrics go besides metrics.jsonl", resume="silent")


class HardwareSettings(Section):
    """What computes."""

    topic = "Hardware"

    device: Literal["auto", "cuda", "cpu"] = setting(
        "auto", "auto: a GPU if there is one, else the CPU", resume="silent", solver="accepted"
    )
    compile: bool | None = setting(
        None, "whether to use torch.compile; null: if a compiler is installed", resume="silent", solver="accepted"
    )
    activation_checkpointing: bool = setting(
        False,
        "compute activations again in the backward pass instead of storing them: slower, for small GPUs",
        resume="silent",
        solver="accepted",
    )


class EvaluatorSettings(Section):
    """What is evaluated after each interval."""

    topic = "Evaluation"

    evaluators: list[str] = setting(
        [],
        "arc (votes, submissions, pass@k), exact (one answer), or none; pretraining has none",
        resume="reported",
        condition=True,
    )
