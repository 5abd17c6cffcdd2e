# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible module: does what forwards hold what it should, route by route.

    kernel forwards    FRR's selected BGP routes (vtysh) against the kernel's (ip route)
    VPP forwards       the kernel's routes (ip route) against VPP's, of the agent's FIB source (binary API)

Both sides are read anew, and by other means than the agent's own where there are any. A route is a prefix and
a set of legs, each "GATEWAY INTERFACE", or a word such as "blackhole". VPP is read with the agent's library:
the module runs under the interpreter of the agent's environment then.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeAlias

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: fib_comparison
short_description: Compare what forwards with what should, route by route
description:
  - Compares FRR's routes with the kernel's, or the kernel's with VPP's. Changes nothing.
  - For VPP the module has to run under the interpreter of the agent's virtual environment.
  - Reading a full table keeps VPP's main thread busy for about a second.
options:
  forwarding:
    description: What forwards.
    type: str
    choices: [vpp, kernel]
    required: true
  protocols:
    description: Protocols of the kernel's routes that go to VPP, by name or number.
    type: list
    elements: str
    default: [bgp]
  interfaces:
    description: Linux interface to VPP interface.
    type: dict
    default: {}
  api_socket:
    description: VPP's API socket.
    type: path
    default: /run/vpp/api.sock
  source:
    description: Name of the agent's FIB source in VPP.
    type: str
    default: router-agent
  agent:
    description: The agent's program, to have it compare what it wrote itself; not asked when not given.
    type: path
  control_socket:
    description: The agent's control socket.
    type: path
    default: /run/router-agent/control.sock
author: ["The authors of the router kit"]
"""

RETURN = r"""
comparison:
  description: >-
    For each family the counts C(wanted), C(held), C(missing), C(stale), C(different), and up to ten lines of
    C(examples).
  type: dict
  returned: success
drift:
  description: What the agent says when it compares; each of its pipelines to the count of routes that differ.
  type: dict
  returned: success
interfaces:
  description: With VPP, name to C(up) and C(carrier) of its interfaces.
  type: dict
  returned: success
"""

Legs: TypeAlias = frozenset[str]
Route: TypeAlias = tuple[str, Legs]

FAMILIES = {"ipv4": ("-4", "ip"), "ipv6": ("-6", "ipv6")}
"""Family to the option of ip(8) and the word of vtysh."""
BGP = 186
"""``RTPROT_BGP`` of linux/rtnetlink.h. By number, because names of protocols differ between hosts."""
EXAMPLES = 10
SECONDS = 300
"""Most that reading one side of one family may take."""
_UNUSABLE = ("blackhole", "unreachable", "prohibit")
_FRR_UNUSABLE = {
    "(blackhole)": "blackhole",
    "(ICMP unreachable)": "unreachable",
    "(ICMP admin-prohibited)": "prohibit",
}
_FRR_ROUTE = re.compile(r"^[A-Z](?P<selected>.)(?P<used>.)\s+(?P<prefix>\S+/\d+) \[[^]]*\] (?P<rest>.*)$")
_FRR_LEG = re.compile(r"^ {2}(?P<used>.)\s+(?P<rest>(via|is directly|unreachable) .*)$")
_LEG = re.compile(r"\bvia (?:inet6? )?(?P<gateway>\S+)|\bdev (?P<device>\S+)")


class ReadError(Exception):
    """One side cannot be read."""


def frr_routes(lines: Iterable[str]) -> Iterator[Route]:
    """Yield FRR's selected routes out of ``show ip route bgp``: what it means the kernel to have.

    A recursive next hop is followed by those it was resolved to, and these count.
    """
    prefix, legs = "", set[str]()
    for line in lines:
        if found := _FRR_ROUTE.match(line):
            if prefix:
                yield prefix, frozenset(legs)
            prefix = found["prefix"] if found["selected"] == ">" else ""
            legs = set()
        elif not (found := _FRR_LEG.match(line)):
            continue
        if prefix and found["used"] == "*":
            legs.add(_frr_leg(found["rest"]))
    if prefix:
        yield prefix, frozenset(legs)


def _frr_leg(words: str) -> str:
    for said, kind in _FRR_UNUSABLE.items():
        if said in words:
            return kind
    parts = [part.strip() for part in words.split(",")]
    gateway = parts[0].removeprefix("via ").split()[0] if parts[0].startswith("via ") else ""
    return f"{gateway} {parts[1].split()[0]}".strip()


def kernel_routes(lines: Iterable[str]) -> Iterator[tuple[int, str, Legs]]:
    """Yield metric, prefix and legs out of ``ip -oneline route show``."""
    for line in lines:
        words = line.split()
        kind = words.pop(0) if words[0] in _UNUSABLE else ""
        metric = int(words[words.index("metric") + 1]) if "metric" in words else 0
        hops = line.split("nexthop")[1:] or [line]
        legs = frozenset([kind]) if kind else frozenset(map(_kernel_leg, hops))
        yield metric, words[0], legs


def _kernel_leg(words: str) -> str:
    found = {
        key: value for match in _LEG.finditer(words) for key, value in match.groupdict().items() if value
    }
    return f"{found.get('gateway', '')} {found.get('device', '')}".strip()


def full_prefix(text: str, family: str) -> str:
    """Return a prefix as ip(8) abbreviates it in the form that FRR and VPP's routes have here."""
    if text == "default":
        return "0.0.0.0/0" if family == "ipv4" else "::/0"
    return text if "/" in text else f"{text}/{32 if family == 'ipv4' else 128}"


