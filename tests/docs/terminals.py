"""Terminals in which the commands of a page are run as printed, and what they print is held against the page.

`…` in a line of the page stands for anything, a line `…` for any lines. A peer ID such as 12D3KooWAnna… stands for the
one that came in its place first, from then on in commands too; the bare 12D3KooW… for any. So does a port that is
first seen in what is printed; one that is first seen in a command stands for a free one, so that runs at the same time
don't meet. 0.0.0.0 stands for loopback. What a page leaves running is ended with it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.docs.reading import ROOT, Block, Step
from tests.ports import free_port

TIMEOUT = float(os.environ.get("DOCS_TIMEOUT", "45"))
POLL = 0.03
BIN = Path(sys.executable).parent  # not resolved: the environment's, not the system's
_PEER = re.compile(r"12D3KooW(\w*)…?")
_ID = "12D3KooW[1-9A-HJ-NP-Za-km-z]{44}"
_PORT = re.compile(r"(?<=/tcp/|/udp/|\.0\.1:|\.0\.0:|host:)[1-9]\d{3,4}\b")
_STANDS = re.compile(rf"(?P<port>{_PORT.pattern})|12D3KooW(?P<peer>\w*)…?")


class Different(AssertionError):
    """The page says one thing, the program another."""


class Terminals:
    """All terminals of a page, in one folder and one home, which are temporary."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "here"
        self._logs = folder
        self.folder.mkdir()
        _as_a_clone(self.folder)
        self._environ = _environ(folder)
        self._open: dict[str, _Running] = {}
        self._shell: _Shell | None = None
        self._ports: dict[str, int] = {}
        self._peers: dict[str, str] = {}
        self.transcript = ""  # all that was printed

    def run(self, block: Block) -> None:
        """The commands of a console block. Raises Different."""
        for number, step in enumerate(block.steps):
            try:
                if block.mark == "terminal":
                    self._in_terminal(block.value, step)
                else:
                    self._in_shell(step)
            except Different as error:
                raise Different(f"{block.where}, step {number + 1}: $ {step.command}\n{error}") from None

    def write(self, block: Block) -> None:
        """A file of the page; a script can be run."""
        file = self.folder / block.value
        file.write_text(self._with_ports(block.text))
        if block.text.startswith("#!"):
            file.chmod(0o755)

    def check_status(self) -> None:
        """Raises Different if the last command has failed."""
        if self._shell is not None:
            self._shell.check_status()

    def close(self) -> None:
        """Ends all that runs."""
        running = [*self._open.values(), *([self._shell] if self._shell else [])]
        for one in running:
            one.signal(signal.SIGTERM)
        for one in running:
            one.end()

    # one after the other

    def _in_shell(self, step: Step) -> None:
        if self._shell is None:
            self._shell = _Shell(self._logs / "shell.txt", self.folder, self._environ)
        status, printed = self._shell.run(self._made(step.command))
        self.transcript += printed
        match = self._pattern(step.printed).fullmatch(printed.rstrip("\n"))
        if match is None:
            raise Different(_difference(step, printed))
        self._learn(match)
        self._shell.expect_status(status, step)

    # side by side

    def _in_terminal(self, name: str, step: Step) -> None:
        printed, interrupted = step.printed, False
        if printed and printed[-1] == "^C":
            printed, interrupted = printed[:-1], True
        if step.command:
            if name in self._open:
                self._open.pop(name).end()
            command = self._made(step.command)
            self._open[name] = _Running(command, self._logs / f"{name}.txt", self.folder, self._environ)
        else:
            printed = ["…", *printed]
        terminal = self._open[name]
        pattern, until = self._pattern(printed), time.monotonic() + TIMEOUT
        while (match := pattern.match(terminal.unread())) is None:
            if time.monotonic() > until or not terminal.runs():
                # it may have printed its last between the two
                if (match := pattern.match(terminal.unread())) is not None:
                    break
                raise Different(_difference(step, terminal.unread()))
            time.sleep(POLL)
        self._learn(match)
        self.transcript += match[0]
        terminal.read(match.end())
        if interrupted:
            terminal.signal(signal.SIGINT)
            terminal.end(kill=False)

    # what the page's words stand for

    def _made(self, command: str) -> str:
        """The command, with what is so here instead of what the page shows."""

        def peer(match: re.Match[str]) -> str:
            return self._peers.get(match[1], match[0])

        return _PEER.sub(peer, self._with_ports(command).replace("0.0.0.0", "127.0.0.1"))

    def _with_ports(self, text: str) -> str:
        def port(match: re.Match[str]) -> str:
            if match[0] not in self._ports:
                self._ports[match[0]] = free_port(self._ports.values())
            return str(self._ports[match[0]])

        return _PORT.sub(port, text)

    def _pattern(self, lines: list[str]) -> re.Pattern[str]:
        """What matches these lines."""
        text = ""
        for number, line in enumerate(lines):
            last, before_any = number == len(lines) - 1, lines[number + 1 :] == ["…"]
            if line.strip() != "…":
                text += self._line(line) + r"[^\S\n]*" + ("" if last else r"(?:\n|\Z)" if before_any else r"\n")
            else:
                text += r"[\s\S]*?" if last else r"(?:[^\n]*\n)*?"
        # the same name twice in a pattern is a back reference
        seen: set[str] = set()

        def once(match: re.Match[str]) -> str:
            if match[1] in seen:
                return f"(?P={match[1]})"
            seen.add(match[1])
            return match[0]

        text = re.sub(r"\(\?P<(\w+)>[^()]*\)", once, text)
        return re.compile(text)

    def _line(self, line: str) -> str:
        text, at = "", 0
        for match in _STANDS.finditer(line):
            text += _escaped(line[at : match.start()])
            at = match.end()
            port, peer = match["port"], match["peer"]
            if port is not None:
                text += str(self._ports[port]) if port in self._ports else rf"(?P<port_{port}>\d+)"
            elif peer == "":
                text += r"12D3KooW[\w…]*"
            else:
                text += self._peers.get(peer, f"(?P<peer_{peer}>{_ID})")
        return text + _escaped(line[at:])

    def _learn(self, match: re.Match[str]) -> None:
        for name, value in match.groupdict().items():
            kind, _, shown = name.partition("_")
            if kind == "peer":
                self._peers[shown] = value
            else:
                self._ports[shown] = int(value)


