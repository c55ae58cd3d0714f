"""MixMatch: labels are guessed from several views and sharpened; then all images are mixed with one another.

Berthelot, Carlini, Goodfellow, Papernot, Oliver, Raffel: MixMatch: A Holistic Approach to Semi-Supervised Learning,
NeurIPS 2019, arXiv 1905.02249, algorithm 1.

    L = CE(y', p(x')) + lambda_U t mean_k (q'_k - p_k(u'))^2,  q_k ~ (mean over views of p_k(u))^(1 / T)
    x', y' = l (x, y) + (1 - l) (others), u', q' likewise,  l = max(b, 1 - b),  b from Beta(alpha, alpha)

Differs from the paper:
1. Batch norm sees the whole mixed batch at once, where the authors interleave it.
2. The weight t rises over the whole training (``full``). In the authors' code it is whole after 16,384 steps, 1/64 of theirs;
   that share of a short training is a handful of steps, and the network learns its first guesses.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from classgraft.data.augment import augmentation
from classgraft.data.images import Images
from classgraft.losses.consistency import sharpened, soft_cross_entropy, squared_difference
from classgraft.models.classifier import Classifier
from classgraft.training.loop import Terms, descend, run, train_mode
from classgraft.training.recipe import Recipe
from classgraft.training.unlabelled import Average, Pair, beside, elapsed, followed, linear, mixed, unmoved
from classgraft.verbs import SelfTrainer


@dataclass(frozen=True)
class MixMatch(SelfTrainer):
    """Cross-entropy on mixed labelled images, squared difference on mixed unlabelled ones."""

    strength: float = 75.0
    """Lambda_U: weight of the unlabelled images in the end."""
    full: float = 1.0
    """Share of the training over which that weight rises on a straight line."""
    guesses: int = 2
    """K: views that a label is guessed from."""
    temperature: float = 0.5
    """T of the sharpening."""
    mixing: float = 0.75
    """Alpha, of the Beta distribution of shares."""
    ratio: int = 1
    """Unlabelled images for each labelled one of a batch."""
    decay: float = 0.999
    """Of the average of weights that comes back, a step."""
    recipe: Recipe = Recipe(lr=0.03, milestones=())

    def train(self, model: Classifier, student: Classifier, labelled: Images, unlabelled: Images) -> Classifier:
        learner = copy.deepcopy(student).requires_grad_(True)
        average, another = Average(learner, self.decay), augmentation(self.recipe.augment)
        images = beside(unlabelled, labelled.of(student.classes), self.recipe, self.ratio, learner.device)
        steps = len(images) * self.recipe.epochs

        def objective(pair: Pair) -> Terms:
            free, known = pair
            views = [free.images, *(free.view(another, k) for k in range(1, self.guesses))]
            with torch.no_grad(), unmoved(learner):
                said = torch.stack([learner(view).softmax(1) for view in views]).mean(0)
            guess = sharpened(said, self.temperature)
            targets = torch.cat([F.one_hot(known.targets, said.shape[1]).to(guess), guess.repeat(self.guesses, 1)])
            blends, targets = mixed(torch.cat([known.images, *views]), targets, self.mixing)
            logits, first = learner(blends), len(known.images)
            # the first step counts as one: an only step has its weight
            weight = self.strength * linear(elapsed(pair, self.recipe), -1 / steps, self.full)
            return {
                "labelled": soft_cross_entropy(logits[:first], targets[:first]),
                "unlabelled": weight * squared_difference(logits[first:], targets[first:]),
            }

        train_mode(learner)
        run(followed(descend(objective, [learner], self.recipe), average, learner), images, self.recipe)
        return average.model.requires_grad_(True)
