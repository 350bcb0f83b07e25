"""What differs between two folders of runs: numbers to the bit, and of texts and pages what a reader sees."""

import contextlib
import difflib
import json
import re
from collections import Counter
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from safetensors import safe_open

MADE = "made.json"
"""Written last into a folder of runs: where it was made, by which package, each command with its exit code."""

ASIDE = {"seconds", "begun", "ended", "created", "since", "pid", "host", "pcam-ssl", "package_version"}
"""Keys of JSON, and of metadata, that differ between two makes: times, and the version of the package. Places are replaced."""

NUMBER = re.compile(r"(?<![\w.])[-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?%?(?!\w)")
INLINE = {"a", "abbr", "b", "code", "em", "i", "small", "span", "strong", "sub", "sup", "tspan", "wbr"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[+-]\d\d:?\d\d|Z)?")
FEW = 6


@dataclass(frozen=True)
class Difference:
    """`kind`: data (a number, or a file on one side only), content (numbers, rows, pictures of a page), words."""

    kind: str
    file: str
    text: str
    lines: tuple[str, ...] = ()
    """Of words: both sides as a diff."""


def compare_folders(before: Path, after: Path) -> list[Difference]:
    """Every difference between two folders, in the order of their files."""
    here, there = _files(before), _files(after)
    places = [_place(folder) for folder in (before, after)]
    found = [Difference("data", name, "only before") for name in sorted(here - there)]
    found += [Difference("data", name, "only after") for name in sorted(there - here)]
    for name in sorted(here & there):
        compare = COMPARERS.get(Path(name).suffix, _bytes)
        try:
            found += [Difference(kind, name, *told) for kind, *told in compare(before / name, after / name, places)]
        except Exception as error:
            found.append(Difference("data", name, f"cannot be read ({type(error).__name__}: {error})"))
    return found


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def _place(folder: Path) -> list[str]:
    """Absolute paths that stand in the files of `folder`: where it was made, and by which checkout."""
    made = json.loads((folder / MADE).read_text()) if (folder / MADE).is_file() else {}
    return [made.get("folder", str(folder.resolve())), made.get("package", "/no/package")]


def _without(text: str, place: list[str]) -> str:
    return TIME.sub("TIME", text.replace(place[0], "DIR").replace(place[1], "TREE"))


def _parquet(before: Path, after: Path, places):
    old, new = (pq.read_table(path) for path in (before, after))
    if old.schema.remove_metadata() != new.schema.remove_metadata():
        yield "data", f"columns {_columns(old)} -> {_columns(new)}"
        return
    yield from _tree(_notes(old.schema.metadata, places[0]), _notes(new.schema.metadata, places[1]), "metadata")
    if old.num_rows != new.num_rows:
        yield "data", f"{old.num_rows} rows -> {new.num_rows}"
        return
    for name in old.column_names:
        if told := _values(*_arrays(old[name], new[name])):
            yield "data", f"column {name}: {told}"


def _columns(table: pa.Table) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in table.schema)


def _notes(metadata, place: list[str]):
    """Metadata of a file as a tree, with JSON inside of it read."""
    notes = {}
    for key, value in (metadata or {}).items():
        key, value = (each.decode() if isinstance(each, bytes) else each for each in (key, value))
        with contextlib.suppress(ValueError):
            value = json.loads(value)
        notes[key.removeprefix("pcam_ssl.")] = value
    return _plain(notes, place)


def _arrays(*columns: pa.ChunkedArray) -> list[np.ndarray]:
    """Values of two columns of one type: bits where they are numbers, else what Python shows of them."""
    kind = columns[0].type
    if (pa.types.is_floating(kind) or pa.types.is_integer(kind)) and not any(column.null_count for column in columns):
        return [column.to_numpy() for column in columns]
    return [np.array([repr(value) for value in column.to_pylist()], dtype=object) for column in columns]


