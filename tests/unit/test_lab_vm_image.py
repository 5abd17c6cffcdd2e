"""The image of the virtual POP host: found by its recipe, while it is young."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from router_agent.lab.vm import image
from router_agent.lab.vm.plan import MANAGEMENT, MANAGEMENT_INTERFACE


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    disk = tmp_path / image.digest() / "disk.raw"
    disk.parent.mkdir()
    disk.touch()
    return disk


def test_image_of_the_recipe_is_found(tmp_path: Path, kept: Path) -> None:
    found = image.find(tmp_path)
    assert found is not None
    assert found.disk == kept


def test_image_of_another_recipe_is_not(tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "PACKAGES", (*image.PACKAGES, "vim"))
    assert image.find(tmp_path) is None


def test_image_with_package_lists_of_last_week_is_not(tmp_path: Path, kept: Path) -> None:
    assert image.find(tmp_path, now=time.time() + 6 * 86_400) is not None
    assert image.find(tmp_path, now=time.time() + 8 * 86_400) is None


def test_asking_for_an_image_says_that_it_is_used(tmp_path: Path, kept: Path) -> None:
    os.utime(kept.parent, (0, 0))
    image.find(tmp_path)
    assert time.time() - kept.parent.stat().st_mtime < 60


def test_host_key_is_what_known_hosts_takes(kept: Path) -> None:
    (kept.parent / "ssh_host_ed25519_key.pub").write_text("ssh-ed25519 AAAAC3 root@build\n")
    assert image.Image(kept.parent).host_key == "ssh-ed25519 AAAAC3"


def test_network_is_the_plan_s() -> None:
    files = image.recipe()["files"]
    assert isinstance(files, dict)
    interfaces = files["etc/network/interfaces"]
    assert f"iface {MANAGEMENT_INTERFACE} inet static" in interfaces
    assert f"address {MANAGEMENT.host}" in interfaces
