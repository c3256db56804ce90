"""Versions of a dataset: those that are there, and the sums of one."""

from __future__ import annotations

from itertools import count, takewhile

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import SUCCESS, SUMS, VERSION, VERSIONS, version_key
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.store.errors import NotFound, StoreRefused
from gaussianverse.atlas.store.storage import Storage, sha256_of


def later_versions(store: Storage) -> list[int]:
    """The versions after the first that are finished, in ascending order.

    A store that may not be listed, or has no lists, is asked for each version: the plan of none is ever deleted
    before those of the versions after it.
    """
    try:
        keys = [entry.key for entry in store.list(VERSIONS)]
    except (StoreRefused, NotFound):
        begun = takewhile(lambda number: _there(store, version_key(number, VERSION)), count(2))
        keys = [key for number in begun if _there(store, key := version_key(number, SUCCESS))]
    return dataset_format.finished_versions(keys, root_has_success=False)


def verified_sums(store: Storage, version: int | None = None) -> tuple[int, dict[str, str]]:
    """The number of a version and {key: sha256} of its SHA256SUMS, verified by its `_SUCCESS`.

    Args:
        store: of the dataset.
        version: number of the version; None = the newest.

    Raises:
        DatasetError: the dataset is not finished, or has no such version.
        StoreError: the store failed or refuses.
    """
    if version is not None and (type(version) is not int or not 1 <= version <= dataset_format.MAX_VERSION):
        raise DatasetError(f"version {version!r}: expected 1 to {dataset_format.MAX_VERSION}, or None for the newest")
    number = max(later_versions(store), default=1) if version is None else version
    success, sums = (version_key(number, name) for name in (SUCCESS, SUMS))
    try:
        vouched = store.get(success)
    except NotFound as error:
        if there := _finished(store) if version is not None else []:
            raise DatasetError(
                f"{store.url}: no version {version}; there are {', '.join(map(str, there))}"
            ) from error
        raise DatasetError(f"{error}; not a finished dataset, or not its root") from error
    try:
        data = store.get(sums)
    except NotFound as error:
        raise DatasetError(f"{error}; fetch it again") from error
    if vouched != dataset_format.sums_file({sums: sha256_of(data)}):
        raise DatasetError(f"{store.url}/{sums} does not match {success}; fetch both again")
    return number, dataset_format.read_sums(data)


def _finished(store: Storage) -> list[int]:
    return [*([1] if _there(store, SUCCESS) else []), *later_versions(store)]


def _there(store: Storage, key: str) -> bool:
    """Whether there is such a key. S3 refuses to tell (403) where keys may not be listed."""
    try:
        store.get(key)
    except (NotFound, StoreRefused):
        return False
    return True
