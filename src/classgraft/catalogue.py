"""The list of what exists: method names, where each is written, and a line on each. Importing it imports no torch."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from classgraft.errors import InputError, nearest

if TYPE_CHECKING:
    from classgraft.training.recipe import Recipe
    from classgraft.verbs import Distiller, Extender, SelfTrainer, Trainer


@dataclass(frozen=True)
class Entry:
    """A method in the catalogue."""

    name: str
    verb: str
    """"extend", "train", "self-train" or "distill"."""
    module: str
    type: str
    summary: str
    targets: str = "classes"
    """What its images are annotated with: "classes"; from Python alone "boxes" (``classgraft.detectors``), "masks"
    (``classgraft.models.segmenter``) or "keypoints" (``classgraft.models.keypoints``)."""


def _entries(verb: str, lines: Sequence[tuple[str, ...]]) -> Iterator[Entry]:
    """From a method's name, its class, a summary and, where they are not classes, its targets."""
    for name, place, summary, *targets in lines:
        module, _, kind = place.rpartition(".")
        yield Entry(name, verb, f"classgraft.{module}", kind, summary, *targets)


# fmt: off
ENTRIES = (
    *_entries("extend", (
        ("glne", "extenders.glne.GLNE", "frozen network, rows learnt against generated old features"),
        ("soft-distillation", "extenders.soft_distillation.SoftDistillation",
         "every row free, old answers kept by a loss; the control beside glne"),
        ("glne-literal", "extenders.glne_literal.GLNELiteral",
         "a summary's objective to the letter, which cannot learn a new class; a control"),
        ("imprint", "extenders.imprint.Imprint", "new rows are mean directions of the photos' features"),
        ("rows", "extenders.rows.Rows", "frozen network, new rows from the new photos alone"),
        ("finetune", "extenders.finetune.Finetune", "everything learns from the new photos; forgets"),
        ("lwf", "extenders.lwf.LwF", "keeps the old network's answers to the new photos"),
        ("lwm", "extenders.lwm.LwM", "as lwf, and goes on looking where it looked"),
        ("ewc", "extenders.ewc.EWC", "holds weights by their Fisher information for old classes"),
        ("acwod", "extenders.acwod.ACWOD", "chosen layers learn; a share of each target is what the old network says"),
        ("mas", "extenders.mas.MAS", "holds weights that its answers hang on; needs no labels"),
        ("generative-replay", "extenders.generative_replay.GenerativeReplay",
         "a generator draws earlier images, which the old network labels"),
        ("joint", "extenders.joint.Joint", "all images old and new; the ceiling"),
        ("ncm", "extenders.ncm.NearestClassMean", "frozen network, the nearest class mean wins"),
        ("slda", "extenders.slda.SLDA", "frozen network, class means under a shared covariance"),
        ("fecam", "extenders.fecam.FeCAM", "frozen network, each class's own Mahalanobis distance"),
        ("ranpac", "extenders.ranpac.RanPAC", "frozen network, ridge on a random projection"),
        ("knn", "extenders.knn.NearestNeighbours", "frozen network, the nearest features kept vote"),
        ("exemplars", "extenders.exemplars.Replay", "everything learns from new images and kept ones of the old classes"),
        ("icarl", "extenders.icarl.ICaRL", "exemplars, distillation, nearest mean of exemplars"),
        ("wa", "extenders.wa.WeightAligning", "exemplars, distillation, new rows scaled to the old ones' length"),
        ("bic", "extenders.bic.BiasCorrection", "exemplars, distillation, new logits corrected on held-out images"),
        ("podnet", "extenders.podnet.PODNet", "exemplars, intermediate maps held in place, several proxies a class"),
        ("der", "extenders.der.DER",
         "a new body beside the frozen old ones, pruned where asked; exemplars (dynamically expandable representation)"),
        ("piggyback", "extenders.piggyback.Piggyback",
         "the network never changes; each task has a mask over its weights, one bit each"),
        ("gates", "extenders.gates.Gates",
         "each task opens channels by the image; kernels that ever fire are frozen, the others are free for later tasks"),
    )),
    *_entries("train", (
        ("plain", "trainers.plain.Plain", "supervised training as it is usually done"),
        ("cosine", "trainers.cosine.Cosine", "outputs turn towards their class; for few images"),
        ("glico", "trainers.glico.GLICO", "a generator learnt from the few images makes more of them"),
    )),
    *_entries("self-train", (
        ("glico-transductive", "trainers.glico.TransductiveGLICO",
         "glico whose generator also sees the unlabelled images, such as those to be told apart"),
        ("pseudo-labels", "selftrainers.pseudo_labels.PseudoLabels", "its own sure answers, or another model's, are labels"),
        ("mean-teacher", "selftrainers.mean_teacher.MeanTeacher", "agrees with the average of its own weights over time"),
        ("fixmatch", "selftrainers.fixmatch.FixMatch", "a sure answer to a weak view is the label of a strong one"),
        ("noisy-student", "selftrainers.noisy_student.NoisyStudent",
         "generations of equal or larger students, noised, on a teacher's balanced answers"),
        ("meta-pseudo-labels", "selftrainers.meta_pseudo_labels.MetaPseudoLabels",
         "a teacher that learns from how well its labels served the student"),
        ("uda", "selftrainers.uda.UDA", "a strong view agrees with the sharpened answer to a weak one"),
        ("mixmatch", "selftrainers.mixmatch.MixMatch", "guessed labels, sharpened, and everything mixed with everything"),
        ("temporal-ensembling", "selftrainers.temporal_ensembling.TemporalEnsembling",
         "agrees with the mean of its own earlier answers"),
        ("vat", "selftrainers.vat.VAT", "keeps its answers under the small change that would move them most"),
        ("ict", "selftrainers.ict.ICT", "the answer to a mixture is the mixture of answers"),
        ("remixmatch", "selftrainers.remixmatch.ReMixMatch", "MixMatch with aligned guesses, strong views and rotations"),
        ("data-distillation", "selftrainers.data_distillation.DataDistillation",
         "what the model says of many views of an image, put together, is its label"),
        ("data-distillation-keypoints", "selftrainers.data_distillation_keypoints.KeypointDataDistillation",
         "keypoints: maps of many views, mapped back and put together, are its labels (Python only)", "keypoints"),
    )),
    *_entries("distill", (
        ("kd", "distillers.kd.SoftTargets", "labels and the teacher's softened answers"),
        ("fitnets", "distillers.fitnets.FitNets", "first the lower half learns a layer of the teacher, then all its answers"),
        ("similarity", "distillers.similarity.SimilarityPreserving",
         "images that are alike to the teacher are to be alike to the student"),
        ("detection", "distillers.detection.Detection",
         "detectors: soft answers to the same boxes, boxes bounded by the teacher, a hint (Python only)", "boxes"),
        ("structured", "distillers.structured.StructuredDistillation",
         "networks that label every pixel: pixels, pairs of regions, whole maps (Python only)", "masks"),
        ("part-experts", "distillers.part_experts.PartExperts",
         "keypoints: experts of parts label what nobody annotated (Python only)", "keypoints"),
        ("video-pose", "distillers.video_pose.VideoPose",
         "keypoints: two frames to the pose, and the motion, that a teacher sees in them (Python only)", "keypoints"),
    )),
)
# fmt: on
"""A line each: its name, where it is written, what it does, and what its images are annotated with where not with classes."""


