"""The commands ``undo``, ``remove``, ``rename`` and ``merge`` as functions: no image is needed."""

from __future__ import annotations

from classgraft import memories
from classgraft.bundle import Bundle, place
from classgraft.data.names import check_names
from classgraft.errors import InputError
from classgraft.history import event_of
from classgraft.models.merged import merged, renamed


def undo(bundle: Bundle) -> Bundle:
    """The bundle before its last step."""
    return bundle.before()


def remove(bundle: Bundle, name: str) -> Bundle:
    """Without a class; the others keep their order and their numbers."""
    gone = bundle.classes[place(bundle, name)]
    if len(bundle.classes) == 1:
        raise InputError(f"'{gone}' is the model's only class; a classifier needs one at least.")
    event = event_of("remove", f"the class '{gone}' was removed", classes=[gone])
    added = [kept for kept in bundle.added if kept != gone]
    return bundle.then(bundle.model.without([gone]), event, added, memories.rid(bundle, [gone]))


def rename(bundle: Bundle, old: str, new: str) -> Bundle:
    """With another name for a class; nothing else changes."""
    old = bundle.classes[place(bundle, old)]
    (new,) = check_names([new], "the new name")
    if new in bundle.classes:
        raise InputError(f"The model already has the class '{new}'; choose another name, or merge the two.")
    event = event_of("rename", f"the class '{old}' was renamed '{new}'", classes=[old, new])
    added = [new if name == old else name for name in bundle.added]
    return bundle.then(renamed(bundle.model, old, new), event, added, memories.renamed(bundle.memories, old, new))


def merge(bundle: Bundle, first: str, second: str, name: str | None = None) -> Bundle:
    """With two classes made one, under the first's name (or ``name``) and in its place.

    Its softmax probability is the sum of theirs, and that of every other class stays what it was: what was taken for
    either is taken for it. Images that a method keeps are of the one class from now on; of statistics, those of the first stay.
    """
    first, second = (bundle.classes[place(bundle, one)] for one in (first, second))
    if first == second:
        raise InputError(f"'{first}' is one class already; name two.")
    (name,) = check_names([first if name is None else name], "the new name")
    if name in bundle.classes and name not in (first, second):
        raise InputError(f"The model already has the class '{name}'; choose another name.")
    model = renamed(merged(bundle.model, first, second), first, name)
    event = event_of("merge", f"the classes '{first}' and '{second}' were made one, '{name}'",
                   classes=[first, second, name])  # fmt: skip
    added = [name if one == first else one for one in bundle.added if one != second]
    return bundle.then(model, event, added, memories.renamed(memories.merged(bundle, first, second), first, name))
