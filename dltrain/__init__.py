"""dltrain: one word for each choice, one folder for each experiment."""

__version__ = "0.1.0"
