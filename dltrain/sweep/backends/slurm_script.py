"""The batch script of a job on a Slurm cluster: train, save before the time limit, requeue."""

from __future__ import annotations

import shlex
from pathlib import Path

from dltrain.errors import UserError
from dltrain.sweep.jobs import Job

SCRIPT = """\
#!/bin/bash
{directives}
# Trains job {number} of a sweep in its folder, from its newest checkpoint: it may run any number of times.
folder={folder}
export OMP_NUM_THREADS={cpus}
{command} &
run=$!
# The time limit is near, or another job needs the node: dltrain saves and exits with 75.
trap 'kill -USR1 "$run"' USR1
# Slurm sends this one to the run itself, too.
trap : TERM
while kill -0 "$run" 2>/dev/null; do wait "$run"; done
wait "$run"
code=$?
case $code in
75 | 138 | 143) ;;  # it saved, or was asked to before it could
*)
    [ $code = 0 ] || echo "exit code $code"
    exit $code ;;
esac
case $(timeout 60 squeue --noheader --states=all --jobs="$SLURM_JOB_ID" --format=%T) in
COMPLETING | CANCELLED | TIMEOUT) exit $code ;;  # canceled, or Slurm requeues it
esac
# the newest checkpoint: the best weights beside it have one name at every step
newest=$(ls "$folder/checkpoints" 2>/dev/null | grep '^step-' | sort -t - -k 2 -n | tail -n 1)
echo "${{newest:-none}}" >> "$folder/requeues.txt"
if [ "$(tail -n 3 "$folder/requeues.txt" | uniq -c | tr -s ' ' | cut -d ' ' -f 2)" = 3 ]; then
    echo "stopped three times in a row without a step: raise sweep.backend.time"
    exit 1
fi
timeout 60 scontrol requeue "$SLURM_JOB_ID" || echo "scontrol requeue failed: the job is saved, but does not go on by itself"
exit $code
"""


def script_of(job: Job, options: list[str], cpus: int) -> str:
    """Return the batch script of a job, with the user's options of sbatch behind dltrain's, which they replace.

    Raises UserError for a folder that a line of sbatch's options cannot name.
    """
    folder = job.folder.resolve()
    for path in (Path.cwd(), folder):
        check_path(path)
    own = [
        f"--job-name={shlex.quote(name_of(job))}",
        f"--chdir={shlex.quote(str(Path.cwd()))}",
        f"--output={shlex.quote(str(folder / 'slurm.log').replace('%', '%%'))}",
        "--open-mode=append",
        "--signal=B:USR1@60",
        "--requeue",
    ]
    return SCRIPT.format(
        directives="\n".join(f"#SBATCH {option}" for option in own + options),
        number=job.number,
        folder=shlex.quote(str(folder)),
        cpus=cpus,
        command=shlex.join(job.command),
    )


def check_path(path: Path) -> None:
    """Raise UserError for a folder with a control character in its name, which would end the line that names it."""
    if not str(path).isprintable():
        raise UserError(
            f"`sweep.backend=slurm`: {str(path)!r:.200} has control characters, and job.sbatch is read line by line.\n"
            "Rename the folder, or use sweep.backend=local"
        )


def name_of(job: Job) -> str:
    """Return the name of a sweep's jobs in the queue."""
    return f"dltrain-{job.folder.resolve().parent.name}"