def _values(old: np.ndarray, new: np.ndarray) -> str:
    """How two arrays differ, '' where they do not in a bit."""
    if old.dtype != new.dtype or old.shape != new.shape:
        return f"{old.dtype} {list(old.shape)} -> {new.dtype} {list(new.shape)}"
    if old.dtype != object:
        if old.tobytes() == new.tobytes():
            return ""
        size = old.dtype.itemsize
        bits = (np.frombuffer(each.tobytes(), np.uint8).reshape(-1, size) for each in (old, new))
        differ = np.not_equal(*bits).any(axis=1)
    else:
        differ = np.ravel(old != new)
    if not differ.any():
        return ""
    first = int(np.argmax(differ))
    told = f"{differ.sum()} of {differ.size} values differ, first at {first}: {np.ravel(old)[first]!s} -> {np.ravel(new)[first]!s}"
    if old.dtype.kind == "f":
        told += f", at most by {np.nanmax(np.abs(np.ravel(old).astype(float) - np.ravel(new).astype(float))):.3g}"
    return told


def _npy(before: Path, after: Path, places):
    if told := _values(*(np.load(path, mmap_mode="r") for path in (before, after))):
        yield "data", told


def _safetensors(before: Path, after: Path, places):
    with safe_open(before, "np") as old, safe_open(after, "np") as new:
        yield from _tree(_notes(old.metadata(), places[0]), _notes(new.metadata(), places[1]), "metadata")
        for name in sorted({*old.keys()} ^ {*new.keys()}):
            yield "data", f"tensor {name}: only {'before' if name in old.keys() else 'after'}"  # noqa: SIM118 it is no dict
        for name in sorted({*old.keys()} & {*new.keys()}):
            if told := _values(old.get_tensor(name), new.get_tensor(name)):
                yield "data", f"tensor {name}: {told}"


def _json(before: Path, after: Path, places):
    yield from _tree(*(_plain(_read_json(path), place) for path, place in zip((before, after), places, strict=True)))


