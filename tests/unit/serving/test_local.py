"""The local cluster's supervisor over small stand-ins for members, and its choice of ports."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from kvstore.serving.config import build_config
from kvstore.serving.local import LocalCluster, serve_command
from kvstore.serving.logview import Palette, render_line
from kvstore.serving.ports import Layout, LayoutError, MemberPorts, choose_layout, port_free
from kvstore.serving.settings import read_settings


def clients(layout: Layout) -> list[int]:
    return [member.client for member in layout.members]


def test_the_usual_ports_are_etcds(tmp_path: Path) -> None:
    layout = choose_layout(tmp_path, 3, None, lambda _: True)
    assert [member.all for member in layout.members] == [
        (2379, 2380, 2381),
        (22379, 22380, 22381),
        (32379, 32380, 32381),
    ]
    assert layout.note == ""


def test_taken_ports_are_avoided_and_it_is_said(tmp_path: Path) -> None:
    layout = choose_layout(tmp_path, 3, None, lambda port: port != 22380)
    assert clients(layout) == [2479, 22479, 32479]
    assert "port 22380 is taken" in layout.note


def test_a_base_port_is_kept_to(tmp_path: Path) -> None:
    assert clients(choose_layout(tmp_path, 3, 4000, lambda _: True)) == [4000, 24000, 34000]
    assert clients(choose_layout(tmp_path, 3, 40000, lambda _: True)) == [40000, 40010, 40020]
    with pytest.raises(LayoutError, match="port 4000 is taken"):
        choose_layout(tmp_path, 3, 4000, lambda port: port != 4000)
    for base in (0, -5, 65_530):
        with pytest.raises(LayoutError, match="between 1 and 65535"):
            choose_layout(tmp_path, 3, base or -1, lambda _: True)


def test_a_cluster_keeps_its_ports_and_size(tmp_path: Path) -> None:
    first = choose_layout(tmp_path, 3, 4000, lambda _: True)
    first.save(tmp_path)
    assert choose_layout(tmp_path, 3, None, lambda _: True).members == first.members
    with pytest.raises(LayoutError, match="has 3 members, not 5"):
        choose_layout(tmp_path, 5, None, lambda _: True)
    with pytest.raises(LayoutError, match="began at port 4000"):
        choose_layout(tmp_path, 3, 5000, lambda _: True)
    with pytest.raises(LayoutError, match="port 24001 is taken"):
        choose_layout(tmp_path, 3, None, lambda port: port != 24001)


def test_a_wrong_number_or_a_foreign_file_is_refused(tmp_path: Path) -> None:
    for nodes in (0, 8):
        with pytest.raises(LayoutError, match="from 1 to 7"):
            choose_layout(tmp_path, nodes, None, lambda _: True)
    (tmp_path / "local.json").write_text('{"members": 3}')
    with pytest.raises(LayoutError, match="not what this command writes"):
        choose_layout(tmp_path, 3, None, lambda _: True)


def test_a_port_with_a_listener_is_not_free() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert not port_free(taken.getsockname()[1])


def test_the_command_line_of_a_member_is_accepted_by_serve(tmp_path: Path) -> None:
    layout = choose_layout(tmp_path, 3, None, lambda _: True)
    argv = serve_command(layout.members[1], layout, tmp_path)
    config = build_config(read_settings(argv[argv.index("serve") + 1 :], {}))
    assert config.node.name == "node2"
    assert len(config.node.initial_cluster) == 3
    assert config.stop_on_stdin_eof


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (
            b'{"level":"info","ts":"2026-01-02T03:04:05.678901Z","caller":"x","msg":"up","a":1}\n',
            "n1  03:04:05.678  up  (a=1)",
        ),
        (
            b'{"level":"warn","ts":"2026-01-02T03:04:05.678901Z","msg":"slow","urls":["x","y"]}',
            "n1  03:04:05.678  warn: slow  (urls=x y)",
        ),
        (
            b'{"level":"error","ts":"2026-01-02T03:04:05.678901Z","msg":"x","error":"a\\n  b"}',
            "n1  03:04:05.678  error: x\nn1    a\nn1      b",
        ),
        (b"Traceback (most recent call last):\n", "n1  Traceback (most recent call last):"),
        (b"[1, 2]\n", "n1  [1, 2]"),
        (b"\x1b[2Jboo\xff\n", "n1  ?[2Jboo\ufffd"),
    ],
)
def test_log_lines_are_made_short(raw: bytes, shown: str) -> None:
    assert render_line(raw, "n1", "36", Palette(enabled=False)) == shown


def test_colours_are_used_on_a_terminal_only() -> None:
    line = render_line(b'{"level":"error","msg":"bad"}', "n1", "36", Palette(enabled=True))
    assert line == "\x1b[36mn1\x1b[0m    error: \x1b[31mbad\x1b[0m"


WELL = """
import signal, sys, time
def stop(*_):
    print('{"level":"info","msg":"stopped"}', flush=True); sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print('{"level":"info","msg":"ready to serve client requests"}', flush=True)
