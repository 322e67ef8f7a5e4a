"""Become a container's first process: `python -m tests.support.container ... --
COMMAND`.

Runs in the namespaces that `unshare` made. Mounts the image, gives rights up as `docker
run --cap-drop ALL --security-opt no-new-privileges --user` does, and becomes the
command.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
from pathlib import Path

from tests.support import linux


def main() -> None:
    """Mount, give up, execute."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--overlay", required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--user", type=int, required=True)
    parser.add_argument("--group", type=int, required=True)
    parser.add_argument("--directory", required=True)
    parser.add_argument("--tmpfs", action="append", default=[])
    parser.add_argument("--bind", action="append", default=[])
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--loopback", action="store_true")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    linux.make_mounts_private()
    if options.loopback:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    root: Path = options.root
    linux.mount_overlay(root, options.overlay)
    linux.mount_proc(root / "proc")
    linux.mount_devices(root / "dev")
    for inside in options.tmpfs:
        linux.mount_tmpfs(root / inside[1:], "1777")
    for text in options.bind:
        here, _, inside = text.partition(":")
        linux.bind(Path(here), root / inside[1:], is_writable=here != "/")
    linux.change_root(root)
    if options.user:
        linux.drop_capabilities()
        os.setgroups([])
        os.setresgid(options.group, options.group, options.group)
        os.setresuid(options.user, options.user, options.user)
        linux.forbid_new_privileges()
    linux.die_with_parent(signal.SIGKILL)
    os.chdir(options.directory)
    environment = dict(pair.split("=", 1) for pair in options.env)
    os.execvpe(options.command[0], options.command, environment)


if __name__ == "__main__":
    main()
