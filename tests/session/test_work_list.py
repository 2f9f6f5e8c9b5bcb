"""A folder of cases: which files are cases, what opens them, where labels go, and that none gets lost."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sam_med.errors import ExportError, ImageError, LabelError, SamMedError
from napari_sam_med.session.work_list import (
    KnownFile,
    OpenedCase,
    WorkList,
    is_writable,
    open_work_list,
    read_case,
    save_case,
)
from napari_sam_med.session.work_list_cases import (
    STATUS_FILE_NAME,
    Case,
    default_output,
    find_cases,
    natural_order,
)
from napari_sam_med.session.work_list_status import KeptCase, StatusFile
from napari_sam_med.volume.labels import LabelVolume
from napari_sam_med.volume.reading import read_labels, read_volume
from napari_sam_med.volume.writing import write_labels


def result(generator):
    """What a job returns."""
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            return stop.value


def made(folder: Path, *names: str) -> Path:
    """Files of which only the names matter."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def found(folder: Path, **options) -> dict[str, list[str]]:
    """Names of cases, in order, and of the labels that were given."""
    cases = find_cases(folder, **options).cases
    return {case.name: [path.relative_to(folder).as_posix() for path in case.given] for case in cases}


def scan(path: Path, value: int = 100) -> Path:
    """A scan of 6x5x4 voxels, unlike those of other values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.full((6, 5, 4), value, np.int16)
    data[0, 0, 0] = -1000
    nib.save(nib.Nifti1Image(data, np.diag([2.0, 2.0, 3.0, 1.0])), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three scans."""
    for number in (1, 2, 10):
        scan(tmp_path / "scans" / f"ct_{number}.nii.gz", number)
    return tmp_path / "scans"


@pytest.fixture
def work(folder: Path) -> WorkList:
    return result(open_work_list(folder))


def opened(work: WorkList, case: Case) -> OpenedCase:
    return result(read_case(case, work.kept(case), work.start(case), work.target(case)))


def labelled(case: OpenedCase, class_id: int = 6) -> LabelVolume:
    """Its labels, with a voxel more."""
    case.scan.labels.data[1, 2, 3] = class_id
    return case.scan.labels


def saved(work: WorkList, case: OpenedCase, known: KnownFile | None = None) -> KnownFile:
    return result(save_case(work.target(case.case), known, case.scan.labels, case.scan.volume))


# which files are cases


def test_a_flat_folder_in_the_order_that_people_count(tmp_path: Path) -> None:
    made(
        tmp_path,
        "ct_10.nii.gz",
        "ct_2.nii",
        "ct_1.mha",
        "CT_3.NRRD",
        "a.nhdr",
        "b.mhd",
        "notes.txt",
        ".x.nii",
    )
    assert list(found(tmp_path)) == ["a", "b", "ct_1", "ct_2", "CT_3", "ct_10"]


@pytest.mark.parametrize(
    "name",
    [
        "ct_seg.nii.gz",
        "ct_labels.nii.gz",
        "ct-mask.nrrd",
        "ct.seg.nrrd",
        "label_ct.nii",
        "ct_labels_2.nii.gz",
    ],
)
def test_labels_by_their_names_are_no_cases_but_belong_to_them(tmp_path: Path, name: str) -> None:
    made(tmp_path, "ct.nii.gz", "other.nii.gz", name)
    expected = [] if name == "ct_labels_2.nii.gz" else [name]
    assert found(tmp_path) == {"ct": expected, "other": []}


def test_what_we_exported_is_no_case_whatever_it_is_called(tmp_path: Path) -> None:
    made(tmp_path, "ct.nii.gz", "liver.nii.gz", "liver.sam-med.json")
    assert list(found(tmp_path)) == ["ct"]


def test_nnunet_with_channels(tmp_path: Path) -> None:
    made(tmp_path, "dataset.json", "imagesTr/p_001_0000.nii.gz", "imagesTr/p_001_0001.nii.gz")
    made(tmp_path, "imagesTr/p_002_0000.nii.gz", "imagesTr/p_002_0001.nii.gz", "labelsTr/p_001.nii.gz")
    assert found(tmp_path) == {"p_001": ["labelsTr/p_001.nii.gz"], "p_002": []}


