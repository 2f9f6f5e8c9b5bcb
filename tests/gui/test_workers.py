"""Generators on threads: order, cancelling, pausing, failing, stopping."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from pytestqt.qtbot import QtBot

from napari_sam_med.gui.workers import Workers


@pytest.fixture
def workers(qtbot: QtBot) -> Iterator[Workers]:
    made = Workers()
    yield made
    made.stop()


def test_values_arrive_in_order_on_the_main_thread_and_finished_comes_last(workers, qtbot) -> None:
    heard: list[object] = []
    threads = set()

    def job():
        yield from range(20)
        return "done"

    def hear(value: object) -> None:
        heard.append(value)
        threads.add(threading.current_thread())

    workers.start(job(), "count", yielded=hear, returned=hear, finished=lambda: hear("finished"))
    qtbot.waitUntil(lambda: "finished" in heard)
    assert heard == [*range(20), "done", "finished"]
    assert threads == {threading.main_thread()}


def test_a_quick_result_can_be_waited_for(workers, qtbot) -> None:
    heard: list[object] = []

    def job():
        yield 1
        return 2

    started = workers.start(
        job(), "quick", yielded=heard.append, returned=heard.append, finished=lambda: heard.append("finished")
    )
    started.deliver_within(10)
    assert heard == [1, 2, "finished"]
    qtbot.wait(20)  # the calls through the event loop find nothing left
    assert heard == [1, 2, "finished"]


def test_a_late_result_comes_through_the_event_loop(workers, qtbot) -> None:
    heard: list[object] = []
    gate = threading.Event()

    def job():
        gate.wait(10)
        yield 1

    started = workers.start(job(), "late", yielded=heard.append, finished=lambda: heard.append("finished"))
    started.deliver_within(0)
    assert not heard
    gate.set()
    qtbot.waitUntil(lambda: heard == [1, "finished"])


def test_a_failure_is_delivered_not_raised(workers, qtbot) -> None:
    failures: list[Exception] = []

    def job():
        yield 1
        raise ValueError("broken")

    workers.start(job(), "fail", failed=failures.append)
    qtbot.waitUntil(lambda: bool(failures))
    assert str(failures[0]) == "broken"


def test_cancelling_closes_the_generator_between_two_yields(workers, qtbot) -> None:
    closed, ended, heard = threading.Event(), [], []
    gate = threading.Event()

    def job():
        try:
            yield "first"
            gate.wait(10)
            yield "second"
            yield "third"
        finally:
            closed.set()

    running = workers.start(job(), "cancel", yielded=heard.append, finished=lambda: ended.append(1))
    qtbot.waitUntil(lambda: heard == ["first"])
    running.cancel()
    gate.set()
    qtbot.waitUntil(lambda: bool(ended))
    assert closed.is_set()
    assert "third" not in heard


def test_a_discarded_job_says_nothing_any_more(workers, qtbot) -> None:
    heard, ended = [], []
    gate = threading.Event()

    def job():
        gate.wait(10)
        yield "late"
        return "later"

    running = workers.start(
        job(), "outdated", yielded=heard.append, returned=heard.append, finished=lambda: ended.append(1)
    )
    running.discard()
    gate.set()
    qtbot.waitUntil(lambda: bool(ended))
    assert heard == []


def test_a_paused_job_waits_until_it_may_go_on(workers, qtbot) -> None:
    heard = []
    started = threading.Event()

    def job():
        started.set()
        yield from range(1000)

    running = workers.start(job(), "pause", yielded=heard.append)
    running.pause()
    started.wait(10)
    qtbot.wait(50)
    so_far = len(heard)
    assert so_far < 1000
    running.resume()
    qtbot.waitUntil(lambda: len(heard) == 1000)


def test_stopping_waits_for_the_threads_and_starts_nothing_more(workers, qtbot) -> None:
    def job():
        while True:
            yield 1

    workers.start(job(), "endless")
    workers.stop()
    assert workers.running == []
    late = workers.start(job(), "late")
    assert not late.is_running


def test_stopping_without_waiting_leaves_a_thread_its_time_and_who_waits_waits_for_it(workers, qtbot) -> None:
    heard: list[object] = []
    gate, asked = threading.Event(), threading.Event()

    def job():
        asked.set()
        gate.wait(10)  # as a model that is asked, which nobody can interrupt
        yield 1

    early = Workers()
    started = early.start(job(), "asked", yielded=heard.append, finished=lambda: heard.append("finished"))
    assert asked.wait(10)
    early.stop(waits=False)
    assert started.is_running
    assert early.running == []
    gate.set()
    workers.stop()
    assert not started.is_running
    qtbot.wait(20)
    assert heard == []


def test_the_end_of_python_waits_for_a_thread_that_was_not_waited_for() -> None:
    code = """
import threading, time
from qtpy.QtCore import QCoreApplication
from napari_sam_med.gui.workers import Workers

def job():
    asked.set()
    time.sleep(0.5)  # as a model that is asked
    print("answered", flush=True)
    yield

application, asked, workers = QCoreApplication([]), threading.Event(), Workers()
workers.start(job(), "asked")
asked.wait()
workers.stop(waits=False)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "answered\n"
