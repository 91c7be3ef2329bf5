"""Files appear whole or not at all: in order, flushed, and no link is followed."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from avenir import files
from avenir.errors import AvenirError, sentence
from avenir.files import (
    alone_in,
    append_row,
    beside,
    link,
    make_folder,
    read_rows,
    remove,
    sweep,
    whole,
    write_together,
    write_whole,
)


def left_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_file_is_there_when_the_block_ends_and_not_before(tmp_path):
    path = tmp_path / "deep" / "er" / "file.txt"
    with whole(path) as part:
        part.write_text("new")
        assert not path.exists()
        assert part.parent == path.parent
    assert left_in(path.parent) == {"file.txt": b"new"}


def test_a_file_gets_a_second_place_or_a_copy_there(tmp_path, monkeypatch):
    write_whole(tmp_path / "one.txt", "new")
    write_whole(tmp_path / "deep" / "two.txt", "old")
    link(tmp_path / "one.txt", tmp_path / "deep" / "two.txt")
    assert (tmp_path / "deep" / "two.txt").samefile(tmp_path / "one.txt")

    def unsupported(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", unsupported)
    link(tmp_path / "one.txt", tmp_path / "deep" / "two.txt")
    assert left_in(tmp_path / "deep") == {"two.txt": b"new"}
    assert not (tmp_path / "deep" / "two.txt").samefile(tmp_path / "one.txt")


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    write_whole(path, "old")
    with pytest.raises(KeyError), whole(path) as part:
        part.write_text("half of the n")
        raise KeyError
    assert left_in(tmp_path) == {"file.txt": b"old"}


def test_what_a_killed_writer_left_is_in_nobodys_way(tmp_path):
    (tmp_path / ".file.txt.part").write_text("left over and longer")
    write_whole(tmp_path / "file.txt", "new")
    assert left_in(tmp_path) == {"file.txt": b"new"}


def test_what_is_being_written_has_one_writer(tmp_path):
    """Or the first would rename what the second has half written."""
    path, folder = tmp_path / "file.txt", tmp_path / "folder"
    with whole(path) as part, beside(folder) as scratch:
        part.write_text("new")
        (scratch / "inner").write_text("new")
        for write in (whole(path), whole(folder), beside(path), beside(folder)):
            with (
                pytest.raises(AvenirError, match="another process is writing .*wait for it"),
                write,
            ):
                raise AssertionError
        with pytest.raises(AvenirError, match=r"another process is writing '.*/file\.txt'"):
            write_together({tmp_path / "other.txt": "", path: ""})
        sweep(tmp_path)
        assert (scratch / "inner").read_text() == "new"
    assert left_in(tmp_path) == {"file.txt": b"new"}
    with beside(folder) as scratch:
        assert not list(scratch.iterdir())


def test_all_is_flushed_before_it_is_renamed_and_the_folder_after(tmp_path, monkeypatch):
    done: list[str] = []
    names: dict[int, str] = {}
    opened, replace, fsync = os.open, os.replace, os.fsync

    def open_(path, *more):
        file = opened(path, *more)
        names[file] = Path(path).name
        return file

    monkeypatch.setattr(files.os, "open", open_)
    monkeypatch.setattr(files.os, "fsync", lambda f: (done.append(f"flush {names[f]}"), fsync(f)))
    monkeypatch.setattr(
        files.os, "replace", lambda a, b: (done.append(f"rename {Path(b).name}"), replace(a, b))
    )
    write_whole(tmp_path / "file", "new")
    assert done == ["flush .file.part", "rename file", f"flush {tmp_path.name}"]


def test_files_that_belong_together_are_never_mixed(tmp_path, monkeypatch):
    """After any cut the last one, which vouches for the first, is of the same time or not there."""
    first, last = tmp_path / "weights", tmp_path / "card"
    write_together({first: "1", last: "1"})
    seen = []
    for name in ("unlink", "replace", "fsync"):
        call = getattr(os, name)

        def watched(*given, call=call):
            call(*given)
            seen.append((first.read_text(), last.read_text() if last.exists() else None))

        monkeypatch.setattr(files.os, name, watched)
    write_together({first: "2", last: "2"})
    assert (
        {("1", "1"), ("2", None), ("2", "2")}
        <= set(seen)
        <= {
            ("1", "1"),
            ("1", None),
            ("2", None),
            ("2", "2"),
        }
    )


@pytest.mark.parametrize("planted", [".file.part", "file"])
def test_a_planted_link_is_replaced_and_not_followed(tmp_path, planted):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / planted).symlink_to(victim)
    write_whole(folder / "file", "new")
    assert victim.read_text() == "precious"
    assert left_in(folder) == {"file": b"new"}
    assert not (folder / "file").is_symlink()


def test_rows_are_not_appended_through_a_link(tmp_path):
    victim, rows = tmp_path / "victim", tmp_path / "rows"
    victim.write_text("")
    rows.symlink_to(victim)
    with pytest.raises(OSError, match="link") as caught:
        append_row(rows, {})
    assert "remove it" in sentence(caught.value)
    assert victim.read_text() == ""


@pytest.mark.parametrize("special", ["pipe", "folder", "device"])
def test_a_device_a_pipe_and_a_folder_are_refused(tmp_path, special):
    path = tmp_path / "out"
    if special == "pipe":
        os.mkfifo(path)
    elif special == "folder":
        path.mkdir()
    else:
        path = Path("/dev/full")
    for write in (lambda: write_whole(path, ""), lambda: append_row(path, {})):
        with pytest.raises(AvenirError, match="no regular file: take it away"):
            write()


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(OSError, match="No space") as caught, whole(path) as part:
        part.unlink()
        part.symlink_to("/dev/full")
        part.write_text("new")
    assert caught.value.errno == errno.ENOSPC
    assert sentence(caught.value) == (
        f"{str(path)!r}: the disk is full: free some space and run the same command again"
    )
    assert left_in(tmp_path) == {}


def test_rows_that_are_torn_are_left_out(tmp_path):
    path = tmp_path / "rows"
    assert read_rows(path) == []
    append_row(path, {"step": 1})
    append_row(path, {"step": 2})
    whole_rows = path.read_bytes()
    for length in range(len(whole_rows) + 1):
        path.write_bytes(whole_rows[:length])
        assert read_rows(path) == [{"step": 1}, {"step": 2}][: path.read_bytes().count(b"}")]
    path.write_bytes(b'\xff{"step"\n\x00\n{"step": 3}\n{"ste')
    assert read_rows(path) == [{"step": 3}]


def test_a_folder_has_one_at_work_until_it_ends(tmp_path):
    program = (
        "import sys, pathlib, avenir.files\n"
        "with avenir.files.alone_in(pathlib.Path(sys.argv[1]), 'training'):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(AvenirError, match="another training is at work in .*wait for it"),
            alone_in(tmp_path, "training"),
        ):
            raise AssertionError
        other.kill()
    with alone_in(tmp_path, "training"):
        pass


def test_sweeping_removes_what_is_unfinished_and_nothing_else(tmp_path):
    make_folder(tmp_path / "deep")
    for path in (tmp_path / "deep" / ".a.part", tmp_path / ".b.part", tmp_path / "c.part"):
        path.write_text("")
    sweep(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["c.part"]
    remove(tmp_path / "c.part")
    remove(tmp_path / "c.part")
    assert not (tmp_path / "c.part").exists()
