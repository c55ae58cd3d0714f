"""DER, dynamically expandable representation (not Dark Experience Replay): a new body beside the old ones at each step.

Yan, Xie, He: DER: Dynamically Expandable Representation for Class Incremental Learning, CVPR 2021, arXiv 2103.16788.
The authors' code has neither masks nor pruning; those follow the paper's formulas.

    L = -log softmax(H [f_1 .. f_t])_y
        - lambda_a log softmax(H_a f_t)_(new class, or "old") + lambda_s L_S
    L_S = sum_l K_l |m_(l-1)|_1 |m_l|_1 / sum_l K_l c_(l-1) c_l,  m_l = sigmoid(s e_l)
    then  H anew: min of -log softmax(H [f_1 .. f_t] / delta)_y over as many images of every class

Differs from the paper:
1. No warm-up of the learning rate, after which the authors' code starts both heads anew.
2. Rows for old features are kept, as the paper says (the authors' code draws them anew). The head has biases, which the
   authors' code does not give it.
3. What the masks start from, s_max and lambda_s were not to be had: every channel starts open, some less surely than
   others; s_max is HAT's; lambda_s has to be chosen for each setting, as the authors say. Weight decay acts on the
   numbers behind the masks as on any weight. HAT's compensation leaves a factor of s_max in their gradient, ours none.
4. Channels that are added together (a stage's outputs and its shortcuts) share a mask, and a group's strongest channel
   is never closed (``classgraft.models.channels``).
5. After a pruned body the new one starts at full width: the pruned body's weights, and fresh ones where channels went.
6. The temperature of the balanced stage is divided out of the rows at its end: probabilities are those it learnt.
7. An auxiliary class stands for each class of the task, known before or not; for ordinary tasks these are the new ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import nn

from classgraft.data.images import Images, Task
from classgraft.losses.expansion import weights_in_use
from classgraft.models.channels import Masked
from classgraft.models.classifier import Classifier, Head, feature_width, frozen
from classgraft.models.pruned import pruned
from classgraft.models.rows import align, fresh, narrow, widened
from classgraft.models.side_by_side import SideBySide, bodies, successor
from classgraft.training.answers import asked
from classgraft.training.exemplars import replayed
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.verbs import Rehearsal

OFFICIAL = Recipe(epochs=170, batch_size=128, lr=0.1, weight_decay=5e-4, milestones=(110 / 170, 130 / 170))
"""Of the authors' code for CIFAR-100, whose milestones count from the end of ten epochs of warm-up."""
PYCIL = replace(OFFICIAL, weight_decay=2e-4, milestones=(80 / 170, 120 / 170, 150 / 170))
"""Of the PyCIL library, for every step but the first."""


