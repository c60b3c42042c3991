"""The commit of the working folder. This is the only place that runs git.

A repository may come from elsewhere, and its `.git/config` can name commands: `core.fsmonitor`, hooks, filters,
transports of a partial clone. None of them may run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

# Settings of a repository that make `git status` run commands; the command line has priority over its config.
_HARMLESS = (
    "--no-pager", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}",
    "-c", "core.pager=cat", "-c", "core.sshCommand=false", "-c", "core.editor=false", "-c", "diff.external=",
    "-c", "credential.helper=", "-c", "protocol.allow=never", "-c", "submodule.recurse=false",
)  # fmt: skip
_ENVIRONMENT = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
_KEPT = ("HOME", "XDG_CONFIG_HOME", "SYSTEMROOT")  # the location of the user's own git config
_STATUS = ("status", "--porcelain=v2", "--branch", "--untracked-files=no", "--ignore-submodules=all")


def git_state() -> dict[str, object]:
    """Return the commit of the working folder and whether it has uncommitted changes; empty outside a checkout.

    `dirty` is None where the repository's own config defines filters: comparing files would run them.
    """
    if not (Path.cwd() / ".git").exists():
        return {}
    if _has_filters():
        commit = run_git("rev-parse", "HEAD")
        return {"commit": commit.strip(), "dirty": None} if commit else {}
    answer = run_git(*_STATUS)
    if answer is None:
        return {}
    commit = next((line.split()[-1] for line in answer.splitlines() if line.startswith("# branch.oid")), None)
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in answer.splitlines())}


def _has_filters() -> bool:
    """Return whether the repository's config, rather than the user's, names filters; also True where git cannot tell."""
    listed = run_git("config", "--list", "--show-scope", "--name-only", "-z")
    if listed is None:
        return True
    entries = listed.split("\0")
    return any(
        scope not in ("system", "global", "command") and name.startswith("filter.")
        for scope, name in zip(entries[::2], entries[1::2], strict=False)
    )


def run_git(*arguments: str) -> str | None:
    """Run git in the working folder with a clean environment; None where it is missing, slow or refuses."""
    folders = [f for f in os.environ.get("PATH", os.defpath).split(os.pathsep) if os.path.isabs(f)]
    program = shutil.which("git", path=os.pathsep.join(folders))
    if program is None:
        return None
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    try:
        return subprocess.run(
            [program, *_HARMLESS, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=5,
            check=True,
            env={**kept, **_ENVIRONMENT, "PATH": os.pathsep.join(folders)},
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
