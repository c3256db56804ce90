"""croissant.json: a finished dataset in the words of Croissant 1.0, which its tools read, written by mlcroissant."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from gaussianverse.atlas.canonical_json import to_json_file
from gaussianverse.atlas.dataset_format import ATLAS, CARD, MAIN_SUFFIX, METADATA
from gaussianverse.atlas.reader.catalogue import Catalogue
from gaussianverse.atlas.store.storage import Storage, sha256_of
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.parquet import read_table
from gaussianverse.pipeline.store.publish import publish_exact

_TAR, _PARQUET, _TEXT, _NPY = "application/x-tar", "application/x-parquet", "text/plain", "application/x-npy"
_MAX_LICENCES = 50


def is_installed() -> bool:
    """Whether mlcroissant can be imported."""
    try:
        import mlcroissant  # noqa: F401
    except ImportError:
        return False
    return True


def write_croissant(storage: Storage) -> None:
    """Write croissant.json beside version 1 of a dataset; the same dataset gives the same bytes.

    Raises:
        DatasetError: the dataset is not finished, or damaged.
        ShardConflict: there is another one.
    """
    publish_exact(storage, layout.CROISSANT, croissant_of(storage))


def croissant_of(storage: Storage) -> bytes:
    """The content of croissant.json.

    It has the table and the shards of the atlases with their sha256; and as records the rows of the table, but for
    its lists, the captions, and the names of the arrays in the tars.
    """
    import mlcroissant as mlc

    catalogue, data = Catalogue(storage, 1), storage.get(METADATA)
    table = read_table(data)
    files = [
        _file(METADATA, _PARQUET, len(data), sha256_of(data)),
        *(_file(s[ATLAS]["key"], _TAR, s[ATLAS]["nbytes"], s[ATLAS]["sha256"]) for s in catalogue.index["shards"]),
    ]
    tars = [file.id for file in files[1:]]
    sets = [
        mlc.FileSet(id=name, name=name, contained_in=tars, includes=[pattern], encoding_formats=[encoding])
        for name, pattern, encoding in (
            ("caption-files", "*.txt", _TEXT),
            ("atlas-files", f"*.{MAIN_SUFFIX[ATLAS]}", _NPY),
        )
    ]
    kinds = {
        pa.string(): mlc.DataType.TEXT,
        pa.int64(): mlc.DataType.INTEGER,
        pa.float64(): mlc.DataType.FLOAT,
        pa.bool_(): mlc.DataType.BOOL,
    }
    rows = [
        mlc.Field(
            id=f"objects/{column.name}", name=column.name, data_types=[kinds[column.type]],
            source=mlc.Source(file_object=METADATA, extract=mlc.Extract(column=column.name)),
        )
        for column in table.schema if column.type in kinds
    ]  # fmt: skip
    metadata = mlc.Metadata(
        name="gaussian-atlases",
        description=f"3D Gaussians of {len(catalogue)} objects as atlases; {CARD} describes them.",
        license=sorted(filter(None, set(table["license"].to_pylist())))[:_MAX_LICENCES] or None,
        version="1.0.0",
        distribution=[*files, *sets],
        record_sets=[
            mlc.RecordSet(id="objects", name="objects", key="objects/uid", fields=rows),
            _members("captions", "caption", "caption-files", "content", r"^(.+)\.txt$"),
            _members("atlases", "path", "atlas-files", "fullpath", rf"^(.+)\.{MAIN_SUFFIX[ATLAS]}$"),
        ],
    )
    return to_json_file(metadata.to_json())


def _file(key: str, encoding: str, nbytes: int, sha256: str) -> Any:
    import mlcroissant as mlc

    return mlc.FileObject(
        id=key, name=key, content_url=key, content_size=f"{nbytes} B", encoding_formats=[encoding], sha256=sha256
    )


def _members(name: str, field: str, files: str, what: str, uid: str) -> Any:
    """Records of one kind of members: the uid, by a regular expression from the member's name, and a value."""
    import mlcroissant as mlc

    def source(of: str, *transforms: Any) -> Any:
        return mlc.Source(file_set=files, extract=mlc.Extract(file_property=of), transforms=list(transforms))

    text = [mlc.DataType.TEXT]
    fields = [
        mlc.Field(id=f"{name}/uid", name="uid", data_types=text, source=source("filename", mlc.Transform(regex=uid))),
        mlc.Field(id=f"{name}/{field}", name=field, data_types=text, source=source(what)),
    ]
    return mlc.RecordSet(id=name, name=name, fields=fields)
