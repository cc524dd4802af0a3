"""Builds the peers in other languages: `python -m interop.build go rust`, or `go,rust`.

    interop/go/    --go build---->  interop/.built/go-peer
    interop/rust/  --cargo build->  interop/.built/rust-peer
    interop/js/    --npm ci------>  interop/.built/js-peer, which runs main.js on what is in interop/js/node_modules

What is newer than all it is made of isn't built again. Exit status: 0 all are there; 1 a build failed or its toolchain
is missing; 2 bad arguments. With --if-any a missing toolchain is only told: for `make test`, where the tests that need
it are skipped then.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).parent
BUILT = HERE / ".built"
# stands in a command for the path of what it makes
OUTPUT = "{output}"


class BuildError(Exception):
    """A peer couldn't be built; the text names it and says why, the compiler's own words included."""


class MissingToolchainError(BuildError):
    """The program that builds the peer isn't on the PATH."""


@dataclass(frozen=True)
class Recipe:
    """How one peer is built: `command` is run in `folder`, whose files that match `inputs` it is made of.

    product: where the command leaves what it makes; None if that is OUTPUT.
    quick: whether tests may build it themselves when it isn't there.
    """

    name: str
    tool: str
    folder: Path
    inputs: tuple[str, ...]
    command: tuple[str, ...]
    product: Path | None = None
    quick: bool = False

    @property
    def binary(self) -> Path:
        """What is built."""
        return BUILT / f"{self.name}-peer"

    def is_fresh(self) -> bool:
        """Whether the binary is there and newer than all it is made of."""
        if not self.binary.is_file():
            return False
        made = self.binary.stat().st_mtime
        return all(path.stat().st_mtime < made for path in self._inputs())

    def build(self) -> Path:
        """Builds it if it isn't fresh, and says so; the binary. Raises BuildError."""
        if self.is_fresh():
            print(f"{self.name}: {_shown(self.binary)} is up to date")
            return self.binary
        if shutil.which(self.tool) is None:
            raise MissingToolchainError(f"{self.name}: expected the program {self.tool!r} on the PATH, found none")
        BUILT.mkdir(exist_ok=True)
        # under a name of its own until it is whole: what a build that was cut off leaves behind looks fresh
        partial = self.binary.with_name(f".{self.binary.name}.{os.getpid()}")
        command = [str(partial) if word == OUTPUT else word for word in self.command]
        print(f"{self.name}: {' '.join(self.command).replace(OUTPUT, _shown(self.binary))}", flush=True)
        started = time.monotonic()
        try:
            done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise BuildError(f"{self.name}: {self.tool} ended with status {done.returncode}:\n{done.stderr}")
            if self.product is not None:
                shutil.copy(self.product, partial)
            partial.replace(self.binary)
        finally:
            partial.unlink(missing_ok=True)
        print(f"{self.name}: built in {time.monotonic() - started:.1f} s")
        return self.binary

    def _inputs(self) -> Iterable[Path]:
        return (path for pattern in self.inputs for path in self.folder.glob(pattern))


RECIPES = {
    "go": Recipe(
        "go",
        "go",
        HERE / "go",
        ("*.go", "go.mod", "go.sum"),
        ("go", "build", "-trimpath", "-o", OUTPUT, "."),
        quick=True,
    ),
    "rust": Recipe(
        "rust",
        "cargo",
        HERE / "rust",
        ("src/*.rs", "Cargo.toml", "src/bin/*.rs"),
        ("cargo", "build", "--release", "--target-dir", "../.built/rust-target"),
        product=BUILT / "rust-target/release/rust-peer",
    ),
    # nothing is compiled: the sources are read as they are, and only other packages make a build stale
    "js": Recipe(
        "js",
        "npm",
        HERE / "js",
        ("package*.json", ".npmrc", "peer.sh"),
        ("npm", "run", "--silent", "peer", OUTPUT),
    ),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}", file=sys.stderr)
        sys.exit(2)


def main(argv: list[str] | None = None) -> int:
    parser = _Parser(prog="interop.build", description="Build the peers in other languages.", allow_abbrev=False)
    parser.add_argument("peers", metavar="PEER", nargs="+", type=_known, help=f"some of: {', '.join(RECIPES)}")
    parser.add_argument("--if-any", action="store_true", help="a missing toolchain is only told")
    args = parser.parse_args(argv)
    status = 0
    for recipe in itertools.chain.from_iterable(args.peers):
        try:
            recipe.build()
        except MissingToolchainError as error:
            print(f"{error}; this peer is left out" if args.if_any else error, file=sys.stderr)
            status = status if args.if_any else 1
        except BuildError as error:
            print(error, file=sys.stderr)
            status = 1
    return status


def _known(names: str) -> list[Recipe]:
    for name in names.split(","):
        if name not in RECIPES:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(RECIPES)}, got {name!r}")
    return [RECIPES[name] for name in names.split(",")]


def _shown(path: Path) -> str:
    return str(path.relative_to(HERE.parent))


if __name__ == "__main__":
    sys.exit(main())
