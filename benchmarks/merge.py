"""The merge of three versions of a log of 100,000 lines, of which each side changed 1 %.

Floor: reading the three files, splitting them into lines, and writing one of them. `appended` is what the store does: a
new version is a line at the end. `rewritten` is the worst there is: each changed line stands where the old one stood.
"""

import os

from measure import Row, interleaved, scratch
from sync import KIND, line

from taskstore_merge.driver import main

BAR = 3.0


def write(path: str, lines: list[str]) -> None:
    """A log of these lines."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{text}\n" for text in lines)


def floor(paths: list[str], target: str) -> None:
    """Read and split all three, write the last."""
    data = b""
    for path in paths:
        with open(path, "rb") as file:
            data = file.read()
        assert data.split(b"\n")
    with open(target, "wb") as file:
        file.write(data)


def versions(folder: str, count: int, how: str) -> list[str]:
    """The paths of base, ours and theirs; one changed record in ten was changed by both."""
    base = [line(number) for number in range(count)]
    changed = {"ours": {n: line(n, 1) for n in range(0, count, 100)},
               "theirs": {n: line(n, 2) for n in (*range(0, count, 1000), *range(50, count, 100))}}
    made = {"base": base} | {
        side: [*base, *new.values()] if how == "appended" else [new.get(n, text) for n, text in enumerate(base)]
        for side, new in changed.items()}
    paths = [os.path.join(folder, f"{how}-{name}") for name in made]
    for path, lines in zip(paths, made.values(), strict=True):
        write(path, lines)
    return paths


def run(count: int = 100_000, rounds: int = 9) -> list[Row]:
    """Both against the floor; the driver is called in this process, so that its start is not measured."""
    rows = []
    with scratch() as folder:
        for how in ("appended", "rewritten"):
            base, ours, theirs = versions(folder, count, how)
            target = os.path.join(folder, "target")

            def merged(base: str = base, ours: str = ours, theirs: str = theirs, target: str = target) -> None:
                if os.path.exists(target):
                    os.unlink(target)
                os.link(ours, target)  # the driver replaces it, and leaves `ours` as it is
                assert main([base, target, theirs, "7", KIND.log]) == 0

            times = interleaved({"floor": lambda paths=[base, ours, theirs]: floor(paths, f"{folder}/floor"),  # type: ignore[misc]
                                 "merge": merged}, rounds)
            rows.append(Row(f"merge of 3 x {count} lines, 1 % {how}", times["merge"], "read and split three, write one",
                            times["floor"], BAR))
    return rows
