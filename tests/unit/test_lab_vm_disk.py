"""The disk of the virtual POP host: its partition table as other tools read it."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from router_agent.lab.errors import LabError
from router_agent.lab.vm.disk import FIRST_SECTOR, SECTOR, master_boot_record, write_disk

BOOT_IMAGE = bytes(range(256)) + bytes(254) + b"\x55\xaa"


def test_partition_table_has_one_bootable_linux_partition_to_the_end() -> None:
    record = master_boot_record(BOOT_IMAGE, sectors=12_582_912)
    assert len(record) == SECTOR
    assert record[510:] == b"\x55\xaa"
    entries = [struct.unpack_from("<B3sB3sII", record, 446 + 16 * number) for number in range(4)]
    assert [entries[0][0], entries[0][2], *entries[0][4:]] == [
        0x80,
        0x83,
        FIRST_SECTOR,
        12_582_912 - FIRST_SECTOR,
    ]
    assert all(not any(entry) for entry in [(e[0], e[2], e[4], e[5]) for e in entries[1:]])


def test_boot_code_is_kept_and_its_own_table_is_not() -> None:
    record = master_boot_record(b"\xff" * 510 + b"\x55\xaa", sectors=4096)
    assert record[:440] == b"\xff" * 440
    assert record[440:446] == bytes(6)


@pytest.mark.parametrize(
    ("image", "sectors", "message"),
    [(b"short", 4096, "found 5 bytes"), (BOOT_IMAGE, FIRST_SECTOR, "expected more than 2048")],
    ids=["no boot sector", "no room"],
)
def test_nonsense_is_refused(image: bytes, sectors: int, message: str) -> None:
    with pytest.raises(LabError, match=message):
        master_boot_record(image, sectors=sectors)


def test_boot_loader_that_does_not_fit_before_the_partition_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="at most 1048064"):
        write_disk(
            tmp_path / "disk",
            tmp_path,
            uuid="",
            size_bytes=2**23,
            boot_image=BOOT_IMAGE,
            core=bytes(FIRST_SECTOR * SECTOR),
        )


@pytest.mark.skipif(shutil.which("mke2fs") is None, reason="found no mke2fs on PATH")
def test_disk_holds_the_directory_behind_the_boot_loader(tmp_path: Path) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk"
    (root / "etc").mkdir(parents=True)
    (root / "etc/hostname").write_text("pop1-vm\n")
    identifier = "02557cfc-7cc1-4433-9a9b-8f941a99ef06"
    write_disk(disk, root, uuid=identifier, size_bytes=2**24, boot_image=BOOT_IMAGE, core=b"core" * 1000)
    content = disk.read_bytes()
    assert len(content) == 2**24
    assert content[SECTOR : SECTOR + 4000] == b"core" * 1000
    partition = tmp_path / "partition"
    partition.write_bytes(content[FIRST_SECTOR * SECTOR :])
    shown = subprocess.run(
        ["debugfs", "-R", "cat /etc/hostname", str(partition)], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "pop1-vm\n"
    features = subprocess.run(["dumpe2fs", "-h", str(partition)], capture_output=True, text=True, check=True)
    assert identifier in features.stdout
