"""Back up and restore an embedded registry: the SQLite database and its artifacts.

A backup is one folder: the database, the artifacts, and backup.json with the sha256 of every file,
written last. Other databases have their own tools, which `backup` names.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rootstock.errors import ArtifactError, TrackingError
from rootstock.integrations.mlflow.client import is_http
from rootstock.integrations.mlflow.database import sqlite_file
from rootstock.integrations.mlflow.places import ARTIFACTS, bring_home, local_path, move_addresses
from rootstock.system.files import explain_format, read_json, sha256_file, write_json

FORMAT_VERSION = 1
DATABASE, INDEX = "mlflow.db", "backup.json"


def backup(uri: str, target: Path) -> dict[str, int]:
    """Copy the registry at ``uri`` to the new folder ``target``; return counts of its content.

    Training and serving may continue: the copy of the database is consistent, and the
    files of a version exist before the version does.
    Raises:
        TrackingError: the database is not SQLite; the message names the commands to use instead.
        ArtifactError: the target exists already, is inside the artifacts, or cannot be written;
          or the registry is empty.
    """
    database = _embedded(uri, doing="back up")
    root = database.parent / ARTIFACTS
    home = root.resolve().as_uri()
    if target.resolve().is_relative_to(root.resolve()):
        raise ArtifactError(
            f"{target} is inside the folder to copy", hint="name a folder outside of it"
        )
    if os.path.lexists(target) and (not target.is_dir() or any(target.iterdir())):
        raise ArtifactError(f"{target} exists already", hint="name a new folder for each backup")
    with _whole_folder(target) as fresh:
        _copy_database(database, fresh / DATABASE)
        counts = _count(fresh / DATABASE)
        if not any(counts.values()):
            raise ArtifactError(
                f"the registry at {database} is empty", hint="run this in the project's folder"
            )
        bring_home(fresh / DATABASE, root.resolve())
        outside = _places_outside(fresh / DATABASE, home)
        if root.is_dir():
            shutil.copytree(root, fresh / ARTIFACTS)
        else:
            (fresh / ARTIFACTS).mkdir()
        bare = _versions_without_files(fresh, home)
        files = {
            path.relative_to(fresh).as_posix(): sha256_file(path)
            for path in sorted(fresh.rglob("*"))
            if path.is_file()
        }
        index = {
            "format_version": FORMAT_VERSION,
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "artifacts_were_at": home,
            "not_included": outside,
            "without_files": bare,
            "files": files,
        }
        write_json(fresh / INDEX, index)
    return {
        "files": len(files),
        "not_included": len(outside),
        "without_files": len(bare),
        **counts,
    }


def restore(source: Path, uri: str) -> dict[str, int]:
    """Restore the backup ``source`` to ``uri``, an SQLite file that does not exist yet.

    Raises:
        ArtifactError: the backup is incomplete or damaged, or there is already a registry.
        TrackingError: ``uri`` does not name an SQLite file.
    """
    database = _embedded(uri, doing="restore")
    root = database.parent / ARTIFACTS
    for path in (database, root):
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise ArtifactError(
                f"{path} exists already, and a restore never overwrites files",
                hint="restore into an empty project, or move the existing files away",
            )
    index = verify(source)
    database.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".restore-", dir=database.parent))
    try:
        shutil.copytree(source / ARTIFACTS, fresh / ARTIFACTS)
        shutil.copy2(source / DATABASE, fresh / DATABASE)
        before = local_path(str(index["artifacts_were_at"]))
        if before is not None:
            with closing(sqlite3.connect(fresh / DATABASE)) as connection, connection:
                move_addresses(connection, before, root.resolve())
        if root.is_dir():
            root.rmdir()
        (fresh / ARTIFACTS).rename(root)
        # Last: without the database there is no registry, and the restore can be repeated.
        (fresh / DATABASE).rename(database)
    except OSError as error:
        raise ArtifactError(f"{database.parent} cannot be written: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return {"files": len(index["files"]), **_count(database)}


def verify(source: Path) -> dict[str, dict[str, str]]:
    """Return the index of a backup after comparing every checksum.

    Raises:
        ArtifactError: a file is missing, damaged or unlisted.
    """
    if not (source / INDEX).is_file():
        raise ArtifactError(
            f"{source} is not a complete backup: it has no {INDEX}",
            hint="name the folder of the backup itself",
        )
    try:
        index = read_json(source / INDEX, made_by="rootstock backup")
    except ArtifactError as error:
        raise ArtifactError(error.message, hint="use another backup") from error
    problem = explain_format(
        index.get("format_version"),
        FORMAT_VERSION,
        path=source / INDEX,
        again="use the version of Rootstock that made it",
    )
    if problem:
        raise ArtifactError(problem[0], hint=problem[1])
    files = index.get("files")
    if not isinstance(files, dict) or "artifacts_were_at" not in index:
        raise ArtifactError(
            f"{source / INDEX} is damaged: it lists no files", hint="use another backup"
        )
    if links := sorted(path for path in source.rglob("*") if path.is_symlink()):
        raise ArtifactError(
            f"{links[0]} is a link, but a backup has no links", hint="use another backup"
        )
    present = {p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()}
    missing, more = sorted(set(files) - present), sorted(present - set(files) - {INDEX})
    damaged = [
        name for name in files if name in present and sha256_file(source / name) != files[name]
    ]
    for names, what in (
        (missing, "missing"),
        (damaged, "damaged"),
        (more, "not part of the backup"),
    ):
        if names:
            raise ArtifactError(
                f"{source}: {len(names)} files are {what}, the first is {names[0]}",
                hint="use another backup; nothing was restored",
            )
    return index


def _embedded(uri: str, *, doing: str) -> Path:
    database = sqlite_file(uri)
    if database is None:
        raise TrackingError(
            f"cannot {doing} this registry: its database is not an SQLite file; nothing was done",
            hint=_other_ways(uri, doing),
        )
    if doing == "back up" and not database.is_file():
        raise TrackingError(f"there is no registry at {database} to back up")
    return database


def _other_ways(uri: str, doing: str) -> str:
    if is_http(uri):
        where = "on the server's machine, with its --backend-store-uri as DATABASE"
        address = "DATABASE"
    else:
        parts = urlsplit(uri)
        where = "with the password in PGPASSWORD or ~/.pgpass"
        user = f"{parts.username}@" if parts.username else ""
        port = f":{parts.port}" if parts.port else ""
        address = f"postgresql://{user}{parts.hostname or ''}{port}{parts.path}"
    commands = (
        [
            f"pg_dump --format=custom --file=mlflow.dump {address}",
            "then copy the artifacts (--artifacts-destination): cp -a FOLDER ... or aws s3 sync",
        ]
        if doing == "back up"
        else [
            "copy the artifacts to where they were (--artifacts-destination)",
            f"pg_restore --clean --if-exists --dbname={address} mlflow.dump",
        ]
    )
    return f"{where}:\n     " + "\n     ".join(commands) + "\n     see docs/explanation/registry.md"


@contextmanager
def _whole_folder(target: Path) -> Iterator[Path]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".backup-", dir=target.parent))
    except OSError as error:
        raise ArtifactError(f"{target} cannot be written: {error}") from error
    try:
        yield fresh
        os.chmod(fresh, 0o700)
        if target.is_dir():
            target.rmdir()
        fresh.rename(target)
    except (OSError, sqlite3.Error) as error:
        raise ArtifactError(
            f"{target} cannot be written: {error}",
            hint="the incomplete copy was removed; free some disk space",
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _copy_database(database: Path, target: Path) -> None:
    try:
        with (
            closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            # Copying a locked database would wait forever; this query waits five seconds.
            old.execute("SELECT count(*) FROM sqlite_master").fetchone()
            # SQLite's own copy is consistent while other processes write.
            old.backup(new)
            sound = new.execute("PRAGMA quick_check").fetchone()[0]
    except sqlite3.OperationalError as error:
        raise ArtifactError(
            f"{database} cannot be copied: {error}", hint="if it is in use, try again"
        ) from error
    except sqlite3.DatabaseError as error:
        sound = str(error)
    if sound != "ok":
        raise ArtifactError(
            f"{database} is damaged ({sound}); nothing was backed up",
            hint="restore an earlier backup into an empty project",
        )


def _places_outside(database: Path, home: str) -> list[str]:
    """Return addresses of artifacts outside of ``home``, for experiments that have runs."""
    query = (
        "SELECT DISTINCT e.artifact_location FROM experiments e JOIN runs r "
        "ON r.experiment_id = e.experiment_id"
    )
    with closing(sqlite3.connect(database)) as connection:
        places = [str(row[0]) for row in connection.execute(query)]
    return sorted(place for place in places if _below(home, f"{place}/") is None)


def _versions_without_files(fresh: Path, home: str) -> list[str]:
    """Return registered versions, as NAME VERSION, whose files are missing in the artifacts.

    ``fresh`` is the copy of the database; its addresses still begin with ``home``.
    """
    query = (
        "SELECT v.name, v.version, v.source, r.artifact_uri FROM model_versions v "
        "JOIN runs r ON r.run_uuid = v.run_id WHERE v.source LIKE 'runs:/%' "
        "AND v.current_stage IS NOT 'Deleted_Internal' ORDER BY v.name, v.version"
    )
    with closing(sqlite3.connect(fresh / DATABASE)) as connection:
        versions = connection.execute(query).fetchall()
    bare = []
    for name, version, source, artifacts in versions:
        folder = str(source).split("/", 2)[2]  # of runs:/RUN/FOLDER
        place = f"{artifacts}/{folder}"
        below = _below(home, place)
        if below is not None and not any((fresh / ARTIFACTS / below).glob("*")):
            bare.append(f"{name} {version}")
    return bare


def _below(home: str, place: str) -> str | None:
    """Return the part of a place after ``home``, for URIs or a path; None if it is elsewhere."""
    for folder, read in ((home, unquote), (str(local_path(home)), str)):
        if place.startswith(f"{folder}/"):
            return read(place.removeprefix(f"{folder}/"))
    return None


def _count(database: Path) -> dict[str, int]:
    with closing(sqlite3.connect(database)) as connection:
        return {
            name: int(connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0])
            for name in ("runs", "model_versions")
        }
