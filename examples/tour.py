"""A tour of a store: the state of a small web shop's project, on a copy that is thrown away afterwards."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
PROOF = "TOKEN"
STEPS = (
    ("What is there?", ["stats"]),
    ("What is being built?", ["list-prds"]),
    ("Which pieces does the search have?", ["list-task-specs", "prd-search"]),
    ("What is running, and where?", ["list-executions", "--status", "running"]),
    ("One of them in full, named by the beginning of its id:", ["show", "task_spec", "ts-r"]),
    ("What could an agent do now?", ["ready"]),
    ("It takes one, and nobody else gets that:", ["claim", "--by", "ann"]),
    ("When it is done, what waited for it can begin:", ["complete", "ts-xml", "--by", "ann", "--token", PROOF]),
    ("Something new is asked for:", ["create", "prd", "--set", "id=prd-gifts", "--set", "title=Gift cards"]),
    ("It stands as one more line in a log that git can merge:", None),
)


def main() -> int:
    """Show every step as it would be typed, with what it prints."""
    token = ""
    with tempfile.TemporaryDirectory(prefix="taskstore-tour-") as folder:
        store = os.path.join(folder, "webshop")
        shutil.copytree(os.path.join(HERE, "webshop"), store)
        environment = {**os.environ, "TASKSTORE_DIR": store}
        for text, words in STEPS:
            print(f"\n# {text}", flush=True)
            if words is None:
                print("$ tail -n 1 prds.jsonl")
                with open(os.path.join(store, "prds.jsonl"), encoding="utf-8") as log:
                    print(log.readlines()[-1], end="")
                continue
            typed = [token if word == PROOF else word for word in words]
            print(f"$ taskstore {shlex.join(typed)}", flush=True)
            claims = words[0] == "claim"  # its token is asked for later; all others print to the terminal themselves
            done = subprocess.run([sys.executable, "-m", "taskstore", *typed], env=environment, check=False,
                                  stdout=subprocess.PIPE if claims else None, encoding="utf-8")
            if done.returncode:
                return done.returncode
            if claims:
                print(done.stdout, end="", flush=True)
                token = done.stdout.partition("--token ")[2].partition(" ")[0]
    return 0


if __name__ == "__main__":
    sys.exit(main())
