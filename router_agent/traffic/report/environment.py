"""The host a check was run on: what somebody needs to know to compare two reports.

A pure reader of /proc, /sys and a few files, which changes nothing, needs no root where the kernel asks for
none, and imports nothing that a router does not have: the device's own agent runs it there. Whatever cannot
be read is in `unknown`, with the reason. Configurations are hashed and never copied: they hold secrets.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from router_agent.host import programs
from router_agent.host.configurations import FORWARDING, hashes
from router_agent.host.reader import Reader
from router_agent.traffic.report.nics import Nic, read_nics

_PYTHON_PACKAGES = ("router-agent", "numpy", "vpp_papi", "MLRsearch", "hdrhistogram")
_DEBIAN_PACKAGES = ("vpp", "vpp-plugin-dpdk", "frr", "bird2", "dpdk")
_ARGUMENTS = re.compile(
    r"(isolcpus|nohz_full|rcu_nocbs|mitigations|(default_)?hugepagesz|hugepages|(intel_|amd_)?iommu|"
    r"intel_pstate|amd_pstate|nosmt|tsc|nowatchdog|(intel_idle|processor)\.max_cstate)(=.*)?"
)
"""Arguments of the kernel command line that change how fast packets are forwarded."""


class Cpu(BaseModel):
    """The processors.

    Attributes:
        mhz: frequency of the first one when it was read.
        turbo: whether the processor may run above its nominal frequency.
        isolated: CPUs taken from the scheduler, as the kernel lists them; empty for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    sockets: int
    cores: int
    threads: int
    mhz: float | None = None
    smt: str | None = Field(default=None, description="the kernel's word: on, off, notsupported, ...")
    governor: str | None = None
    turbo: bool | None = None
    isolated: str | None = None
    mitigations: dict[str, str] = Field(default={}, description="by vulnerability, those that are affected")


class NumaNode(BaseModel):
    """One NUMA node: its CPUs, its memory, its huge pages (how many of each size in KiB)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node: int
    cpus: str
    memory_bytes: int | None = None
    hugepages: dict[int, int] = {}


class Environment(BaseModel):
    """One host."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    kernel: str
    processor: str
    cpus: int = Field(description="CPUs that this process may use")
    load: float = Field(description="runnable processes, mean of the last minute, before the check")
    versions: dict[str, str]
    virtual: str | None = Field(default=None, description="what the machine says it is, if virtual")
    kernel_arguments: list[str] = Field(default=[], description="those that change how fast packets go")
    cpu: Cpu | None = None
    numa: list[NumaNode] = []
    nics: list[Nic] = []
    configurations: dict[str, str] = Field(default={}, description="SHA-256 of each file that is there")
    unknown: dict[str, str] = Field(default={}, description="what could not be read, and why")


def this_host(
    *, ports: Sequence[str] = (), configurations: Iterable[str] = FORWARDING, root: Path = Path("/")
) -> Environment:
    """Return what is known of this host.

    Args:
        ports: network interfaces to describe besides the NICs that the PCI bus has.
        configurations: files to hash.
        root: directory that holds the host's /proc, /sys and /etc.
    """
    reader = Reader(root)
    cpu = _cpu(reader)
    return Environment(
        host=platform.node(),
        kernel=f"{platform.system()} {platform.release()}",
        processor=cpu.model,
        cpus=len(os.sched_getaffinity(0)),
        load=round(os.getloadavg()[0], 2),
        versions=_versions(reader),
        virtual=_virtual(reader),
        kernel_arguments=[a for a in (reader.text("proc/cmdline") or "").split() if _ARGUMENTS.fullmatch(a)],
        cpu=cpu,
        numa=_numa(reader),
        nics=read_nics(reader, ports),
        configurations=hashes(reader, configurations),
        unknown=reader.unknown,
    )