@dataclass(frozen=True)
class DER(Rehearsal):
    """A new body learns beside the frozen old ones; then the head learns again from as many images of every class."""

    auxiliary: float = 1.0
    """Lambda_a, weight of telling the task's classes from one another and from all others by the new features alone."""
    masks: bool = False
    """Learn which channels of the new body are of use, and take the others out of it at the end (section 3.4)."""
    sparsity: float = 1.0
    """Lambda_s, weight of the share of weights that the masks leave open."""
    scale: float = 400.0
    """s_max: a mask is sigmoid(s e), and s goes from 1 / s_max to s_max in every epoch."""
    compensated: bool = True
    """Take the influence of s out of the gradient of the masks."""
    finish: Literal["balanced", "aligned", "none"] = "balanced"
    """What sets new classes right against old ones: a fresh head on balanced images, the rows' lengths, or nothing."""
    balancing: float = 1.0
    """Epochs of the balanced stage over the recipe's (the authors': 30 to 170), 0: none; half-way its rate falls to a
    tenth."""
    temperature: float = 5.0
    """Delta, what the logits of the balanced stage are divided by."""

    @classmethod
    def official(cls, **changed: Any) -> Self:
        """As the authors' code trains on CIFAR-100, in so far as a recipe can say it."""
        return cls(**{"recipe": OFFICIAL, "balancing": 30 / 170, **changed})

    @classmethod
    def pycil(cls, **changed: Any) -> Self:
        """As the PyCIL library trains: the rows' lengths are aligned, as of WA, in place of the balanced stage."""
        return cls(**{"recipe": PYCIL, "finish": "aligned", **changed})

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        old, first = frozen(model), not model.classes
        classes = (*model.classes, *model.unknown(task.classes))
        images = replayed(memory, model, task, classes)
        body = old.body if first else successor(old.body, self.recipe.seed)
        masked = Masked(body, self.recipe.seed) if self.masks else None
        width = asked(body, images.view(torch.arange(1), model.device)).shape[1]
        draw = torch.Generator().manual_seed(self.recipe.seed)
        head = widened(model.head, width, draw)
        if len(classes) > len(model.classes):
            before = feature_width(model) if model.classes else 0
            head.blocks.append(fresh(len(classes) - len(model.classes), before + width, draw))
        learning = nn.ModuleDict({"body": masked or body, "head": head})
        if not first:
            learning["auxiliary"] = fresh(1 + len(task.classes), width, draw)
        learning.to(model.device).requires_grad_(True)
        place = torch.tensor([1 + task.classes.index(name) if name in task.classes else 0 for name in classes])
        place, several = place.to(model.device), len(images) > self.recipe.batch_size

        def objective(batch: Batch) -> Terms:
            if masked:
                masks = masked.masks(self.scaled(batch.progress if several else 1.0), self.compensated)
                features = learning["body"](batch.images, masks)
            else:
                features = learning["body"](batch.images)
            everything = features if first else torch.cat([asked(old, batch.images, old.features), features], 1)
            terms = {"all": F.cross_entropy(head(everything), batch.targets)}
            if not first:
                told = F.cross_entropy(learning["auxiliary"](features), place[batch.targets])
                terms["auxiliary"] = self.auxiliary * told
            if masked:
                terms["sparsity"] = self.sparsity * weights_in_use(*masked.layers(masks))
            return terms

        fit(learning, objective, images, self.recipe, "expanding")
        if masked:
            kept = masked.kept()
            body = pruned(masked.plain(), kept)
            narrow(head, head.linear[0].in_features - width, kept[masked.plan.last])
        grown = Classifier(body if first else SideBySide([*bodies(old.body), body]), head, classes).eval()
        if self.finish == "balanced" and self.balancing > 0 and not first:
            self.balance(grown, images, draw)
        if self.finish == "aligned" and len(model.classes) < len(classes) and not first:
            align(head.linear[:-1], head.linear[-1])
        return grown.requires_grad_(True)

    def scaled(self, progress: float) -> float:
        """s at the share ``progress`` (0..1) of an epoch."""
        return 1 / self.scale + (self.scale - 1 / self.scale) * progress

    def balance(self, grown: Classifier, images: Images, draw: torch.Generator) -> None:
        """The second stage: a fresh head learns from as many images of every class, on frozen features."""
        blocks = [fresh(block.out_features, block.in_features, draw) for block in grown.head.linear]
        grown.head = Head(blocks).to(grown.device)
        counts = images.labels.bincount()
        recipe = replace(self.recipe, epochs=math.ceil(self.balancing * self.recipe.epochs), milestones=(0.5,))

        def objective(batch: Batch) -> Terms:
            logits = grown.head(asked(grown, batch.images, grown.features))
            return {"balanced": F.cross_entropy(logits / self.temperature, batch.targets)}

        fit(grown.head, objective, images.shots(int(counts[counts > 0].min()), self.recipe.seed), recipe, "balancing")
        with torch.no_grad():
            for block in grown.head.linear:
                block.weight.div_(self.temperature)
                block.bias.div_(self.temperature)
