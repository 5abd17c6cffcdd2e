"""Which kernel GRUB boots: once for one that is tried, and never one that it would try for ever."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import kernel_boot
from kernel_boot import (
    BootError,
    Grub,
    boots_saved,
    check_forgets,
    entry_of,
    environment_of,
    set_entry,
    wanted_environment,
)
from kernel_release import kernel_release

ROOT = "02557cfc-7cc1-4433-9a9b-8f941a99ef06"
OLD, NEW = "6.12.48+deb13-amd64", "6.12.57+deb13-amd64"
ADVANCED = f"gnulinux-advanced-{ROOT}"


def entry(release: str) -> str:
    return f"gnulinux-{release}-advanced-{ROOT}"


# As grub-mkconfig 2.12 of Debian 13 writes it with GRUB_DEFAULT=saved, shortened.
HEADER = """\
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="${saved_entry}"
fi
"""
MENU = "".join(
    [
        f"menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-{ROOT}' {{\n}}\n",
        f"submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option '{ADVANCED}' {{\n",
        *(
            f"\tmenuentry 'Debian GNU/Linux, with Linux {release}{words}' --class debian "
            f"$menuentry_id_option 'gnulinux-{release}-{kind}-{ROOT}' {{\n\t}}\n"
            for release in (NEW, OLD)
            for words, kind in (("", "advanced"), (" (recovery mode)", "recovery"))
        ),
        "}\n",
    ]
)
FLAT = MENU.replace(
    f"submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option '{ADVANCED}' {{\n", ""
)


@pytest.fixture
def grub(tmp_path: Path) -> Grub:
    (tmp_path / "grub.cfg").write_text(HEADER + MENU)
    return Grub(tmp_path)


def test_a_kernels_entry_is_named_with_its_submenu() -> None:
    assert entry_of(HEADER + MENU, OLD) == f"{ADVANCED}>{entry(OLD)}"
    assert entry_of(FLAT.replace("\tmenuentry", "menuentry"), NEW) == entry(NEW)


@pytest.mark.parametrize("release", ["6.12.4", "6.12.48", "6.12.48+deb13-amd6", "6x12x48+deb13-amd64"])
def test_a_kernel_that_is_not_installed_has_no_entry(release: str) -> None:
    with pytest.raises(BootError, match="found no entry of kernel"):
        entry_of(HEADER + MENU, release)


def test_only_the_saved_entry_can_be_told_apart_from_the_next() -> None:
    assert boots_saved(HEADER)
    assert not boots_saved(HEADER.replace("${saved_entry}", "0"))


def test_a_trial_leaves_the_saved_entry_alone() -> None:
    found = environment_of("saved_entry=old\n")
    assert wanted_environment(found, "new", "once") == {"next_entry": "new"}
    assert wanted_environment({"saved_entry": "old", "next_entry": "new"}, "new", "once") == {}


def test_a_decision_ends_the_trial() -> None:
    found = environment_of("saved_entry=old\nnext_entry=new\n")
    assert wanted_environment(found, "old", "always") == {"next_entry": ""}
    assert wanted_environment(found, "new", "always") == {"saved_entry": "new", "next_entry": ""}
    assert wanted_environment({"saved_entry": "new"}, "new", "always") == {}


@pytest.mark.skipif(shutil.which("grub-editenv") is None, reason="found no grub-editenv: grub-common")
def test_grubs_own_program_reads_what_was_written(grub: Grub) -> None:
    set_entry(grub, OLD, "always", check=False)
    assert set_entry(grub, NEW, "once", check=False)[1] == {"next_entry": f"{ADVANCED}>{entry(NEW)}"}
    held = environment_of(kernel_boot.run("grub-editenv", str(grub.environment), "list"))
    assert held == {"saved_entry": f"{ADVANCED}>{entry(OLD)}", "next_entry": f"{ADVANCED}>{entry(NEW)}"}
    assert set_entry(grub, NEW, "once", check=False)[1] == {}
    set_entry(grub, NEW, "always", check=False)
    held = environment_of(kernel_boot.run("grub-editenv", str(grub.environment), "list"))
    assert held == {"saved_entry": f"{ADVANCED}>{entry(NEW)}"}


def test_nothing_is_written_in_check_mode(grub: Grub) -> None:
    assert set_entry(grub, NEW, "once", check=True)[1] == {"next_entry": f"{ADVANCED}>{entry(NEW)}"}
    assert not grub.environment.exists()


def test_a_grub_that_boots_another_entry_is_refused(grub: Grub) -> None:
    grub.configuration.write_text(HEADER.replace("${saved_entry}", "0") + MENU)
    with pytest.raises(BootError, match="found that it does not boot the saved entry"):
        set_entry(grub, NEW, "once", check=False)


@pytest.mark.parametrize(
    ("below", "system"), [("lvm\n", "ext2\n"), ("diskfilter mdraid1x\n", "ext2\n"), ("\n", "btrfs\n")]
)
def test_a_grub_that_cannot_forget_is_refused(
    below: str, system: str, grub: Grub, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"--target=abstraction": below, "--target=fs": system}
    monkeypatch.setattr(kernel_boot, "run", lambda *words: said[words[1]])
    with pytest.raises(BootError, match="which GRUB cannot write to: it would try a kernel"):
        check_forgets(grub)
    said |= {"--target=abstraction": "\n", "--target=fs": "ext2\n"}
    check_forgets(grub)


def test_the_package_says_which_kernel_it_brings() -> None:
    shown = f"Package: linux-image-amd64\nVersion: 6.12.57-1\nDepends: linux-image-{NEW} (= 6.12.57-1)\n"
    assert kernel_release(shown) == NEW
    assert kernel_release("") == ""
    assert kernel_release("Depends: linux-image-amd64 (= 1), initramfs-tools\n") == ""
