"""docs/coverage.md is whole and true: no item is missing, and every file, symbol, test and table named in it exists."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs" / "coverage.md", ROOT / "benchmarks" / "results"

ITEMS = {
    "G": {"claim": 4, "algorithm": 2, "formula": 6, "code": 7},
    "N": {"claim": 4, "algorithm": 1, "formula": 2, "figure": 2},
    "L": {"algorithm": 4, "formula": 35, "table": 17, "figure": 33, "code": 7},
    "S": {"algorithm": 2, "formula": 6, "table": 7, "figure": 4},
    "D": {"claim": 1, "algorithm": 2, "formula": 10, "table": 1, "figure": 2},
}
"""How many of each kind a document has; a row's number begins with the document's letter."""
STATUSES = re.compile(r"built|built differently because \S.+|cited only because \S.+|not yet built")
NOTHING, READY = "-", ", not yet measured"


@dataclass(frozen=True)
class Row:
    """Cells of a table, as they stand in the page."""

    number: str
    where: str
    item: str
    ours: str
    tests: str
    measured: str
    status: str

    @property
    def kind(self) -> str:
        return self.item.partition(":")[0]


def read(text: str) -> list[Row]:
    lines = [re.sub(r"\s*<!--.*?-->", "", line) for line in text.splitlines() if re.match(r"\| [A-Z]\d+ \|", line)]
    return [Row(*(cell.strip() for cell in line.strip().strip("|").split("|"))) for line in lines]


ROWS = read(PAGE.read_text("utf-8"))
every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.number)


@cache
def symbols(path: Path) -> frozenset[str]:
    """What a file defines: functions, classes, names given a value, and the same inside of its classes after a dot."""
    found: set[str] = set()

    def gather(body: list[ast.stmt], before: str) -> None:
        for part in body:
            match part:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    found.add(before + name)
                case ast.ClassDef(name=name, body=inner):
                    found.add(before + name)
                    gather(inner, f"{before}{name}.")
                case ast.AnnAssign(target=ast.Name(id=name)):
                    found.add(before + name)
                case ast.Assign(targets=targets):
                    found.update(before + target.id for target in targets if isinstance(target, ast.Name))

    gather(ast.parse(path.read_text("utf-8")).body, "")
    return frozenset(found)


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def missing(file: Path, symbol: str) -> bool:
    return not file.is_file() or (bool(symbol) and symbol not in symbols(file))


def of_code(words: str) -> bool:
    """Whether ``file`` or ``file::symbol`` is not there."""
    name, _, symbol = words.partition("::")
    return missing((ROOT if name.startswith("benchmarks/") else ROOT / "src" / "classgraft") / name, symbol)


def of_tests(words: str) -> bool:
    """Whether ``file::test``, both without "test_", is not there."""
    name, _, symbol = words.partition("::")
    return not symbol or missing(ROOT / "tests" / f"test_{name}.py", f"test_{symbol}")


def of_table(cell: str) -> str:
    """What is wrong with the cell "measured", or nothing."""
    if cell == NOTHING:
        return ""
    if cell.endswith(READY):
        (name,) = quoted(cell)
        if of_code(f"benchmarks/{name}"):
            return f"there is no benchmarks/{name}"
        stem = name.removesuffix(".py")
        written = [*RESULTS.glob(f"{stem}.json"), *RESULTS.glob(f"{stem}-*.json")]
        return f"{written[0].name} is there: name its section of results.md" if written else ""
    found = re.fullmatch(r"results\.md: ([^(]+?)(?: \(not yet: ((?:`[^`]+`(?:, )?)+)\))?", cell)
    section = of_heading((ROOT / "docs" / "results.md").read_text("utf-8"), found[1]) if found else ""
    if not found or not section:
        return f"results.md has no such section: {cell}"
    there = [name for name in quoted(found[2] or "") if re.search(rf"^(\||#+) {re.escape(name)}", section, re.M)]
    return f"results.md has '{there[0]}' by now" if there else ""


def of_heading(page: str, name: str) -> str:
    """The section whose heading begins with this name, with those below it."""
    parts = re.split(r"^(?=#+ )", page, flags=re.M)
    depths = [len(part) - len(part.lstrip("#")) for part in parts]
    for k, part in enumerate(parts):
        if depths[k] and part.lstrip("# ").startswith(name):
            below = next((j for j in range(k + 1, len(parts)) if depths[j] <= depths[k]), len(parts))
            return "".join(parts[k:below])
    return ""


def wrong(row: Row) -> list[str]:
    """What a row says that is not so."""
    faults = [f"{words} is not there" for words in quoted(row.ours) if of_code(words)]
    faults += [f"test {words} is not there" for words in quoted(row.tests) if of_tests(words)]
    faults += [f"{words} is not there" for words in quoted(row.status) if words.endswith(".py") and of_code(words)]
    return [*faults, *filter(None, [of_table(row.measured)])]


def unfounded(row: Row) -> list[str]:
    """What a row lacks for its status, or refers to in vain."""
    if not STATUSES.fullmatch(row.status):
        return [f"'{row.status}' is no status"]
    there = {other.number for other in ROWS} - {row.number}
    if lost := set(re.findall(r"\b[GNLSD]\d+\b", row.status)) - there:
        return [f"it refers to {number}" for number in sorted(lost)]
    if row.status == "not yet built":
        given = (cell for cell in (row.ours, row.tests, row.measured) if cell != NOTHING)
        return [f"it is not yet built, but has {cell}" for cell in given]
    if row.status.startswith("built"):
        return [f"it is built, but names no {what}" for what, cell in (("code", row.ours), ("test", row.tests))
                if not quoted(cell)]  # fmt: skip
    return []


@pytest.mark.parametrize("letter", ITEMS)
def test_every_item_of_every_document_is_there(letter: str) -> None:
    own = [row for row in ROWS if row.number[0] == letter]
    assert [row.number for row in own] == [f"{letter}{k + 1}" for k in range(len(own))]
    kinds = [row.kind for row in own]
    assert {kind: kinds.count(kind) for kind in kinds} == ITEMS[letter]
    assert all(row.where and row.item.partition(": ")[2] for row in own)


def test_no_row_belongs_to_another_document_or_is_there_twice() -> None:
    assert {row.number[0] for row in ROWS} == set(ITEMS)
    assert len({(row.number[0], row.where, row.item) for row in ROWS}) == len(ROWS)


@every_row
def test_what_a_row_names_exists(row: Row) -> None:
    assert not wrong(row)


@every_row
def test_a_row_has_a_status_and_what_it_asks_for(row: Row) -> None:
    assert not unfounded(row)


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ({"ours": "`losses/nowhere.py::distillation`"}, "losses/nowhere.py::distillation is not there"),
        ({"ours": "`losses/distillation.py::distilation`"}, "losses/distillation.py::distilation is not there"),
        ({"ours": "`extenders/lwf.py::LwF.strenght`"}, "extenders/lwf.py::LwF.strenght is not there"),
        ({"tests": "`losses::two_samples_worked_by_feet`"}, "test losses::two_samples_worked_by_feet is not there"),
        ({"tests": "`losses`"}, "test losses is not there"),
        ({"measured": "results.md: Ten weeds"}, "results.md has no such section: results.md: Ten weeds"),
        ({"measured": "`nowhere.py`, not yet measured"}, "there is no benchmarks/nowhere.py"),
        ({"measured": "results.md: Two moons (not yet: `ict`)"}, "results.md has 'ict' by now"),
        ({"status": "built differently because of `losses/nowhere.py`"}, "losses/nowhere.py is not there"),
    ],
)
def test_what_is_not_there_is_noticed(cells: dict[str, str], says: str) -> None:
    right = {"ours": "`extenders/lwf.py::LwF.strength`", "tests": "`losses::two_samples_worked_by_hand`",
             "measured": NOTHING, "status": "built"}  # fmt: skip
    assert not wrong(Row("G1", "here", "formula: x", **right))
    assert wrong(Row("G1", "here", "formula: x", **{**right, **cells})) == [says]


def test_a_script_that_was_measured_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "RESULTS", tmp_path)
    cell = "`few.py`, not yet measured"
    (tmp_path / "fewer.json").touch()
    assert not of_table(cell)
    (tmp_path / "few-cifar10.json").touch()
    assert of_table(cell) == "few-cifar10.json is there: name its section of results.md"


@pytest.mark.parametrize(
    ("ours", "tests", "status", "says"),
    [
        ("-", "`a::b`", "built", "it is built, but names no code"),
        ("`a.py`", "-", "built differently because it is", "it is built, but names no test"),
        ("-", "-", "cited only because", "'cited only because' is no status"),
        ("-", "-", "nearly built", "'nearly built' is no status"),
        ("-", "-", "cited only because it draws L999", "it refers to L999"),
        ("-", "-", "cited only because it draws G1", "it refers to G1"),
        ("`a.py`", "-", "not yet built", "it is not yet built, but has `a.py`"),
    ],
)
def test_a_status_that_lacks_something_is_noticed(ours: str, tests: str, status: str, says: str) -> None:
    assert unfounded(Row("G1", "here", "formula: x", ours, tests, NOTHING, status)) == [says]
