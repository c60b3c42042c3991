"""The contenders of benchmarks/throughput.py: each module has `fit(task, tuned)`."""