def test_patients_with_four_digits_are_no_channels(tmp_path: Path) -> None:
    made(tmp_path, "dataset.json", "imagesTr/patient_0001.nii.gz", "imagesTr/patient_0002.nii.gz")
    assert list(found(tmp_path)) == ["patient_0001", "patient_0002"]


def test_btcv(tmp_path: Path) -> None:
    made(tmp_path, "imagesTr/img0001.nii.gz", "imagesTr/img0002.nii.gz", "labelsTr/label0002.nii.gz")
    assert found(tmp_path) == {"img0001": [], "img0002": ["labelsTr/label0002.nii.gz"]}


def test_labels_of_the_training_set_are_not_those_of_the_test_set(tmp_path: Path) -> None:
    made(tmp_path, "imagesTr/p_1.nii.gz", "imagesTs/p_1.nii.gz", "labelsTr/p_1.nii.gz")
    assert found(tmp_path) == {"imagesTr/p_1": ["labelsTr/p_1.nii.gz"], "imagesTs/p_1": []}


def test_one_folder_for_each_case(tmp_path: Path) -> None:
    made(
        tmp_path, "p1/ct.nii.gz", "p1/segmentation.nii.gz", "p2/t1.nii.gz", "p2/flair.nii.gz", "p2/seg.nii.gz"
    )
    made(tmp_path, "p10/image.nii.gz", "p10/label_a.nii.gz", "p10/label_b.nii.gz")
    made(tmp_path, "p11/ct.nii.gz", "p11/mr.nii.gz", "p11/ct_seg.nii.gz", "p11/ct_mask.nii.gz")
    assert found(tmp_path) == {
        "p1": ["p1/segmentation.nii.gz"],
        "p2/flair": ["p2/seg.nii.gz"],
        "p2/t1": ["p2/seg.nii.gz"],
        "p10": ["p10/label_a.nii.gz", "p10/label_b.nii.gz"],  # the widget says that none of them was opened
        "p11/ct": ["p11/ct_mask.nii.gz", "p11/ct_seg.nii.gz"],
        "p11/mr": [],
    }


def test_dicom_series_are_folders(tmp_path: Path) -> None:
    made(
        tmp_path,
        "p1/study/ct/1.dcm",
        "p1/study/ct/2.dcm",
        "p2/study/mr/IM0001",
        "p2/study/mr/IM0002",
        "DICOMDIR",
    )
    (tmp_path / "p2/study/mr/IM0001").write_bytes(bytes(128) + b"DICM")
    cases = find_cases(tmp_path).cases
    assert [(case.name, case.image) for case in cases] == [
        ("p1/study/ct", tmp_path / "p1/study/ct"),
        ("p2/study/mr", tmp_path / "p2/study/mr"),
    ]


def test_two_scans_never_share_a_label_file(tmp_path: Path) -> None:
    made(tmp_path, "ct.nii.gz", "ct.nrrd", "a_b/c.nii", "a_b/d.nii", "a/b_c.nii", "a/b_d.nii", "CT.mha")
    cases = find_cases(tmp_path).cases
    assert len({case.labels_name.casefold() for case in cases}) == len({case.name for case in cases}) == 7


def test_half_a_pair_is_no_case(tmp_path: Path) -> None:
    made(tmp_path, "a.hdr", "b.hdr", "b.img")
    assert list(found(tmp_path)) == ["b"]


def test_where_labels_are_saved_is_left_out(tmp_path: Path) -> None:
    made(tmp_path, "ct.nii.gz", "mine/x.nii.gz")
    assert list(found(tmp_path, without=[tmp_path / "mine"])) == ["ct"]


