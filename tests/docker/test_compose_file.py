"""What docker-compose.yml and the Dockerfiles must keep to, without an engine: read as text and YAML only."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from interop.build import RECIPES
from interop.engine import LOCAL_IMAGE, ROOT, UID, Engine
from node.identity import load_key
from tests import required

COMPOSE = ROOT / "docker-compose.yml"
LOCAL = ROOT / "docker/compose.local.yml"
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
BASES = {"PYTHON_IMAGE", "GO_IMAGE", "RUST_IMAGE", "NODE_IMAGE", "RUNTIME_IMAGE"}
ALWAYS = {"bootstrap", "node1", "node2", "node3", "go", "rust", "js"}
# of others, by whose images they are; people look at them with a browser
FOREIGN = {"prometheus": 9090, "grafana": 3000}
# which run until somebody is done with them, and have no state to be in
ONCE = {"check", "transport"}
DEFAULT = re.compile(r"\$\{(\w+):-([^}]*)\}")


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load(COMPOSE.read_text())


@pytest.fixture(scope="module")
def services(compose) -> dict:
    return compose["services"]


def test_seven_are_up_without_a_profile(services):
    assert {name for name, service in services.items() if "profiles" not in service} == ALWAYS
    assert {profile for service in services.values() for profile in service.get("profiles", [])} == {
        "check",
        "scale",
        "contract",
        "monitoring",
    }


def test_nothing_that_an_older_compose_refuses(compose):
    # 1.29 knows no name, include or develop
    assert {key for key in compose if not key.startswith("x-")} == {"services", "volumes", "secrets"}


def test_who_stays_is_healthy_at_some_time_and_who_needs_others_waits_until_they_are(services):
    for name, service in services.items():
        assert ("healthcheck" in service) == (name not in ONCE), name
        for dependency in service.get("depends_on", {}).values():
            assert dependency == {"condition": "service_healthy"}, name
    assert set(services["check"]["depends_on"]) == ALWAYS


def test_services_can_do_no_more_than_they_need(services):
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & set(service), name
        port = FOREIGN.get(name)
        assert service.get("ports") == ([f"127.0.0.1:{port}:{port}"] if port else None), name
        assert str(service.get("user", UID)) not in ("0", "root"), name


def test_images_have_tags_that_stay(services):
    for name, service in services.items():
        default = DEFAULT.sub(r"\2", service["image"])
        assert re.fullmatch(r"[a-z/-]+:(local|v?\d[\w.-]*)", default), name
    for path in DOCKERFILES:
        for image in re.findall(r"^ARG \w+_IMAGE=(\S+)$", path.read_text(), re.M):
            assert re.fullmatch(r"[a-z]+:(?!latest)\S+", image), path.name


def test_base_images_are_build_arguments_with_the_dockerfiles_own_defaults(services):
    told: dict[str, set[str]] = {}
    for name, service in services.items():
        for argument, value in service.get("build", {}).get("args", {}).items():
            assert DEFAULT.fullmatch(value), name
            told.setdefault(argument, set()).add(DEFAULT.sub(r"\1=\2", value))
    for path in DOCKERFILES:
        for argument, image in re.findall(r"^ARG (\w+_IMAGE)=(\S+)$", path.read_text(), re.M):
            told[argument].add(f"{argument}={image}")
    assert set(told) == BASES
    assert all(len(values) == 1 for values in told.values()), told


def test_builds_name_a_dockerfile_and_a_target_of_it(services):
    for name, service in services.items():
        if build := service.get("build"):
            text = (ROOT / build["dockerfile"]).read_text()
            assert not build.get("target") or f" AS {build['target']}\n" in text, name


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_dockerfiles(path):
    text = path.read_text()
    stages = re.split(r"^FROM ", text, flags=re.M)[1:]
    assert len(stages) > 1, "what builds stays behind"
    for stage in stages:
        first = stage.splitlines()[0]
        image = first.split()[0]
        assert re.fullmatch(r"\$\{\w+_IMAGE\}", image) or f" AS {image}\n" in text, first
    final = [stage for stage in stages if re.match(r"\S+( AS (node|tools|check))?\n", stage)]
    assert final
    users = re.findall(r"^USER (\S+)$", text, re.M)
    assert users == [f"{UID}:{UID}"]
    assert "useradd --system --uid 10001" in text
    assert "HEALTHCHECK CMD" in text
    # no shell form where signals should arrive; nothing fetched that isn't checked; only what is named is copied
    assert not re.search(r"^(CMD|ENTRYPOINT) [^\[]", text, re.M)
    assert not re.search(r"^(ADD|MAINTAINER) |curl|wget|apt-get|sudo|COPY \. ", text, re.M)


def test_what_dockerfiles_copy_is_sent_to_the_engine():
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for path in DOCKERFILES:
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", path.read_text(), re.M):
            for source in sources.split():
                assert list(ROOT.glob(source)), f"{path.name}: {source}"
                assert any(Path(source).is_relative_to(one) or source == one for one in sent), f"{path.name}: {source}"


def test_the_local_override_swaps_images_and_mounts_only(services):
    local = yaml.safe_load(LOCAL.read_text())["services"]
    assert set(local) == set(services) - FOREIGN.keys()
    for name, service in local.items():
        assert set(service) == {"image", "environment", "volumes", "working_dir"}, name
        assert set(service["environment"]) == {"PATH", "PYTHONPYCACHEPREFIX"}, name
    asked = set(re.findall(r"\$\{(LOCAL_\w+)", LOCAL.read_text()))
    assert asked <= set(Engine(Path("/nowhere")).environ)
    assert LOCAL_IMAGE.partition(":")[2] != "latest"


def test_the_bootstraps_address_is_its_keys(services, tmp_path):
    key = tmp_path / "key"
    key.write_bytes((ROOT / "docker/bootstrap.key").read_bytes())
    key.chmod(0o600)
    assert services["node1"]["environment"]["VOUCH_BOOTSTRAP"].endswith(f"/p2p/{load_key(key).peer_id}")


def test_the_networks_name_is_the_same_everywhere(services):
    network = services["node1"]["environment"]["VOUCH_NETWORK_ID"]
    for name in ("go", "rust", "js"):
        command = services[name]["command"]
        assert f"--network-id={network}" in command
        assert f"--kad=/vouch/{network.encode().hex()}" in command
    assert f"--network-id={network}" in services["check"]["entrypoint"]


@pytest.mark.parametrize("name", ["go", "rust", "js"])
def test_the_bootstrap_knows_who_the_other_peers_are(services, name):
    """By what a peer says when it is started with the seed of its command, if it is built."""
    binary = RECIPES[name].binary
    if not binary.is_file():
        required.missing(f"the {name} peer isn't built: make peers PEERS={name}")
    done = subprocess.run(
        [binary, "--seed=compose"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
    )
    peer = re.search(r'"peer":"(\w+)"', done.stdout)
    assert peer, done.stderr
    assert f"/dns4/{name}/tcp/4001/p2p/{peer[1]}" in services["bootstrap"]["environment"]["VOUCH_BOOTSTRAP"]


@pytest.mark.parametrize(("payload", "status"), [(b"good", 0), (b"", 0), (b"bad news", 65), (b"ba", 0)])
def test_the_verdict(payload, status):
    done = subprocess.run([ROOT / "docker/verdict"], input=payload, check=False, timeout=10)
    assert done.returncode == status


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose isn't installed")
def test_compose_takes_both_files():
    environ = {**os.environ, **Engine(Path("/nowhere")).environ}
    done = subprocess.run(
        ["docker-compose", "config", "--quiet"], env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_an_engines_socket_has_a_short_path():
    deep = Engine(Path("/tmp", *["deep"] * 60))
    assert len(str(deep.socket)) < 64
    assert hashlib.sha256(str(deep.dir).encode()).hexdigest()[:12] in str(deep.socket)


def test_what_the_monitoring_mounts_is_there(services):
    for name in FOREIGN:
        for volume in services[name]["volumes"]:
            source, _, mode = volume.split(":")
            assert (ROOT / source).exists(), source
            assert mode == "ro"
    rules = yaml.safe_load((ROOT / "docker/prometheus.yml").read_text())["rule_files"]
    assert rules == ["/etc/prometheus/prometheus-rules.yml"]
