"""``python -m benchmarks.journal [--kills 200]``: what a crash costs, and what the journal costs.

Kills: a child does scripted actions under a journal and says which it finished; it gets SIGKILL at a random
moment, and what comes back is compared with the script played without a journal.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from napari_sam_med.progress import Progress
from napari_sam_med.sam.prompts import Prompts
from napari_sam_med.segmentation.propagation import PropagatedSlice
from napari_sam_med.session.jobs import prepare_scan
from napari_sam_med.session.journal import SessionJournal
from napari_sam_med.session.journal_annotations import NOTHING, encode_annotations
from napari_sam_med.session.journal_folder import JournalFolder
from napari_sam_med.session.journal_image import ImageIdentity, identify
from napari_sam_med.session.journal_records import Blobs
from napari_sam_med.session.journal_recovery import find_offers, read_work
from napari_sam_med.session.objects import AnnotatedObject, Annotations
from napari_sam_med.session.session import Preview, Session
from napari_sam_med.volume.grid import Grid
from napari_sam_med.volume.slice_view import PLANES, SliceView
from napari_sam_med.volume.volume import Volume

T = TypeVar("T")

SCRIPT_SHAPE = (24, 64, 64)
N_ACTIONS = 400
KILL_WITHIN_SECONDS = 2.0
TIMER_SECONDS = 0.4
SAID = struct.Struct("<d?")
"""When a step of the script was done, and whether that finished an action."""
NOTHING_THERE = "nothing"
TORN = "ends inside a record"
N_LOOKED_BACK = 20
"""States that are compared with what came back; losing more counts as a corrupt journal."""

# children are forked from a process that has imported everything, where the system can do that
PROCESSES = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
if os.name == "posix":
    PROCESSES.set_forkserver_preload(["benchmarks.journal"])


@dataclass(frozen=True)
class Kill:
    """What one kill came to: actions that the child called finished, how many are lost, of what time.

    Slices of a propagation under way that are lost too count for the time alone. A record that was being
    written, of an action that was not finished, may be torn: what came before it must be whole.
    """

    n_finished: int
    n_lost: int
    seconds_lost: float
    is_corrupt: bool
    is_torn: bool


def outcome(job: Generator[Any, None, T]) -> T:
    """Run a job to its end."""
    while True:
        try:
            next(job)
        except StopIteration as end:
            return end.value


def opened(shape: tuple[int, int, int]) -> Session:
    """A session on a scan of noise, always the same, with empty labels."""
    data = np.random.default_rng(1).integers(-1000, 1000, shape, dtype=np.int16)
    volume = Volume(data=data, grid=Grid.from_zyx(shape, (2.0, 0.8, 0.8)))
    scan = outcome(prepare_scan(volume, window=(-160.0, 240.0)))
    session = Session()
    session.open(scan.volume, scan.labels, scan.window, scan.counts, scan.copy)
    return session


def identity(session: Session) -> ImageIdentity:
    """Of the scan that a session has open."""
    return outcome(identify(session.volume))


def ellipse(
    view: SliceView, shape: tuple[int, int, int], rng: random.Random, least: float, most: float = 0.25
) -> np.ndarray:
    """A mask (H, W) of bool of some ellipse; its half axes are shares of height and width."""
    height, width = view.slice_shape(shape)
    rows, columns = np.ogrid[:height, :width]
    y, x = rng.uniform(0.3, 0.7) * height, rng.uniform(0.3, 0.7) * width
    a, b = (rng.uniform(least, most) * n for n in (height, width))
    return ((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 < 1


def accept(session: Session, view: SliceView, rng: random.Random) -> Iterator[bool]:
    """Prompt a box, then accept a mask; yields as `script` does."""
    mask = ellipse(view, session.volume.shape, rng, 0.05)
    rows, columns = np.nonzero(mask)
    session.prompt(view, Prompts.from_box((columns.min(), rows.min(), columns.max(), rows.max())))
    yield True
    session.preview = Preview(view, mask, rng.random())
    session.accept()


def script(session: Session, seed: int, settle: Callable[[], object]) -> Iterator[bool]:
    """Play scripted actions; yields True after each, and False where one is half done.

    ``settle`` is called where somebody else wrote.
    """
    rng = random.Random(seed)
    shape = session.volume.shape
    for number in range(N_ACTIONS):
        view = SliceView(rng.choice(PLANES), rng.randrange(24))
        kind = rng.choice(["accept"] * 4 + ["paint", "direct", "undo", "redo", "lock", "prompt", "carry"])
        if kind == "accept":
            unlocked = [class_id for class_id, organ in session.organs.items() if not organ.locked]
            session.select_organ(rng.choice(unlocked))
            yield from accept(session, view, rng)
        elif kind == "paint":
            session.labels.data[view.index, 5:9, number % 50 : number % 50 + 9] = rng.randrange(1, 14)
            session.record_stroke()
        elif kind == "direct":
            session.labels.data[view.index, 20:24, number % 50] = rng.choice([0, 3, 77])
            settle()
            yield True
            session.record_stroke()
        elif kind == "undo":
            session.undo()
        elif kind == "redo":
            session.redo()
        elif kind == "lock":
            organ = session.organs[rng.randrange(3, 6)]
            session.set_organ(replace(organ, locked=not organ.locked))
        elif kind == "prompt":
            session.prompt(view, Prompts.from_points([(rng.randrange(24), 3.25)]))
        elif session.active_object is not None:
            yield from carry(session, rng, shape)
        yield True


def carry(session: Session, rng: random.Random, shape: tuple[int, int, int]) -> Iterator[bool]:
    """A propagation that streams in; its slices are written before it is committed."""
    item = session.active_object
    if session.organs[item.class_id].locked:
        return
    with session.begin("Carry") as change:
        for index in range(4, 12):
            view = SliceView("axial", index)
            mask = ellipse(view, shape, rng, 0.05)
            change.put(
                PropagatedSlice(Progress(index, 12), item.object_id, item.class_id, view, mask,
                                None, rng.random(), "propagated", None, "forward")
            )  # fmt: skip
            yield False


def digest(labels: np.ndarray, annotations: Annotations) -> str:
    """One number for all that recovery is to bring back."""
    if not labels.any() and not annotations.objects:
        return NOTHING_THERE  # and nothing is offered
    blobs = Blobs()
    objects = {number: in_order(item) for number, item in sorted(annotations.objects.items())}
    sorted_out = replace(annotations, objects=objects, active_object_id=None)
    fields = encode_annotations(NOTHING, sorted_out, blobs)
    content = json.dumps(fields, sort_keys=True).encode()
    for part in blobs.parts:
        content += part
    return hashlib.sha256(labels.astype(np.uint16).tobytes() + content).hexdigest()


def in_order(item: AnnotatedObject) -> AnnotatedObject:
    """The same object with its slices in ascending order."""
    return replace(
        item,
        key_slices=dict(sorted(item.key_slices.items())),
        answered=dict(sorted(item.answered.items())),
        masks=dict(sorted(item.masks.items())),
    )


def play(folder: str, seed: int, said: Connection) -> None:
    """The child: do the script under a journal, and say each finished action."""
    session = opened(SCRIPT_SHAPE)
    journal = SessionJournal(session, JournalFolder(Path(folder)))
    journal.begin(identity(session))
    pause = random.Random(seed + 1)
    said.send_bytes(b"ready")
    for is_finished in script(session, seed, journal.flush):
        journal.sync()
        said.send_bytes(SAID.pack(time.monotonic(), is_finished))
        time.sleep(pause.uniform(0, 0.02))


def last_states(seed: int, n_said: int) -> dict[int, str]:
    """Digests after the last steps that were told of, and after the one that may have been done."""
    session = opened(SCRIPT_SHAPE)
    played = itertools.chain([None], script(session, seed, lambda: None))
    return {
        number: digest(session.labels.data, session.annotations)
        for number, _ in enumerate(itertools.islice(played, n_said + 2))
        if number >= n_said - N_LOOKED_BACK
    }


def kill_once(folder: Path, seed: int) -> Kill:
    """Let a child play, kill it at a random moment, and look at what it left."""
    here, there = PROCESSES.Pipe(duplex=False)
    child = PROCESSES.Process(target=play, args=(os.fspath(folder), seed, there))
    child.start()
    there.close()
    assert here.recv_bytes() == b"ready"
    time.sleep(random.Random(seed).uniform(0.0, KILL_WITHIN_SECONDS))
    killed = time.monotonic()
    child.kill()
    child.join()
    said: list[tuple[float, bool]] = []
    with here, contextlib.suppress(EOFError):
        while True:
            said.append(SAID.unpack(here.recv_bytes()))
    expected = last_states(seed, len(said))
    image = identity(opened(SCRIPT_SHAPE))
    offers = outcome(find_offers(JournalFolder(folder), image))
    work = outcome(read_work(offers[0], image)) if offers else None
    found = NOTHING_THERE if work is None else digest(work.labels, work.annotations)
    matching = [number for number, state in expected.items() if state == found]
    problem = None if work is None else work.problem
    is_torn = problem is not None and TORN in problem
    is_corrupt = (problem is not None and not is_torn) or not matching
    lost = said if is_corrupt else said[matching[-1] :]
    seconds_lost = max(0.0, killed - lost[0][0]) if lost else 0.0
    n_finished, n_lost = (sum(is_finished for _, is_finished in some) for some in (said, lost))
    return Kill(n_finished, n_lost, seconds_lost, is_corrupt, is_torn)


def measure_kills(n_kills: int) -> None:
    """Kill often and print what was lost."""
    kills = []
    for seed in range(n_kills):
        with tempfile.TemporaryDirectory() as folder:
            kills.append(kill_once(Path(folder), seed))
    lost = [kill.n_lost for kill in kills]
    print(
        f"kills: {n_kills}, after {statistics.mean(kill.n_finished for kill in kills):.0f} actions on average"
    )
    print(
        f"corrupt journals: {sum(kill.is_corrupt for kill in kills)}; a torn last record, of an unfinished "
        f"action, in {sum(kill.is_torn for kill in kills)}"
    )
    print(f"finished actions lost: at most {max(lost)}; in {sum(n > 0 for n in lost)} kills any")
    print(f"oldest work lost: {max(kill.seconds_lost for kill in kills) * 1000:.0f} ms old")


def measure_session(shape: tuple[int, int, int], n_masks: int) -> None:
    """Time of the main thread with and without a journal, and of recovery."""
    plain, plain_busy = accept_times(opened(shape), n_masks, lambda: None)
    print(f"accepted mask without a journal: {_ms(plain)}, {_ms(plain_busy)} of it processor time")
    with tempfile.TemporaryDirectory() as name:
        folder = JournalFolder(Path(name))
        session = opened(shape)
        journal = SessionJournal(session, folder)
        start = time.perf_counter()
        image = identity(session)
        print(f"recognising the image: {time.perf_counter() - start:.2f} s, in the background")
        journal.begin(image)
        journal.flush()
        syncs: list[float] = []

        last = time.perf_counter()

        def sync() -> None:
            nonlocal last
            start = time.perf_counter()
            if start - last >= TIMER_SECONDS or not syncs:
                last = start
                journal.sync()
                syncs.append(time.perf_counter() - start)

        kept, kept_busy = accept_times(session, n_masks, sync)
        print(f"accepted mask with a journal: {_ms(kept)}, {_ms(kept_busy)} of it processor time")
        added = statistics.mean(kept_busy) - statistics.mean(plain_busy)
        print(f"the journal adds {added * 1000:.2f} ms of the main thread's processor time a mask (mean)")
        print(f"a look for writing from outside (sync): {_ms(syncs)}")
        fill(session)
        journal.close()
        print(
            f"journal: {folder.size_bytes() / 2**20:.1f} MiB, {np.count_nonzero(session.labels.data)} voxels"
        )
        measure_recovery(session, folder, shape)


def accept_times(
    session: Session, n_masks: int, between: Callable[[], object]
) -> tuple[list[float], list[float]]:
    """Seconds by the clock, and of the main thread's processor, for each accepted mask."""
    rng = random.Random(0)
    times, busy = [], []
    for number in range(n_masks):
        view = SliceView("axial", rng.randrange(session.volume.shape[0]))
        session.select_organ(1 + number % 13)
        mask = ellipse(view, session.volume.shape, rng, 0.15)
        session.prompt(view, Prompts.from_box((3, 3, 400, 400)))
        session.preview = Preview(view, mask, 0.8)
        start, start_busy = time.perf_counter(), time.thread_time()
        session.accept()
        times.append(time.perf_counter() - start)
        busy.append(time.thread_time() - start_busy)
        between()
        time.sleep(0.05)  # a busy user
    return times, busy


