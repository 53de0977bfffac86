"""A small server for trainings in processes that can be killed; a test session starts it once, outside pytest.

It imports torch once (which takes seconds), computes nothing itself, and forks the processes of each training from
that clean state: a fork of pytest can hang, because its libraries have started threads. Each request and each answer
is one line of JSON:

    {"study": "<yaml file>", "run": ["imagenet", "test_vit", "click", 1.0, 0], "processes": 2, "states_s": 0.05,
     "limit_s": 240, "hurts": [
        {"signal": 9, "rank": 1, "after_s": 0.3}            to one process, that long after all have started to train
        {"signal": 15, "rank": null, "at_step": 4}          to every process and its data loaders, before a step
        {"signal": 9, "rank": 0, "at_replace": 3}]}         before the n-th rename of a state file
    {"codes": [0, 0], "messages": ["", ""], "seconds": 1.2}
"""

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import luab.training.train
import luab.training.trainer
from luab.study.config import load_study
from luab.study.paths import Run
from luab.training.own_process import NOTES, PARENT


def main() -> None:
    """Answers requests until stdin is closed."""
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Forks the processes of one training, sends the requested signals, and waits for all processes."""
    with tempfile.TemporaryDirectory() as name:
        folder, count, started = Path(name), request["processes"], time.monotonic()
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        children = [_fork(rank, port, folder, request) for rank in range(count)]
        codes = _wait(children, folder, request)
        messages = [
            (folder / f"{rank}.txt").read_text(encoding="utf-8") if (folder / f"{rank}.txt").exists() else ""
            for rank in range(count)
        ]
        return {"codes": codes, "messages": messages, "seconds": time.monotonic() - started}


def _fork(rank: int, port: int, folder: Path, request: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    with contextlib.suppress(BaseException):
        os.setsid()
        count = request["processes"]
        if count > 1:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            os.environ |= {NOTES: str(folder), PARENT: str(os.getppid())}
        luab.training.train._SECONDS_BETWEEN_STATES = request.get("states_s", 600.0)
        for hurt in request.get("hurts", []):
            if hurt["rank"] in (rank, None):
                _prepare(hurt)
        message = ""
        try:
            study, run = load_study([request["study"]]), Run(*request["run"])
            luab.training.train.train(study, run, ready=(folder / f"{rank}.ready").touch)
            code = 0
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
        (folder / f"{rank}.txt").write_text(message, encoding="utf-8")
    os._exit(code)


def _prepare(hurt: dict[str, Any]) -> None:
    if "at_step" in hurt:
        original = luab.training.trainer.Trainer.step

        def step(self: luab.training.trainer.Trainer, *arguments: Any) -> luab.training.trainer.Flags:
            if self.done == hurt["at_step"]:
                os.killpg(0, hurt["signal"])
            return original(self, *arguments)

        luab.training.trainer.Trainer.step = step  # type: ignore[method-assign]
    if "at_replace" in hurt:
        replace, count = os.replace, 0

        def counting(source: Any, target: Any) -> None:
            nonlocal count
            count += "state" in Path(target).name
            if count == hurt["at_replace"]:
                os.killpg(0, hurt["signal"])
            replace(source, target)

        os.replace = counting  # type: ignore[assignment]


def _wait(children: list[int], folder: Path, request: dict[str, Any]) -> list[int]:
    codes: dict[int, int] = {}
    end = time.monotonic() + request.get("limit_s", 240)
    pending = [hurt for hurt in request.get("hurts", []) if "after_s" in hurt]
    training: float | None = None
    while len(codes) < len(children):
        for child in set(children) - codes.keys():
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                codes[child] = os.waitstatus_to_exitcode(status)
        if training is None and len(list(folder.glob("*.ready"))) == len(children):
            training = time.monotonic()
        for hurt in list(pending):
            if training is not None and time.monotonic() > training + hurt["after_s"]:
                pending.remove(hurt)
                for child in children if hurt["rank"] is None else [children[hurt["rank"]]]:
                    if child not in codes:
                        os.kill(child, hurt["signal"])
        if time.monotonic() > end:
            for child in set(children) - codes.keys():
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                codes[child] = 124
        time.sleep(0.005)
    for child in children:  # data loaders of a killed process
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
    return [codes[child] for child in children]


if __name__ == "__main__":
    main()
