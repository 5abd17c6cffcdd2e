"""Kernel arguments: one drop-in that a shell reads as GRUB does, the operator's own arguments left alone."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest

import grub_arguments
from grub_arguments import GrubError, Host, apply, boot_loader_problems, grub_settings, natural, newer_kernel

TEMPLATES = Path(__file__).parents[2] / "templates"

DROP_IN = """\
# Kernel arguments of the router, written by Ansible (role kernel_cmdline): changes made here are lost.
# Added to what /etc/default/grub sets, which stays the operator's own.
GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX hugepagesz=2M hugepages=0:512 iommu=pt"
"""
ARGUMENTS = ["hugepagesz=2M", "hugepages=0:512", "iommu=pt"]

# As grub-mkconfig does it, in short: source the settings, write one entry.
UPDATE_GRUB = """\
. {root}/etc/default/grub
for file in {root}/etc/default/grub.d/*.cfg; do [ -e "$file" ] && . "$file"; done
arguments="$GRUB_CMDLINE_LINUX $GRUB_CMDLINE_LINUX_DEFAULT"
echo "linux /boot/vmlinuz root=/dev/vda ro $arguments" > {root}/boot/grub/grub.cfg
echo run >> {root}/updates
"""


def rendered(arguments: list[str]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,
    )
    return environment.get_template("kernel_cmdline.cfg.j2").render(kernel_cmdline_arguments=arguments)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    for directory in ("etc/default/grub.d", "boot/grub", "proc"):
        (tmp_path / directory).mkdir(parents=True)
    host = Host(tmp_path, ("/bin/sh", "-ec", UPDATE_GRUB.format(root=tmp_path)))
    host.defaults.write_text(
        'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX="console=tty0 console=ttyS0"\n'
    )
    host.grub_cfg.write_text("linux /boot/vmlinuz root=/dev/vda ro console=tty0 console=ttyS0 quiet\n")
    running(host, "console=tty0 console=ttyS0 quiet")
    return host


def running(host: Host, arguments: str) -> None:
    (host.root / "proc/cmdline").write_text(f"BOOT_IMAGE=/boot/vmlinuz root=/dev/vda ro {arguments}\n")


def updates(host: Host) -> int:
    path = host.root / "updates"
    return len(path.read_text().splitlines()) if path.exists() else 0


def run(host: Host, arguments: list[str], *, check: bool = False) -> grub_arguments.Outcome:
    return apply(host, arguments, rendered(arguments), check=check)


def test_the_drop_in_is_what_a_person_has_looked_at() -> None:
    assert rendered(ARGUMENTS) == DROP_IN


def test_arguments_are_added_to_the_operators(host: Host) -> None:
    outcome = run(host, ARGUMENTS)
    assert outcome.changed
    assert outcome.missing == ARGUMENTS
    assert host.drop_in.read_text() == DROP_IN
    assert host.grub_cfg.read_text().split()[3:] == [
        "ro",
        "console=tty0",
        "console=ttyS0",
        *ARGUMENTS,
        "quiet",
    ]
    assert updates(host) == 1


def test_a_second_run_changes_nothing(host: Host) -> None:
    run(host, ARGUMENTS)
    assert not run(host, ARGUMENTS).changed
    assert updates(host) == 1


def test_check_mode_writes_nothing(host: Host) -> None:
    before = sorted(host.root.rglob("*"))
    outcome = run(host, ARGUMENTS, check=True)
    assert (outcome.changed, outcome.before, outcome.after) == (True, "", DROP_IN)
    assert sorted(host.root.rglob("*")) == before


def test_an_update_that_was_cut_off_is_made_up_for(host: Host) -> None:
    run(host, ARGUMENTS)
    host.grub_cfg.write_text("linux /boot/vmlinuz root=/dev/vda ro quiet\n")
    assert run(host, ARGUMENTS).changed
    assert updates(host) == 2


def test_a_withdrawn_argument_goes_and_is_a_reason_to_reboot_until_it_has_gone(host: Host) -> None:
    run(host, ARGUMENTS)
    running(host, " ".join(ARGUMENTS))
    withdrawing = run(host, ["iommu=pt"])
    assert withdrawing.withdrawn == ["hugepagesz=2M", "hugepages=0:512"]
    assert "hugepages" not in host.grub_cfg.read_text()
    later = run(host, ["iommu=pt"])
    assert (later.changed, later.withdrawn) == (False, ["hugepagesz=2M", "hugepages=0:512"])
    running(host, "iommu=pt")
    assert run(host, ["iommu=pt"]).withdrawn == []


def test_a_changed_value_is_missing_and_withdrawn_at_once(host: Host) -> None:
    run(host, ARGUMENTS)
    running(host, " ".join(ARGUMENTS))
    outcome = run(host, ["hugepagesz=2M", "hugepages=0:256", "iommu=pt"])
    assert (outcome.missing, outcome.withdrawn) == (["hugepages=0:256"], ["hugepages=0:512"])


def test_no_arguments_leave_no_drop_in_and_a_withdrawn_one_of_the_operator_is_his(host: Host) -> None:
    run(host, ARGUMENTS)
    running(host, " ".join(ARGUMENTS))
    host.defaults.write_text('GRUB_CMDLINE_LINUX="iommu=pt"\n')
    assert run(host, []).withdrawn == ["hugepagesz=2M", "hugepages=0:512"]
    assert not host.drop_in.exists()
    assert not run(host, []).changed


def test_foreign_running_arguments_are_no_business_of_ours(host: Host) -> None:
    running(host, "mitigations=off")
    assert run(host, ARGUMENTS).withdrawn == []


@pytest.mark.parametrize("place", ["grub", "grub.d/10_cloud.cfg", "grub.d/90-local.cfg"])
def test_a_contradiction_names_both_values_and_the_file(host: Host, place: str) -> None:
    path = host.root / "etc/default" / place
    path.write_text('GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX hugepages=64"\n')
    with pytest.raises(GrubError, match=rf"hugepages=64 in \S*{place} against hugepages=0:512"):
        run(host, ARGUMENTS)
    assert not host.drop_in.exists()


def test_the_operators_same_value_and_a_second_console_are_no_contradiction(host: Host) -> None:
    host.defaults.write_text('GRUB_CMDLINE_LINUX="iommu=pt console=tty0"\n')
    assert run(host, [*ARGUMENTS, "console=ttyS1"]).changed


def test_a_later_drop_in_that_replaces_everything_is_named(host: Host) -> None:
    (host.drop_in.parent / "90-local.cfg").write_text('GRUB_CMDLINE_LINUX=""\n')
    with pytest.raises(GrubError, match=r"90-local\.cfg replaces GRUB_CMDLINE_LINUX"):
        run(host, ARGUMENTS)


def test_a_failing_update_puts_the_former_drop_in_back(host: Host) -> None:
    run(host, ["iommu=pt"])
    former = host.drop_in.read_text()
    broken = Host(host.root, ("/bin/sh", "-c", "echo no disk >&2; exit 1"))
    with pytest.raises(GrubError, match=r"update-grub failed.*no disk"):
        run(broken, ARGUMENTS)
    assert host.drop_in.read_text() == former
    assert run(host, ARGUMENTS).changed


@pytest.mark.parametrize("argument", ["foo bar", 'a="b"', "a=$b", "a=`id`", "", "-v", "a\\b", "a'b"])
def test_what_a_shell_would_take_apart_is_refused(host: Host, argument: str) -> None:
    with pytest.raises(GrubError, match="expected name or name=value"):
        run(host, [argument])


def test_settings_are_read_by_a_shell(tmp_path: Path) -> None:
    (tmp_path / "grub").write_text(
        'echo noise\nA=b\nGRUB_CMDLINE_LINUX="x=$A"\nGRUB_CMDLINE_LINUX_DEFAULT=`echo quiet`\n'
    )
    assert grub_settings([tmp_path / "grub"]) == (["x=b"], ["quiet"])
    (tmp_path / "grub").write_text("if then\n")
    with pytest.raises(GrubError, match=r"sourcing .*grub failed"):
        grub_settings([tmp_path / "grub"])


def test_a_host_that_grub_does_not_boot_is_told_why(host: Host) -> None:
    assert boot_loader_problems(host) == []
    (host.root / "proc/cmdline").write_text("root=/dev/vda\n")
    host.grub_cfg.unlink()
    host.defaults.unlink()
    problems = " ".join(boot_loader_problems(host))
    assert "default/grub does not exist" in problems
    assert "grub.cfg does not exist" in problems
    assert "no BOOT_IMAGE=" in problems


def test_versions_of_kernels_sort_as_numbers(tmp_path: Path) -> None:
    for version in ("6.12.9-amd64", "6.12.10-amd64", "6.1.0-40-amd64"):
        (tmp_path / f"vmlinuz-{version}").touch()
    assert newer_kernel(tmp_path, "6.12.9-amd64") == "6.12.10-amd64"
    assert newer_kernel(tmp_path, "6.12.10-amd64") == ""
    assert newer_kernel(tmp_path / "none", "6.12.10-amd64") == ""
    assert natural("6.12.0+deb13-amd64") < natural("6.12.1+deb13-amd64")
