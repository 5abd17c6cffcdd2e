"""The command line of the lab: what it takes, refuses and answers without building anything."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from router_agent.lab import run
from router_agent.lab.errors import LabError
from router_agent.lab.lab import FibKind, SpeakerKind, default_fib
from router_agent.lab.mirror import mirror_rules
from router_agent.lab.plan import OUT, PORTS
from router_agent.lab.topology import Topology
from router_agent.model import Family


def parsed(*arguments: str) -> run.Options:
    return run._options(run._parser().parse_args(arguments))


def test_defaults_are_a_full_table_and_frr() -> None:
    options = parsed()
    assert options.speaker is SpeakerKind.FRR
    assert options.fib is default_fib()
    assert (options.table, options.ipv4, options.ipv6, options.keep) == (None, None, None, False)


def test_what_is_said_is_taken() -> None:
    options = parsed(
        *("--speaker", "exabgp", "--fib", "kernel", "--table", "rib.mrt", "--ipv4", "1,000", "--ipv6", "0"),
        *("--keep", "--rate", "5000", "--seconds", "2.5", "--report", "out", "--name", "mine"),
    )
    assert options.speaker is SpeakerKind.EXABGP
    assert options.fib is FibKind.KERNEL
    assert (options.table, options.ipv4, options.ipv6) == (Path("rib.mrt"), 1000, 0)
    assert (options.keep, options.rate, options.seconds) == (True, 5000.0, 2.5)
    assert (options.report, options.name) == (Path("out"), "mine")


@pytest.mark.parametrize(
    "wrong", [["--speaker", "quagga"], ["--fib", "asic"], ["--ipv4", "-1"], ["--ipv4", "x"]]
)
def test_nonsense_is_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        parsed(*wrong)
    assert refused.value.code == 2


def test_a_table_that_cannot_be_read_is_invalid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "table.txt"
    table.write_text("1.0.0.0/24\nnonsense\n")
    assert run.main(["--table", str(table), "--name", "unit-refused"]) == 2
    assert "line 2: found 'nonsense', expected a prefix" in " ".join(capsys.readouterr().out.split())


def test_the_first_signal_ends_and_later_ones_are_passed_over() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def two_signals() -> None:
        with run.interruptible():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(run.Interrupted) as interrupted:
        two_signals()
    assert interrupted.value.signal is signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("name", ["", "Lab", "1lab", "a/b", "../x", "a b", "a" * 25, "lab.1"])
def test_a_name_that_cannot_be_a_namespace_is_refused(name: str) -> None:
    with pytest.raises(LabError, match="found lab name"):
        Topology(name)


def test_what_is_for_the_control_plane_is_mirrored() -> None:
    local = [port.address(family).ip for port in PORTS for family in Family]
    rules = list(mirror_rules(OUT, local))
    to_control_plane = [rule for rule in rules if rule.endswith("redirect dev cp-out")]
    matches = " ".join(to_control_plane)
    assert "protocol arp prio 1 u32 match u32 0 0" in matches
    for address in local:
        assert f" dst {address}/{address.max_prefixlen} " in matches
    for network in ("fe80::/10", "ff02::/16", "224.0.0.0/24"):
        assert f" dst {network} " in matches
    for kind in range(256):
        mirrored = any(
            kind & mask == value
            for value, mask in ((0x85, 0xFF), (0x86, 0xFE), (0x88, 0xFE))
            if f"match ip6 protocol 58 0xff match u8 {value:#x} {mask:#x} at 40" in matches
        )
        assert mirrored == (133 <= kind <= 137)
    back = [rule for rule in rules if rule.endswith("redirect dev out")]
    assert back == [
        "filter add dev cp-out ingress protocol all prio 1 u32 match u32 0 0 "
        "action mirred egress redirect dev out"
    ]
