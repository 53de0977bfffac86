"""Settings and targets that a shell would read as commands: real jobs run, and nothing else does."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from .conftest import Checkout

pytestmark = pytest.mark.faults

COMMANDS = "a b;touch pwned1;$(touch pwned2)`touch pwned3`&touch pwned4|touch pwned5>pwned6"


@pytest.fixture(scope="module")
def hostile(copy_checkout: Callable[[str], Checkout], toy_world: Path) -> Checkout:
    """A checkout whose data, results and images lie in folders with such names, and whose label is one."""
    checkout = copy_checkout("hostile")
    (checkout.folder / f"images {COMMANDS}").symlink_to(toy_world / "imagenet")
    paths = {key: f"{key} {COMMANDS}" for key in ("data", "results")}
    paths |= {"imagenet": f"images {COMMANDS}", "partial": True}
    settings = {"label": f"'\"{COMMANDS}", "paths": paths, "compute": {"device": "cpu", "workers": 0, "threads": 1}}
    (checkout.folder / f"{COMMANDS}.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    return checkout


def pwned(checkout: Checkout) -> list[str]:
    return [path.name for path in checkout.folder.rglob("*") if path.name.startswith("pwned")]


def test_the_commands_are_commands(tmp_path: Path) -> None:
    done = Checkout(tmp_path).python("-c", f"import os; os.system({f'echo {COMMANDS}'!r})")
    assert done.returncode == 0 and len(pwned(Checkout(tmp_path))) == 6


@pytest.mark.parametrize("executor", ["local", "submitit"])
def test_no_path_and_no_label_is_a_command(hostile: Checkout, executor: str) -> None:
    """Locally, and through the executor, which writes the job's call of Snakemake for a shell."""
    card = f"data {COMMANDS}/manifests/imagenet_train.json"
    (hostile.folder / card).unlink(missing_ok=True)
    arguments = ["--configfile", f"{COMMANDS}.yaml", "--cores", "1"]
    if executor == "submitit":
        arguments = [*arguments, "--executor", "submitit", "--submitit-cluster", "local", "--jobs", "1"]
    done = hostile.snakemake(*arguments, "--", card)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((hostile.folder / card).read_text(encoding="utf-8"))["n"] == 30
    assert pwned(hostile) == []


def test_a_target_is_no_command(hostile: Checkout) -> None:
    """Also where somebody's data brings along what the job would wait for."""
    run = f"results {COMMANDS}/runs/imagenet/'$(touch pwned)';touch pwned;/none-0/seed0"
    (hostile.folder / run).mkdir(parents=True)
    (hostile.folder / run / "run.json").write_text("{}", encoding="utf-8")
    done = hostile.snakemake(
        "--configfile", f"{COMMANDS}.yaml", "--cores", "1", "--", f"{run}/predictions/accuracy.json"
    )
    assert done.returncode != 0 and "MissingRuleException" in done.stdout + done.stderr
    assert pwned(hostile) == []