def best(routes: Iterable[tuple[int, str, Legs]], family: str) -> dict[str, Legs]:
    """Return the legs of each prefix, of the route with the lowest metric; equal legs are one object."""
    metrics: dict[str, int] = {}
    chosen: dict[str, Legs] = {}
    interned: dict[Legs, Legs] = {}
    for metric, text, legs in routes:
        prefix = full_prefix(text, family)
        if prefix in metrics and metrics[prefix] <= metric:
            continue
        metrics[prefix] = metric
        chosen[prefix] = interned.setdefault(legs, legs)
    return chosen


def forwarded(routes: Mapping[str, Legs], interfaces: Iterable[str]) -> dict[str, Legs]:
    """Return the routes that lead to one of these interfaces, or nowhere: what VPP is to hold."""
    names = set(interfaces)
    return {
        prefix: legs
        for prefix, legs in routes.items()
        if all(leg in _UNUSABLE or leg.rpartition(" ")[2] in names for leg in legs)
    }


def compare(wanted: dict[str, Legs], held: Iterable[Route]) -> dict[str, Any]:
    """Return the counts of a comparison, and examples of what differs; empties `wanted`."""
    counts = {"wanted": len(wanted), "held": 0, "missing": 0, "stale": 0, "different": 0}
    examples: list[str] = []
    for prefix, legs in held:
        counts["held"] += 1
        expected = wanted.pop(prefix, None)
        if expected == legs:
            continue
        kind = "stale" if expected is None else "different"
        counts[kind] += 1
        if len(examples) < EXAMPLES:
            examples.append(f"{prefix}: {kind}, held {_words(legs)}, expected {_words(expected)}")
    counts["missing"] = len(wanted)
    left = sorted(wanted)[: EXAMPLES - len(examples)]
    examples += [f"{prefix}: missing, expected {_words(wanted[prefix])}" for prefix in left]
    return {**counts, "examples": examples}


def _words(legs: Legs | None) -> str:
    if legs is None:
        return "nothing"
    return (
        " and ".join(sorted(f"via {leg}" if leg not in _UNUSABLE else leg for leg in legs))
        or "no usable next hop"
    )


def lines_of(command: Sequence[str]) -> Iterator[str]:
    """Yield what a command prints, line by line as it comes.

    Raises:
        ReadError: it cannot be run, takes too long or fails.
    """
    began = time.monotonic()
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            for line in process.stdout or ():
                if time.monotonic() - began > SECONDS:
                    process.kill()
                    raise ReadError(f"{' '.join(command)}: found no end after {SECONDS} s")
                yield line
            error = process.stderr.read().strip() if process.stderr else ""
    except OSError as failure:
        raise ReadError(f"{command[0]}: {failure.strerror}") from failure
    if process.returncode:
        raise ReadError(
            f"{' '.join(command)}: ended with {process.returncode} and said: {error or 'nothing'}"
        )


def kernel_lines(family: str, protocols: Iterable[int]) -> Iterator[str]:
    """Yield the kernel's routes of the main table, of these protocols."""
    command = ["ip", FAMILIES[family][0], "-oneline", "route", "show", "table", "main", "protocol"]
    for protocol in protocols:
        yield from lines_of([*command, str(protocol)])


def compare_kernel() -> dict[str, Any]:
    """Compare FRR's routes with the kernel's."""
    comparison = {}
    for family, (_, word) in FAMILIES.items():
        wanted = dict(frr_routes(lines_of(["vtysh", "-c", f"show {word} route bgp"])))
        held = best(kernel_routes(kernel_lines(family, [BGP])), family)
        comparison[family] = compare(wanted, held.items())
    return comparison


def agent_drift(agent: str, control_socket: str) -> dict[str, int]:
    """Have the agent read its FIBs in full and return, for each pipeline, how many routes were wrong."""
    command = [agent, "audit", "--full", "--json", "--socket", control_socket]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    if done.returncode not in (0, 1):
        raise ReadError(f"{' '.join(command)}: ended with {done.returncode} and said: {done.stderr.strip()}")
    pipelines = json.loads(done.stdout)["pipelines"]
    return {p["pipeline"]: sum(p["found"].values()) for p in pipelines}