RANGES = {
    "views": (1, math.inf),
    "batch_size": (1, math.inf),
    "glne-literal.alpha": (0, 1),
    "components": (1, math.inf),
    "confidence": (0, 1),
    "detection.soft": (0, 1),
    "epsilon": (0, 1),
    "exemplars": (1, math.inf),
    "held_out": (0, 1),
    "hidden": (0, 1024),
    "momentum": (0, 1),
    "piggyback.spread": (0, 1),
    "warm_up": (0, 1),
    "temperature": (1e-3, math.inf),
    "threshold": (0, 1),
    "decay": (0, 1),
    "temporal-ensembling.decay": (0, 0.999),
    "smoothing": (0, 1),
    "survival": (1e-3, 1),
    "dimension": (2, 1 << 12),
    "side": (4, 1 << 12),
    "reach": (0, 1),
    "share": (0, 1),
    "dropout": (0, 0.99),
    "alpha": (0, 1),
    "mixing": (1e-3, math.inf),
    "guesses": (1, math.inf),
    "generations": (1, math.inf),
    "finishing": (0, 1),
    "ratio": (1, math.inf),
    "proxies": (1, math.inf),
    "shrinkage": (1e-12, 1),
    "hinting": (0, 1),
    "scale": (1, math.inf),
    "linear_probe": (0, 1),
    "patience": (0, 1),
    "power": (1e-3, math.inf),
    "width": (1, 1 << 16),
    "neighbours": (1, math.inf),
    "nodes": (1, math.inf),
    "critic_width": (1, 1 << 16),
    "scales": (0.1, 10),
    "spread": (1e-3, math.inf),
    "seed": (0, 2**32 - 1),
}
"""Least and greatest value of a setting, where it is not 0 and any finite number."""

