"""`DIR/analysis.sqlite`: what a search has found and worked out so far, written as it comes, and the finished analysis.

A process that is killed loses the block it was at work on. One process writes at a time; others may read meanwhile.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from landscape.errors import UsageError
from landscape.search.stationary import StationaryPoints
from landscape.tasks import Answer

DATABASE = "analysis.sqlite"
STAGING = ".landscape-"  # names of folders in which files wait until all of them are whole
APPLICATION = 0x4C4E4453  # "LNDS", in the file's header
SCHEMA = 1
TABLES = """
CREATE TABLE searches (number INTEGER PRIMARY KEY, record TEXT NOT NULL, finished TEXT);
CREATE TABLE blocks (key BLOB PRIMARY KEY, search INTEGER NOT NULL, operation TEXT NOT NULL, seconds REAL NOT NULL,
    evaluations TEXT NOT NULL);
CREATE TABLE arrays (owner BLOB NOT NULL, name TEXT NOT NULL, npy BLOB NOT NULL, PRIMARY KEY (owner, name));
CREATE TABLE points (search INTEGER NOT NULL, number INTEGER NOT NULL, energy REAL NOT NULL,
    morse_index INTEGER NOT NULL, degenerate INTEGER NOT NULL, hits INTEGER NOT NULL, x BLOB NOT NULL,
    PRIMARY KEY (search, number));
CREATE TABLE result (only_one INTEGER PRIMARY KEY CHECK (only_one = 1), search INTEGER, record TEXT NOT NULL);
"""
RESULT = b"result"  # owner of the arrays of the finished analysis


@dataclass(frozen=True)
class Search:
    """One search of a store. record : command, versions, date, seed, energy, dynamics, config, and what else belongs to
    its beginning. finished : when, None where it is not. blocks, seconds : worked out so far, and their cost."""

    number: int
    record: Mapping[str, Any]
    finished: str | None
    blocks: int
    seconds: float


@dataclass(frozen=True, eq=False)
class KnownPoints:
    """Stationary points that a search has noted: x (n, d), energy, index, degenerate and hits (n,)."""

    x: np.ndarray
    energy: np.ndarray
    index: np.ndarray
    degenerate: np.ndarray
    hits: np.ndarray


class StoreError(UsageError):
    """The file cannot be read or written, is damaged, or is in use."""


class Reader:
    """A store, open for reading. A context manager; every failure of sqlite is a StoreError that says what to do."""

    def __init__(self, file: Path, connection: sqlite3.Connection) -> None:
        self.file = file
        self._connection = connection

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    @staticmethod
    def open(folder: Path) -> Reader:
        """UsageError where there is none, or it is damaged."""
        file = folder / DATABASE
        if not file.is_file():
            raise UsageError(f"there is no {DATABASE} in {folder}: name a folder that `analyze` wrote")
        with _told(file):
            connection = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=10)
            try:
                _check_schema(file, connection)
            except BaseException:
                connection.close()
                raise
        return Reader(file, connection)

    def searches(self) -> list[Search]:
        """All of them, oldest first."""
        query = (
            "SELECT number, record, finished, count(key), coalesce(sum(seconds), 0) FROM searches LEFT JOIN blocks "
            "ON blocks.search = number GROUP BY number ORDER BY number"
        )
        with _told(self.file):
            rows = self._connection.execute(query).fetchall()
            return [Search(row[0], json.loads(row[1]), *row[2:]) for row in rows]

    def points(self, search: int) -> KnownPoints:
        """The stationary points that a search has noted, in the order in which it found them."""
        query = "SELECT x, energy, morse_index, degenerate, hits FROM points WHERE search = ? ORDER BY number"
        with _told(self.file):
            rows = self._connection.execute(query, (search,)).fetchall()
            x = np.stack([_array(row[0]) for row in rows]) if rows else np.zeros((0, 0))
        columns = list(zip(*(row[1:] for row in rows), strict=True)) or [()] * 4
        energy, index, degenerate, hits = columns
        return KnownPoints(
            x, np.array(energy, float), np.array(index, int), np.array(degenerate, bool), np.array(hits, int)
        )

    def begun_with(self, search: Search) -> dict[str, np.ndarray]:
        """The arrays that were given to a search's beginning."""
        return self._arrays(_owner(search.number))

    def _arrays(self, owner: bytes) -> dict[str, np.ndarray]:
        with _told(self.file):
            rows = self._connection.execute("SELECT name, npy FROM arrays WHERE owner = ?", (owner,)).fetchall()
            return {name: _array(data) for name, data in rows}

    def result(self) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """The finished analysis as a record and arrays, None where there is none yet."""
        with _told(self.file):
            row = self._connection.execute("SELECT record FROM result").fetchone()
            return None if row is None else (json.loads(row[0]), self._arrays(RESULT))


