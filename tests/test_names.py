from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classgraft.data.names import check_names, match, normal, read_names
from classgraft.errors import InputError

KNOWN = [
    "tench, Tinca tinca",
    "goldfish, Carassius auratus",
    "panther",
    "jaguar, panther, Panthera onca",
    "wagon, cart",
]
COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), min_size=1).filter(normal)


@given(st.text())
def test_normal_is_idempotent_and_blind_to_the_unicode_form(name: str) -> None:
    assert normal(normal(name)) == normal(name)
    assert normal(unicodedata.normalize("NFD", name)) == normal(name)


def test_normal_composes_and_strips() -> None:
    assert normal(f" {DECOMPOSED}\t") == COMPOSED
    assert normal("\ufb01g\u00b2") == "\ufb01g\u00b2"  # only what is canonically the same is the same name


@given(st.lists(words, unique_by=normal))
def test_good_names_pass_in_order(names: list[str]) -> None:
    assert check_names(names) == tuple(map(normal, names))


@given(st.lists(words, min_size=1, unique_by=normal), st.data())
def test_a_repeated_name_is_refused_wherever_it_stands(names: list[str], draw: st.DataObject) -> None:
    first = draw.draw(st.integers(0, len(names) - 1))
    again = draw.draw(st.integers(first + 1, len(names)))
    repeated = [*names[:again], unicodedata.normalize("NFD", names[first]), *names[again:]]
    with pytest.raises(InputError) as error:
        check_names(repeated)
    assert f"position {first + 1} and {again + 1}" in str(error.value)


@pytest.mark.parametrize("name", ["a\nb", "a\x00b", "a\u2028b", "a\x85b", "a\udcffb"])
def test_an_unprintable_name_is_refused_and_printable_in_the_error(name: str) -> None:
    with pytest.raises(InputError, match="position 2") as error:
        check_names(["rose", name])
    assert str(error.value).isprintable()


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(InputError, match="at position 2 is empty"):
        check_names(["rose", " "])


def test_read_names_takes_what_editors_write(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_bytes(b"\xef\xbb\xbfrose\r\n" + f"{DECOMPOSED}, bar\r\n".encode() + b" tulip \n\n\r\n")
    assert read_names(file) == ("rose", f"{COMPOSED}, bar", "tulip")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"rose\n\ntulip\n", "line 2 is empty"),
        (b"rose\ntulip\nrose\n", "'rose' stands at line 1 and 3"),
        ("rose\u2028tulip\n".encode(), "at line 1 holds an unprintable"),
        (b"rose\ntul\x07ip\n", "at line 2 holds an unprintable"),
        (b"rose\ntulip\ncaf\xe9\n", "line 3 is not UTF-8"),
        ("rose\n".encode("utf-16"), "line 1 is not UTF-8"),
        (b"\xef\xbb\xbf\r\n", "holds no name"),
    ],
)
def test_read_names_points_at_the_file_and_the_line(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "names.txt"
    file.write_bytes(content)
    with pytest.raises(InputError, match=says) as error:
        read_names(file)
    assert "names.txt" in str(error.value)


def test_read_names_refuses_what_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.txt"):
        with pytest.raises(InputError, match="cannot be read"):
            read_names(path)


def test_match_by_whole_name_is_silent_and_beats_synonyms() -> None:
    matched = match(["panther", "tench, Tinca tinca"], KNOWN)
    assert matched.found == {"panther": 2, "tench, Tinca tinca": 0}
    assert not matched.unknown
    assert not matched.warnings


def test_match_by_synonym_warns() -> None:
    matched = match(["Carassius auratus"], KNOWN)
    assert matched.found == {"Carassius auratus": 1}
    assert match(["crane"], ["crane, crane"]).found == {"crane": 0}
    assert matched.warnings == ("'Carassius auratus' is taken as 'goldfish, Carassius auratus'.",)


def test_match_prefers_case_and_then_ignores_it() -> None:
    matched = match(["Turkey", "TINCA TINCA", "Tench, tinca Tinca"], [*KNOWN, "turkey", "Turkey, Ottoman"])
    assert matched.found == {"Turkey": 6, "TINCA TINCA": 0, "Tench, tinca Tinca": 0}
    assert len(matched.warnings) == 3


@pytest.mark.parametrize("part", ["gold", "fish", "Tinca", "art", ","])
def test_a_part_of_a_synonym_is_no_hit(part: str) -> None:
    matched = match([part], KNOWN)
    assert matched.unknown == (part,)
    assert not matched.warnings


@pytest.mark.parametrize(
    ("wanted", "known"),
    [
        ("panther", ["jaguar, panther", "leopard, panther"]),
        ("Panther", ["jaguar, panther", "panther"]),
        ("crane", ["crane", "crane"]),
    ],
)
def test_an_ambiguous_name_is_not_matched_and_warned_about(wanted: str, known: list[str]) -> None:
    matched = match([wanted], known)
    assert not matched.found
    assert matched.unknown == (wanted,)
    assert all(repr(name) in matched.warnings[0] for name in known)


def test_match_keeps_the_names_as_they_were_given() -> None:
    assert match([DECOMPOSED, " rose"], ["rose", COMPOSED]).found == {DECOMPOSED: 1, " rose": 0}


@given(st.lists(words, unique_by=normal), st.data())
def test_every_known_name_matches_itself(names: list[str], draw: st.DataObject) -> None:
    wanted = draw.draw(st.permutations(names))
    matched = match(wanted, names)
    assert matched.found == {name: names.index(name) for name in wanted}
    assert not matched.warnings


@given(st.lists(words), st.lists(words))
def test_each_wanted_name_is_either_found_or_unknown(wanted: list[str], known: list[str]) -> None:
    matched = match(wanted, known)
    assert set(matched.found) | set(matched.unknown) == set(wanted)
    assert not set(matched.found) & set(matched.unknown)


def test_real_synonyms(data: Path) -> None:
    known = read_names(data / "weights" / "imagenet_classes.txt")
    assert len(known) == 1000
    matched = match(["goldfish", "Goldfish", "panther", "maillot", "pink primrose"], known)
    assert matched.found == {"goldfish": 1, "Goldfish": 1, "maillot": 638}
    assert matched.unknown == ("panther", "pink primrose")
    assert len(matched.warnings) == 3
