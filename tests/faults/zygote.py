"""Commands in forked processes: what each imported, ran and wrote, how long it took and how much memory it needed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# The commands, without torch and with all that a run imports.
LIGHT = " ".join(
    f"dltrain.commands.{verb}" for verb in ("resume", "rerun", "evaluate", "train", "reproduce", "verify")
)
HEAVY = f"{LIGHT} dltrain.run.verification dltrain.sweep.verification dltrain.run.experiment dltrain.run.scoring safetensors.torch PIL.Image"

CODE = """
import json, os, resource, sys, time
for name in sys.argv[1].split():
    __import__(name)
from dltrain.cli import main

WRITES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown")
RUNS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.spawn", "pty.spawn",
        "ctypes.dlopen", "socket.connect", "socket.bind", "webbrowser.open", "urllib.Request")

OWN_LIBRARIES = (None, "libnvidia-ml.so.1")  # the settings of malloc, and torch's question for a GPU

def witnessed(arguments, folder, answer):
    os.chdir(folder)
    os.dup2(os.open("err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.dup2(os.open("out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    seen = {"imports": [], "ran": [], "wrote": []}
    def hook(event, args):
        if event == "import":
            seen["imports"].append(args[0])
        elif event == "socket.bind" and args[0].family == 1:  # the line to the server that forks the jobs of a sweep
            pass
        elif event in RUNS and (*args, 0)[0] not in OWN_LIBRARIES:
            seen["ran"].append(f"{event} {args[:1]}")
        elif event in WRITES:
            seen["wrote"] += [os.path.abspath(os.fsdecode(a)) for a in args[:2] if isinstance(a, (str, bytes, os.PathLike))]
        elif event == "open" and isinstance(args[0], (str, bytes)) and (args[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            seen["wrote"].append(os.path.realpath(os.fsdecode(args[0])))
    before, begun, cpu = peak(), time.perf_counter(), time.process_time()
    sys.addaudithook(hook)
    try:
        main(arguments)
    except SystemExit as ended:
        seen["code"] = ended.code
    except BaseException as error:
        seen["code"] = repr(error)
    seen["seconds"], seen["cpu"] = time.perf_counter() - begun, time.process_time() - cpu
    seen["megabytes"] = (peak() - before) / 1024
    seen["open"] = bool({"", os.getcwd()} & set(sys.path))
    os.write(answer, json.dumps(seen).encode())
    os._exit(0)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

for line in sys.stdin:
    arguments, folder = json.loads(line)
    reading, writing = os.pipe()
    if os.fork() == 0:
        witnessed(arguments, folder, writing)
    os.close(writing)
    with open(reading) as stream:
        print(stream.read() or "{}", flush=True)
    os.wait()
"""


@dataclass(frozen=True)
class Seen:
    """What one command did."""

    code: int | str
    error: str  # what it printed to stderr
    output: str  # what it printed to stdout
    seconds: float
    cpu: float  # seconds of CPU, which other work on the machine does not lengthen
    megabytes: float  # above what the process had when it began
    imports: list[str]
    ran: list[str]
    wrote: list[str]
    open: bool  # whether modules of the working folder could be imported


class Zygote:
    """A process that has imported the program, and forks itself for every command."""

    def __init__(self, modules: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-B", "-P", "-W", "ignore", "-c", CODE, modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def run(self, arguments: list[str], folder: Path) -> Seen:
        """A command line in a working folder; the file `err` there holds what it said."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([arguments, str(folder)]) + "\n")
        answer = json.loads(self.process.stdout.readline())
        assert answer, "the process died"
        # a working folder is compared with what it was
        output = (folder / "out").read_text(errors="replace")
        (folder / "out").unlink()
        return Seen(error=(folder / "err").read_text(errors="replace"), output=output, **answer)

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
