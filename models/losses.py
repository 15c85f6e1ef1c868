"""Losses and metrics of one step.

Dimensions: B slots, C canvas cells, V vocabulary.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models import draws

METRICS = ("count", "accuracy", "exact_accuracy", "q_halt_accuracy", "steps", "lm_loss", "q_halt_loss")
"""The sums that a step returns, in order.  With a continue target, `q_continue_loss` comes last."""

IGNORE = -100
"""A label that no token has, for data sets without ignored cells."""


class Supervision(NamedTuple):
    """How training supervises the steps of an example and disturbs its latents; the defaults are as published.

    sharpening_targets: see `sharpened_targets`.  step_weights: how much the loss of each step counts, see
    `weights_of_steps`.  latent_noise, random_starts: see `models.disturbance.Disturbance`.
    """

    sharpening_targets: bool = False
    step_weights: Literal["equal", "linear"] = "equal"
    latent_noise: float = 0.0
    random_starts: bool = False

    @property
    def needs_keys(self) -> bool:
        """Whether something is drawn for each example."""
        return self.sharpening_targets or self.random_starts or self.latent_noise > 0


def sharpened_targets(labels: Tensor, keys: Tensor, steps: Tensor, max_steps: int, ignore_label: int) -> Tensor:
    """Returns what the loss of each step asks for in place of the labels [B, C] (DIS, arXiv 2511.16886).

    In step s of K each labelled cell is hidden with probability 1 - s / K: its target is the token that ignored cells
    have and no label is.  A cell has one number for all steps of an example, so what was once shown stays shown, and
    the last step asks for all labels.

    Args:
        keys: int64 [B], of the slots' examples.  steps: int [B], s from 1.  max_steps: K.
    """
    hidden = draws.uniform(draws.derive(keys, draws.TARGETS), labels.shape[1])
    return torch.where(hidden < (1 - steps / max_steps).unsqueeze(1), ignore_label, labels)


def weights_of_steps(steps: Tensor, max_steps: int) -> Tensor:
    """Returns the weights 2 s / (K + 1) of the loss of steps s [B] of K: they grow along a line, with mean 1."""
    return 2 * steps / (max_steps + 1)


def stablemax_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the negative log-probability [B, C] of the labels under stablemax (arXiv 2501.04697), in float64.

    s(x) = x + 1 for x >= 0, else 1 / (1 - x).  The clamp holds the unused branch where its gradient is finite.
    """
    x = logits.to(torch.float64)
    s = torch.where(x < 0, 1 / (1 - x.clamp(max=0)), x + 1)
    chosen = s.gather(-1, labels.to(torch.int64).unsqueeze(-1)).squeeze(-1)
    return s.sum(-1).log() - chosen.log()


def softmax_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the negative log-probability [B, C] of the labels under softmax, in float32."""
    return F.cross_entropy(
        logits.to(torch.float32).flatten(0, 1), labels.to(torch.int64).flatten(), reduction="none"
    ).view(labels.shape)


NLL = {"stablemax_cross_entropy": stablemax_nll, "softmax_cross_entropy": softmax_nll}


def mean_nll(
    logits: Tensor, labels: Tensor, loss_type: str, ignore_label: int, targets: Tensor | None = None
) -> Tensor:
    """Returns each example's negative log-likelihood, the mean over its labelled cells, [B]; 0 without labels.

    Args:
        logits: [B, C, V].  labels: [B, C] any integer dtype.
        targets: [B, C], tokens whose likelihood it is in place of that of the labels.
    """
    labelled = labels != ignore_label
    wanted = labels if targets is None else targets
    nll = torch.where(labelled, NLL[loss_type](logits, torch.where(labelled, wanted.to(torch.int64), 0)), 0)
    return nll.sum(-1) / labelled.sum(-1).clamp(min=1)


def step_loss(
    logits: Tensor,
    q_halt: Tensor,
    q_continue: Tensor,
    labels: Tensor,
    halted: Tensor,
    steps: Tensor,
    *,
    loss_type: str,
    ignore_label: int,
    target_q_continue: Tensor | None = None,
    q_loss_of_unlabelled: bool = True,
    targets: Tensor | None = None,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Computes the loss of one step, summed over slots, and the metric sums that `METRICS` names.

    Args:
        logits: [B, C, V]; q_halt, q_continue: [B] float32.
        labels: [B, C] any integer dtype; `ignore_label` marks cells without a label.
        halted, steps: [B], the slots' state after this step.  Metrics count the slots that have just halted.
        target_q_continue: [B], or None if the variant does not train the continue logit.
        q_loss_of_unlabelled: whether slots without any label (padding) take part in the halting loss.  They do in
            training, as published.  They must not in evaluation.
        targets: [B, C], what the loss of the tokens asks for; None for the labels.  Everything else compares with the
            labels.
        weights: [B], of the slots in the loss of the tokens; None for 1.

    Returns:
        loss (scalar) = lm_loss + 0.5 * (q_halt_loss + q_continue_loss), and the metrics [7 or 8] in float32.
    """
    labelled = labels != ignore_label
    safe_labels = torch.where(labelled, labels.to(torch.int64), 0)
    num_labelled = labelled.sum(-1)
    divisor = num_labelled.clamp(min=1)
    nll = mean_nll(logits, labels, loss_type, ignore_label, targets)
    lm_loss = (nll if weights is None else nll * weights).sum()

    with torch.no_grad():
        right = ((logits.argmax(-1) == safe_labels) & labelled).sum(-1)
        exact = right == num_labelled
        counted = halted & (num_labelled > 0)
    takes_part = torch.ones_like(counted) if q_loss_of_unlabelled else num_labelled > 0
    bce = F.binary_cross_entropy_with_logits(q_halt, exact.to(q_halt.dtype), reduction="none")
    q_halt_loss = torch.where(takes_part, bce, 0).sum()
    loss = lm_loss + 0.5 * q_halt_loss
    q_losses = [q_halt_loss]
    if target_q_continue is not None:
        bce = F.binary_cross_entropy_with_logits(q_continue, target_q_continue, reduction="none")
        q_losses.append(torch.where(takes_part, bce, 0).sum())
        loss = loss + 0.5 * q_losses[-1]

    with torch.no_grad():
        sums = [
            counted.sum(),
            torch.where(counted, right / divisor, 0).sum(),
            (counted & exact).sum(),
            (counted & ((q_halt >= 0) == exact)).sum(),
            torch.where(counted, steps, 0).sum(),
            lm_loss,
            *q_losses,
        ]
        metrics = torch.stack([value.detach().to(torch.float32) for value in sums])
    return loss, metrics
