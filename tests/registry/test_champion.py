"""Which version counts as champion, according to the log; and the aliases that follow it."""

import re

import pytest

from rootstock.errors import ConflictError, NoModelError
from rootstock.ports.registry import Record
from rootstock.registry import champion
from rootstock.registry.champion import promote, rollback, settle, settle_and_adopt
from rootstock.registry.history import Change, find_rollback, propose, read_changes
from tests.folder_registry import FolderRegistry

NAME = "flowers"


class Shelf(FolderRegistry):
    """A registry without files; ``meanwhile`` runs once, before the next alias is set."""

    meanwhile = None
    bare = ()
    """Versions that are said to have lost their files."""

    def fill(self, count):
        from rootstock.ports.registry import RegistryEntry

        for number in range(1, count + 1):
            self.entries[NAME, str(number)] = RegistryEntry(NAME, str(number))
        return self

    def holds_files(self, entry):
        return entry.version not in self.bare

    def set_alias(self, name, alias, version):
        todo, self.meanwhile = self.meanwhile, None
        if todo:
            todo()
        super().set_alias(name, alias, version)

    def champion(self):
        return self.find(NAME, alias="champion").version

    def changes(self):
        return read_changes(self.records(NAME))


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path).fill(5)


def record(number, version, after, **facts):
    return Record(number, version, 0.0, {"after": str(after), **facts})


def test_earlier_of_two_competing_changes_counts():
    log = [record(1, "1", 0), record(2, "2", 1), record(3, "3", 1), record(4, "4", 2)]
    assert [change.version for change in read_changes(log)] == ["1", "2", "4"]


def test_change_after_an_invalid_change_is_invalid():
    log = [record(1, "1", 0), record(2, "2", 0), record(3, "3", 2)]
    assert [change.number for change in read_changes(log)] == [1]


def test_a_deleted_record_does_not_end_the_history():
    log = [record(1, "1", 0), record(3, "3", 2), record(4, "4", 3)]
    assert [change.number for change in read_changes(log)] == [1, 3, 4]


def test_foreign_lines_in_the_log_are_left_out():
    assert read_changes([Record(1, "1", 0.0, {"note": "mine"})]) == []


def test_facts_come_back_as_they_were_proposed():
    proposed = propose("3", kind="gate", why="better", by="ann", after=0)
    (found,) = read_changes([Record(1, "3", 5.0, proposed.facts())])
    assert found == Change(1, "3", "gate", "better", "ann", 5.0, 0, proposed.claim, settled=False)


def test_rollbacks_go_further_back_each_time(shelf):
    for version in ("1", "2", "3"):
        promote(shelf, NAME, version)
    assert [rollback(shelf, NAME).version for _ in range(2)] == ["2", "1"]
    with pytest.raises(NoModelError, match="has no earlier champion"):
        rollback(shelf, NAME)
    assert [change.kind for change in shelf.changes()][-2:] == ["rollback", "rollback"]
    assert find_rollback(shelf.changes()) == []


def test_a_rollback_passes_over_versions_that_were_deleted(shelf):
    for version in ("1", "2", "3"):
        promote(shelf, NAME, version)
    del shelf.entries[NAME, "2"]
    assert rollback(shelf, NAME).version == "1"


def test_alias_of_previous_champion_names_what_rollback_brings(shelf):
    for version in ("1", "2", "3"):
        promote(shelf, NAME, version)
    rollback(shelf, NAME)
    assert shelf.find(NAME, alias="previous_champion").version == "1"


def test_history_shows_who_and_why(shelf):
    promote(shelf, NAME, "1", why="the first", by="ann")
    (change,) = shelf.changes()
    assert (change.version, change.why, change.by) == ("1", "the first", "ann")
    assert change.settled


def test_promoting_the_champion_again_writes_nothing(shelf):
    promote(shelf, NAME, "1")
    assert promote(shelf, NAME, "1").aliases == ("champion",)
    assert len(shelf.changes()) == 1


