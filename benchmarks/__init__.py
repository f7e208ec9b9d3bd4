"""Speed and fidelity, each against a peer in one run: `python -m benchmarks.NAME`.

A benchmark prints a table and ends with one JSON line; the same content, with CPU, versions and
commit, lies in `benchmarks/results/NAME.json`.
"""
