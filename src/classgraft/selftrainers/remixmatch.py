"""ReMixMatch: MixMatch whose guesses have the labels' distribution and are the targets of strong views; and rotations.

Berthelot, Carlini, Cubuk, Kurakin, Sohn, Zhang, Raffel: ReMixMatch: Semi-Supervised Learning with Distribution Alignment
and Augmentation Anchoring, ICLR 2020, arXiv 1911.09785, algorithm 1.

    L = CE(y', p(x')) + t lambda_U CE(q', p(u'))
        + t lambda_U1 CE(q, p(strong u)) + lambda_r CE(quarters, r(turned u))
    q_k ~ (p_k(weak u) prior_k / mean_k)^(1 / T),  x', y', u', q' mixed as MixMatch does

Differs from the paper:
1. Strong views are RandAugment's, where the paper tunes its own policy (CTAugment) as it goes.
2. The mean answer is a running mean over steps, where the paper takes it over the last 128 batches.
3. Batch norm sees the whole mixed batch at once, where the authors interleave it.
4. The weight t rises over the whole training (``full``), where in the authors' code it is whole after 1/64 of theirs, 16,384
   steps.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classgraft.data.augment import augmentation
from classgraft.data.images import Images
from classgraft.losses.consistency import sharpened, soft_cross_entropy
from classgraft.models.classifier import Classifier, feature_width
from classgraft.training.distributed import of_all
from classgraft.training.loop import Terms, descend, run, train_mode
from classgraft.training.recipe import Recipe
from classgraft.training.unlabelled import Average, Pair, beside, elapsed, followed, linear, mixed, unmoved
from classgraft.verbs import SelfTrainer


@dataclass(frozen=True)
class ReMixMatch(SelfTrainer):
    """Cross-entropy on mixed labelled and unlabelled images, on a strong view before mixing, and on rotations."""

    strength: float = 1.5
    """Lambda_U: weight of the mixed unlabelled images in the end."""
    unmixed: float = 0.5
    """Lambda_U1: weight of one strong view before mixing, in the end."""
    full: float = 1.0
    """Share of the training over which these two rise on a straight line."""
    rotation: float = 0.5
    """Lambda_r: weight of telling by how many quarters a strong view was turned."""
    views: int = 2
    """K: strong views of each unlabelled image (the paper: 8)."""
    temperature: float = 0.5
    """T of the sharpening."""
    mixing: float = 0.75
    """Alpha, of the Beta distribution of shares."""
    decay: float = 0.999
    """Of the average of weights that comes back, a step."""
    strong: str = "crop-flip+randaugment+cutout"
    """The strong augmentation, of labelled images as well; the weak one is the recipe's."""
    ratio: int = 1
    """Unlabelled images for each labelled one of a batch."""
    recipe: Recipe = Recipe(lr=0.03, milestones=())

    def train(self, model: Classifier, student: Classifier, labelled: Images, unlabelled: Images) -> Classifier:
        learner, known = copy.deepcopy(student).requires_grad_(True), labelled.of(student.classes)
        average, strong = Average(learner, self.decay), augmentation(self.strong)
        turns = nn.utils.skip_init(nn.Linear, feature_width(student), 4, device=student.device)
        for parameter in turns.parameters():
            nn.init.zeros_(parameter)
        images = beside(unlabelled, known, self.recipe, self.ratio, learner.device)
        steps = len(images) * self.recipe.epochs
        prior = torch.bincount(known.labels, minlength=len(student.classes)).to(student.device) / len(known)
        mean = torch.full_like(prior, 1 / len(prior))

        def objective(pair: Pair) -> Terms:
            free, labels = pair
            with torch.no_grad(), unmoved(learner):
                said = learner(free.images).softmax(1)
            mean.mul_(0.99).add_(0.01 * of_all(said).mean(0))
            guess = sharpened(F.normalize(said * prior / mean, p=1, dim=1), self.temperature)
            views = [free.view(strong, k) for k in range(1, self.views + 1)]
            targets = torch.cat([F.one_hot(labels.targets, len(prior)).to(guess), guess.repeat(1 + self.views, 1)])
            blends, targets = mixed(torch.cat([labels.view(strong), free.images, *views]), targets, self.mixing)
            quarters = torch.arange(len(views[0]), device=guess.device) % 4
            sizes = [len(blends), len(views[0]), len(views[0])]
            features = learner.features(torch.cat([blends, views[0], turned(views[0], quarters)])).split(sizes)
            logits, first = learner.head(features[0]), len(labels.images)
            # the first step counts as one: an only step has its weight
            weight = linear(elapsed(pair, self.recipe), -1 / steps, self.full)
            return {
                "labelled": soft_cross_entropy(logits[:first], targets[:first]),
                "unlabelled": weight * self.strength * soft_cross_entropy(logits[first:], targets[first:]),
                "unmixed": weight * self.unmixed * soft_cross_entropy(learner.head(features[1]), guess),
                "rotation": self.rotation * F.cross_entropy(turns(features[2]), quarters),
            }

        train_mode(learner)
        step = descend(objective, [learner, turns], self.recipe, carries=[mean])
        run(followed(step, average, learner), images, self.recipe)
        return average.model.requires_grad_(True)


def turned(images: Tensor, quarters: Tensor) -> Tensor:
    """Each square image (B, C, S, S) turned by its number of quarters (B,), anticlockwise."""
    ways = torch.stack([torch.rot90(images, k, (2, 3)) for k in range(4)])
    return ways[quarters, torch.arange(len(images), device=images.device)]
