"""Channel gating: each task opens channels by the image, and the kernels behind them are then frozen for ever.

Abati, Tomczak, Blankevoort, Calderara, Cucchiara, Bejnordi: Conditional Channel Gated Networks for Task-Aware Continual
Learning, CVPR 2020, arXiv 2004.00070. Written from summaries and an unofficial implementation.

    L = -log softmax(z)_y + lambda_s mean_l mean_c g_lc,
    g_lc in 0..1 whether channel c of layer l is open for this photo

Differs from the paper:
1. Every kernel that fires on any photo of its task is frozen, and a gate that fired on none stays shut for that task, so
   that what a task answers keeps its bits for every image, not for those that were looked at.
2. The task classifier is a chain: each task has one that tells it from all tasks before it and raises or lowers its own
   logits, so that no earlier logit moves. Each learns from kept images of every class (the paper's episodic memory) for as
   many steps, at least, as the task's gates did; where there are none of some task, the tasks' logits are compared as they are.
3. Gates see features through one hidden layer without norm, and begin mostly open; ``patience`` is a share of the epochs.
4. A network that learnt its classes without gates uses all its kernels: a new task learns gates, norms and rows alone.
5. Where a task brings one class alone there is nothing to tell apart; it then learns against the old classes' logits.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F

from classgraft.data.images import Images, Task
from classgraft.errors import InputError
from classgraft.losses.classification import grown_cross_entropy
from classgraft.losses.gates import open_share
from classgraft.models.classifier import Classifier, Head, feature_width, frozen, linear, untrained
from classgraft.models.gated import check
from classgraft.models.kernels import Learning, gated, settled, started
from classgraft.models.own import Own, fresh_judge, side_by_side
from classgraft.training.answers import answers, asked
from classgraft.training.exemplars import Exemplars
from classgraft.training.loop import Batch, Terms, fit
from classgraft.verbs import Rehearsal

log = logging.getLogger("classgraft")


@dataclass(frozen=True)
class Gates(Rehearsal):
    """Cross-entropy through gates that are drawn, a price on open ones, then a classifier that tells the tasks apart."""

    refines: ClassVar[bool] = False
    sparsity: float = 0.5
    """Lambda_s, weight of the share of open gates, mean over layers. Too large a one shuts them all and nothing is learnt, of
    which there is a warning."""
    patience: float = 0.25
    """Share of the epochs before open gates cost something; from the start on, all might shut at once."""
    temperature: float = 2 / 3
    """T of the gates' soft samples."""
    softmax: Literal["heads", "all"] = "heads"
    """Classes that share a softmax while a task learns: its own (the paper), or all."""
    statistics: bool = False
    """Whether the batch-norm statistics of a task follow its photos where the network was trained before; else always."""

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        names = model.unknown(task.classes)
        if not names:
            return model.grown(()).eval()
        images, seed = task.train.of(names), self.recipe.seed
        if not len(images):
            raise InputError("gates was given no photo of a new class; give one at least.")
        body = gated(model.body, bare=bool(model.classes)).eval()
        check(body.body, images.view(torch.arange(min(2, len(images))), model.device))
        stream = Learning(gated(body, True).body, started(body.body, model.device, self.temperature, seed), body.used)
        width = feature_width(model) // max(1, body.streams)
        rows = linear(torch.zeros(len(names), width), torch.zeros(len(names))).to(model.device)
        learning, old = Classifier(stream, Head([rows]), names), frozen(model)
        joint = bool(model.classes) and (self.softmax == "all" or len(names) == 1)

        def objective(batch: Batch) -> Terms:
            features, opened = stream(batch.images)
            logits = learning.head(features)
            own = logits.gather(1, batch.targets[:, None])[:, 0]
            others = asked(old, batch.images).logsumexp(1) if joint else own.new_full((len(own),), -torch.inf)
            terms = {"new": grown_cross_entropy(logits, others, own)}
            if batch.epoch >= self.patience * self.recipe.epochs:
                terms["sparsity"] = self.sparsity * open_share(opened)
            return terms

        statistics = self.statistics or untrained(body.body)
        fit(learning, objective, images, self.recipe, "learning", statistics=statistics)
        fired = answers(stream, images, lambda seen: torch.cat(stream(seen)[1], 1).any(0, keepdim=True)).bool().any(0)
        if not fired.any():
            log.warning(
                "gates: no channel opens for any photo, so nothing was learnt; lower sparsity (now %g).", self.sparsity
            )
        grown = side_by_side(model, settled(body, stream, fired, seed), rows, names)
        if not isinstance(memory, Exemplars):
            return grown
        return self.told_apart(grown, self.remember(grown, task, memory).images, len(images))

    def told_apart(self, grown: Classifier, kept: Images, learnt: int) -> Classifier:
        """With what tells the last task, learnt from so many images, from the others, where images of every task are kept."""
        old, counts = sum(grown.head.rows[:-1]), torch.bincount(kept.labels, minlength=len(grown.classes))
        if not old or not all(bool(own.any()) for own in counts.split(grown.head.rows)):
            return grown
        fixed, deciding = frozen(grown), fresh_judge(feature_width(grown), self.recipe.seed).to(grown.device)

        def objective(batch: Batch) -> Terms:
            features = asked(fixed, batch.images, fixed.features)
            logits = fixed.head(features)
            lead = logits[:, old:].logsumexp(1) - logits[:, :old].logsumexp(1)
            said, new = lead + deciding(features)[:, 0], (batch.targets >= old).to(lead.dtype)
            return {"task": F.binary_cross_entropy_with_logits(said, new)}

        steps = math.ceil(learnt / self.recipe.batch_size) / math.ceil(len(kept) / self.recipe.batch_size)
        recipe = replace(self.recipe, epochs=max(self.recipe.epochs, round(self.recipe.epochs * steps)))
        fit(deciding, objective, kept, recipe, "telling tasks apart")
        last = grown.head.parts[-1]
        assert isinstance(last, Own)
        last.judge = deciding
        return grown