sys.stdin.read()
print('parent gone', flush=True)
"""
CRASHES = WELL.replace("sys.stdin.read()", "time.sleep(0.05); sys.exit(3)")
NEVER_READY = "import sys; sys.stdin.read()"

LAYOUT = Layout(tuple(MemberPorts(f"node{i}", i, i + 10, i + 20) for i in (1, 2, 3)))


def cluster(
    scripts: Sequence[str],
    written: list[str],
    *,
    once: bool = False,
    write: Callable[[str], None] | None = None,
    directory: str = "d",
) -> LocalCluster:
    def command(member: MemberPorts, layout: Layout, _directory: Path) -> list[str]:
        return [sys.executable, "-c", scripts[layout.members.index(member)]]

    return LocalCluster(
        LAYOUT,
        Path(directory),
        write=write or written.append,
        colour=False,
        once=once,
        command=command,
    )


def gone(pids: Sequence[int]) -> bool:
    return all(not Path(f"/proc/{pid}").exists() for pid in pids)


def test_members_are_started_announced_and_stopped() -> None:
    written: list[str] = []
    supervisor = cluster([WELL] * 3, written, once=True)
    assert asyncio.run(supervisor.run()) == 0
    text = "\n".join(written)
    assert "3 members are ready" in text
    assert "endpoints  127.0.0.1:1,127.0.0.1:2,127.0.0.1:3" in text
    assert "curl http://127.0.0.1:21/health" in text
    assert text.count("stopped") == 4
    assert gone([member.process.pid for member in supervisor._members])


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("./data", "./data"),
        ("data", "./data"),
        ("/a/data", "/a/data"),
        ("../b", "../b"),
        (".", "."),
    ],
)
def test_where_the_data_is_looks_like_a_directory(typed: str, shown: str) -> None:
    written: list[str] = []
    assert asyncio.run(cluster([WELL] * 3, written, once=True, directory=typed).run()) == 0
    assert f"3 members are ready; data in {shown}" in written


def test_a_member_that_crashes_is_reported_and_the_others_go_on() -> None:
    written: list[str] = []

    def write(line: str) -> None:
        written.append(line)
        if "has ended" in line:
            os.kill(os.getpid(), signal.SIGINT)

    supervisor = cluster([WELL, CRASHES, WELL], written, write=write)
    assert asyncio.run(supervisor.run()) == 0
    ended = [line for line in written if "has ended" in line]
    assert ended == ["local  node2 has ended (exit code 3); 2 of 3 go on, which is enough"]
    assert written[-1] == "local  all stopped"


def test_when_the_last_member_ends_so_does_the_command() -> None:
    written: list[str] = []
    assert asyncio.run(cluster([CRASHES] * 3, written).run()) == 1
    assert written[-1] == "local  no member is left"


def test_a_member_that_does_not_stop_is_killed_by_a_second_signal() -> None:
    stubborn = WELL.replace(
        'print(\'{"level":"info","msg":"stopped"}\', flush=True); sys.exit(0)', "pass"
    )
    stubborn += "\ntime.sleep(60)"
    written: list[str] = []

    def write(line: str) -> None:
        written.append(line)
        if "Ctrl-C" in line or "stopping all" in line:
            os.kill(os.getpid(), signal.SIGINT)

    supervisor = cluster([WELL, WELL, stubborn], written, write=write)
    assert asyncio.run(supervisor.run()) == 0
    assert "local  node3 killed by SIGKILL" in written
    assert gone([member.process.pid for member in supervisor._members])


def test_a_supervisor_that_is_killed_leaves_nobody_behind(tmp_path: Path) -> None:
    script = f"""
import asyncio, os, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from tests.unit.serving.test_local import WELL, cluster
def write(line):
    if "members are ready" in line:
        pids = [str(member.process.pid) for member in supervisor._members]
        open({str(tmp_path / "pids")!r}, "w").write(" ".join(pids))
        os.kill(os.getpid(), signal.SIGKILL)
supervisor = cluster([WELL] * 3, [], write=write)
asyncio.run(supervisor.run())
"""
    import subprocess
    import time

    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=20)
    assert done.returncode == -signal.SIGKILL
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 3
    end = time.monotonic() + 5
    while not gone(pids) and time.monotonic() < end:
        time.sleep(0.02)
    assert gone(pids)
