"""``make demo`` shows what it should, and leaves the machine as it was however it ends.

It runs in namespaces of its own: there is no engine in there, so that it starts one, and what it
leaves behind is not mistaken for what other programs of the machine do.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.require import require
from support.servers import program

ROOT = Path(__file__).resolve().parents[2]
DEMO, README = ROOT / "scripts/demo.py", ROOT / "README.md"
PORT = re.compile(r"\b\d{5}\b")

# $1: a folder for what comes of it. $2: a signal. $3: after how many tables. Then the command.
SCRIPT = r"""
set -euo pipefail
out=$1 signal=$2 tables=$3
shift 3
mount --make-rprivate /
mount -t tmpfs tmpfs /run
export TMPDIR=/run/tmp
mkdir "$TMPDIR" /run/sys
mount -t sysfs sysfs /run/sys
mount --rbind /sys/fs/cgroup /run/sys/fs/cgroup
mount --rbind /run/sys /sys
ip link set lo up
ip link add host0 type bridge
ip address add 192.0.2.9/24 dev host0
ip link set host0 up
ip route add default via 192.0.2.1
state() {
    ip -brief link | cut -d " " -f 1
    iptables-save | grep -v '^#' || true
    grep " $TMPDIR" /proc/mounts || true
    cat /proc/sys/net/ipv4/ip_forward
    find /run -path /run/sys -prune -o ! -type d -print
    ls -A "$TMPDIR" /etc/docker 2>/dev/null || true
    grep -lsz . /proc/[0-9]*/cmdline | wc -l
}
quiet() { state >"$out/after"; cmp -s "$out/before" "$out/after"; }
state >"$out/before"
code=0
"$@" >"$out/stdout" 2>"$out/stderr" &
demo=$!
if [[ $signal != none ]]; then
    until [[ -s $out/stdout ]] && (($(grep -c SERVICE "$out/stdout") >= tables)); do
        kill -0 "$demo" || break # it failed: its code and its stderr say how
        sleep 0.01
    done
    if [[ -n ${STAY-} ]]; then
        until grep -q ' watch$' "$out/stdout" || ! kill -0 "$demo"; do sleep 0.01; done
        bash -c "$(grep ' explain ' "$out/stdout")" >"$out/explained" 2>&1 || true
    fi
    kill "-$signal" "$demo" || true
fi
wait "$demo" || code=$?
echo "$code" >"$out/code"
for _ in {1..600}; do ! quiet || exit 0; sleep 0.1; done
"""


def run(out: Path, signal: str = "none", tables: int = 0) -> tuple[int, str]:
    """Run the demo and check that all is as before. Returns its exit code and output."""
    program("dockerd", package="docker.io")
    program("ip", package="iproute2")
    require("root", os.geteuid() == 0, "namespaces and an engine need it")
    unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")}
    subprocess.run(
        [*unshare, "bash", "-c", SCRIPT, "bash", out, signal, str(tables), sys.executable, DEMO],
        check=True,
        env=environ | {"PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        timeout=240,
    )
    assert (out / "after").read_text() == (out / "before").read_text()
    return int((out / "code").read_text()), (out / "stdout").read_text()


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The output of a run that nobody interrupts."""
    out = tmp_path_factory.mktemp("demo")
    code, shown = run(out)
    assert code == 0, (out / "stderr").read_text()
    return shown


def test_shows_what_the_registry_holds_after_each_step(shown: str) -> None:
    tables = [re.findall(r"^  (\S+) +127\.0\.0\.1 +\d+ ", part, re.M) for part in _parts(shown)]
    assert tables == [
        ["web"],
        ["postgres", "web"],
        ["postgres", "web", "web", "web"],
        ["postgres", "web", "web"],
    ]
    assert re.search(r"^  postgres +\S+ +\d+ +primary,v16 +\S+:db-\w+:5432$", shown, re.M)


def test_the_recording_in_the_readme_is_what_the_demo_prints(shown: str) -> None:
    recording = re.search(r"^<!-- demo -->\n```\n(.*?)^```", README.read_text(), re.M | re.S)
    assert recording
    steps = re.search(r"^A container .*(?=^Done in )", shown, re.M | re.S)
    assert steps
    assert alike(recording[1]) == alike(steps[0])


def alike(shown: str) -> list[str]:
    """The lines of a run. Its ports have numbers in their order, and its ids one host and name."""
    ports = {port: f"port {n}" for n, port in enumerate(dict.fromkeys(PORT.findall(shown)), 1)}
    shown = PORT.sub(lambda found: ports[found[0]], shown)
    return re.sub(r"\S+:(\w+(?:-\d)?)-[0-9a-f]{4}:", r"host:\1:", shown).strip().splitlines()


def test_it_says_where_the_page_is_and_stays_until_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAY", "1")
    code, shown = run(tmp_path, "INT", 6)
    assert code == 0, (tmp_path / "stderr").read_text()
    assert re.search(r"^Page: +http://127\.0\.0\.1:9909/ ", shown, re.M)
    assert shown.count("docker -H unix://") == 2
    assert shown.index("stays until Ctrl-C") < shown.index("Everything is removed")
    explained = (tmp_path / "explained").read_text()
    assert re.search(r"^80/tcp  web at 127\.0\.0\.1:\d+ as \S+:web-1-\w+:80$", explained, re.M)
    assert re.search(r"^  file://\S+: registered$", explained, re.M)


def _parts(shown: str) -> list[str]:
    return shown.split("SERVICE")[1:]


@pytest.mark.parametrize("tables", [0, 1, 2])
@pytest.mark.parametrize(("signal", "code"), [("INT", 130), ("TERM", 143), ("KILL", 137)])
def test_interrupted_it_leaves_nothing(tmp_path: Path, signal: str, code: int, tables: int) -> None:
    ended, _ = run(tmp_path, signal, tables)
    assert ended == code, (tmp_path / "stderr").read_text()
