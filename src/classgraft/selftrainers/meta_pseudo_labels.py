"""Meta pseudo labels: the teacher learns from how much its labels helped the student on labelled images.

Pham, Dai, Xie, Luong, Le: Meta Pseudo Labels, CVPR 2021, arXiv 2003.10580, section 2 and appendix A.

The student takes a step on a label drawn from the teacher's answer; h is by how much that lowered its loss on labelled
images; the teacher goes down h * CE(label, answer). As the label is drawn, this is REINFORCE with the new loss as cost and
the old one as baseline: the gradient of the expected loss after the step, with no series expansion, and its sign is forced.
The label and the view are the same in both steps.

    student:  theta' = theta - eta grad CE(y', S(u)),  y' drawn from T(u)
    teacher:  L = h CE(y', T(u)) + CE(y, T(x))
        + lambda_u(t) CE(sharpened T(weak u), T(strong u)),  h = CE(y, S_theta(x)) - CE(y, S_theta'(x))

Differs from the paper:
1. Published code takes soft answers as the teacher's target, which makes the feedback's gradient zero, or h with the other
   sign. Here labels are drawn and h is old less new.
2. From h its running mean is taken, as in the authors' code, and what is left is divided by its running root mean square
   (``scaled``), for at usual learning rates it is about a thousandth.
3. No label smoothing and no average of weights. The weight of the teacher's consistency (UDA) rises over a share of the
   training, where the authors count 5,000 steps, and to 1 in place of 8: the larger one undid in short trainings what labels
   had taught the teacher.
4. Momentum and weight decay belong to the student's step, so h measures the step that is really taken.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from classgraft.data.augment import augmentation
from classgraft.data.images import Images
from classgraft.losses.consistency import sharpened, soft_cross_entropy
from classgraft.models.classifier import Classifier
from classgraft.training.batches import Epochs
from classgraft.training.distributed import of_all
from classgraft.training.engine import current
from classgraft.training.loop import Batch, Step, Terms, descend, fit, run, train_mode
from classgraft.training.recipe import Recipe
from classgraft.training.unlabelled import Pair, beside, elapsed, linear, measured, together
from classgraft.verbs import SelfTrainer


@dataclass(frozen=True)
class MetaPseudoLabels(SelfTrainer):
    """Teacher and student learn side by side, the student from the teacher's labels alone."""

    feedback: float = 1.0
    """Weight of the teacher's term h * CE; 0 is a control, and so is -1, the wrong sign (from Python alone)."""
    scaled: bool = True
    """Take its running mean from h, and divide by the running root mean square of what is left."""
    consistency: float = 1.0
    """Lambda_u: weight in the end of the teacher's agreement between a weak and a strong view."""
    full: float = 0.3
    """Share of the training over which that weight rises on a straight line."""
    temperature: float = 0.7
    """Of the weak view's answer, in that agreement."""
    threshold: float = 0.6
    """Least probability of the weak view's sharpened answer, likewise."""
    ratio: int = 7
    """Unlabelled images for each labelled one of a batch."""
    strong: str = "crop-flip+randaugment+cutout"
    """The view that the student learns from; the weak one is the recipe's."""
    finishing: float = 0.1
    """Steps on the labelled images alone at the end, as a share of those before, at a tenth of their rate: in whole epochs, one
    at least unless it is 0."""
    recipe: Recipe = Recipe(lr=0.03, milestones=())

    def train(self, model: Classifier, student: Classifier, labelled: Images, unlabelled: Images) -> Classifier:
        teacher, learner = (copy.deepcopy(each).requires_grad_(True) for each in (model, student))
        known = labelled.of(student.classes)
        train_mode(teacher)
        train_mode(learner)
        images = beside(unlabelled, known, self.recipe, self.ratio, learner.device)
        run(self.step(teacher, learner), images, self.recipe)
        last = replace(self.recipe, lr=self.recipe.lr / 10)
        epochs = round(self.finishing * self.recipe.epochs * len(images) / len(Epochs(known, last, learner.device)))
        last = replace(last, epochs=max(epochs, int(self.finishing > 0)))

        def labels(batch: Batch) -> Terms:
            return {"finishing": F.cross_entropy(learner(batch.images), batch.targets)}

        fit(learner, labels, known, last, "finishing on labels")
        return learner

    def step(self, teacher: Classifier, learner: Classifier) -> Step:
        """A step of the student and then one of the teacher."""
        strong, sums = augmentation(self.strong), torch.zeros(3, device=learner.device)

        def lesson(given: tuple[Any, ...]) -> Terms:
            _, view, labels = given
            return {"student": F.cross_entropy(learner(view), labels)}

        def teaching(given: tuple[Any, ...]) -> Terms:
            known, weak, changed, logits, labels, improvement, rising = given
            said = sharpened(weak.detach().softmax(1), self.temperature)
            agreement = soft_cross_entropy(changed, said, said.amax(1) >= self.threshold)
            return {
                "labelled": F.cross_entropy(logits, known.targets),
                "consistency": self.consistency * rising * agreement,
                "feedback": self.feedback * (improvement * F.cross_entropy(changed, labels)),
            }

        of_student, of_teacher = descend(lesson, [learner], self.recipe), descend(teaching, [teacher], self.recipe)

        def take(pair: Pair) -> Terms:
            free, known = pair
            view = free.view(strong)
            weak, changed, logits = together(teacher, free.images, view, known.images)
            labels = drawn(changed)
            before = loss(learner, known)
            terms = of_student.take((free, view, labels))
            helped = before - loss(learner, known)
            improvement = self.weighed(of_all(helped[None]).mean(), sums)
            rising = linear(elapsed(pair, self.recipe), 0, self.full)
            return terms | of_teacher.take((known, weak, changed, logits, labels, improvement, rising))

        def set_rate(rate: float) -> None:
            of_student.set_rate(rate)
            of_teacher.set_rate(rate)

        return Step(take, set_rate, (*of_student.carries, *of_teacher.carries, sums))

    def weighed(self, improvement: Tensor, sums: Tensor) -> Tensor:
        """How far h is above its mean so far, over the root mean square of that.

        ``sums`` (3,) holds running sums of 1, of h and of the square of what is left of it.
        """
        if not self.scaled:
            return improvement
        left = improvement - sums[1] / sums[0].clamp(min=1e-12)
        sums.mul_(0.99).add_(0.01 * torch.stack([torch.ones_like(left), improvement, left.square()]))
        return left / (sums[2] / sums[0]).sqrt().clamp(min=1e-12)


def drawn(logits: Tensor) -> Tensor:
    """A label for each image (B,), drawn from its answer (B, K)."""
    return torch.multinomial(logits.detach().softmax(1), 1)[:, 0]


@torch.no_grad()
def loss(learner: Classifier, known: Batch) -> Tensor:
    """Cross-entropy on labelled images, measured alike before and after a step, in fp32: it changes by a thousandth."""
    exact = replace(current().exact, channels_last=False)
    with measured(learner), exact.ready():
        return F.cross_entropy(learner(known.images), known.targets)
