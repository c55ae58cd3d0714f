"""PODNet: pooled outputs of every stage are held in place, classes are told apart by several proxies each.

Douillard, Cord, Ollion, Robert, Valle: PODNet: Pooled Outputs Distillation for Small-Tasks Incremental Learning, ECCV 2020,
arXiv 2004.13513. This is its "CNN" form: the proxies answer, not nearest means.

    L = [log sum_(k != y) exp(eta s_k) - eta (s_y - delta)]_+
        + c lambda_c mean_l |pool(h_l) - pool(g_l)| + c lambda_f (1 - cos(f, f_old))
    s_k = sum_p softmax_p(c_kp) c_kp,  c_kp = cos(theta_kp, f),  c = sqrt(K / K_new),
    h_l, g_l = maps of the new and the old network

Differs from the paper:
1. Stages end where their last module does, after the ReLU, in any network: the last map of each resolution.
2. In the neighbourhood loss the true class is left out of the sum, as equation 12 says. The authors' code adds 1 in its place.
3. The scale eta takes no gradient through the margin: early on, making eta small, even negative, would lower that part of the
   loss faster than learning does.
4. Fine-tuning on balanced images (section 4.2) takes a share of the recipe's epochs at half its learning rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor, nn

from classgraft.data.images import Images, Task
from classgraft.losses.podnet import neighbourhood, pooled, pooled_distance, turned
from classgraft.models.classifier import Classifier, feature_width, frozen
from classgraft.models.proxies import Proxies, by_proxies, proxies_of, with_proxies
from classgraft.models.stages import Staged, stages
from classgraft.training.answers import answers, asked
from classgraft.training.exemplars import replayed
from classgraft.training.loop import Batch, Terms, fit
from classgraft.verbs import Rehearsal


@dataclass(frozen=True)
class PODNet(Rehearsal):
    """A hinge on proxies' similarities; pooled maps and features stay near the old network's; a balanced end."""

    spatial: float = 3.0
    """Lambda_c, weight of the pooled maps' distance, times sqrt(classes / new classes)."""
    flat: float = 1.0
    """Lambda_f, weight of the features' distance, times the same."""
    proxies: int = 10
    """P, proxies of a class (section 3.2)."""
    margin: float = 0.6
    """Delta, equation 12."""
    balancing: float = 0.125
    """Epochs of fine-tuning the proxies on as many images of every class, as a share of the recipe's."""

    def seen_by(self, model: Classifier) -> nn.Module:
        known = proxies_of(model)
        return known.body if known else model.body

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        known = proxies_of(model)
        body = frozen(known.body if known else model.body)
        classes = (*model.classes, *model.unknown(task.classes))
        images = replayed(memory, model, task, classes)
        staged = Staged(body, stages(body, images.view(torch.arange(1), model.device)))
        grown = with_proxies(
            staged, self.started(model, known, body, images), float(known.scale.detach()) if known else 1.0
        )
        old, grown = frozen(grown), grown.requires_grad_(True)
        scale = math.sqrt(len(classes) / max(1, len(set(classes) & set(task.classes))))

        def objective(batch: Batch) -> Terms:
            features, *maps = seen(grown.body, batch.images)
            terms = {"class": self.told_apart(grown, features, batch.targets)}
            if model.classes:
                sizes = [part.shape[1] for part in (features, *maps)]
                before = asked(old, batch.images, lambda given: torch.cat(seen(old.body, given), 1))
                old_features, *old_maps = before.split(sizes, 1)
                terms["spatial"] = self.spatial * scale * pooled_distance(maps, old_maps)
                terms["flat"] = self.flat * scale * turned(features, old_features)
            return terms

        fit(grown, objective, images, self.recipe, "PODNet")
        answering = with_proxies(staged.body, grown.proxies.detach(), float(grown.scale.detach()))
        if model.classes:  # on what will be kept, as it is as much of every class
            kept = self.remember(by_proxies(answering, classes), task, memory).images
            self.balance(answering, kept)
        return by_proxies(answering, classes)

    def told_apart(self, grown: Proxies, features: Tensor, targets: Tensor) -> Tensor:
        """The hinge on similarities, with the margin at the scale of the logits."""
        return neighbourhood(grown.logits(features), targets, self.margin * grown.scale.detach())

    def balance(self, grown: Proxies, images: Images) -> None:
        """Train the proxies alone."""
        grown.body.requires_grad_(False)
        epochs = math.ceil(self.balancing * self.recipe.epochs)
        recipe = replace(self.recipe, epochs=epochs, lr=self.recipe.lr / 2)

        def objective(batch: Batch) -> Terms:
            return {"balanced": self.told_apart(grown, grown.body(batch.images), batch.targets)}

        fit(grown, objective, images, recipe, "balancing")

    def started(self, model: Classifier, known: Proxies | None, body: nn.Module, images: Images) -> Tensor:
        """Proxies (K, P, D): those known; for other classes centres of their features; at random in a first task."""
        count = known.proxies.shape[1] if known else self.proxies
        generator = torch.Generator().manual_seed(self.recipe.seed)
        width = known.proxies.shape[2] if known else feature_width(model)
        found = torch.randn(len(images.classes), count, width, generator=generator) / math.sqrt(width)
        if not model.classes:
            return found.to(model.device)
        features, length = F.normalize(answers(body, images), dim=1), 1.0
        if known:
            found[: len(known.proxies)] = known.proxies.detach().cpu()
            length = float(known.proxies.detach().norm(dim=2).mean())
        for k in range(len(known.proxies) if known else 0, len(found)):
            own = features[images.labels == k]
            if len(own):
                clusters = KMeans(min(count, len(own)), n_init=3, random_state=self.recipe.seed).fit(own.numpy())
                centres = F.normalize(torch.from_numpy(clusters.cluster_centers_), dim=1)
                turn = 0.1 * found[k]  # sets proxies apart that share a centre
                found[k] = length * (centres[torch.arange(count) % len(centres)] + turn)
        return found.to(model.device)


def seen(staged: nn.Module, images: Tensor) -> list[Tensor]:
    """Features (B, D) and then each stage's pooled maps."""
    features, *maps = staged(images)
    return [features, *(pooled(found) for found in maps)]
