"""Devices and precisions: what is asked for is what is used, or an error says why not."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np
import pytest
import torch

from napari_sam_med.errors import DeviceError, DeviceMemoryError
from napari_sam_med.sam.device import (
    network_runs,
    on_one_core,
    resolve_device,
    resolve_precision,
    side_by_side,
)
from napari_sam_med.sam.predictor import load_predictor
from napari_sam_med.sam.prompts import Prompts

CPU = torch.device("cpu")


@pytest.fixture
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("no_accelerator")
def test_without_accelerator() -> None:
    assert resolve_device() == CPU
    assert resolve_device(CPU) == CPU
    for device in ("cuda", "cuda:0", "mps"):
        with pytest.raises(DeviceError, match=device):
            resolve_device(device)


def test_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto").type == resolve_device("mps").type == "mps"


@pytest.mark.usefixtures("two_gpus")
def test_with_gpus() -> None:
    assert resolve_device("auto").type == "cuda"
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device("cpu") == CPU
    with pytest.raises(DeviceError, match="cuda:0 to cuda:1"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("device", ["gpu", "", "cuda:x", "meta", "xpu"])
def test_unknown_devices_are_refused(device: str) -> None:
    with pytest.raises(DeviceError, match="auto, cpu, cuda, cuda:N or mps"):
        resolve_device(device)


def test_precision() -> None:
    assert resolve_precision("auto", CPU) == "fp32"
    assert resolve_precision("auto", torch.device("mps")) == "fp32"
    assert resolve_precision("auto", torch.device("cuda")) == "bf16"
    assert resolve_precision("bf16", CPU) == "bf16"
    assert resolve_precision("fp32", torch.device("cuda")) == "fp32"
    with pytest.raises(DeviceError, match="auto, fp32 or bf16"):
        resolve_precision("fp16", CPU)
    with pytest.raises(DeviceError, match="mps"):
        resolve_precision("bf16", torch.device("mps"))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:115] data. DefaultCPUAllocator: not enough memory"),
        MemoryError(),
    ],
    ids=["cuda", "mps", "cpu", "cpu on Windows", "python"],
)
def test_out_of_memory_names_the_ways_out(error: Exception) -> None:
    """Statement 40."""
    ways_out = r"cuda.*SAM ViT-H.*\"cpu\".*\"nano\""
    with (
        pytest.raises(DeviceMemoryError, match=ways_out) as caught,
        network_runs(torch.device("cuda"), "SAM ViT-H"),
    ):
        raise error
    assert caught.value.__cause__ is error
    with pytest.raises(DeviceMemoryError, match="close other programs"), network_runs(CPU, "nano"):
        raise error


def test_out_of_memory_frees_the_cache_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statement 40."""
    freed: list[bool] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(True))
    for device, times in (("cuda", 1), ("cpu", 1)):
        with pytest.raises(DeviceMemoryError), network_runs(torch.device(device), "nano"):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        assert len(freed) == times


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match="shape"), network_runs(CPU, "nano"):
        raise RuntimeError("shape mismatch")


def test_one_core_is_of_this_thread_and_for_a_while() -> None:
    cores = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with on_one_core():
            assert torch.get_num_threads() == 1
            with ThreadPoolExecutor(1) as other:
                assert other.submit(torch.get_num_threads).result() == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(cores)


def test_parts_are_done_side_by_side_and_come_back_in_order() -> None:
    cores = torch.get_num_threads()
    meeting = threading.Barrier(2, timeout=60)
    torch.set_num_threads(2)
    try:

        def meet(number: int) -> tuple[int, int]:
            meeting.wait()  # nobody comes past it alone
            return 10 * number, torch.get_num_threads()

        assert side_by_side(meet, [1, 2, 3, 4]) == [(10, 1), (20, 1), (30, 1), (40, 1)]
        with pytest.raises(ZeroDivisionError):
            side_by_side(lambda number: 1 // number, [1, 0])
        torch.set_num_threads(1)
        assert side_by_side(lambda _: threading.current_thread(), [1, 2]) == [threading.current_thread()] * 2
    finally:
        torch.set_num_threads(cores)


def test_after_an_error_no_part_begins_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    cores, begun, may_end = torch.get_num_threads(), list[int](), threading.Event()

    def part(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise KeyboardInterrupt
        may_end.wait(timeout=60)

    def wait_for(parts: list[Future[None]]) -> None:
        may_end.set()
        wait(parts)

    monkeypatch.setattr("napari_sam_med.sam.device.wait", wait_for)
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt):
            side_by_side(part, range(20))
    finally:
        torch.set_num_threads(cores)
    assert len(begun) <= 3  # the one that failed, and one on each thread


def test_nano_answers_the_same_on_one_core_and_on_two() -> None:
    nano = load_predictor("nano")
    embedding = nano.embed(np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8))
    prompts = [Prompts.from_box((5 + i, 8, 30 + 2 * i, 50)) for i in range(9)] + [Prompts([[40, 30]], [1])]
    cores = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = nano.predict_batch(embedding, prompts)
        torch.set_num_threads(2)
        shared = nano.predict_batch(embedding, prompts)
    finally:
        torch.set_num_threads(cores)
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_allclose(one.low_res_logits, other.low_res_logits, atol=1e-4)
