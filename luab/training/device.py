"""The device that a training or a prediction runs on."""

import torch

from luab.errors import JobError
from luab.study.config import Study
from luab.training.distributed import Processes


def choose_device(study: Study, processes: Processes | None = None) -> torch.device:
    """The device that the config asks for; of several processes each has its own GPU.

    Raises:
        JobError: "cuda" is asked for and there is none, or fewer than processes on this node.
    """
    wanted, there = study.compute.device, torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise JobError(
            "compute.device is 'cuda', but torch sees no GPU here. Submit this job to a GPU node, or see "
            "`luab doctor` for a driver that is too old for this build of torch."
        )
    if not there or wanted == "cpu":
        return torch.device("cpu")
    if processes is None or processes.count == 1:
        return torch.device("cuda")
    if torch.cuda.device_count() < study.compute.gpus:
        raise JobError(
            f"compute.gpus is {study.compute.gpus}, but torch sees {torch.cuda.device_count()} GPUs here. Ask the "
            "cluster for as many, or lower compute.gpus."
        )
    torch.cuda.set_device(processes.local)
    return torch.device("cuda", processes.local)
