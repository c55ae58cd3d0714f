"""What is released, checked as somebody gets it: wheel and sdist in clean environments, oldest and newest dependencies.

    python benchmarks/release.py                 # half an hour; needs uv and a package registry
    python benchmarks/release.py --only wheel    # one part; what it finds joins the other parts' results

wheel, sdist: built with ``uv build``, installed into a fresh environment with nothing else, and the README's story done with
it from an empty folder: import a network, extend it with photos, look at the photos again, verify. oldest: the least version
that each requirement allows; newest: what the registry has. The tests run in each.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from record import RESULTS, write

ROOT = Path(__file__).parents[1]
CORE = ("torch", "torchvision", "timm", "safetensors", "pyarrow", "pillow", "scikit-learn", "rich", "typer", "jinja2")
EXTRAS = ("--group", "dev", "--group", "docs")
"""What the tests need, all optional dependencies among it."""
TESTS = {
    "oldest": ["--resolution", "lowest-direct", *EXTRAS],
    "newest": [*EXTRAS],
}
STORY = """
from pathlib import Path
import numpy as np
import timm
from PIL import Image
from safetensors.torch import save_file
draw = np.random.default_rng(0)
for name, colour in {"rose": (200, 30, 60), "iris": (80, 60, 200)}.items():
    Path("photos", name).mkdir(parents=True)
    for i in range(5):
        pixels = np.clip(draw.normal(colour, 25, (48, 48, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(Path("photos", name, f"{i}.png"))
network = timm.create_model("resnet10t", num_classes=3)
save_file(network.state_dict(), "w.safetensors")
Path("names.txt").write_text("a\\nb\\nc\\n")
"""
COMMANDS = (
    "import timm:resnet10t --weights w.safetensors --classes names.txt --size 64 --out base",
    "extend base photos --out grown",
    "predict grown photos",
    "verify grown",
    "export grown --format timm --out out",
    "undo grown",
)


def uv(*words: str, **options: Any) -> str:
    done = subprocess.run(["uv", *words], capture_output=True, text=True, **options)
    if done.returncode:
        raise SystemExit(done.stderr)
    return str(done.stdout)


def environment(folder: Path, *packages: str) -> Path:
    """The folder of commands of a fresh environment."""
    uv("venv", "-q", str(folder), "--python", "3.11")
    uv("pip", "install", "-q", "--python", str(folder / "bin/python"), *packages, cwd=ROOT)
    return folder / "bin"


def versions(commands: Path) -> dict[str, str]:
    code = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {CORE}}}))"
    return json.loads(subprocess.check_output([commands / "python", "-c", code], text=True))  # type: ignore[no-any-return]


def alone() -> dict[str, str]:
    """The environment of a process that finds no other classgraft."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}


def story(kind: str, folder: Path) -> dict[str, Any]:
    """Build it, install it, use it."""
    uv("build", "-q", f"--{kind}", "--out-dir", str(folder / "built"), str(ROOT))
    [built] = (path for path in (folder / "built").iterdir() if path.suffix in (".whl", ".gz"))
    commands = environment(folder / "env", str(built))
    place = folder / "place"
    place.mkdir()
    subprocess.run([commands / "python", "-c", STORY], cwd=place, check=True, env=alone())
    failed = []
    for words in COMMANDS:
        done = subprocess.run(
            [commands / "classgraft", *words.split()], cwd=place, capture_output=True, text=True, env=alone()
        )
        if done.returncode:
            failed.append(f"{words}: {done.stderr[-300:]}")
    code = (
        "import classgraft, pathlib; p = pathlib.Path(classgraft.__file__).parent; print(p, (p / 'py.typed').exists())"
    )
    where = subprocess.check_output([commands / "python", "-c", code], cwd=place, text=True, env=alone()).split()
    if str(folder) not in where[0] or where[1] != "True":
        failed.append(f"not the built one, or without py.typed: {where}")
    return {
        "bytes": built.stat().st_size,
        "commands": len(COMMANDS),
        "failed": failed,
        "dependencies": versions(commands),
    }


def tested(arguments: list[str], folder: Path, workers: str) -> dict[str, Any]:
    """The tests, with other versions than usual."""
    commands = environment(folder / "env", "-e", ".", *arguments)
    python = {**alone(), "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}
    words: list[str | Path] = [commands / "python", "-m", "pytest", "-q", "-n", workers, "-p", "no:cacheprovider"]
    if "lowest-direct" in arguments:  # types are checked against the newest stubs alone
        words += ["--ignore", "tests/test_static.py"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=python)
    counts = {
        kind: int(count) for count, kind in re.findall(r"(\d+) (passed|failed|skipped|xfailed|errors?)\b", done.stdout)
    }
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    print(*(line[:300] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR", "E  "))), sep="\n")
    return {"tests": counts, "failed": failed, "dependencies": versions(commands)}


def main() -> None:
    parts = ("wheel", "sdist", *TESTS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--workers", default="2", help="of the tests")
    chosen = parser.parse_args()
    path = RESULTS / "release.json"
    rows = json.loads(path.read_text("utf-8"))["rows"] if path.exists() else {}
    for part in chosen.only:
        with tempfile.TemporaryDirectory() as folder:
            rows[part] = (
                tested(TESTS[part], Path(folder), chosen.workers) if part in TESTS else story(part, Path(folder))
            )
        print(part, {key: value for key, value in rows[part].items() if key != "dependencies"}, flush=True)
        write(
            "release",
            "what is released, in clean environments",
            rows={name: rows[name] for name in parts if name in rows},
        )


if __name__ == "__main__":
    main()
