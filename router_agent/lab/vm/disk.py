"""A bootable disk out of a directory: partition table, GRUB and one ext4 file system, nothing mounted.

    sector 0          GRUB's boot.img and the partition table (MBR)
    sector 1 ...      GRUB's core.img, in the gap before the first partition
    1 MiB ...         ext4, to the end

boot.img loads the sector whose number it holds at offset 0x5c (1 as delivered), which is core.img's first;
core.img's first sector loads the rest from the block list at its end, which grub-mkimage leaves to the
installer: it starts at sector 2 (GRUB 2.12, boot.S and diskboot.S in grub-core/boot/i386/pc).
"""

from __future__ import annotations

import struct
from pathlib import Path

from router_agent.lab.commands import run
from router_agent.lab.errors import LabError

SECTOR = 512
FIRST_SECTOR = 2048
"""First sector of the partition: 1 MiB, as every partitioning tool has it."""

_CODE_BYTES = 440
_TABLE_OFFSET = 446
_LINUX = 0x83
_BOOTABLE = 0x80
_LARGE_DISK_CHS = b"\xfe\xff\xff"
"""Cylinder, head, sector of what lies beyond 8 GiB: readers take the sector numbers instead."""
_BLOCK = 4096
_SECONDS = 300.0


def master_boot_record(boot_image: bytes, *, sectors: int) -> bytes:
    """Return sector 0 of a disk of so many sectors with one bootable Linux partition.

    Raises:
        LabError: this is no GRUB boot.img, or there is no room for a partition.
    """
    if len(boot_image) != SECTOR or boot_image[510:] != b"\x55\xaa":
        raise LabError(f"found {len(boot_image)} bytes as GRUB's boot.img, expected a boot sector")
    if sectors <= FIRST_SECTOR:
        raise LabError(f"found a disk of {sectors} sectors, expected more than {FIRST_SECTOR}")
    entry = struct.pack(
        "<B3sB3sII",
        _BOOTABLE,
        _LARGE_DISK_CHS,
        _LINUX,
        _LARGE_DISK_CHS,
        FIRST_SECTOR,
        sectors - FIRST_SECTOR,
    )
    code = boot_image[:_CODE_BYTES].ljust(_TABLE_OFFSET, b"\0")
    return code + entry + bytes(3 * len(entry)) + b"\x55\xaa"


def write_disk(disk: Path, root: Path, *, uuid: str, size_bytes: int, boot_image: bytes, core: bytes) -> None:
    """Write a disk that boots the system in a directory.

    Args:
        disk: the file to write, sparse.
        root: the root file system; as it is owned and permitted here, so it is on the disk.
        uuid: of the file system.
        size_bytes: of the disk.
        boot_image: GRUB's boot.img.
        core: GRUB's core.img, made by grub-mkimage for this partition.

    Raises:
        LabError: a part does not fit, or mke2fs fails.
    """
    gap = (FIRST_SECTOR - 1) * SECTOR
    if len(core) > gap:
        raise LabError(f"GRUB's core.img has {len(core)} bytes, expected at most {gap} before the partition")
    offset = FIRST_SECTOR * SECTOR
    with disk.open("wb") as file:
        file.truncate(size_bytes)
    blocks = (size_bytes - offset) // _BLOCK
    options = f"offset={offset},lazy_itable_init=0"
    run(
        [
            *("mke2fs", "-q", "-t", "ext4", "-b", str(_BLOCK), "-U", uuid, "-E", options),
            *("-d", str(root), str(disk), str(blocks)),
        ],
        seconds=_SECONDS,
    )
    with disk.open("r+b") as file:
        file.write(master_boot_record(boot_image, sectors=size_bytes // SECTOR))
        file.write(core)
