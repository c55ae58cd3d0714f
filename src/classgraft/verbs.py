"""The verbs. A method is a frozen dataclass of hyper-parameters with one of these."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import UnionType
from typing import ClassVar, Generic, TypeVar

from torch import nn

from classgraft.data.images import Images, Task
from classgraft.models.classifier import Classifier
from classgraft.training.exemplars import Budget, Exemplars, Unit, keep
from classgraft.training.recipe import Recipe

Network = TypeVar("Network", bound=nn.Module)
"""What a distiller works on: a classifier, or a network that labels every pixel."""


class Trainer(ABC):
    """Teaches a classifier the classes that it has."""

    @abstractmethod
    def train(self, model: Classifier, images: Images) -> Classifier:
        """A trained copy; the model given is left as it was."""


class SelfTrainer(ABC):
    """Teaches a student from labelled images and from images whose labels nobody knows."""

    @abstractmethod
    def train(self, model: Classifier, student: Classifier, labelled: Images, unlabelled: Images) -> Classifier:
        """A trained copy of the student; ``model``, which has learnt its classes, may teach it.

        The labels that ``unlabelled`` carries mean nothing and are never looked at. All else is left as it was.
        """


class Extender(ABC):
    """Adds the classes of a task to a classifier."""

    keeps: ClassVar[str] = "nothing"
    """What the memory holds: "nothing", "statistics" or "images"."""
    memory_type: ClassVar[type | UnionType | None] = None
    """The frozen dataclass that ``remember`` gives, or several of which it gives one (``classgraft.packing`` says what may be
    in it); None: it keeps nothing."""
    unlabelled: ClassVar[bool] = False
    """Whether it can use a task's unlabelled images."""
    needs_trained_body: ClassVar[bool] = False
    """Whether it leaves the body as it is, or its lower part, and so has nothing to build on where the weights are fresh."""

    refines: ClassVar[bool] = True
    """Whether it can learn more of classes that it has added before (``--update``)."""

    def remember(self, model: Classifier, task: Task, memory: object | None) -> object | None:
        """What is worth keeping of this task, while its images are at hand; ``memory`` is what was kept before."""
        return memory

    @abstractmethod
    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        """A grown copy. The images of earlier tasks are gone: there is only what ``remember`` kept."""


@dataclass(frozen=True)
class Rehearsal(Extender):
    """An extender that trains on exemplars of every class seen, kept within a budget."""

    keeps: ClassVar[str] = "images"
    memory_type: ClassVar[type] = Exemplars
    exemplars: int = 2000
    """How much is kept, in ``unit``."""
    unit: Unit = "images"
    """What ``exemplars`` counts."""
    herded: bool = True
    """Choose exemplars by herding, else at random."""
    recipe: Recipe = Recipe()

    def remember(self, model: Classifier, task: Task, memory: object | None) -> Exemplars:
        budget = Budget(self.exemplars, self.unit, self.herded, self.recipe.seed)
        return keep(memory, self.seen_by(model), model.classes, task.train, budget)

    def seen_by(self, model: Classifier) -> nn.Module:
        """The body in whose features exemplars are herded."""
        return model.body


class Distiller(ABC, Generic[Network]):
    """Teaches a student what a teacher of the same classes knows."""

    @abstractmethod
    def distill(self, teacher: Network, student: Network, images: Images) -> Network:
        """A trained copy of the student; teacher and student are left as they were.

        ``images`` are labelled with some or all of the classes, or not at all: then no term needs labels.
        """
