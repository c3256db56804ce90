"""Rows from GObjaverse's index, category and caption files.

gobjaverse_280k.json                        ["148/753974", ..]; also one file per category
gobjaverse_280k_index_to_objaverse.json     {"148/753974": "000-012/<objaverse uid>.glb", ..}
category_annotation.json                    [{"object_index": "<objaverse uid>.glb", "label": ..}, ..]
text_captions_cap3d.json                    {"148/753974": caption, ..}
Cap3D_automated_Objaverse_full.csv          <objaverse uid>,caption  without a header
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from gaussianverse import foreign
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.files import parse_json, read_bytes
from gaussianverse.manifests.schema import CATEGORIES, DEFAULT_CATEGORIES, Row, is_address

_INDEX = re.compile(r"[0-9]+/[0-9]+")


@dataclass(frozen=True)
class Built:
    """Rows, and the number of objects left out, by reason."""

    rows: list[Row]
    left_out: Mapping[str, int]


def read_captions(path: Path) -> dict[str, str]:
    """Read captions by key, from JSON {key: caption} or from a CSV of key,caption without a header.

    Raises:
        ManifestError: the file cannot be read or has another form, or a key is empty or has two captions.
    """
    if path.suffix.lower() != ".csv":
        captions = _mapping(path, "captions")
        if "" in captions:
            raise ManifestError(f"{path}: a caption without a key")
        return captions
    captions, faults = {}, []
    try:
        with foreign.opened(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            for row in reader:
                fault = _caption_fault(row, captions)
                if fault:
                    faults.append(f"{path}:{reader.line_num}: {fault}")
                elif row:
                    captions[row[0]] = row[1]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path}: cannot be read as CSV: {error}") from error
    if faults:
        raise ManifestError(faults)
    return captions


def _caption_fault(row: list[str], known: Mapping[str, str]) -> str:
    """The fault of a row of a captions CSV; "" if it has none."""
    if row and len(row) != 2:
        return f"expected uid,caption, got {len(row)} columns; quote captions with commas"
    if row and not row[0].strip():
        return "a caption without a key"
    if row and known.get(row[0], row[1]) != row[1]:
        return f"another caption of {row[0]!r}; remove one"
    return ""


def build(
    index_files: Sequence[Path],
    views: str,
    *,
    objaverse_map: Path | None = None,
    category_file: Path | None = None,
    caption_files: Sequence[Path] = (),
    categories: Collection[str] | None = DEFAULT_CATEGORIES,
    license: str = "",
    license_file: Path | None = None,
    drop_uncaptioned: bool = False,
) -> Built:
    """Rows for GObjaverse objects, sorted by index.

    Args:
        index_files: lists of indices. A file named gobjaverse_280k_<Category>.json gives its category too.
        views: location of an object's renders, with {index}, {dict} and {inst} in it, such as
            "/data/gobjaverse/{index}" or "s3://bucket/gobjaverse/{dict}/{inst}.tar".
        objaverse_map: from index to Objaverse uid, the key of the category file and of CSV captions.
        category_file: category_annotation.json.
        caption_files: JSON by index or by Objaverse uid, or CSV by Objaverse uid; the first that has a
            caption wins.
        categories: categories to take, by default all but Poor-quality; None takes all objects, also those
            without a category.
        license: licence of all rows, or of those not in `license_file`.
        license_file: JSON, licences by index or by Objaverse uid.
        drop_uncaptioned: leave out objects without a caption.

    Returns:
        Rows with uid "<dict>_<inst>", source_id "objaverse/<uid>" (without an entry in the map,
        "gobjaverse/<index>") and caption_source "Cap3D".

    Raises:
        ManifestError: a file cannot be read or has another form, categories are wanted but unknown, or no
            object is left.
    """
    unknown = sorted(set(categories or ()) - set(CATEGORIES))
    if unknown:
        raise ManifestError(f"unknown categories {', '.join(unknown)}; they are {', '.join(CATEGORIES)}")
    faults = [f"views {views!r}: unknown {{{name}}}" for name in _unknown_names(views)]
    if not any(name in views for name in ("{index}", "{inst}")):
        faults.append(f"views {views!r}: needs {{index}} or {{inst}}; without it all objects have the same renders")
    if not is_address(views):
        faults.append(f"views {views!r}: only paths and s3://bucket/key can be read")
    if faults:
        raise ManifestError(faults)

    category_of_index = _read_indices(index_files)
    objaverse_of_index = _mapping(objaverse_map, "Objaverse files") if objaverse_map else {}
    label_of_objaverse = _read_labels(category_file) if category_file else {}
    captions = [read_captions(file) for file in caption_files]
    licenses = _mapping(license_file, "licences") if license_file else {}
    if categories is not None and not label_of_objaverse and not any(category_of_index.values()):
        raise ManifestError(
            "categories are not known: pass category_annotation.json with the map to Objaverse, or index "
            "files by category, or ask for all categories"
        )
    if label_of_objaverse and not objaverse_of_index:
        raise ManifestError(
            f"{category_file}: keyed by Objaverse uid; pass gobjaverse_280k_index_to_objaverse.json as well"
        )

    rows: list[Row] = []
    left_out: Counter[str] = Counter()
    for index in sorted(category_of_index, key=lambda index: tuple(map(int, index.split("/")))):
        objaverse = PurePosixPath(objaverse_of_index[index]).stem if index in objaverse_of_index else ""
        category = category_of_index[index] or label_of_objaverse.get(objaverse, "")
        if categories is not None and category not in categories:
            left_out[f"category {category}" if category else "no category"] += 1
            continue
        caption = next((c for known in captions if (c := known.get(index) or known.get(objaverse, ""))), "")
        if drop_uncaptioned and not caption:
            left_out["no caption"] += 1
            continue
        dictionary, instance = index.split("/")
        rows.append(
            Row(
                uid=f"{dictionary}_{instance}",
                views=_fill(views, {"index": index, "dict": dictionary, "inst": instance}),
                format="gobjaverse",
                category=category,
                license=licenses.get(index) or licenses.get(objaverse) or license,
                caption=caption,
                caption_source="Cap3D" if caption else "",
                source_id=f"objaverse/{objaverse}" if objaverse else f"gobjaverse/{index}",
            )
        )
    if not rows:
        raise ManifestError(f"no object is left; left out: {dict(left_out)}")
    return Built(rows, dict(left_out))


def _fill(template: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], template)


def _unknown_names(template: str) -> list[str]:
    return sorted(set(re.findall(r"\{(\w*)\}", template)) - {"index", "dict", "inst"})


def _read_indices(paths: Sequence[Path]) -> dict[str, str]:
    """{index: category from the file's name, or ""} over all index files."""
    found: dict[str, str] = {}
    for path in paths:
        suffix = path.stem.removeprefix("gobjaverse_280k_")
        category = suffix if suffix in CATEGORIES else ""
        indices = _load(path)
        if not isinstance(indices, list):
            raise ManifestError(f'{path}: expected a list of "<dict>/<inst>"')
        for index in indices:
            if not isinstance(index, str) or not _INDEX.fullmatch(index):
                raise ManifestError(f'{path}: {index!r} is not an index "<dict>/<inst>"')
            found[index] = found.get(index) or category
    if not found:
        raise ManifestError("the index is empty; pass gobjaverse_280k.json or the file of a category")
    return found


def _read_labels(path: Path) -> dict[str, str]:
    annotations = _load(path)
    if not isinstance(annotations, list):
        raise ManifestError(f"{path}: expected a list of objects with object_index and label")
    labels: dict[str, str] = {}
    for number, entry in enumerate(annotations):
        try:
            name, label = entry["object_index"], entry["label"]
        except (TypeError, KeyError) as error:
            raise ManifestError(f"{path}: entry {number} has no object_index and label: {entry!r}") from error
        if not isinstance(name, str):
            raise ManifestError(f"{path}: entry {number}: object_index is {name!r}, expected a file name")
        if label not in CATEGORIES:
            raise ManifestError(f"{path}: entry {number}: unknown label {label!r}")
        labels[PurePosixPath(name).stem] = label
    return labels


def _mapping(path: Path, what: str) -> dict[str, str]:
    value = _load(path)
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ManifestError(f"{path}: expected a JSON object of {what}, with text values")
    return value


def _load(path: Path) -> Any:
    text = read_bytes(path)
    try:
        return parse_json(text)
    except ManifestError as error:
        raise ManifestError(f"{path}: {error}") from error
