"""A Dask cluster of two processes on loopback: prints its address, ends with its stdin.

Run as `python -m tests.world.cluster`: its workers have the environment that they are started in.
"""

import sys


def main() -> None:
    """Start the cluster and wait."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        sys.stdout.write(f"{cluster.scheduler_address}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