@pytest.mark.parametrize("names", [(), ("notes.txt",), ("ct_seg.nii.gz", "labels/ct.nii.gz")])
def test_a_folder_without_scans_is_refused_in_words(tmp_path: Path, names: tuple[str, ...]) -> None:
    made(tmp_path, *names)
    with pytest.raises(ImageError, match="holds no scan"):
        find_cases(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        find_cases(tmp_path / "nowhere")


def test_listing_reads_no_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, *(f"ct_{number}.nii.gz" for number in range(1000)))
    monkeypatch.setattr(Path, "open", None)
    cases = find_cases(tmp_path).cases
    monkeypatch.undo()
    assert len(cases) == 1000
    assert cases[-1].name == "ct_999"
    work = WorkList(tmp_path, tmp_path / "labels", cases)
    assert work.summary == "1000 cases: 0 done, 0 in progress, 1000 new"


@given(st.lists(st.integers(0, 10**9), min_size=2))
def test_natural_order_is_that_of_the_numbers(numbers: list[int]) -> None:
    names = [f"case {number} b" for number in numbers]
    assert sorted(names, key=natural_order) == [f"case {number} b" for number in sorted(numbers)]


def test_the_python_of_the_page_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "work_list.md"
    [block] = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(folder.parent)
    exec(compile(block, page.name, "exec"), {})
    assert capsys.readouterr().out.splitlines()[0] == "ct_1 scans/ct_1.nii.gz"


# where labels go


def test_labels_go_beside_the_images_and_not_among_those_of_others(tmp_path: Path) -> None:
    made(tmp_path, "imagesTr/a.nii.gz", "flat/a.nii.gz", "theirs/a.nii.gz", "theirs/labels/a.nii.gz")
    assert default_output(tmp_path / "imagesTr") == tmp_path / "labels"
    assert default_output(tmp_path / "flat") == tmp_path / "flat" / "labels"
    assert default_output(tmp_path / "theirs") == tmp_path / "theirs" / "labels_sam_med"
    made(tmp_path, f"theirs/labels/{STATUS_FILE_NAME}")
    assert default_output(tmp_path / "theirs") == tmp_path / "theirs" / "labels"


def test_whether_a_folder_can_be_written_leaves_nothing_there(tmp_path: Path) -> None:
    assert is_writable(tmp_path / "not" / "there" / "yet")
    assert list(tmp_path.iterdir()) == []
    made(tmp_path, "a file")
    assert not is_writable(tmp_path / "a file")
    assert not is_writable(tmp_path / "a file" / "labels")


# from case to case


def test_labels_come_back_as_they_were_saved(folder: Path, work: WorkList) -> None:
    first = opened(work, work.cases[0])
    assert (first.start, first.saved) == (None, None)
    labelled(first)
    known = saved(work, first)
    work.note_saved(first.case, known, "journal-1")
    assert known.path == folder / "labels" / "ct_1_labels.nii.gz"
    again = result(open_work_list(folder))
    assert again.summary == "3 cases: 0 done, 1 in progress, 2 new"
    back = opened(again, again.cases[0])
    assert np.array_equal(back.scan.labels.data, first.scan.labels.data)
    assert back.saved == known
    again.note(again.cases[0], status="done")
    assert result(open_work_list(folder)).counts == {"done": 1, "in progress": 0, "new": 2}


def test_nothing_on_disk_names_this_machine(work: WorkList, folder: Path) -> None:
    case = opened(work, work.cases[0])
    labelled(case)
    work.note_saved(case.case, saved(work, case), "journal")
    assert str(folder.parent) not in (folder / "labels" / STATUS_FILE_NAME).read_text()


def test_labels_of_the_users_own_are_opened_and_never_written(work: WorkList, folder: Path) -> None:
    theirs = LabelVolume.like(read_volume(folder / "ct_2.nii.gz"))
    theirs.data[3, 1, 1] = 5
    write_labels(folder / "ct_2_seg.nii.gz", theirs)
    before = (folder / "ct_2_seg.nii.gz").read_bytes()
    work = result(open_work_list(folder))
    assert work.status(work.cases[1]) == "new"
    case = opened(work, work.cases[1])
    assert case.start == folder / "ct_2_seg.nii.gz"
    assert case.scan.labels.data[3, 1, 1] == 5
    labelled(case)
    known = saved(work, case, case.saved)
    assert known.path.name == "ct_2_labels.nii.gz"
    assert (folder / "ct_2_seg.nii.gz").read_bytes() == before


