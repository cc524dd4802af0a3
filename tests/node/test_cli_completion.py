"""`vouch completion`: asked of real shells."""

from __future__ import annotations

import re
import subprocess

import pytest

from node.cli import main
from tests import required

SHELLS = ("bash", "zsh", "fish")


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion")
    made = {}
    for shell in SHELLS:
        capture = pytest.MonkeyPatch()
        file = folder / f"_{shell}"
        with file.open("w") as out, capture.context() as patch:
            patch.setattr("sys.stdout", out)
            assert main(["completion", shell]) == 0
        made[shell] = file
    return made


def run(shell, program, *, given=None):
    required.program(shell, why="its completion is tested with the shell itself")
    argv = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run([shell, *argv, "-c", program], capture_output=True, text=True, timeout=60, input=given)
    assert done.stderr == ""
    return done.stdout.split("\n")


def in_bash(script, *words):
    quoted = " ".join(f"'{word}'" for word in words)
    found = run(
        "bash",
        f"source '{script}'; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; COMP_LINE='{' '.join(words)}'; "
        "COMP_POINT=${#COMP_LINE}; "
        f"$(complete -p vouch | sed 's/.*-F \\([^ ]*\\).*/\\1/') vouch '{words[-1]}' '{words[-2]}'; "
        'printf "%s\\n" "${COMPREPLY[@]}"',
    )
    return {word.strip() for word in found if word.strip()}


def in_fish(script, line):
    return {one.split("\t")[0] for one in run("fish", f"source '{script}'; complete -C '{line}'") if one}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("vouch", "st"), {"status"}),
        (("vouch", "dis"), {"disconnect"}),
        (("vouch", "dht", "find"), {"find-peer", "find-providers"}),
        (("vouch", "log", ""), {"level"}),
        (("vouch", "ping", "--cou"), {"--count"}),
        (("vouch", "run", "--network"), {"--network-id"}),
        (("vouch", "completion", "z"), {"zsh"}),
    ],
)
def test_bash_and_fish(scripts, words, expected):
    assert in_bash(scripts["bash"], *words) == expected
    assert in_fish(scripts["fish"], " ".join(words)) == expected


def test_zsh_reads_its_script(scripts):
    (scripts["zsh"].parent / "_vouch").write_bytes(scripts["zsh"].read_bytes())
    folder = scripts["zsh"].parent
    found = run(
        "zsh",
        f"fpath=('{folder}' $fpath); autoload -U compinit; compinit -D -u; print $_comps[vouch]; "
        "autoload +X _vouch && print $+functions[_vouch]",
    )
    assert found == ["_vouch", "1", ""]


def test_every_command_is_in_every_script(scripts, capsys):
    assert main(["--help"]) == 0
    commands = re.findall(r"^  ([a-z]+)  +\S", capsys.readouterr().out, re.MULTILINE)
    assert len(commands) > 20
    for shell in SHELLS:
        text = scripts[shell].read_text()
        missing = [name for name in commands if name not in text]
        assert missing == [], shell


def test_another_shell(capsys):
    assert main(["completion", "elvish"]) == 2
    assert "invalid choice: 'elvish'" in capsys.readouterr().err
