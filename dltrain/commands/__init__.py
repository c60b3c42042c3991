"""The verbs of the command line, one file each."""

import time

# when the process began to read its command line
STARTED = time.perf_counter()
