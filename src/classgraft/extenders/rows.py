"""New rows alone: the network frozen, one linear row a new class, nothing done about old against new.

The usual "freeze the backbone and train the head" of transfer learning, with the old rows kept: cross-entropy over all
classes on the new photos, nothing on the old ones. Adding no more than a row to a frozen feature extractor is the
baseline "feature extraction" of Li and Hoiem: Learning without Forgetting, ECCV 2016, arXiv 1606.09282, section 3.

    L(W, b) = mean over new photos of -log softmax([old logits, W f + b])_y + decay / 2 |W|^2
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from classgraft.data.images import Task
from classgraft.losses.classification import grown_cross_entropy
from classgraft.models.classifier import Classifier, frozen
from classgraft.training.solve import solve
from classgraft.training.views import look
from classgraft.verbs import Extender


@dataclass(frozen=True)
class Rows(Extender):
    """Full-batch Adam on the new rows alone, over features computed once."""

    needs_trained_body: ClassVar[bool] = True
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
        names = model.unknown(task.classes)
        if not names:
            return model.grown(()).eval()
        features, labels = look(model, task.train.of(names), self.views, self.seed)
        inputs, owner = features.flatten(0, 1), labels.repeat_interleave(self.views)
        old = inputs.new_full((len(inputs),), -torch.inf)
        if model.classes:
            old = frozen(model.head).float().cpu()(inputs).logsumexp(1)

        def terms(weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
            rows = inputs @ weight.T + bias
            own = rows.gather(1, owner[:, None])[:, 0]
            return {
                "new": grown_cross_entropy(rows, old, own),
                "decay": self.weight_decay / 2 * weight.square().sum(),
            }

        weight, bias = solve(terms, len(names), inputs.shape[1], self.steps, self.lr)
        return model.grown(names, weight, bias).eval()