def test_an_unexpected_champion_stops_a_promotion(shelf):
    promote(shelf, NAME, "1", by="ann")
    with pytest.raises(
        ConflictError, match=r"is version 1 \(by ann\), not version 2; nothing was changed"
    ):
        promote(shelf, NAME, "3", expect="2")
    assert promote(shelf, NAME, "3", expect="1").version == "3"


def test_a_promotion_that_comes_second_names_the_winner(shelf):
    promote(shelf, NAME, "1")
    original = shelf.append_record

    def append(name, version, facts):
        shelf.append_record = original
        promote(shelf, NAME, "2", by="bob", why="faster")
        return original(name, version, facts)

    shelf.append_record = append
    message = "version 3 of 'flowers' is not the champion: version 2 became champion first, by bob"
    with pytest.raises(ConflictError, match=rf"{re.escape(message)} \(promotion: faster\)"):
        promote(shelf, NAME, "3")
    assert shelf.champion() == "2"
    assert [change.version for change in shelf.changes()] == ["1", "2"]


def test_late_writer_sets_alias_to_later_champion(shelf):
    promote(shelf, NAME, "1")
    shelf.meanwhile = lambda: promote(shelf, NAME, "3")
    promote(shelf, NAME, "2")
    assert [change.version for change in shelf.changes()] == ["1", "2", "3"]
    assert shelf.champion() == "3"


def test_a_reader_finishes_what_a_dead_promoter_began(shelf):
    promote(shelf, NAME, "1")
    facts = propose("2", kind="promotion", why="", by="ann", after=1).facts()
    shelf.append_record(NAME, "2", facts)
    assert shelf.champion() == "1"
    assert settle(shelf, NAME)[-1].version == shelf.champion() == "2"


def test_registry_older_than_its_history_keeps_its_champion(shelf):
    shelf.set_alias(NAME, "champion", "2")
    promote(shelf, NAME, "3")
    assert [change.kind for change in shelf.changes()] == ["adopted", "promotion"]
    assert rollback(shelf, NAME).version == "2"


def test_alias_moved_by_other_means_enters_history(shelf, monkeypatch):
    monkeypatch.setattr(champion, "DRIFT_SECONDS", 0.01)
    for version in ("1", "2"):
        promote(shelf, NAME, version)
    shelf.set_alias(NAME, "champion", "1")
    assert settle(shelf, NAME)[-1].version == "2"
    assert settle_and_adopt(shelf, NAME)[-1].why == "the alias was changed outside of Rootstock"
    assert shelf.champion() == "1"


def test_deleted_champion_does_not_block_promotion(shelf):
    promote(shelf, NAME, "1")
    facts = propose("2", kind="promotion", why="", by="ann", after=1).facts()
    shelf.append_record(NAME, "2", facts)
    del shelf.entries[NAME, "2"]
    assert promote(shelf, NAME, "3").aliases == ("champion",)


def test_lost_answer_of_registry_is_not_lost_promotion(shelf):
    from rootstock.errors import TrackingError

    original = shelf.append_record

    def append(name, version, facts):
        original(name, version, facts)
        original(name, version, facts)  # like a client that retries
        raise TrackingError("the connection was closed")

    shelf.append_record = append
    assert promote(shelf, NAME, "4").version == "4"
    assert len(shelf.changes()) == 1


def test_version_whose_files_are_gone_is_not_promoted(shelf):
    shelf.bare = ("2",)
    promote(shelf, NAME, "1")
    with pytest.raises(NoModelError, match="no longer exist; nothing was changed"):
        promote(shelf, NAME, "2")
    assert [change.version for change in shelf.changes()] == ["1"]


def test_rollback_passes_over_versions_whose_files_are_gone(shelf):
    for version in "123":
        promote(shelf, NAME, version)
    shelf.bare = ("2",)
    rollback(shelf, NAME)
    assert shelf.champion() == "1"


def test_a_rollback_to_champions_without_files_says_so(shelf):
    for version in "12":
        promote(shelf, NAME, version)
    shelf.bare = ("1",)
    with pytest.raises(NoModelError, match="files of all earlier champions .* no longer exist"):
        rollback(shelf, NAME)
