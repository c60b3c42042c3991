"""`python -m dltrain` is `dltrain`."""

import os
import sys

import dltrain

# `-m` puts the working folder first, where a stranger's torch.py may lie; it stays if dltrain itself is imported from there
if sys.path[:1] == [os.getcwd()] != [os.path.dirname(os.path.dirname(os.path.abspath(dltrain.__file__)))]:
    del sys.path[0]

from dltrain.cli import main  # noqa: E402 - with that path

if __name__ == "__main__":
    main()
