"""A durable create through the library, against one append and fdatasync of as many bytes."""

import os

from measure import Row, interleaved, scratch

from taskstore_core.batch import Operation
from taskstore_core.kinds import KINDS
from taskstore_core.store import Store

_ROUNDS = 500


def run() -> list[Row]:
    """One create, one create in a batch of 100, and a get."""
    with scratch() as folder:
        store, _ = Store.create(directory=os.path.join(folder, ".taskstore"))
        kind = KINDS["prd"]
        plain = os.open(f"{folder}/plain", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        key = store.apply([Operation("create", kind, {"title": "Search"})])[0].key

        def append() -> None:
            os.write(plain, b"x" * 300 + b"\n")
            os.fdatasync(plain)

        def create() -> None:
            store.apply([Operation("create", kind, {"title": "Search"})])

        def batch() -> None:
            store.apply([Operation("create", kind, {"title": "Search"}) for _ in range(100)])

        times = interleaved({"append": append, "create": create, "get": lambda: store.get(kind, key)}, _ROUNDS)
        batches = interleaved({"append": append, "batch": batch}, _ROUNDS // 10)
        os.close(plain)
        store.close()
    return [
        Row("create, durable", times["create"], "append + fdatasync", times["append"]),
        Row("create of 100 in one apply, each", batches["batch"] / 100, "append + fdatasync", batches["append"]),
        Row("get", times["get"], "append + fdatasync", times["append"]),
    ]
