"""`Selection`: which files of an object the loader reads, for those who fetch them from far away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gaussianverse.fitter.sources import gobjaverse
from gaussianverse.fitter.sources.transforms import SPLITS, TEST, TRAIN, WHOLE, images_among, images_named


@dataclass(frozen=True)
class Selection:
    """What `load_views` reads of a folder; the arguments are those of `load_views`.

    Names of files are '/'-separated and relative to the object's folder.
    """

    format: str
    with_depth: bool = False
    compared_views: int = 0
    with_test: bool = False

    def among(self, names: Sequence[str], read: Callable[[str], bytes]) -> list[str]:
        """Those of all files of a folder that are read, in the same order.

        What is wrong with an object, also that files are missing, shows with these files alone.

        Args:
            names: all files.
            read: returns the bytes of one of them.
        """
        there = set(names)
        cameras = [name for name in (WHOLE, *SPLITS) if name in there]
        if self.format == "transforms" or (self.format == "auto" and cameras):
            fitted = next((name for name in (WHOLE, TRAIN) if name in there), None)
            if fitted is None:
                return cameras
            files = [fitted, TEST] if self.with_test and TEST in there else [fitted]
            wanted = set(files)
            for file in files:
                wanted.update(images_among(there, file, read(file)))
            return [name for name in names if name in wanted]
        return gobjaverse.files_read(names, with_depth=self.with_depth, compared=self.compared_views)

    def known(self, read: Callable[[str], bytes | None]) -> list[str] | None:
        """The files that are read, where they are known without all names; None where they are not.

        One of them may be missing; which others would take its place, only all names can tell.

        Args:
            read: returns the bytes of a file, None if there is none of the name.
        """
        if self.format != "transforms" or self.with_test:
            return None
        data = read(WHOLE)
        images = None if data is None else images_named(WHOLE, data)
        return None if images is None else [WHOLE, *images]