AUGMENTING = ("augment", "strong", "transforms")
"""Settings that name an augmentation; one that does not exist is refused before any work."""


def entry(name: str, verb: str) -> Entry:
    """By name; an unknown one is an InputError that suggests the nearest."""
    known = {e.name: e for e in ENTRIES if e.verb == verb}
    if name == "auto" and verb == "extend":
        raise InputError(
            "auto chooses a method by what one bundle holds; where several are compared, name them, as glne."
        )
    if name not in known:
        raise InputError(f"There is no method '{name}' to {verb} with.{nearest(name, known)}")
    return known[name]


def extender(name: str, settings: Mapping[str, Any] | None = None) -> Extender:
    """A method that extends, with these fields set."""
    return _make(entry(name, "extend"), settings or {})  # type: ignore[no-any-return]


def trainer(name: str, settings: Mapping[str, Any] | None = None) -> Trainer:
    """A method that trains, with these fields set."""
    return _make(entry(name, "train"), settings or {})  # type: ignore[no-any-return]


def selftrainer(name: str, settings: Mapping[str, Any] | None = None) -> SelfTrainer:
    """A method that trains on unlabelled images as well, with these fields set."""
    return _make(entry(name, "self-train"), settings or {})  # type: ignore[no-any-return]


def distiller(name: str, settings: Mapping[str, Any] | None = None) -> Distiller[Any]:
    """A method that distills, with these fields set."""
    return _make(entry(name, "distill"), settings or {})  # type: ignore[no-any-return]


def method_type(found: Entry) -> type:
    """The dataclass itself."""
    return getattr(importlib.import_module(found.module), found.type)  # type: ignore[no-any-return]


def _make(found: Entry, settings: Mapping[str, Any]) -> Any:
    """Fields of the method and, under their own names, of its recipe."""
    kind = method_type(found)
    own = {f.name: f for f in dataclasses.fields(kind)}
    recipe: Recipe | None = own["recipe"].default if "recipe" in own else None  # type: ignore[assignment]
    of_recipe = {f.name for f in dataclasses.fields(recipe)} if recipe else set()
    unknown = [name for name in settings if name not in own and name not in of_recipe]
    if unknown:
        known = (set(own) | of_recipe) - {"recipe"}
        raise InputError(f"{found.name} has no setting '{unknown[0]}'.{nearest(unknown[0], known)}")
    chosen = {k: _typed(found.name, kind, k, v) for k, v in settings.items() if k in own}
    if recipe and (changed := {k: v for k, v in settings.items() if k in of_recipe and k not in own}):
        changed = {k: _typed(found.name, type(recipe), k, v) for k, v in changed.items()}
        chosen["recipe"] = dataclasses.replace(recipe, **changed)
    return kind(**chosen)


def _typed(method: str, kind: type, name: str, value: Any) -> Any:
    """The value as the field's type, where that loses nothing, and in its range."""
    hint = get_type_hints(kind)[name]
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise InputError(
                f"The setting {name} of {method} cannot be {value!r}.{nearest(str(value), get_args(hint))}"
            )
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"The setting {name} of {method} is a list, not {value!r}; write [0.6, 0.85].")
        return tuple(_of_type(method, get_args(hint)[0], name, part) for part in value)
    if type(None) in get_args(hint):
        return None if value is None else _of_type(method, get_args(hint)[0], name, value)
    return _of_type(method, hint, name, value)


def _of_type(method: str, hint: Any, name: str, value: Any) -> Any:
    if hint is float and type(value) is int:
        value = float(value)
    if isinstance(hint, type) and type(value) is not hint:
        raise InputError(f"The setting {name} of {method} is {hint.__name__}, not {value!r}.")
    least, most = RANGES.get(f"{method}.{name}", RANGES.get(name, (0, math.inf)))
    if hint in (int, float) and not (least <= value <= most and math.isfinite(value)):
        raise InputError(
            f"The setting {name} of {method} is {value!r}; it is {least} at least{f', {most} at most' * (most < math.inf)}."
        )
    if name in AUGMENTING:
        from classgraft.data.augment import augmentation  # which imports torch

        augmentation(value)
    return value
