"""Video pose distillation: a network that sees two frames learns the pose that a teacher finds in them, and how it moved.

Hong, Fisher, Gharbi, Fatahalian: Video Pose Distillation for Few-Shot, Fine-Grained Sports Action Recognition, ICCV 2021,
arXiv 2109.01305. The teacher's poses p_t are targets; so are the motions p_t - p_(t-1). Frames of whose pose the teacher is
unsure are left out, and those without a frame before them. No annotation is read.

A mirror changes left and right in the targets, and turns the sign of what moved across: the targets are the teacher's points of
both frames, moved along with the pictures before one is taken from the other.

    L = |pose - p_t|^2 + motion * |D - (p_t - p_(t-1))|^2,  p = the teacher's poses

Differs from the paper:
1. Where the paper gives optical flow, the network gets the difference from the frame before.
2. The loss is a mean over points and frames, so that it does not grow with the batch, and the motion has a weight of its own.
3. Poses are places in the square, from its middle, in sides of it: they are what is measured here. The paper makes them free of
   place and size first, drops D afterwards and goes on with the features, to tell actions apart.
4. The teacher must be sure of both frames. How sure: the mean over its keypoints of the probability near the peak.
5. The last epoch's weights are kept, where the paper chooses an epoch by its loss on other frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from classgraft.data.augment import augmentation
from classgraft.data.images import Images
from classgraft.data.keypoints import Poses
from classgraft.errors import InputError
from classgraft.losses.keypoints import squared_distance
from classgraft.models.keypoints import Locator, Watcher
from classgraft.training.answers import answers
from classgraft.training.locating import RECIPE, annotated
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.training.teaching import seated
from classgraft.verbs import Distiller


@dataclass(frozen=True)
class VideoPose(Distiller[Watcher]):
    """Squared distance from the teacher's pose and from its motion; without ``motion`` the pose alone teaches."""

    motion: float = 1.0
    """Weight of the motion beside 1 of the pose."""
    confidence: float = 0.5
    """Least mean probability near the peaks of the teacher's maps, or a frame is left out."""
    recipe: Recipe = RECIPE

    def distill(self, teacher: Locator, student: Watcher, images: Images) -> Watcher:  # type: ignore[override]
        if not isinstance(teacher, Locator) or not isinstance(student, Watcher):
            raise InputError(
                "video-pose distills a Locator into a Watcher (both of classgraft.models.keypoints), from Python."
            )
        if not isinstance(images, Poses):
            raise InputError(
                "video-pose learns from frames (classgraft.data.keypoints.Poses) that say which came before."
            )
        master, learner, _ = seated(teacher, student, images)
        now, then = self.told(master, images)
        augment, size = augmentation(self.recipe.augment), images.preparation.size

        def objective(batch: Batch) -> Terms:
            given = (batch.index, learner.device, augment, batch.seed, batch.epoch)
            earlier, was, known = then.view(*given), then.targets(*given), batch.targets[..., 2]
            pose, motion = learner.seen(batch.images, earlier)
            terms = {"pose": squared_distance(pose, batch.targets[..., :2] / size - 0.5, known)}
            if self.motion:
                moved = (batch.targets - was)[..., :2] / size
                terms["motion"] = self.motion * squared_distance(motion, moved, known * was[..., 2])
            return terms

        fit(learner, objective, now, self.recipe, "distilling poses", carries=(then.points,))
        return learner

    def told(self, master: Locator, frames: Poses) -> tuple[Poses, Poses]:
        """Frames with the poses that the teacher finds, and those before them, where it is sure of both.

        Raises:
            InputError: there is none.
        """
        found = answers(master, frames, master.located, what="asking the teacher")
        sure = (found[..., 2].mean(1) >= self.confidence)[:, None].expand(found.shape[:2])
        now, then = annotated(frames, master, found, sure.contiguous()).consecutive()
        both = torch.nonzero((now.annotated & then.annotated).all(1))[:, 0]
        if not len(both):
            raise InputError(f"The teacher is sure of no two frames in a row by {self.confidence}; lower confidence.")
        return now.subset(both), then.subset(both)