def _cpu(reader: Reader) -> Cpu:
    found = [block for block in (reader.text("proc/cpuinfo") or "").split("\n\n") if block.strip()]
    cpus = [
        {
            name.strip(): value.strip()
            for name, _, value in (line.partition(":") for line in block.splitlines())
        }
        for block in found
    ]
    first = cpus[0] if cpus else {}
    packages = {cpu.get("physical id", "0") for cpu in cpus}
    cores = {(cpu.get("physical id", "0"), cpu.get("core id", cpu.get("processor"))) for cpu in cpus}
    system = "sys/devices/system/cpu"
    mhz = first.get("cpu MHz")
    return Cpu(
        model=first.get("model name", platform.machine()),
        sockets=max(1, len(packages)),
        cores=max(1, len(cores)),
        threads=max(1, len(cpus)),
        mhz=None if mhz is None else float(mhz),
        smt=reader.text(f"{system}/smt/control", "simultaneous multithreading"),
        governor=reader.text(f"{system}/cpu0/cpufreq/scaling_governor", "CPU frequency governor"),
        turbo=_turbo(reader),
        isolated=reader.text(f"{system}/isolated", "isolated CPUs"),
        mitigations=_mitigations(reader),
    )


def _turbo(reader: Reader) -> bool | None:
    """Return whether turbo is on: intel_pstate says the contrary, acpi-cpufreq and amd-pstate the thing."""
    system = "sys/devices/system/cpu"
    if reader.has(f"{system}/intel_pstate/no_turbo"):
        word = reader.text(f"{system}/intel_pstate/no_turbo", "turbo")
        return None if word is None else word == "0"
    word = reader.text(f"{system}/cpufreq/boost", "turbo")
    return None if word is None else word == "1"


def _mitigations(reader: Reader) -> dict[str, str]:
    directory = "sys/devices/system/cpu/vulnerabilities"
    words = {name: reader.text(f"{directory}/{name}") or "unknown" for name in reader.names(directory)}
    return {name: word for name, word in words.items() if word != "Not affected"}


def _numa(reader: Reader) -> list[NumaNode]:
    directory = "sys/devices/system/node"
    numbers = sorted(int(name[4:]) for name in reader.names(directory) if re.fullmatch(r"node\d+", name))
    return [_numa_node(reader, f"{directory}/node{number}", number) for number in numbers]


def _numa_node(reader: Reader, directory: str, number: int) -> NumaNode:
    memory = re.search(r"MemTotal:\s+(\d+) kB", reader.text(f"{directory}/meminfo") or "")
    pages: dict[int, int] = {}
    for name in reader.names(f"{directory}/hugepages"):
        size = re.fullmatch(r"hugepages-(\d+)kB", name)
        count = reader.number(f"{directory}/hugepages/{name}/nr_hugepages")
        if size and count is not None:
            pages[int(size[1])] = count
    return NumaNode(
        node=number,
        cpus=reader.text(f"{directory}/cpulist") or "",
        memory_bytes=int(memory[1]) * 1024 if memory else None,
        hugepages=pages,
    )


def _virtual(reader: Reader) -> str | None:
    if " hypervisor" not in (reader.text("proc/cpuinfo") or ""):
        return None
    if not reader.has("sys/class/dmi/id/sys_vendor"):
        return "a virtual machine that does not say which"
    names = (reader.text(f"sys/class/dmi/id/{name}") or "" for name in ("sys_vendor", "product_name"))
    return " ".join(names).strip() or "a virtual machine"


def _versions(reader: Reader) -> dict[str, str]:
    found = {"python": platform.python_version()}
    found |= programs.python_packages(_PYTHON_PACKAGES)
    found |= programs.debian_packages(reader, _DEBIAN_PACKAGES)
    if "vpp" not in found and shutil.which("vpp"):
        words = programs.output(reader, "vpp's version", "vpp", "--version").split()
        found |= {"vpp": words[1]} if len(words) > 1 else {}
    return found
