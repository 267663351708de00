"""Our server and Synapse side by side: the same work on the same machine in one run.

``python -m bench`` (or ``make bench``) prints the figures and writes them to ``bench/results/``;
``docs/benchmarks.md`` says how it is done.
"""
