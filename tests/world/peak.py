"""`urban` with its peak memory told: `python -m tests.world.peak FILE ARGUMENTS…`.

The kernel's own mark of this program (`VmHWM`): what `wait4` tells of a child is never less than
what the parent held when it forked.
"""

import atexit
import sys
from pathlib import Path


def tell(file: Path) -> None:
    """Write the peak of this process's resident memory, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            file.write_text(str(int(line.split()[1]) * 1024))


if __name__ == "__main__":
    from urbancli.cli import main

    atexit.register(tell, Path(sys.argv.pop(1)))
    main()