class Store(Reader):
    """A store, open for writing, by one process at a time. On leaving it is one file again, safe to copy.

    It is the memory of `TaskEnergy`: `get` and `put` of the answers of blocks.
    """

    def __init__(self, file: Path, connection: sqlite3.Connection, lock: int | None) -> None:
        super().__init__(file, connection)
        self._lock = lock
        self._search = 0
        self._noted = 0

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            empty = False
            with contextlib.suppress(sqlite3.Error, UsageError):  # a full disk has been told; what is committed stays
                empty = not self.searches() and self.result() is None
                # Outside WAL mode, a copy of this one file is whole.
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self._connection.execute("PRAGMA journal_mode = DELETE")
            self._connection.close()
            if empty:
                self.file.unlink(missing_ok=True)
        finally:
            if self._lock is not None:
                os.close(self._lock)

    @staticmethod
    def open(folder: Path, replace: bool = False) -> Store:
        """The store of a folder, made where there is none, or, with `replace`, where it is damaged.

        UsageError where another process is at work in the folder, the file is damaged or cannot be written.
        """
        lock = _locked(folder)
        file = folder / DATABASE
        try:
            with _told(file):
                if not file.exists():
                    _create(file)
                try:
                    connection = _for_writing(file)
                except (sqlite3.DatabaseError, UsageError) as error:
                    if not replace or isinstance(error, sqlite3.OperationalError):
                        raise
                    for part in (file, *(file.with_name(f"{DATABASE}{end}") for end in ("-wal", "-shm"))):
                        part.unlink(missing_ok=True)
                    _create(file)
                    connection = _for_writing(file)
        except BaseException:
            if lock is not None:
                os.close(lock)
            raise
        return Store(file, connection, lock)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _told(self.file):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back already
                    self._connection.execute("ROLLBACK")
                raise

    # -- a search -----------------------------------------------------------------------------------------------------

    def begin(self, record: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> Search:
        """A new search; one that is there unfinished makes way. The finished analysis stays until this one is."""
        with self._transaction() as db:
            self._clear(db, [s.number for s in self.searches() if s.finished is None])
            text = json.dumps(record, allow_nan=False)
            number = db.execute("INSERT INTO searches (record) VALUES (?)", (text,)).lastrowid or 0
            _insert_arrays(db, _owner(number), arrays or {})
        self._search, self._noted = number, 0
        return Search(number, record, None, 0, 0.0)

    def resume(self, search: Search) -> None:
        """Go on with a search that is there."""
        with _told(self.file):
            count = "SELECT count(*) FROM points WHERE search = ?"
            self._search, self._noted = search.number, self._connection.execute(count, (search.number,)).fetchone()[0]

    def note_points(self, points: StationaryPoints, last: bool = False) -> None:
        """Write down those of a catalogue's points, which keep their numbers, that are new; all, with the hits that
        came to them since, at the last."""
        self._noted = 0 if last else self._noted
        if len(points) <= self._noted:
            return
        rows = [
            (
                self._search, k, float(points.energy[k]), int(points.index[k]), int(points.degenerate[k]),
                int(points.hits[k]), _npy(points.x[k]),
            )
            for k in range(self._noted, len(points))
        ]  # fmt: skip
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        self._noted = len(points)

    def discard(self) -> None:
        """Forget the search at work."""
        with self._transaction() as db:
            self._clear(db, [self._search])

    def finish(self, date: str) -> None:
        """The search at work has ended and its analysis is written: its blocks are not needed any more."""
        with self._transaction() as db:
            db.execute("UPDATE searches SET finished = ? WHERE number = ?", (date, self._search))
            db.execute("DELETE FROM arrays WHERE owner IN (SELECT key FROM blocks)")
            db.execute("DELETE FROM blocks")

    def _clear(self, db: sqlite3.Connection, searches: list[int]) -> None:
        for number in searches:
            db.execute("DELETE FROM arrays WHERE owner IN (SELECT key FROM blocks WHERE search = ?)", (number,))
            db.execute("DELETE FROM arrays WHERE owner = ?", (_owner(number),))
            db.execute("DELETE FROM blocks WHERE search = ?", (number,))
            db.execute("DELETE FROM points WHERE search = ?", (number,))
            db.execute("DELETE FROM searches WHERE number = ?", (number,))

    # -- blocks -------------------------------------------------------------------------------------------------------

    def get(self, key: bytes) -> Answer | None:
        with _told(self.file):
            row = self._connection.execute("SELECT evaluations, seconds FROM blocks WHERE key = ?", (key,)).fetchone()
            return None if row is None else Answer(self._arrays(key), json.loads(row[0]), row[1])

    def put(self, key: bytes, name: str, answer: Answer) -> None:
        row = (key, self._search, name, float(answer.seconds), json.dumps(dict(answer.evaluations)))
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO blocks VALUES (?, ?, ?, ?, ?)", row)
            _insert_arrays(db, key, answer.arrays)

    # -- the result ---------------------------------------------------------------------------------------------------

    def write_result(self, record: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Replace the finished analysis, whole or not at all."""
        text = json.dumps(record, allow_nan=False)
        with self._transaction() as db:
            db.execute("DELETE FROM arrays WHERE owner = ?", (RESULT,))
            db.execute("INSERT OR REPLACE INTO result VALUES (1, ?, ?)", (self._search or None, text))
            _insert_arrays(db, RESULT, arrays)


def _owner(search: int) -> bytes:
    return f"search {search}".encode()


def is_store(file: Path) -> bool:
    """Whether a file carries the mark of a store in its header."""
    try:
        with file.open("rb") as data:
            header = data.read(72)
    except OSError:
        return False
    return header[:15] == b"SQLite format 3" and header[68:72] == APPLICATION.to_bytes(4, "big")


def _create(file: Path) -> None:
    """An empty store, whole or not at all."""
    staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=file.parent))
    try:
        with contextlib.closing(sqlite3.connect(staging / DATABASE)) as connection:
            connection.executescript(
                # auto_vacuum first: it takes effect in an empty file only. One transaction waits for the disk once.
                f"PRAGMA auto_vacuum = FULL; BEGIN; PRAGMA application_id = {APPLICATION}; "
                f"PRAGMA user_version = {SCHEMA}; {TABLES} COMMIT"
            )
        os.replace(staging / DATABASE, file)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _for_writing(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=10, isolation_level=None)
    try:
        _check_schema(file, connection)
        damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise sqlite3.DatabaseError(damage)
        # Commits are kept whatever becomes of the process; others can read meanwhile.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


def _check_schema(file: Path, connection: sqlite3.Connection) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION:
        raise sqlite3.DatabaseError("it is not a store of landscape")
    if version != SCHEMA:
        raise UsageError(
            f"{file} has schema version {version}, this version reads {SCHEMA}: analyse again with --force"
        )


@contextlib.contextmanager
def _told(file: Path) -> Iterator[None]:
    """Errors of sqlite and the disk in words."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        raise StoreError(
            f"cannot read or write {file} ({getattr(error, 'strerror', None) or error}): "
            "see to disk space and permissions; what was there is kept, and --resume goes on from it"
        ) from error
    except (sqlite3.DatabaseError, ValueError, EOFError) as error:
        copy = file.with_suffix(".json")
        rescue = f"{copy} still holds the last finished analysis; " if copy.is_file() else ""
        raise StoreError(f"{file} is damaged ({error}): {rescue}analyse again with --force") from error


def _locked(folder: Path) -> int | None:
    """A lock on the folder that ends with the process, as a file descriptor; None where the system has none."""
    try:
        import fcntl
    except ImportError:  # Windows: sqlite itself refuses a second writer while a transaction lasts
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise StoreError(f"the folder {folder} cannot be opened ({error.strerror}): choose another") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreError(
            f"another process is at work in {folder}: wait until it has finished, or choose another folder"
        ) from error
    return descriptor


def _insert_arrays(db: sqlite3.Connection, owner: bytes, arrays: Mapping[str, np.ndarray]) -> None:
    rows = [(owner, name, _npy(array)) for name, array in arrays.items()]
    db.executemany("INSERT OR IGNORE INTO arrays VALUES (?, ?, ?)", rows)


def _npy(array: np.ndarray) -> bytes:
    data = io.BytesIO()
    np.save(data, np.asarray(array), allow_pickle=False)
    return data.getvalue()


def _array(data: bytes) -> np.ndarray:
    return np.load(io.BytesIO(data), allow_pickle=False)
