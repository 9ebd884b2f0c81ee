"""Links of HDF5 files: within the file, and to files around it, see `recon.formats.detect.around`.

A link can name any file of the machine. Those of an upload that is one file lead nowhere: beside it lie the uploads of
others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from operators.errors import InputError
from recon.formats import hdf5
from recon.formats.hdf5_chunks import check_chunks
from recon.spec.validation import reason
from recon.storage.patterns import lies_in

if TYPE_CHECKING:
    import h5py

_MOST_LINKS = 32
"""Links on the way to one dataset; more lead in a circle."""


@contextmanager
def opened(path: Path, *, folder: Path | None) -> Iterator[LinkedFile]:
    """Open an HDF5 file and those in `folder` that it links to; what cannot be opened or read is an `InputError`."""
    with hdf5.opened(path) as file, ExitStack() as stack:
        yield LinkedFile(file, folder, stack)


class LinkedFile:
    """HDF5 file whose links are followed, as far as they stay in the folder.

    Parameters
    ----------
    file
        Where names begin.
    folder
        Folder that links must not leave; None where they must not leave the file.
    stack
        Closes the files that links lead to.
    """

    def __init__(self, file: h5py.File, folder: Path | None, stack: ExitStack) -> None:
        self.file, self._folder, self._stack = file, folder, stack

    def dataset(self, name: str) -> h5py.Dataset:
        """Find a dataset of numbers, without reading it."""
        import h5py

        node = self.find(name)
        if not isinstance(node, h5py.Dataset) or node.external:
            raise InputError(f"{name!r} is not a dataset stored in an HDF5 file", field="input")
        if node.dtype.kind not in "biufc":
            raise InputError(f"{name!r} holds {node.dtype}, expected numbers", field="input")
        check_chunks(node)
        if node.is_virtual:
            for source in {(s.file_name, s.dset_name) for s in node.virtual_sources()}:
                self._check_source(node, name, *source)
        return node

    def find(self, name: str) -> h5py.Group | h5py.Dataset:
        """Find what lies under a name, however many links lead there."""
        import h5py

        node: h5py.Group | h5py.Dataset = self.file
        parts, followed = _parts(name), 0
        while parts:
            part = parts.pop(0)
            link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
            if link is None:
                raise InputError(f"there is no {name!r} in the file", field="input", remedy="give input.dataset")
            if isinstance(link, h5py.HardLink):
                node = node[part]
                continue
            followed += 1
            if followed > _MOST_LINKS:
                raise InputError(f"the links to {name!r} lead in a circle", field="input")
            parts = [*_parts(link.path), *parts]
            if isinstance(link, h5py.ExternalLink):
                node = self._opened(self._beside(node.file, link.filename, name), name)
            elif link.path.startswith("/"):
                node = node.file["/"]
        return node

    def _check_source(self, node: h5py.Dataset, name: str, file_name: str, source: str) -> None:
        """Refuse a virtual dataset with missing sources: HDF5 would show their values as zeros."""
        if file_name == ".":
            hdf5.located(node.file, source)
            return
        with hdf5.opened(self._beside(node.file, file_name, name)) as file:  # there can be one for each frame
            hdf5.located(file, source)

    def _beside(self, file: h5py.File, filename: str, name: str) -> Path:
        """The file that a link of `file` leads to."""
        if self._folder is None:
            raise InputError(
                f"{name!r} lies in another file, {filename!r}, and the upload is one file",
                field="input",
                remedy="upload the folder with both (input.path a folder), and name this one in input.file",
            )
        place = (Path(file.filename).parent / filename).resolve()
        if not lies_in(place, self._folder):
            raise InputError(
                f"{name!r} lies in {filename!r}, outside of the folder of the file",
                field="input",
                remedy="put it beside the file, and make the link relative",
            )
        if not place.is_file():
            raise InputError(
                f"{name!r} lies in {filename!r}, and there is no such file",
                field="input",
                remedy="copy it together with the file that links to it",
            )
        return place

    def _opened(self, place: Path, name: str) -> h5py.File:
        import h5py

        try:
            return self._stack.enter_context(h5py.File(place, "r"))
        except OSError as error:
            raise InputError(
                f"{name!r}: {place.name!r} is not a readable HDF5 file: {reason(error)}",
                field="input",
                remedy="copy it again",
            ) from error


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]
