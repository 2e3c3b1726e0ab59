"""The store against its model: random steps by many clients, editors and git, and after each the state is the model's.

With `-s` it prints how many steps were made by each rule; with `--long` there are over 10,000, in four parts.
"""

import shutil
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.system import tour
from tests.system.machine_files import Files
from tests.system.machine_git import GitWork
from tests.system.machine_ground import Ground
from tests.system.machine_records import Records
from tests.system.machine_work import Work

STEPS = 2500
"""How many steps at the least a part of the campaign makes."""


class Everything(Records, Work, Files, GitWork):
    """All that may happen to a store."""


class Given:
    """What a rule would draw, said beforehand."""

    def __init__(self, values: "list[Any]") -> None:
        self._values = iter(values)

    def draw(self, _: object) -> Any:
        return next(self._values)


def go(machine: Everything, steps: "list[tuple[str, dict[str, Any]]]") -> None:
    """Make steps, and look after each whether all is as the model says."""
    for name, values in steps:
        given = {**values, "data": Given(values["data"])} if "data" in values else values
        if name == "end_claim":
            number, wrong = values["data"]
            given["data"] = Given([machine.claims[-number], wrong])
        getattr(machine, name)(**given)
        machine.state_is_the_model()


@pytest.mark.parametrize("way", ["RECORDS", "WORK", "GIT"])
def test_each_hazard_once(way: str) -> None:
    """The rules in an order in which each of them has something to do."""
    machine = Everything()
    try:
        go(machine, [("begin", {"who": "daemon one", "several": tour.BEGIN}), *getattr(tour, way)])
    finally:
        machine.teardown()
        forget_template()


def forget_template() -> None:
    if Ground.template is not None:
        shutil.rmtree(Ground.template.parent)
        Ground.template = None


def campaign(examples: int, steps: int, *, is_fixed: bool) -> settings:
    """The same examples each time, or those of a seed.

    What fails is told as it was found: to shrink it would take many minutes, as each try works on real files.
    """
    return settings(max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=is_fixed,
                    phases=[Phase.generate], database=None, print_blob=False,
                    suppress_health_check=list(HealthCheck))


def run(machine: type[Everything], examples: settings) -> None:
    """Run it and print the counts of its steps."""
    Ground.steps.clear()
    try:
        run_state_machine_as_test(machine, settings=examples)
    finally:
        forget_template()
        made = ", ".join(f"{name} {count}" for name, count in sorted(Ground.steps.items()))
        print(f"{Ground.steps.total()} steps: {made}", file=sys.stderr)  # noqa: T201 - as pytest-xdist drops its workers' output


def test_the_store_is_its_model() -> None:
    """Whatever happens in whatever order, every client reads what the model says, and so do files and a fresh cache."""
    run(Everything, campaign(5, 30, is_fixed=True))


@pytest.mark.long
@pytest.mark.parametrize("part", range(4))
def test_the_store_is_its_model_for_long(part: int) -> None:
    """The same in parts that may run side by side; many short lives meet more than a few long ones."""
    machine = seed(part)(type("Part", (Everything,), {}))
    run(machine, campaign(50, 70, is_fixed=False))  # a life may end early, where it has used up what is drawn for it
    assert Ground.steps.total() >= STEPS
