"""Run the benchmarks and print one table: `python benchmarks/run.py [NAME …]`."""

import importlib
import platform
import sys

from measure import print_rows

NAMES = ("start_up", "writes", "sync", "coordination", "daemon", "life", "merge", "hooks", "hostile", "scale")


def main(names: list[str]) -> int:
    """Run those named, or all."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.platform()}")
    rows = [row for name in names or NAMES for row in importlib.import_module(name).run()]
    print_rows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
