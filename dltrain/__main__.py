"""`python -m dltrain` is `dltrain`."""

from dltrain.cli import main

main()
