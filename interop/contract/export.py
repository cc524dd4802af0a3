"""Adds this implementation to a checkout of one of the suites: `python -m interop.contract.export CHECKOUT`.

    suites/unified-testing/   into a checkout of libp2p/unified-testing: an image folder for each of transport, perf and
                              kad-dht, with this repository's source beside its Dockerfile, and an entry in images.yaml
    suites/test-plans/        into one of libp2p/test-plans: gossipsub-interop/vouch, with the source; a row of
                              IMPLEMENTATIONS in experiment.py and a line of the Makefile's `binaries`

What is there already of ours is replaced, nothing else is touched. Exit status: 0 done, 2 it isn't such a checkout.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SUITES = HERE / "suites"
# what the programs need of this repository
SOURCES = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "node", "protocols")
PROGRAMS = ("__init__.py", "contract")
SOURCE = "vouch"
# where an entry is text after a line that the suite has
GOSSIPSUB = (
    (
        "gossipsub-interop/experiment.py",
        "IMPLEMENTATIONS: Dict[str, str] = {\n",
        '    "vouch": "vouch/gossipsub-bin",\n',
    ),
    (
        "gossipsub-interop/Makefile",
        "\tcd go-libp2p && go build -linkshared -o gossipsub-bin\n",
        "\tcd vouch && ./build\n",
    ),
)


class ExportError(Exception):
    """The folder isn't the checkout of a suite. The text says what was expected."""


def main(argv: Sequence[str] | None = None) -> int:
    args = list(sys.argv[1:] if argv is None else argv)
    if len(args) != 1:
        print("expected one argument: a checkout of libp2p/unified-testing or libp2p/test-plans", file=sys.stderr)
        return 2
    try:
        for changed in export(Path(args[0])):
            print(changed)
    except (ExportError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def export(checkout: Path) -> list[Path]:
    """What was written, relative to the checkout. Raises ExportError, OSError."""
    if (checkout / "kad-dht/images.yaml").is_file():
        suite = SUITES / "unified-testing"
        texts = [(entry, *_appended(checkout / entry, suite / entry)) for entry in _entries(suite)]
        folders = [dockerfile.parent.relative_to(suite) for dockerfile in sorted(suite.rglob("Dockerfile"))]
    elif (checkout / "gossipsub-interop/experiment.py").is_file():
        suite = SUITES / "test-plans"
        texts = [(Path(name), *_inserted(checkout / name, after, text)) for name, after, text in GOSSIPSUB]
        folders = [Path("gossipsub-interop/vouch")]
    else:
        raise ExportError(f"expected {checkout} to be a checkout of libp2p/unified-testing or libp2p/test-plans")
    for folder in folders:
        shutil.rmtree(checkout / folder, ignore_errors=True)
        shutil.copytree(suite / folder, checkout / folder)
        _copy_source(checkout / folder / SOURCE)
    for name, before, after in texts:
        if before != after:
            (checkout / name).write_text(after, encoding="utf-8")
    return [*folders, *(name for name, before, after in texts if before != after)]


def _entries(suite: Path) -> list[Path]:
    return [file.relative_to(suite) for file in sorted(suite.glob("*/images.yaml"))]


def _appended(file: Path, entry: Path) -> tuple[str, str]:
    """The file's text, and the same with an entry at its end: `implementations` is the last section of each."""
    text, added = file.read_text(encoding="utf-8"), entry.read_text(encoding="utf-8")
    if added.partition("\n")[0] in text.splitlines():
        return text, text
    sections = [line for line in text.splitlines() if line[:1].isalpha()]
    if not sections or sections[-1].rstrip() != "implementations:":
        raise ExportError(f"expected {file} to end with its implementations")
    return text, f"{text.rstrip()}\n\n{added}"


def _inserted(file: Path, after: str, added: str) -> tuple[str, str]:
    text = file.read_text(encoding="utf-8")
    if added in text:
        return text, text
    if after not in text:
        raise ExportError(f"expected {file} to have the line {after.strip()!r}")
    return text, text.replace(after, after + added, 1)


def _copy_source(into: Path) -> None:
    unwanted = shutil.ignore_patterns("__pycache__", "suites", ".*")
    for where, names in ((".", SOURCES), ("interop", PROGRAMS)):
        for name in names:
            source, target = ROOT / where / name, into / where / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=unwanted)
            else:
                shutil.copy(source, target)


if __name__ == "__main__":
    sys.exit(main())
