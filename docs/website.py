"""The documentation as a site, built without a network.

    python docs/website.py OUT

The pages are README.md (quick start), what lies in ``docs/``, a page for each method of the catalogue, made from its module's
docstring, its fields and its rows in ``docs/results.md``, and a page of the functions and classes that ``classgraft`` offers.
It needs the group ``docs``: Sphinx, myst-parser and furo. A warning is an error.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import inspect
import itertools
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import classgraft
from classgraft import catalogue
from classgraft.catalogue import Entry

HERE = Path(__file__).resolve().parent
PAGES = {
    "Use it": (("walks", "Four walks"), ("serving", "In the browser"), ("choosing", "Which method"),
               ("tutorial", "A lecture's program"), ("detectors", "Detectors"), ("keypoints", "Keypoints")),
    "Methods": (("methods/index", "All methods"), ("calibration", "Old against new")),
    "Measured": (("results", "Results"), ("gallery", "Gallery"), ("speed", "Speed")),
    "The project": (("api", "API reference"), ("architecture", "Architecture"), ("contributing", "Contributing"),
                    ("coverage", "Coverage"), ("security", "Security"), ("changelog", "Changelog")),
}  # fmt: skip
"""What stands in the bar beside each page."""
VERBS = {
    "extend": "Add classes to a trained model",
    "train": "Train from labelled images",
    "self-train": "Train from few labelled and many unlabelled images",
    "distill": "Shrink a model",
}
COMMANDS = {
    "extend": "classgraft extend base/ photos/ --out grown/ --method {0}",
    "train": "classgraft train photos/ --arch cifar:resnet20 --out model/ --method {0}",
    "self-train": "classgraft self-train model/ labelled/ unlabelled/ --out better/ --method {0}",
    "distill": "classgraft distill grown/ images/ --student timm:mobilenetv3_small_050 --out small/ --method {0}",
}
KEPT = {
    "nothing": "Nothing of the images that it learns from.",
    "statistics": "Numbers about them, and no image.",
    "images": "Some of them: its memory holds training images.",
}


def write(to: Path) -> None:
    """All pages as Markdown, for Sphinx."""
    shutil.copytree(HERE, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.py", "_build", "__pycache__"))
    shutil.copy(HERE / "conf.py", to)
    trees = [f"```{{toctree}}\n:hidden:\n:caption: {part}\n\n{_tree(pages)}\n```" for part, pages in PAGES.items()]
    trees.insert(0, "```{toctree}\n:hidden:\n\nQuick start <self>\n```")
    (to / "index.md").write_text("\n\n".join([_placed("README.md"), *trees]) + "\n", "utf-8")
    for name in ("CONTRIBUTING", "CHANGELOG"):
        (to / f"{name.lower()}.md").write_text(_placed(f"{name}.md"), "utf-8")
    (to / "methods").mkdir()
    (to / "methods/index.md").write_text(methods(), "utf-8")
    for entry in catalogue.ENTRIES:
        (to / f"methods/{slug(entry)}.md").write_text(method(entry), "utf-8")
    (to / "api.md").write_text(api(), "utf-8")


def _tree(pages: tuple[tuple[str, str], ...]) -> str:
    return "\n".join(f"{title} <{name}>" for name, title in pages)


def _placed(name: str) -> str:
    """A page of the repository's root, with its links as they are inside ``docs``."""
    text = (HERE.parent / name).read_text("utf-8").replace("](docs/", "](")
    return text.replace("](CONTRIBUTING.md)", "](contributing.md)")


def slug(entry: Entry) -> str:
    return f"{entry.verb}-{entry.name}"


def methods() -> str:
    lines = ["# Methods", "", "What each is, where it is from, what it keeps and how it differs from its paper."]
    for verb, title in VERBS.items():
        entries = [entry for entry in catalogue.ENTRIES if entry.verb == verb]
        lines += ["", f"## {title}", "", "| method | |", "| --- | --- |"]
        lines += [f"| [{entry.name}]({slug(entry)}.md) | {entry.summary} |" for entry in entries]
        lines += ["", "```{toctree}", ":hidden:", "", *(f"{entry.name} <{slug(entry)}>" for entry in entries), "```"]
    return "\n".join(lines) + "\n"


def method(entry: Entry) -> str:
    """The page of a method."""
    kind = catalogue.method_type(entry)
    head, _, rest = inspect.cleandoc(importlib.import_module(entry.module).__doc__ or "").partition("\n")
    lines = [
        f"# {entry.name}",
        "",
        f"**{head}**",
        "",
        _marked(rest.strip()),
        "",
        _marked(inspect.cleandoc(kind.__doc__ or "")),
        "",
    ]
    if entry.targets == "classes":  # the others are used from Python alone
        lines += ["```sh", COMMANDS[entry.verb].format(entry.name), "```", ""]
    if entry.verb == "extend":
        lines += ["## What it keeps", "", KEPT[kind.keeps], ""]  # type: ignore[attr-defined]
    rows = list(_fields(kind))
    if rows:
        lines += ["## Settings", "", '`--set field=value`, or `settings={"field": value}` from Python.', ""]
        lines += ["| field | default | |", "| --- | --- | --- |", *rows, ""]
    measured = list(_measured(entry.name))
    if measured:
        lines += [
            "## Measured",
            "",
            "Its rows of [the results](../results.md), where all is said that they depend on.",
            "",
        ]
        lines += measured
    where = Path(inspect.getfile(kind)).relative_to(Path(classgraft.__file__).parents[1])
    lines += ["## Source", "", f"`src/{where}`; from Python `{entry.module}.{entry.type}`.", ""]
    return "\n".join(lines)


