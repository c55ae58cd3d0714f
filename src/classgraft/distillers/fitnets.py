"""FitNets: a thin deep student is first led to a middle layer of its teacher, then to its answers.

Romero, Ballas, Ebrahimi Kahou, Chassang, Gatta, Bengio: FitNets: Hints for Thin Deep Nets, ICLR 2015, arXiv 1412.6550,
algorithm 1.

    first  L = |r(student's layer) - teacher's layer|^2 / 2,  r a linear regressor
    then   L = -log softmax(z)_y + lambda(t) KL(softmax(v / tau) || softmax(z / tau)),
    v = the teacher's logits

Differs from the paper:
1. The regressor is linear, so that it reaches every value of the hint, whether that is taken before or after a ReLU.
2. Where the student's map is smaller than the teacher's, the teacher's is averaged to its size; where it is larger, the
   regressor's convolution shrinks it, as in the paper.
3. Both stages share the recipe's epochs. The first learns by AdamW whatever the recipe says (the authors: RMSProp in both), for
   the size of its gradient is that of the hint: SGD at the rate of the answers throws the weights far away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classgraft.data.images import Images
from classgraft.errors import InputError
from classgraft.losses.distillation import distillation, hint_distance
from classgraft.models.classifier import Classifier
from classgraft.models.stages import Staged, Tapped, pairs
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.training.teaching import seated_classifiers, told
from classgraft.verbs import Distiller


@dataclass(frozen=True)
class FitNets(Distiller[Classifier]):
    """The hint's distance by itself; then cross-entropy on the labels, where there are any, and the soft answers."""

    layers: str = ""
    """Guided layer and hint layer, as "student's=teacher's"; empty: the last maps of the middle stage of each."""
    hinting: float = 0.4
    """Share of the epochs in which the student learns the hint alone (stage 1)."""
    hint_lr: float = 1e-3
    """Learning rate of stage 1."""
    soft: float = 4.0
    """Lambda at the start of stage 2, equation 4; without T squared, as in the authors' code."""
    last_soft: float = 1.0
    """Lambda at its end; linear in between (section 3.1)."""
    temperature: float = 3.0
    """Tau."""
    recipe: Recipe = Recipe(optimiser="adamw", lr=1e-3, weight_decay=1e-4, milestones=())

    def distill(self, teacher: Classifier, student: Classifier, images: Images) -> Classifier:
        teacher, learner, images = seated_classifiers(teacher, student, images)
        words = (self.layers,) if self.layers else ()
        found = pairs(learner, teacher, words, images.view(torch.arange(1), learner.device))
        guided, hint = found[(len(found) - 1) // 2]
        answer = told(Tapped(teacher, hint), images, self.recipe.augment)
        first = round(self.hinting * self.recipe.epochs)
        rest = replace(self.recipe, epochs=self.recipe.epochs - first)

        def objective(batch: Batch) -> Terms:
            logits, (wanted, _) = learner(batch.images), answer(batch)
            weight = self.soft + (self.last_soft - self.soft) * batch.epoch / max(1, rest.epochs - 1)
            terms = {"soft": weight * distillation(logits, wanted, self.temperature)}
            if images.classes:
                terms["class"] = F.cross_entropy(logits, batch.targets)
            return terms

        if first:
            follow = following(learner, guided, Tapped(teacher, hint), images, self.recipe.seed)

            def approach(batch: Batch) -> Terms:
                reached, (_, wanted) = follow(batch.images), answer(batch)
                return {"hint": hint_distance(reached, _fitted(wanted, reached))}

            led = replace(self.recipe, epochs=first, optimiser="adamw", lr=self.hint_lr)
            fit(follow, approach, images, led, "learning the hint")
            learner.requires_grad_(True)
        fit(learner, objective, images, rest, "distilling")
        return learner


class Following(nn.Module):
    """A student's body up to its guided layer, and the regressor that is dropped afterwards."""

    def __init__(self, body: Staged, regressor: nn.Module) -> None:
        super().__init__()
        self.body, self.regressor = body, regressor

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to what should be the teacher's activation (B, C', ...)."""
        return self.regressor(self.body(images)[1])  # type: ignore[no-any-return]


def following(learner: Classifier, guided: str, teacher: Tapped, images: Images, seed: int) -> Following:
    """With a fresh regressor; of the learner only what leads to the guided layer is left free."""
    body, one = Staged(learner.body, (guided,)), images.view(torch.arange(1), learner.device)
    (_, own), (_, hint) = body(one), teacher(one)
    if own.ndim != hint.ndim or own.ndim not in (2, 4):
        raise InputError(
            f"The layer '{guided}' gives {tuple(own.shape)} and its hint {tuple(hint.shape)}; choose two layers that give"
            " maps (B, C, H, W), or two that give rows (B, D)."
        )
    learning = list(learner.parameters())
    gradients = torch.autograd.grad(own.sum(), learning, allow_unused=True)
    for parameter, gradient in zip(learning, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        regressor: nn.Module = nn.Linear(own.shape[1], hint.shape[1])
        if own.ndim == 4:
            kernel = [max(1, a - b + 1) for a, b in zip(own.shape[2:], hint.shape[2:], strict=True)]
            regressor = nn.Conv2d(own.shape[1], hint.shape[1], (kernel[0], kernel[1]))
    return Following(body, regressor.to(learner.device))


def _fitted(hint: Tensor, reached: Tensor) -> Tensor:
    if hint.shape == reached.shape:
        return hint
    return F.adaptive_avg_pool2d(hint, (reached.shape[2], reached.shape[3]))