def fill(session: Session) -> None:
    """Carry 13 organs through 80 slices each, as in a finished annotation of an abdomen."""
    rng = random.Random(1)
    for object_id, item in list(session.objects.items())[:13]:
        first = rng.randrange(max(1, session.volume.shape[0] - 80))
        with session.begin(f"Carry {item.name}") as change:
            for index in range(first, min(first + 80, session.volume.shape[0])):
                view = SliceView("axial", index)
                mask = ellipse(view, session.volume.shape, rng, 0.02, 0.12)
                change.put(
                    PropagatedSlice(Progress(1, 2), object_id, item.class_id, view, mask,
                                    None, 0.7, "propagated", None, "forward")
                )  # fmt: skip


def measure_recovery(session: Session, folder: JournalFolder, shape: tuple[int, int, int]) -> None:
    """Time from the open scan to labels that stand as they stood."""
    fresh = opened(shape)
    journal = SessionJournal(fresh, folder)
    journal.begin(identity(fresh))
    start, busy = time.perf_counter(), time.process_time()
    offer, *_ = outcome(journal.find_offers())
    found = time.perf_counter()
    work = outcome(journal.read(offer))
    read = time.perf_counter()
    journal.put_back(work)
    end, busy = time.perf_counter(), time.process_time() - busy
    print(offer.text)
    print(
        f"recovery: {end - start:.2f} s (finding {found - start:.2f}, reading {read - found:.2f}, "
        f"putting back on the main thread {end - read:.2f}); {busy:.2f} s of processor time"
    )
    same = digest(session.labels.data, session.annotations) == digest(fresh.labels.data, fresh.annotations)
    print(f"identical to what was there: {same}")
    journal.close()


def _ms(seconds: list[float]) -> str:
    worst = sorted(seconds)[round(0.95 * (len(seconds) - 1))]
    return f"median {statistics.median(seconds) * 1000:.2f} ms (95 % below {worst * 1000:.2f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.journal", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--shape", nargs=3, type=int, default=(300, 512, 512), metavar=("Z", "Y", "X"))
    parser.add_argument("--masks", type=int, default=200)
    options = parser.parse_args()
    measure_session(tuple(options.shape), options.masks)
    if options.kills:
        measure_kills(options.kills)


if __name__ == "__main__":
    main()
