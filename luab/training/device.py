"""The device that a training or a prediction runs on."""

import torch

from luab.errors import JobError
from luab.study.config import Study
from luab.training.distributed import Processes


def choose_device(study: Study, processes: Processes | None = None) -> torch.device:
    """Returns the device that the config selects; with several processes, each one gets its own GPU.

    Raises:
        JobError: compute.device is "cuda" and torch sees no GPU, or this node has fewer GPUs than processes.
    """
    requested, gpu_visible = study.compute.device, torch.cuda.is_available()
    if requested == "cuda" and not gpu_visible:
        raise JobError(
            "compute.device is 'cuda', but torch sees no GPU here. Submit this job to a GPU node, or run "
            "`luab doctor` to check whether the driver is too old for this build of torch."
        )
    if requested == "cpu" or not gpu_visible:
        return torch.device("cpu")
    if processes is None or processes.count == 1:
        return torch.device("cuda")
    if torch.cuda.device_count() < study.compute.gpus:
        raise JobError(
            f"compute.gpus is {study.compute.gpus}, but torch sees {torch.cuda.device_count()} GPUs here. Request that "
            "many from the cluster, or lower compute.gpus."
        )
    torch.cuda.set_device(processes.local)
    return torch.device("cuda", processes.local)
