"""How long a command takes as a process, byte-compiled, against a bare interpreter start."""

import compileall
import os
import subprocess
import sys
import sysconfig

from measure import Row, processes, scratch

import taskstore
import taskstore_core

BAR = 2.5


def run(rounds: int = 30) -> list[Row]:
    """The commands people and agents call most."""
    for package in (taskstore, taskstore_core):
        compileall.compile_dir(os.path.dirname(str(package.__file__)), quiet=1)
    program = os.path.join(sysconfig.get_path("scripts"), "taskstore")
    with scratch() as folder:
        store = ["--store", folder]
        subprocess.run([program, "init", *store], check=True, stdout=subprocess.DEVNULL)
        prd = subprocess.run([program, "create", "prd", "--set", "title=Search", *store], check=True, text=True,
                             stdout=subprocess.PIPE).stdout.strip()
        specs = os.path.join(folder, "specs.jsonl")
        with open(specs, "w", encoding="utf-8") as file:
            file.writelines(f'{{"id":"t{n}","prd_id":"{prd}","phase_name":"N"}}\n' for n in range(2 * rounds))
        subprocess.run([program, "create", "task_spec", "--file", specs, *store], check=True, stdout=subprocess.DEVNULL)
        times = processes({
            "bare": [sys.executable, "-c", "pass"],
            "show prd ID": [program, "show", "prd", prd, *store],
            "list prd": [program, "list", "prd", *store],
            "stats": [program, "stats", *store],
            "ready": [program, "ready", *store],
            "create prd": [program, "create", "prd", "--set", "title=x", *store],
            "claim": [program, "claim", "--by", "bench", *store],
        }, rounds)
    bare = times.pop("bare")
    return [Row(f"taskstore {name}", ms, "bare interpreter start", bare, BAR if name == "show prd ID" else None)
            for name, ms in times.items()]