async def compare_vpp(
    protocols: Sequence[str], interfaces: Mapping[str, str], api_socket: Path, source: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compare the kernel's routes with those of a source in VPP; return also VPP's interfaces."""
    from router_agent.config import ROUTE_PROTOCOLS
    from router_agent.fibs.fib import FibError
    from router_agent.model import Family
    from router_agent.vpp.resolved import ResolvedReader
    from router_agent.vpp.session import VppSession

    followed = [ROUTE_PROTOCOLS[name] if name in ROUTE_PROTOCOLS else int(name) for name in protocols]
    session = VppSession(api_socket=api_socket, name="fib-comparison")
    try:
        await session.open()
        session.require(
            {
                "fib_source_dump": (),
                "fib_source_details": ("src.id", "src.name"),
                "sw_interface_dump": ("sw_if_index",),
                "sw_interface_details": ("sw_if_index", "interface_name", "flags"),
            }
        )
        details = await session.call("sw_interface_dump", sw_if_index=0xFFFFFFFF)
        found = {
            str(d.interface_name): {"up": bool(d.flags & 1), "carrier": bool(d.flags & 2)} for d in details
        }
        theirs = {vpp: linux for linux, vpp in interfaces.items()}
        names = {
            int(d.sw_if_index) + 1: theirs.get(str(d.interface_name), str(d.interface_name)) for d in details
        }
        reader = ResolvedReader(session, source)
        await reader.open()
        comparison = {}
        for family in Family:
            key = "ipv4" if family is Family.IPV4 else "ipv6"
            chunks = [(keys, paths) for keys, paths, _ in await reader.read(family, 0)]
            wanted = forwarded(best(kernel_routes(kernel_lines(key, followed)), key), interfaces)
            comparison[key] = compare(wanted, vpp_routes(chunks, reader, names))
    except FibError as error:
        raise ReadError(f"VPP: {error}") from error
    finally:
        await session.close()
    return comparison, found


def vpp_routes(chunks: Iterable[Any], path_sets: Any, names: Mapping[int, str]) -> Iterator[Route]:
    """Yield VPP's routes.

    Args:
        chunks: columns of keys and path ids, as `router_agent.vpp.resolved` reads them.
        path_sets: what the path ids stand for.
        names: interface number in the path sets to its name in Linux.
    """
    from router_agent.model import prefixes_of

    known: dict[int, Legs] = {}
    for keys, paths in chunks:
        for prefix, number in zip(prefixes_of(keys), paths.tolist(), strict=True):
            if number not in known:
                known[number] = _vpp_legs(path_sets[number], names)
            yield str(prefix), known[number]


def _vpp_legs(path_set: Any, names: Mapping[int, str]) -> Legs:
    word = path_set.type.name.lower()
    if word in _UNUSABLE:
        return frozenset([word])
    return frozenset(_vpp_leg(path, names) for path in path_set.paths)


def _vpp_leg(path: Any, names: Mapping[int, str]) -> str:
    gateway = str(ip_address(path.gateway)) if path.gateway else ""
    return f"{gateway} {names.get(path.interface, path.interface)}".strip()


def main() -> None:
    """Run the module, see DOCUMENTATION."""
    module = AnsibleModule(
        argument_spec={
            "forwarding": {"type": "str", "choices": ["vpp", "kernel"], "required": True},
            "protocols": {"type": "list", "elements": "str", "default": ["bgp"]},
            "interfaces": {"type": "dict", "default": {}},
            "api_socket": {"type": "path", "default": "/run/vpp/api.sock"},
            "source": {"type": "str", "default": "router-agent"},
            "agent": {"type": "path"},
            "control_socket": {"type": "path", "default": "/run/router-agent/control.sock"},
        },
        supports_check_mode=True,
    )
    given = module.params
    began = time.monotonic()
    found: dict[str, Any] = {}
    drift: dict[str, int] = {}
    try:
        if given["forwarding"] == "kernel":
            comparison = compare_kernel()
        else:
            vpp = (given["protocols"], given["interfaces"], Path(given["api_socket"]), given["source"])
            comparison, found = asyncio.run(compare_vpp(*vpp))
        if given["agent"]:
            drift = agent_drift(given["agent"], given["control_socket"])
    except ReadError as error:
        module.fail_json(msg=str(error))
    seconds = round(time.monotonic() - began, 1)
    module.exit_json(changed=False, comparison=comparison, drift=drift, interfaces=found, seconds=seconds)


if __name__ == "__main__":
    main()
