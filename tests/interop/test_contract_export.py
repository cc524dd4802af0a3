"""Adding this implementation to the suites: what they need of an entry, and the change to a checkout.

By docs/images-yaml-schema.md of unified-testing, kad-dht/lib/build-images.sh and gossipsub-interop's README. With
CONTRACT_SUITES naming a folder of real checkouts (unified-testing/, test-plans/), copies of them are changed too.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
import yaml

from interop.contract.export import SUITES, export, main
from interop.contract.variables import LISTEN

UNIFIED = SUITES / "unified-testing"
IMAGES = {
    "transport": UNIFIED / "transport/images/vouch/v0.1",
    "perf": UNIFIED / "perf/images/vouch/v0.1",
    "kad": UNIFIED / "kad-dht/images/vouch",
}
EXISTING = """test-aliases:
  - alias: "all"
    value: "other"

implementations:
  - id: other
    imageName: other
"""


def entry(suite: str) -> dict:
    [found] = yaml.safe_load((UNIFIED / suite / "images.yaml").read_text())
    return found


@pytest.mark.parametrize("suite", ["transport", "perf"])
def test_an_entry_has_what_the_schema_requires(suite):
    found = entry(suite)
    assert found.keys() == {"id", "source", "transports", "secureChannels", "muxers"}
    assert re.fullmatch(r"[A-Za-z0-9._-]+", found["id"])
    assert found["source"].keys() == {"type", "path", "dockerfile"}
    assert found["source"]["type"] == "local"
    assert (UNIFIED / suite / found["source"]["path"] / found["source"]["dockerfile"]).is_file()
    assert set(found["transports"]) <= LISTEN.keys()
    assert set(found["secureChannels"]) == {"noise", "tls"}
    assert found["muxers"] == ["yamux"]


def test_the_entry_of_kad_builds_a_folder_of_its_own():
    found = entry("kad-dht")
    assert found.keys() == {"id", "imageName", "buildContext", "dockerfile"}
    assert (UNIFIED / "kad-dht" / found["buildContext"] / found["dockerfile"]).is_file()


def test_the_images_differ_in_the_program_alone():
    for suite, folder in IMAGES.items():
        *common, last = (folder / "Dockerfile").read_text().splitlines()
        assert last == f'ENTRYPOINT ["python", "-m", "interop.contract", "{suite}"]'
        assert common == (IMAGES["perf"] / "Dockerfile").read_text().splitlines()[:-1]
        assert "USER 10001:10001" in common


def make_unified(folder: Path) -> Path:
    for suite in ("transport", "perf", "kad-dht"):
        (folder / suite).mkdir(parents=True)
        (folder / suite / "images.yaml").write_text(EXISTING)
    return folder


def make_test_plans(folder: Path) -> Path:
    (folder / "gossipsub-interop").mkdir(parents=True)
    (folder / "gossipsub-interop/experiment.py").write_text(
        'from typing import Dict\n\nIMPLEMENTATIONS: Dict[str, str] = {\n    "go": "go-libp2p/gossipsub-bin",\n}\n'
    )
    (folder / "gossipsub-interop/Makefile").write_text(
        "binaries:\n\tcd go-libp2p && go build -linkshared -o gossipsub-bin\n"
    )
    return folder


@pytest.fixture(params=["small", "real"])
def checkouts(request, tmp_path):
    """A checkout of each suite: as small as one can be, or a copy of a real one."""
    if request.param == "small":
        return make_unified(tmp_path / "unified-testing"), make_test_plans(tmp_path / "test-plans")
    if "CONTRACT_SUITES" not in os.environ:
        pytest.skip("CONTRACT_SUITES names no folder of checkouts of the suites")
    real = Path(os.environ["CONTRACT_SUITES"])
    return tuple(shutil.copytree(real / name, tmp_path / name) for name in ("unified-testing", "test-plans"))


def test_unified_testing_gets_images_and_entries_once(checkouts):
    checkout, _ = checkouts
    before = {
        suite: yaml.safe_load((checkout / suite / "images.yaml").read_text())
        for suite in ("transport", "perf", "kad-dht")
    }
    export(checkout)
    again = export(checkout)
    assert not [path for path in again if path.suffix == ".yaml"], "the entries are there already"
    for suite, known in before.items():
        now = yaml.safe_load((checkout / suite / "images.yaml").read_text())
        assert now["implementations"] == [*known["implementations"], entry(suite)]
        assert {name: now[name] for name in known if name != "implementations"} == {
            name: known[name] for name in known if name != "implementations"
        }
    for folder in IMAGES.values():
        image = checkout / folder.relative_to(UNIFIED)
        copied = re.findall(r"^COPY (vouch/.*) \S+$", (image / "Dockerfile").read_text(), re.MULTILINE)
        names = [name for line in copied for name in line.split()]
        assert {"vouch/node", "vouch/protocols", "vouch/interop"} <= set(names)
        assert all((image / name).exists() for name in names)
        assert (image / "vouch/interop/contract/transport.py").is_file()
        assert not list(image.rglob("__pycache__"))


def test_test_plans_gets_a_program_and_a_row(checkouts):
    _, checkout = checkouts
    assert export(checkout)
    assert export(checkout) == [Path("gossipsub-interop/vouch")]
    suite = checkout / "gossipsub-interop"
    experiment = (suite / "experiment.py").read_text()
    assert experiment.count('    "vouch": "vouch/gossipsub-bin",\n') == 1
    compile(experiment, "experiment.py", "exec")
    assert (suite / "Makefile").read_text().count("\tcd vouch && ./build\n") == 1
    for program in ("build", "gossipsub-bin"):
        assert os.access(suite / "vouch" / program, os.X_OK)
    assert (suite / "vouch/vouch/interop/contract/gossipsub.py").is_file()


def test_what_is_no_checkout_stays_as_it_is(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert main([]) == 2
    assert "expected" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    odd = make_unified(tmp_path / "odd")
    (odd / "perf/images.yaml").write_text(EXISTING + "baselines:\n")
    assert main([str(odd)]) == 2
    assert not (odd / "transport/images").exists()
