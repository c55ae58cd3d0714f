"""New rows alone: the network frozen, one linear row a new class, nothing done about old against new.

The usual "freeze the backbone and train the head" of transfer learning, with the old rows kept: cross-entropy over all
classes on the new photos, nothing on the old ones. Adding no more than a row to a frozen feature extractor is the
baseline "feature extraction" of Li and Hoiem: Learning without Forgetting, ECCV 2016, arXiv 1606.09282, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from classgraft.data.images import Task
from classgraft.extenders.seen import look
from classgraft.losses.classification import grown_cross_entropy
from classgraft.models.classifier import Classifier
from classgraft.verbs import Extender


@dataclass(frozen=True)
class Rows(Extender):
    """Full-batch Adam on the new rows alone, over features computed once."""

    views: int = 8
    """Views of each photo."""
    steps: int = 400
    """Steps of Adam."""
    lr: float = 1e-3
    """Its learning rate."""
    weight_decay: float = 1e-4
    """Of the new rows."""
    seed: int = 0
    """Of the random crops."""

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        names = tuple(name for name in task.classes if name not in model.classes)
        features, labels = look(model, task.train.of(names), self.views, self.seed)
        inputs, owner = features.flatten(0, 1), labels.repeat_interleave(self.views)
        weight, bias = model.head.weight.float().cpu(), model.head.bias.float().cpu()
        old = (inputs @ weight.T + bias).logsumexp(1) if model.classes else inputs.new_full((len(inputs),), -torch.inf)
        rows = torch.zeros(len(names), inputs.shape[1], requires_grad=True)
        level = torch.zeros(len(names), requires_grad=True)
        optimizer = torch.optim.Adam([rows, level], self.lr)
        for _ in range(self.steps):
            logits = inputs @ rows.T + level
            own = logits.gather(1, owner[:, None])[:, 0]
            terms = {
                "new": grown_cross_entropy(logits, old, own),
                "decay": self.weight_decay / 2 * rows.square().sum(),
            }
            optimizer.zero_grad()
            torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return model.grown(names, rows.detach(), level.detach()).eval()