def _fields(kind: type) -> Iterator[str]:
    said = _said(kind)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        default = field.default if field.default is not dataclasses.MISSING else "…"
        if field.name == "recipe":
            yield "| `recipe` | | How it trains; each of its fields can be set by its own name, such as `epochs` or `lr`. |"
        else:
            yield f"| `{field.name}` | `{default!r}` | {_cell(said.get(field.name, ''))} |"


def _said(kind: type) -> dict[str, str]:
    """The docstring below each field, of the class and of those that it is made from."""
    found: dict[str, str] = {}
    for part in reversed([part for part in kind.__mro__ if dataclasses.is_dataclass(part)]):
        (tree,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(part))).body
        body = tree.body  # type: ignore[attr-defined]
        for line, after in itertools.pairwise(body):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(after, ast.Expr):
                found[line.target.id] = ast.literal_eval(after.value)
    return found


def _measured(name: str) -> Iterator[str]:
    """The tables of the results that have rows of this method, with those rows alone."""
    own = re.compile(rf"\| ({re.escape(name)}|{re.escape(name.replace('-', ' '))})( \||,| \(| without)")
    headings: list[str] = []
    table: list[str] = []
    for line in [*(HERE / "results.md").read_text("utf-8").splitlines(), ""]:
        if line.startswith("#"):
            level = len(line) - len(line.lstrip("#"))
            headings = [*headings[: level - 1], line.lstrip("# ")]
        if line.startswith("|"):
            table.append(line)
            continue
        rows = [row for row in table[2:] if own.match(row)]
        if rows:
            yield from [f"**{'. '.join(headings[1:])}**", "", *table[:2], *rows, ""]
        table = []


def api() -> str:
    """The functions and classes that the package offers."""
    lines = ["# API reference", "", "What `import classgraft` offers; `classgraft.NAME` for each."]
    functions = [name for name in classgraft.__all__ if inspect.isfunction(getattr(classgraft, name))]
    classes = [name for name in classgraft.__all__ if name not in functions]
    for title, names in (("Functions", functions), ("Classes", classes)):
        lines += ["", f"## {title}", ""]
        for name in names:
            lines += _object(name, getattr(classgraft, name), "###")
            if inspect.isclass(getattr(classgraft, name)):
                for member, value in vars(getattr(classgraft, name)).items():
                    if not member.startswith("_") and inspect.isfunction(value) and value.__doc__:
                        lines += _object(f"{name}.{member}", value, "####")
    return "\n".join(lines) + "\n"


def _object(name: str, value: Any, heading: str) -> list[str]:
    signature = (
        str(inspect.signature(value)) if not issubclass(type(value), type) or dataclasses.is_dataclass(value) else ""
    )
    signature = re.sub(r"<(?:function|class) ([\w.<>]+)[^,)]*>", "...", signature)
    text = f"{name}{signature}"
    if len(text) > 100:
        text = text.replace("(", "(\n    ", 1).replace(", ", ",\n    ") if text.count("[") < 1 else _broken(text)
    return [f"{heading} {name}", "", "```python", text, "```", "", _doc(inspect.getdoc(value) or ""), ""]


def _broken(text: str) -> str:
    """A long signature with one parameter a line; commas inside brackets stay."""
    out, depth = "", 0
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        out += character
        if (character == "(" and depth == 1 and "\n" not in out) or (character == "," and depth == 1):
            out += "\n   " if text[place + 1] == " " else "\n    "
    return out


def _doc(text: str) -> str:
    """A docstring with its sections (Args, Returns, Raises, Options) as lists."""
    lines: list[str] = []
    inside = False
    for line in _marked(text).splitlines():
        if re.fullmatch(r"(Args|Options|Returns|Raises):", line):
            inside = True
            lines += ["", f"**{line[:-1]}**", ""]
        elif inside and re.match(r"    \S", line):
            name, colon, rest = line.strip().partition(": ")
            lines.append(f"- `{name}`: {rest}" if colon and len(name) < 60 else f"- {line.strip()}")
        elif inside and line.startswith("     "):
            lines.append(f"  {line.strip()}")
        else:
            inside = inside and not line
            lines.append(line)
    return "\n".join(lines)


def _marked(text: str) -> str:
    """Text of a docstring as Markdown: a list stands alone, and what looks like markup of HTML does not become it."""
    text = re.sub(r"(?m)^(?=1\. )", "\n", text)
    return "\n".join(
        line if "`" in text or line.startswith("    ") else line.replace("<", "&lt;") for line in text.splitlines()
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def build(out: Path) -> None:
    """The site as HTML.

    Raises:
        SystemExit: Sphinx has something to complain of.
    """
    from sphinx.cmd.build import main as sphinx

    with tempfile.TemporaryDirectory() as place:
        write(Path(place))
        if sphinx(["-q", "-W", "--keep-going", "-E", "-d", f"{place}/.trees", place, str(out)]):
            raise SystemExit("the site was not built without a warning")


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the documentation as a site.")
    parser.add_argument("out", type=Path, help="folder to write to")
    out = parser.parse_args().out
    build(out)
    print(f"{out}/index.html")


if __name__ == "__main__":
    main()
