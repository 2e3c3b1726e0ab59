"""The store against its model: random steps by many clients, editors and git, and after each the state is the model's.

With `-s` it prints how many steps were made by each rule; with `--long` there are over 10,000, and a failure is shrunk.
"""

import shutil
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.system import tour
from tests.system.machine_files import Files
from tests.system.machine_git import GitWork
from tests.system.machine_ground import Ground
from tests.system.machine_records import Records
from tests.system.machine_work import Work


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


def campaign(examples: int, steps: int, *, shrink: bool) -> settings:
    """Shrinking takes minutes, as each try works on real files."""
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    return settings(max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True, phases=phases,
                    database=None, print_blob=False, suppress_health_check=list(HealthCheck))


def test_the_store_is_its_model(long: bool) -> None:
    """Whatever happens in whatever order, every client reads what the model says, and so do files and a fresh cache."""
    Ground.steps.clear()
    try:
        run_state_machine_as_test(Everything, settings=campaign(110 if long else 5, 100 if long else 30, shrink=long))
    finally:
        forget_template()
        made = ", ".join(f"{name} {count}" for name, count in sorted(Ground.steps.items()))
        print(f"{Ground.steps.total()} steps: {made}")  # noqa: T201 - the counts of a campaign
