"""Verdicts by a program: what its end means, and that nothing of it outlives its time."""

from __future__ import annotations

import os
import shlex
import sys
import time

import pytest
import trio

from node.verdicts import Ended, Program, last_line, run
from protocols.gossip import GossipMessage, Verdict
from tests.nodes import eventually

SHELL = "/bin/sh"


def message(payload=b"payload", age=0.0):
    return GossipMessage(
        "blocks",
        payload,
        author="12D3KooWAuthor",
        forwarder="12D3KooWForwarder",
        message_id=b"\x01\xff",
        received_at=trio.current_time() - age,
        type=7,
    )


def shell(script, timeout=20.0):
    return Program("blocks", shlex.join([SHELL, "-c", script]), timeout)


@pytest.mark.parametrize(
    ("script", "verdict"),
    [
        ("exit 0", Verdict.ACCEPT),
        ("exit 65", Verdict.REJECT),
        ("exit 1", Verdict.IGNORE),
        ("exit 66", Verdict.IGNORE),
        ("kill -SEGV $$", Verdict.IGNORE),
        ("kill -KILL $$", Verdict.IGNORE),
        ('test "$(cat)" = payload', Verdict.ACCEPT),
        (
            'test "$VOUCH_TOPIC $VOUCH_AUTHOR $VOUCH_TYPE $VOUCH_MESSAGE_ID" = "blocks 12D3KooWAuthor 7 01ff"',
            Verdict.ACCEPT,
        ),
    ],
)
async def test_what_an_end_means(script, verdict):
    assert await shell(script)(message()) is verdict


async def test_a_program_need_not_read_and_may_say_a_lot():
    program = shell("yes | head -c 300000; yes | head -c 300000 >&2; exit 0")
    assert await program(message(b"x" * 1_000_000)) is Verdict.ACCEPT


async def test_a_large_message_arrives_whole():
    assert await shell('test "$(wc -c)" -eq 1000000')(message(b"x" * 1_000_000)) is Verdict.ACCEPT


async def test_what_takes_too_long_is_killed_with_all_that_it_started(tmp_path):
    began = time.monotonic()
    program = shell(f"sleep 600 & echo $! > {tmp_path}/child; wait", timeout=1.0)
    assert await program(message()) is Verdict.IGNORE
    assert time.monotonic() - began < 10
    await eventually(lambda: not alive(int((tmp_path / "child").read_text())))


async def test_what_it_leaves_behind_is_killed(tmp_path):
    began = time.monotonic()
    assert await shell(f"sleep 600 & echo $! > {tmp_path}/child")(message()) is Verdict.ACCEPT
    assert time.monotonic() - began < 10
    await eventually(lambda: not alive(int((tmp_path / "child").read_text())))


async def test_the_nodes_end_is_its_end(tmp_path):
    with trio.move_on_after(1.0) as scope:
        await shell(f"echo $$ > {tmp_path}/self; sleep 600")(message())
    assert scope.cancelled_caught
    assert not alive(int((tmp_path / "self").read_text()))


async def test_a_message_whose_time_is_over_starts_nothing(tmp_path):
    assert await shell(f"touch {tmp_path}/started")(message(age=30)) is Verdict.IGNORE
    assert not (tmp_path / "started").exists()


async def test_a_program_that_is_gone_ignores(tmp_path):
    file = tmp_path / "program"
    file.write_text(f"#!{SHELL}\n")
    file.chmod(0o755)
    program = Program("blocks", str(file), 20.0)
    file.unlink()
    assert await program(message()) is Verdict.IGNORE


async def test_its_last_words_are_kept():
    ended = await run([SHELL, "-c", "echo one >&2; echo two >&2; echo; exit 3"], b"", {}, trio.current_time() + 20)
    assert ended == Ended(3, "two")


def test_last_words():
    assert last_line(b"") == ""
    assert last_line(b"\n \n") == ""
    assert last_line(b"first\nlast \n\n") == "last"
    assert last_line(b"\x1b[31mred\xff") == "�[31mred�"


@pytest.mark.parametrize("command", ["", "   ", "no-such-program-anywhere --flag", "/etc/passwd", "'unclosed"])
def test_commands_that_cannot_be_run(command):
    with pytest.raises(ValueError, match="blocks: expected a command"):
        Program("blocks", command, 20.0)


def test_a_program_of_the_working_folder_is_found_wherever_that_goes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "check").symlink_to(sys.executable)
    Program("blocks", "./check -c pass", 20.0)


def alive(process):
    """Whether a process runs; one that nobody has waited for yet doesn't."""
    try:
        os.kill(process, 0)
        with open(f"/proc/{process}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