def test_a_file_that_labels_were_not_opened_from_stays(work: WorkList) -> None:
    """Statement 7: neither one that was there before, nor one that somebody changed meanwhile."""
    case = opened(work, work.cases[0])
    target = work.target(case.case)
    target.parent.mkdir()
    target.write_bytes(b"somebody's work")
    labelled(case)
    known = saved(work, case)
    assert target.read_bytes() == b"somebody's work"
    assert known.path.name == "ct_1_labels_2.nii.gz"
    work.note_saved(case.case, known, None)
    assert opened(work, case.case).saved == known
    known.path.write_bytes(b"changed by another window")
    newer = saved(work, case, known)
    assert known.path.read_bytes() == b"changed by another window"
    assert newer.path.name == "ct_1_labels_3.nii.gz"


def test_empty_labels_replace_no_others(work: WorkList) -> None:
    """Statement 7."""
    case = opened(work, work.cases[0])
    labelled(case)
    known = saved(work, case)
    before = known.path.read_bytes()
    case.scan.labels.data[:] = 0
    with pytest.raises(ExportError, match="empty labels never replace others"):
        saved(work, case, known)
    assert known.path.read_bytes() == before


def test_empty_labels_are_saved_where_there_are_none(work: WorkList) -> None:
    case = opened(work, work.cases[0])
    known = saved(work, case)
    assert known.is_empty
    assert saved(work, case, known).digest == known.digest
    assert not read_labels(known.path).data.any()


def test_labels_that_cannot_be_read_keep_the_case_closed(work: WorkList) -> None:
    """Statement 7."""
    case = work.cases[0]
    made(work.output, case.labels_name)
    with pytest.raises(LabelError, match="They stay as they are"):
        opened(work, case)


def test_a_folder_that_cannot_be_written_is_named(work: WorkList) -> None:
    case = opened(work, work.cases[0])
    labelled(case)
    work.output.write_bytes(b"a file where the folder should be")
    with pytest.raises(ExportError, match="labels"):
        saved(work, case)
    with pytest.raises(ExportError, match="could not be written"):
        work.note(case.case, status="done")
    assert work.status(case.case) == "new"


def test_the_next_case_that_is_not_done(work: WorkList) -> None:
    assert work.next_open(-1) == 0
    work.note(work.cases[1], status="done")
    assert work.next_open(0) == 2
    assert work.next_open(2) == 0
    assert work.next_open(0, frozenset({work.cases[2].key})) == 0
    for case in work.cases:
        work.note(case, status="done")
    assert work.next_open(0) is None


# which journal is the newest work


def offer(journal: str, *, is_exported: bool, last_change: float = 0.0, n_voxels: int = 1) -> SimpleNamespace:
    file = SimpleNamespace(path=Path(f"{journal}.journal"))
    told = {"mismatch": None, "problem": None}
    return SimpleNamespace(
        file=file, is_exported=is_exported, last_change=last_change, n_voxels=n_voxels, **told
    )


def test_a_journal_is_gone_on_with_only_where_it_is_the_newest(work: WorkList) -> None:
    case = opened(work, work.cases[0])
    assert work.continues(offer("a", is_exported=False), case), "killed before anything was saved"
    assert not work.continues(offer("a", is_exported=True), case), "exported, and the file was taken away"
    labelled(case)
    work.note_saved(case.case, saved(work, case), "a")
    back = opened(work, case.case)
    assert work.continues(offer("a", is_exported=True), back), "the prompts of what is in the file"
    assert not work.continues(offer("b", is_exported=True), back), "somebody saved it since from elsewhere"
    assert not work.continues(offer("a", is_exported=False, last_change=1.0), back), "older than the file"
    later = back.saved.modified + 1
    assert work.continues(offer("a", is_exported=False, last_change=later), back), "killed after it was saved"
    emptied = offer("a", is_exported=False, last_change=later, n_voxels=0)
    assert not work.continues(emptied, back), "nothing empty comes in the place of labels unasked"
    odd = offer("a", is_exported=False, last_change=later)
    odd.problem = "the end is missing"
    assert not work.continues(odd, back)


