"""Run the jobs of a sweep by commands, one after another or several at a time, and log each of them."""

import os
import signal
import subprocess
import time
from typing import Annotated

from dltrain.sweep.backends.protocol import Ended, Started


class Commands:
    """Each job by its command line, in a process that has nothing to do with the driver's.

    Put `ssh`, `srun` or `nice` before the command to run it elsewhere: all that it needs is the folder where the sweep was
    started, and the job's own folder.

    Args:
        log: file to which a line is appended for each job
        nice: priority of the jobs, 0 to 19; a larger number gives way to other programs
    """

    def __init__(self, sweep, log: str = "jobs.txt", nice: Annotated[int, ">= 0"] = 0):
        self.log, self.nice = log, nice
        self.waiting, self.running, self.ended = [], {}, []
        # how many jobs the driver submits at once; the default, too
        self.places = sweep.jobs

    def submit(self, job):
        self.waiting.append(job)

    def events(self):
        for job in self.waiting:
            output = subprocess.DEVNULL
            command = ["nice", "-n", str(self.nice), *job.command] if self.nice else job.command
            # its own session: a Ctrl-C in the terminal reaches the driver, which cancels the jobs
            self.running[job.number] = job, subprocess.Popen(command, stdout=output, start_new_session=True)
            yield Started(job)
        self.waiting.clear()
        time.sleep(0.1)
        for number, (job, process) in list(self.running.items()):
            code = process.poll()
            if code is not None:
                del self.running[number]
                with open(self.log, "a") as log:
                    log.write(f"job {number}: exit code {code}: {' '.join(job.overrides)}\n")
                yield Ended(job, code)
        yield from self.ended
        self.ended.clear()

    def cancel(self, job):
        if job in self.waiting:
            self.waiting.remove(job)
            self.ended.append(Ended(job, 130))
        elif job.number in self.running:
            self.running[job.number][1].send_signal(signal.SIGINT)

    def close(self):
        for _, process in self.running.values():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
