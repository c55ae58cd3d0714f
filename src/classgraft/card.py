"""The model card of a bundle, and what its steps promise."""

from __future__ import annotations

from classgraft.bundle import Bundle, is_plain


def card(bundle: Bundle) -> str:
    """The model card: what it is, what was done to it, how to load it."""
    model = bundle.model
    parameters = sum(p.numel() for p in model.parameters())
    done = [f"- {event.get('date', '')}: {event.get('sentence', event.get('event', ''))}" for event in bundle.history]
    plain = (
        '\n    import timm\n    model = timm.create_model("local-dir:THIS-FOLDER")\n'
        if bundle.architecture.scheme == "timm" and is_plain(bundle)
        else ""
    )
    shown = ", ".join(bundle.classes[:20]) + (
        f" and {len(bundle.classes) - 20} more" if len(bundle.classes) > 20 else ""
    )
    held = "".join(
        f"\nMemory of {name}: {kept.content.nbytes:,} bytes, kept of the images that it learnt from.\n"
        for name, kept in bundle.memories.items()
    )
    words = promised_by(bundle)
    promised = "\n## What is promised\n\n" + "".join(f"- {sentence}\n" for sentence in words) if words else ""
    resized = "both sides" if bundle.preparation.stretched else "short side"
    last = f"\nAdded last: {', '.join(bundle.added)}.\n" if bundle.added else ""
    return f"""# {bundle.architecture.source} with {len(bundle.classes)} classes

{parameters:,} parameters. Input: RGB {bundle.preparation.size} x {bundle.preparation.size}, {resized} resized to
{bundle.preparation.resize} (bicubic, antialiased), centre crop, mean {bundle.preparation.mean}, standard deviation
{bundle.preparation.std}.

Classes: {shown}.
{last}{held}{promised}
## What was done

{chr(10).join(done)}

## Use

    classgraft predict THIS-FOLDER picture.jpg
{plain}"""


def promised_by(bundle: Bundle) -> list[str]:
    """What the steps that can be undone promise, oldest first; earlier ones have no model to compare with any more."""
    steps = bundle.history[len(bundle.history) - len(bundle.undone) :]
    kept = [(event.get("date", ""), event.get("promise")) for event in steps]
    return [f"{date}: {found.get('sentence', '')}" for date, found in kept if isinstance(found, dict)]
