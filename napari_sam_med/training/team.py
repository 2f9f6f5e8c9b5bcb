"""The processes that train one model together, a device each, by Lightning Fabric."""

from __future__ import annotations

import logging
import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from napari_sam_med.errors import DeviceError, SamMedError
from napari_sam_med.sam.device import resolve_device, resolve_precision

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Team", "train_together"]

# here, as it is loaded by every process before Fabric tells which hardware it takes and who is there
for _name in ("lightning_fabric.utilities.rank_zero", "lightning_fabric.utilities.distributed"):
    logging.getLogger(_name).setLevel(logging.WARNING)
logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # that the others are ended, too

_T = TypeVar("_T")
_PATIENCE = timedelta(days=2)
"""How long a process waits for the others: one may have far more to embed than another."""


class Team:
    """The processes that train one model together; most often this one alone.

    All of them hold the same weights and take the same steps. What is to be done for many slices is shared
    out, and what came of it is brought together again, so that every process knows all of it.

    Parameters
    ----------
    fabric : Fabric
        Launched, where it has several devices.
    device : torch.device
        Of this process.
    is_mixed : bool
        Whether it is computed in bfloat16 where that is safe.
    """

    def __init__(self, fabric: Fabric, device: torch.device, *, is_mixed: bool) -> None:
        self.fabric, self.device, self.is_mixed = fabric, device, is_mixed

    @classmethod
    def alone(cls, device: str = "cpu", precision: str = "fp32") -> Team:
        """This process alone; device and precision as for `load_predictor`."""
        where = resolve_device(device)
        is_mixed = resolve_precision(precision, where) == "bf16"
        fabric = _fabric(where, 1 if where.index is None else [where.index], is_mixed)
        return cls(fabric, where, is_mixed=is_mixed)

    @property
    def size(self) -> int:
        """Number of processes."""
        return int(self.fabric.world_size)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and speaks to the user."""
        return bool(self.fabric.is_global_zero)

    def is_own(self, number: int) -> bool:
        """Whether the item of that number is this process's to do."""
        return number % self.size == self.fabric.global_rank

    def share(self, items: Sequence[_T]) -> Sequence[_T]:
        """The items that are this process's to do."""
        return [item for number, item in enumerate(items) if self.is_own(number)]

    def joined(self, own: Sequence[_T]) -> list[_T]:
        """What came of all items, in their order, from what came of those that `share` gave each process."""
        if self.size == 1:
            return list(own)
        parts = [self.fabric.broadcast(own, src=rank) for rank in range(self.size)]
        return [parts[i % self.size][i // self.size] for i in range(sum(map(len, parts)))]

    def summed(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Each tensor added up over the processes; one exchange for all of them."""
        if self.size == 1:
            return list(tensors)
        flat = torch.cat([tensor.reshape(-1).to(self.device, torch.float32) for tensor in tensors])
        parts = torch.split(
            cast("torch.Tensor", self.fabric.all_reduce(flat, reduce_op="sum")),
            [tensor.numel() for tensor in tensors],
        )
        return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def train_together(
    work: Callable[..., None], count: int, device: str, precision: str, *arguments: Any
) -> None:
    """Call ``work(team, *arguments)`` in ``count`` processes, a device each, and wait for all of them.

    Parameters
    ----------
    work : callable
        Of a module, so that other processes find it.
    count : int
        1 calls it here.
    device, precision : str
        As for `load_predictor`; ``cuda`` takes the first GPUs, ``cpu`` shares the cores out.
    *arguments
        Can be pickled.

    Raises
    ------
    DeviceError
        When there are not so many devices, or one of the processes was killed.
    SamMedError, OSError
        That ``work`` ended with in one of the processes; the others are ended.
    """
    if count == 1:
        work(Team.alone(device, precision), *arguments)
        return
    where = resolve_device(device)
    _check_devices(where, count)
    is_mixed = resolve_precision(precision, where) == "bf16"
    errors = multiprocessing.get_context("spawn").SimpleQueue()
    others = set(multiprocessing.active_children())
    try:
        _fabric(where, count, is_mixed).launch(
            partial(_work_in_process, is_mixed=is_mixed, errors=errors, work=work, arguments=arguments)
        )
    except ProcessRaisedException:
        if errors.empty():
            raise
        raise errors.get() from None
    except ProcessExitedException as error:
        raise DeviceError(
            f"One of the {count} processes was ended from outside ({error}), most often for want of memory; "
            "free some, or give fewer --devices: the same command goes on from the last epoch."
        ) from None
    finally:
        for process in set(multiprocessing.active_children()) - others:  # after Ctrl-C, say
            process.terminate()


def _work_in_process(
    fabric: Fabric, is_mixed: bool, errors: Any, work: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    warnings.simplefilter("ignore")  # libraries warn in their own words, and each process would
    try:
        work(Team(fabric, fabric.device, is_mixed=is_mixed), *arguments)
    except (SamMedError, OSError) as error:
        errors.put(error)
        raise


def _fabric(where: torch.device, devices: int | list[int], is_mixed: bool) -> Fabric:
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    # spawn: works from any program, on every system; buffers: each process draws its own passes of a click
    together = DDPStrategy(start_method="spawn", timeout=_PATIENCE, broadcast_buffers=False)
    return Fabric(
        accelerator=where.type,
        devices=devices,
        strategy=together if isinstance(devices, int) and devices > 1 else "auto",
        precision="bf16-mixed" if is_mixed else "32-true",
    )


def _check_devices(where: torch.device, count: int) -> None:
    if where.type == "mps" or ":" in str(where):
        raise DeviceError(
            f'Device "{where}" is one, and {count} were asked for; give --device cuda or cpu, or --devices 1.'
        )
    there = torch.cuda.device_count()
    if where.type == "cuda" and count > there:
        raise DeviceError(
            f"{count} GPUs were asked for, and the computer has {there}; give --devices {there}."
        )