class _Running:
    """A process and what it starts, in a session of its own; what it prints goes to a file."""

    def __init__(self, command: str, log: Path, folder: Path, environ: dict[str, str]) -> None:
        self._log, self._at = log, 0
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                ["bash", "--norc", "-c", command],
                cwd=folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def runs(self) -> bool:
        return self._process.poll() is None

    def unread(self) -> str:
        return self._log.read_text(errors="replace")[self._at :]

    def read(self, characters: int) -> None:
        self._at += characters

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def end(self, *, kill: bool = True) -> None:
        """Waits a little, then ends it."""
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            if not kill:
                raise Different("expected it to end by Ctrl-C, and it goes on") from None
        if kill:
            self.signal(signal.SIGKILL)
            self._process.wait()


class _Shell(_Running):
    """A shell that is given one command after the other, and keeps its variables."""

    def __init__(self, log: Path, folder: Path, environ: dict[str, str]) -> None:
        self._pipe = log.with_suffix(".commands")
        os.mkfifo(self._pipe)
        super().__init__(f"exec bash --norc < {self._pipe}", log, folder, environ)
        self._commands = self._pipe.open("w")
        self._count = 0
        self._failed: tuple[str, int] | None = None

    def run(self, command: str) -> tuple[int, str]:
        """Its exit status, and what it printed."""
        if command != "echo $?":
            self.check_status()
        self._count += 1
        mark = f"[end of {self._count}:"
        # whatever reads standard input must not read the next command
        self._commands.write(f'{{ {command}\n}} < /dev/null; s=$?; printf "\\n%s %d]\\n" "{mark}" $s; (exit $s)\n')
        self._commands.flush()
        until = time.monotonic() + TIMEOUT
        while (found := re.search(rf"\n{re.escape(mark)} (\d+)\]\n", text := self.unread())) is None:
            if time.monotonic() > until or not self.runs():
                raise Different(f"expected it to end within {TIMEOUT:g} s; it printed:\n{text}")
            time.sleep(POLL)
        self.read(found.end())
        return int(found[1]), text[: found.start()]

    def check_status(self) -> None:
        """Raises Different if the last command has failed, and the page doesn't say so."""
        if self._failed is not None:
            raise Different(f"{self._failed[0]} ended with status {self._failed[1]}")

    def expect_status(self, status: int, step: Step) -> None:
        """A command that fails is followed by `echo $?`."""
        self._failed = (step.command, status) if status and step.command != "echo $?" else None

    def end(self, *, kill: bool = True) -> None:
        with suppress(BrokenPipeError):
            self._commands.close()
        super().end(kill=kill)


def _escaped(text: str) -> str:
    return "[^\n]*?".join(map(re.escape, text.split("…")))


def _difference(step: Step, printed: str) -> str:
    return "\n".join(["expected", *step.printed, "", "got", printed])


def _as_a_clone(folder: Path) -> None:
    """What `make run` and `.venv/bin/vouch` want of a clone that is set up."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "protocols"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(BIN)
    (folder / ".venv" / ".stamp").touch()


def _environ(folder: Path) -> dict[str, str]:
    home = folder / "home"
    home.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return kept | {
        "PATH": f"{BIN}{os.pathsep}{kept.get('PATH', os.defpath)}",
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "COLUMNS": "200",
        "PYTHONUNBUFFERED": "1",
        # where a page names no address, loopback and a port that is free
        "VOUCH_LISTEN": "/ip4/127.0.0.1/tcp/0",
        "VOUCH_API": "127.0.0.1:0",
    }
