"""An agent: takes what is ready, works on it, says how it went, until nothing is left. `agent.py [NAME]`."""

import os
import subprocess
import sys

from taskstore import ConflictError, TaskSpec, connect


def work(spec: TaskSpec) -> bool:
    """Do what the task spec asks for; here its content is run as a shell script, if it is one."""
    print(f"{spec.id}: {spec.phase_name}", flush=True)
    if not spec.content.startswith("#!/bin/sh"):
        return True
    return subprocess.run(["sh", "-c", spec.content], check=False).returncode == 0


def main(name: str) -> int:
    """Work for as long as there is something ready; how many task specs were done."""
    done = 0
    with connect(".", directory=os.environ.get("TASKSTORE_DIR")) as store:
        while (claim := store.claim(by=name)) is not None:
            try:
                if work(claim.spec):
                    unblocked = ", ".join(store.complete(claim))
                    print(f"{claim.id}: complete{unblocked and f', now ready: {unblocked}'}", flush=True)
                    done += 1
                else:
                    store.fail(claim)
            except ConflictError as lost:  # it took us longer than our lease, and somebody else has it
                print(lost.message, file=sys.stderr)
    return done


if __name__ == "__main__":
    print(f"{main(sys.argv[1] if len(sys.argv) > 1 else f'agent-{os.getpid()}')} done")