# the file of statuses


def test_two_windows_keep_each_others_statuses(folder: Path) -> None:
    one, two = (result(open_work_list(folder)) for _ in range(2))
    one.note(one.cases[0], status="done")
    two.note(two.cases[1], status="in progress")
    one.note(one.cases[2], status="done")
    assert one.counts == {"done": 2, "in progress": 1, "new": 0}
    two.refresh()
    assert two.counts == one.counts


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 1, "cases": 3}', b"\xff\xfe", b"null"])
def test_a_damaged_file_is_put_aside(tmp_path: Path, content: bytes) -> None:
    file = StatusFile(tmp_path / STATUS_FILE_NAME)
    file.path.write_bytes(content)
    assert file.read() == {}
    file.note("a.nii", status="done")
    assert file.read() == {"a.nii": KeptCase("done")}
    assert [path.read_bytes() for path in tmp_path.glob("*.damaged-1.json")] == [content]


def test_a_damaged_file_is_told_and_saved_labels_still_count(folder: Path, work: WorkList) -> None:
    case = opened(work, work.cases[0])
    work.note_saved(case.case, saved(work, case), None)
    work.note(case.case, status="done")
    (work.output / STATUS_FILE_NAME).write_bytes(b"{")
    again = result(open_work_list(folder))
    assert again.counts == {"done": 0, "in progress": 1, "new": 2}
    assert "was damaged" in again.warnings[0]


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    file = StatusFile(tmp_path / STATUS_FILE_NAME)
    file.path.write_text('{"format": 2, "cases": {}}')
    for action in (file.read, lambda: file.note("a", status="done")):
        with pytest.raises(ExportError, match="another version"):
            action()
    assert file.path.read_text() == '{"format": 2, "cases": {}}'


def test_an_odd_entry_costs_no_other_one(tmp_path: Path) -> None:
    file = StatusFile(tmp_path / STATUS_FILE_NAME)
    cases = {"a": {"status": "finished"}, "b": {"labels": "../x"}, "c": 7, "d": {"status": "done"}}
    file.path.write_text(json.dumps({"format": 1, "cases": cases}))
    assert file.read() == {"d": KeptCase("done")}


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = StatusFile(tmp_path / STATUS_FILE_NAME)
    file.note("a", status="done")
    before = file.path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ExportError, match="No space left on device"):
        file.note("b", status="done")
    assert [path.name for path in tmp_path.iterdir()] == [STATUS_FILE_NAME]
    assert file.path.read_bytes() == before


TEXT = st.none() | st.text()


@settings(deadline=None)  # files are written
@given(
    st.dictionaries(
        st.text(),
        st.fixed_dictionaries(
            {
                "status": st.sampled_from(["new", "in progress", "done"]),
                "digest": TEXT,
                "journal": TEXT,
                "time": st.none() | st.integers(0, 10**6),
            }
        ),
        max_size=4,
    )
)
def test_what_is_noted_is_read_again(tmp_path_factory: pytest.TempPathFactory, cases: dict) -> None:
    file = StatusFile(tmp_path_factory.mktemp("statuses") / STATUS_FILE_NAME)
    for key, changes in cases.items():
        file.note(key, **changes)
    assert file.read() == {key: KeptCase(**changes) for key, changes in cases.items()}


def test_errors_here_are_the_users(work: WorkList) -> None:
    """A case that is gone is told in one line."""
    case = work.cases[0]
    case.image.unlink()
    with pytest.raises(SamMedError, match="does not exist"):
        opened(work, case)
