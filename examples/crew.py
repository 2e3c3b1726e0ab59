"""One of several agents that do all of a PRD between them. `crew.py NAME PRD_ID [SECONDS]`, where TASKSTORE_DIR says.

An agent that finds nothing to claim waits for a change rather than asking again and again. It begins at a line on
standard input, needs SECONDS for each task spec, and prints what it did as a line of JSON each:
{"did": "claim" or "complete", "id", "phase", "unblocked", "ms": how long the call took}.
"""

import json
import os
import sys
import time
from collections.abc import Iterator

from taskstore import Store, connect


def main(name: str, prd_id: str, work_s: float) -> None:
    """Claim, work, complete, until nothing of the PRD waits to be claimed."""
    with connect(directory=os.environ["TASKSTORE_DIR"]) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in turns(store, prd_id):
            while work_on_one(store, name, prd_id, work_s):
                pass


def turns(store: Store, prd_id: str) -> Iterator[None]:
    """At once, and after each change, for as long as something waits for others to be done."""
    yield
    if not is_left(store, prd_id):
        return
    with store.changes(kinds=["task_spec"], where={"prd_id": prd_id}) as changes:
        yield  # it may have changed before we listened
        for _ in changes:
            if not is_left(store, prd_id):
                return
            yield


def is_left(store: Store, prd_id: str) -> bool:
    """Whether something waits to be claimed, now or later."""
    return bool(store.list_task_specs(prd_id, status="pending", limit=1))


def work_on_one(store: Store, name: str, prd_id: str, work_s: float) -> bool:
    """Whether there was something to claim."""
    began = time.perf_counter()
    claim = store.claim(by=name, prd_id=prd_id)
    if claim is None:
        return False
    say("claim", claim.id, claim.spec.phase_name, [], began)
    time.sleep(work_s)  # your work here
    began = time.perf_counter()
    unblocked = store.complete(claim)
    say("complete", claim.id, claim.spec.phase_name, unblocked, began)
    return True


def say(did: str, key: str, phase: str, unblocked: list[str], began: float) -> None:
    """Tell what was done since `began`."""
    ms = round((time.perf_counter() - began) * 1000, 3)
    print(json.dumps({"did": did, "id": key, "phase": phase, "unblocked": unblocked, "ms": ms}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 0.0)  # noqa: PLR2004 - the third word
