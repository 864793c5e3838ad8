"""Stage `images`: information that the stage `index` needs and DVC does not provide.

DVC depends on `data.root`. A folder contains the images, but a table only names them: a hash of
the images shows when one has changed. And DVC deletes the manifest before it runs `index`, which
takes the splits of old images from it, so the manifest is copied.
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import suppress

from rootstock.config.paths import Paths
from rootstock.config.schema import Config, DataConfig
from rootstock.data.columns import ColumnRoles
from rootstock.data.inspection_cache import InspectionCache
from rootstock.data.label_corrections import locate_corrections
from rootstock.data.layout import find_images
from rootstock.data.limits import DecodeLimits
from rootstock.data.read import read_file
from rootstock.data.target_rules import PlainReader
from rootstock.errors import ImageError, RootstockError
from rootstock.system.files import sha256_file, write_atomic, write_json
from rootstock.tasks.recognise import find_task


def write_listed(config: Config, paths: Paths) -> None:
    """Write artifacts/images.json: a hash of all files that the table `data.root` lists.

    These are the images, and files that their targets name, such as masks. For a folder the hash is
    empty. An image that looks as it did for the index is not read again. An existing manifest is
    copied to ``paths.last_manifest``.
    """
    root = paths.below(config.data.root)
    digest = digest_listed(config, paths) if root.is_file() else None
    if paths.manifest.exists():
        with write_atomic(paths.last_manifest) as temporary:
            shutil.copyfile(paths.manifest, temporary)
    write_json(paths.listed, {"format_version": 1, "sha256": digest})


def digest_listed(config: Config, paths: Paths) -> str:
    """Return the SHA-256 of the listed files, their paths and corrections; 64 hex digits."""
    limits = read_limits(config)
    # The labels do not matter: DVC depends on the table itself.
    layout = find_images(
        paths.below(config.data.root),
        target=PlainReader(columns=("path",)),
        roles=read_roles(config.data),
    )
    names = [entry.path for entry in layout.entries]
    known = InspectionCache(paths.seen, layout.base, limits).recall(names)
    digest = hashlib.sha256()
    for number, name in enumerate(names):
        content = known[number].sha256 if number in known else ""
        if not content:
            try:
                image = read_file(f"{layout.base}/{name}", limits).content
                content = hashlib.sha256(image).hexdigest()
            except ImageError as error:
                content = error.reason
        digest.update(f"{name}\0{content}\n".encode("utf-8", "surrogateescape"))
    corrections = locate_corrections(layout.root)
    if corrections.is_file():
        digest.update(corrections.read_bytes())
    for name in _list_linked(config, paths):
        path = layout.base / name
        content = sha256_file(path) if path.is_file() else "missing"
        digest.update(f"{name}\0{content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _list_linked(config: Config, paths: Paths) -> list[str]:
    """Return the files that targets name; the index reports problems of the table."""
    root, roles = paths.below(config.data.root), read_roles(config.data)
    with suppress(RootstockError):
        task = find_task(config.task.name, root, roles).task
        entries = find_images(root, target=task, roles=roles).entries
        return task.linked_files([entry.target for entry in entries])
    return []


def read_roles(data: DataConfig) -> ColumnRoles:
    """Return the settings about a table's columns."""
    aside = [name for name in (data.group, data.time) if name is not None]
    return ColumnRoles(data.columns, aside, [data.time] if data.time else [])


def read_limits(config: Config) -> DecodeLimits:
    """Return the limits on images in the settings."""
    data = config.data
    return DecodeLimits(
        data.max_bytes, data.max_pixels, data.max_aspect_ratio, truncated=data.truncated
    )