def _read_json(path: Path):
    """A JSON file, or the lines of a .jsonl; None where a command printed nothing, as a refused one does."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return json.loads(text) if text.strip() else None


def _yaml(before: Path, after: Path, places):
    yield from _tree(
        *(
            _plain(yaml.safe_load(path.read_text(encoding="utf-8")), place)
            for path, place in zip((before, after), places, strict=True)
        )
    )


def _plain(value, place: list[str]):
    """A tree without times, places and versions."""
    if isinstance(value, dict):
        kept = {_without(str(key), place): _plain(each, place) for key, each in value.items() if key not in ASIDE}
        # The first word is where the package lies.
        return kept | ({"argv": kept["argv"][1:]} if isinstance(kept.get("argv"), list) else {})
    if isinstance(value, list):
        return [_plain(each, place) for each in value]
    return _without(value, place) if isinstance(value, str) else value


def _tree(old, new, where: str = ""):
    """Leaves that differ. Of sentences the numbers are data; the rest are words."""
    differences = list(_leaves(old, new, where))
    data = [told for kind, told, _ in differences if kind == "data"]
    yield from (("data", told) for told in data[:FEW])
    if len(data) > FEW:
        yield "data", f"and {len(data) - FEW} more values"
    words = [lines for kind, _, lines in differences if kind == "words"]
    if words:
        yield "words", f"{len(words)} sentences differ", tuple(line for lines in words for line in lines)


def _leaves(old, new, where: str):
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            at = f"{where}.{key}" if where else str(key)
            if key not in new or key not in old:
                yield (
                    "words" if _of_a_page(at) else "data",
                    f"{at}: only {'before' if key in old else 'after'}",
                    (f"{at}: only {'before' if key in old else 'after'}",),
                )
            else:
                yield from _leaves(old[key], new[key], at)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _leaves(one, other, f"{where}[{place}]")
    elif type(old) is not type(new) or repr(old) != repr(new):
        if (_sentence(old) and _sentence(new) and NUMBER.findall(old) == NUMBER.findall(new)) or _of_a_page(where):
            yield "words", where, (f"- {where}: {old}", f"+ {where}: {new}")
        else:
            yield "data", f"{where}: {_short(old)} -> {_short(new)}", ()


def _of_a_page(where: str) -> bool:
    """Whether a key of `report --json` repeats the page, which is compared by itself."""
    return where.startswith(("sections[", "absent."))


def _sentence(value) -> bool:
    return isinstance(value, str) and len(value.split()) > 1


def _short(value) -> str:
    text = f"{len(value)} items" if isinstance(value, list | dict) else repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


class _Page(HTMLParser):
    """What is seen of a page: its text block by block, rows of its tables, charts, pictures."""

    def __init__(self, text: str):
        super().__init__()
        self.blocks: list[str] = [""]
        self.rows: list[str] = []
        self.pictures: list[str] = []
        self.charts = 0
        self.hidden = 0
        self.row: list[str] | None = None
        self.feed(text)
        self.lines = [line for line in (" ".join(block.split()) for block in self.blocks) if line]

    def handle_starttag(self, tag, attributes):
        if tag in ("script", "style", "template"):
            self.hidden += 1
        if tag not in INLINE:
            self.blocks.append("")
        if tag == "tr":
            self.row = []
        if tag in ("td", "th") and self.row is not None:
            self.row.append("")
        self.charts += tag == "svg"
        if tag in ("img", "image"):
            self.pictures.append(dict(attributes).get("src") or dict(attributes).get("href") or "")

    def handle_endtag(self, tag):
        if tag in ("script", "style", "template"):
            self.hidden -= 1
        if tag not in INLINE:
            self.blocks.append("")
        if tag == "tr" and self.row is not None:
            self.rows.append(" | ".join(" ".join(cell.split()) for cell in self.row))
            self.row = None

    def handle_data(self, text):
        if self.hidden:
            return
        self.blocks[-1] += text
        if self.row:
            self.row[-1] += text


def _html(before: Path, after: Path, places):
    old, new = (
        _Page(_without(path.read_text(encoding="utf-8"), place)) for path, place in zip((before, after), places, strict=True)
    )
    if told := _gone_and_new(old.rows, new.rows):
        yield "content", f"rows of tables, {len(old.rows)} -> {len(new.rows)}: {told}"
    if old.charts != new.charts:
        yield "content", f"charts: {old.charts} -> {new.charts}"
    if changed := sum((Counter(old.pictures) - Counter(new.pictures)).values()) + max(0, len(new.pictures) - len(old.pictures)):
        yield "content", f"pictures, {len(old.pictures)} -> {len(new.pictures)}: {changed} are others"
    yield from _lines(old.lines, new.lines)


def _text(before: Path, after: Path, places):
    texts = (_without(path.read_text(encoding="utf-8"), place) for path, place in zip((before, after), places, strict=True))
    old, new = ([line for line in (" ".join(line.split()) for line in text.splitlines()) if line] for text in texts)
    if told := _gone_and_new(*([line for line in lines if line.startswith("|")] for lines in (old, new))):
        yield "content", f"rows of tables: {told}"
    yield from _lines(old, new)


def _lines(old: list[str], new: list[str]):
    """Numbers that are only in one of two texts, and lines that differ."""
    if told := _gone_and_new(*(NUMBER.findall(" ".join(lines)) for lines in (old, new))):
        yield "content", f"numbers: {told}"
    # Without its two lines of file names.
    diff = [line for line in list(difflib.unified_diff(old, new, lineterm="", n=0))[2:] if not line.startswith("@@")]
    if diff:
        gone = sum(line.startswith("-") for line in diff)
        yield "words", f"{gone} lines gone, {len(diff) - gone} new", tuple(diff)


def _gone_and_new(old: list[str], new: list[str]) -> str:
    sides = (("gone", Counter(old) - Counter(new)), ("new", Counter(new) - Counter(old)))
    told = []
    for side, items in sides:
        if items:
            more = f", and {items.total() - FEW} more" if items.total() > FEW else ""
            told.append(f"{side} {', '.join(_short(item) for item in list(items.elements())[:FEW])}{more}")
    return "; ".join(told)


def _picture(before: Path, after: Path, places):
    if before.read_bytes() != after.read_bytes():
        yield "content", "the picture is another"


def _bytes(before: Path, after: Path, places):
    old, new = before.read_bytes(), after.read_bytes()
    if old != new:
        yield "data", f"bytes differ, {len(old)} -> {len(new)}"


COMPARERS = {
    ".parquet": _parquet,
    ".npy": _npy,
    ".safetensors": _safetensors,
    **dict.fromkeys((".json", ".jsonl"), _json),
    **dict.fromkeys((".yaml", ".yml"), _yaml),
    ".html": _html,
    **dict.fromkeys((".txt", ".md", ".stderr"), _text),
    ".png": _picture,
}
"""By the ending of a file's name; others must be equal byte for byte."""
