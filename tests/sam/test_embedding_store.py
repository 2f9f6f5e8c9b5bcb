"""Embeddings come back as they were kept, or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.testing as npt
import pytest
import torch
from safetensors.torch import save_file

from napari_sam_med.sam.embedding_store import EmbeddingStore, default_store
from napari_sam_med.sam.image_embedding import ImageEmbedding
from napari_sam_med.sam.predictor import Predictor
from napari_sam_med.sam.prompts import Prompts
from tests.sam.micro_sam import random_image

BOX = Prompts.from_box((5, 5, 40, 40))


def assert_same(found: ImageEmbedding | None, wanted: ImageEmbedding) -> None:
    assert found is not None
    assert type(found.features) is type(wanted.features)
    for a, b in zip(found.features, wanted.features, strict=True):
        assert a.dtype == b.dtype
        npt.assert_array_equal(a.numpy(), b.numpy())
    for name in ("original_size", "input_size", "crop_xyxy", "model_hash", "pixel_spacing", "preprocessing"):
        assert getattr(found, name) == getattr(wanted, name)
        assert type(getattr(found, name)) is type(getattr(wanted, name))


@pytest.mark.parametrize("name", ["micro", "nano"])
@pytest.mark.parametrize("crop", [None, (3, 4, 50, 60)], ids=["whole", "crop"])
def test_round_trips(
    name: str, crop: tuple[int, ...] | None, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    predictor: Predictor = request.getfixturevalue(name)
    image = random_image(70, 80)
    embedding = predictor.embed(image, (2.0, 1.5), crop)
    key = predictor.embedding_key(image, (2.0, 1.5), crop)
    store = EmbeddingStore(tmp_path / "store")
    assert key not in store
    assert store.get(key) is None
    kept = store.put(key, embedding)
    for rounded, exact in zip(kept.features, embedding.features, strict=True):
        npt.assert_allclose(rounded.float().numpy(), exact.numpy(), rtol=2**-10, atol=1e-6)
    assert key in store
    assert_same(store.get(key), kept)
    fresh = EmbeddingStore(tmp_path / "store")
    assert key in fresh
    assert_same(fresh.get(key), kept)
    assert fresh.size_bytes() < embedding.nbytes / 2 + 5000


def test_memory_lets_go_of_what_lies_on_disk_and_of_nothing_else(micro: Predictor, tmp_path: Path) -> None:
    embedding = micro.embed(random_image(70, 80))
    store = EmbeddingStore(tmp_path, memory_bytes=2 * embedding.nbytes)
    kept = store.put("a", embedding)
    store.release("a")
    assert_same(store.get("a"), kept)
    store.release("a")
    store.directory = None
    assert "a" not in store
    store.put("b", embedding)
    store.release("b")
    assert "b" in store


@pytest.mark.parametrize("name", ["micro", "nano"])
def test_the_first_answer_is_every_later_one(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    predictor: Predictor = request.getfixturevalue(name)
    image = random_image(70, 80)
    store = EmbeddingStore(tmp_path)
    first, again = store.get_or_embed(predictor, image), store.get_or_embed(predictor, image)
    from_disk = EmbeddingStore(tmp_path).get_or_embed(predictor, image)
    unkept = EmbeddingStore(None, memory_bytes=0).get_or_embed(predictor, image)
    answers = [predictor.predict(one, BOX) for one in (first, again, from_disk, unkept)]
    for answer in answers[1:]:
        npt.assert_array_equal(answer.low_res_logits, answers[0].low_res_logits)
        npt.assert_array_equal(answer.masks, answers[0].masks)
        npt.assert_array_equal(answer.tokens, answers[0].tokens)
    assert answers[0].low_res_logits.dtype == answers[0].tokens.dtype == np.float32
    exact = predictor.predict(predictor.embed(image), BOX)
    assert np.mean(answers[0].masks != exact.masks) < 0.01


def test_values_beyond_half_precision_stay_as_they_are(micro: Predictor, tmp_path: Path) -> None:
    embedding = micro.embed(random_image(40, 50))
    large = type(embedding.features)(*(tensor * 1e6 for tensor in embedding.features))
    EmbeddingStore(tmp_path).put("a", replace(embedding, features=large))
    found = EmbeddingStore(tmp_path).get("a")
    assert_same(found, replace(embedding, features=large))


def test_get_or_embed_embeds_once(nano: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    embed = nano.embed
    monkeypatch.setattr(nano, "embed", lambda *args: calls.append(1) or embed(*args))
    image = random_image(50, 60)
    store = EmbeddingStore(tmp_path)
    first = store.get_or_embed(nano, image, (1.0, 2.0), (0, 0, 30, 30))
    assert store.get_or_embed(nano, image, (1.0, 2.0), (0, 0, 30, 30)).features is not None
    assert first.crop_xyxy == (0, 0, 30, 30)
    assert len(calls) == 1
    EmbeddingStore(tmp_path).get_or_embed(nano, image, (1.0, 2.0), (0, 0, 30, 30))
    assert len(calls) == 1
    store.get_or_embed(nano, image)
    assert len(calls) == 2


def test_threads_wait_for_one_embedding(
    nano: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    embed = nano.embed
    barrier = threading.Barrier(6)
    monkeypatch.setattr(nano, "embed", lambda *args: calls.append(1) or embed(*args))
    images = [random_image(40, 40, seed) for seed in range(2)]
    store = EmbeddingStore(tmp_path)

    def ask(i: int) -> str:
        barrier.wait()
        return store.get_or_embed(nano, images[i % 2]).model_hash

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(ask, range(6))) == {nano.model_hash}
    assert len(calls) == 2


@pytest.mark.parametrize("name", ["micro", "nano"])
def test_damaged_entries_are_never_used(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Statement 38: cut, flipped and foreign entries are made anew."""
    predictor: Predictor = request.getfixturevalue(name)
    image = random_image(40, 50)
    key = predictor.embedding_key(image)
    embedding = EmbeddingStore(tmp_path).put(key, predictor.embed(image))
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    lengths = [0, 1, 8, 20, 200, len(content) // 2, len(content) - 1]
    flips = [0, 9, 60, 300, len(content) // 2, len(content) - 1]
    damaged = [content[:length] for length in lengths]
    damaged += [content[:i] + bytes([content[i] ^ 0x10]) + content[i + 1 :] for i in flips]
    for bad in [*damaged, b"", b"{}", content + b"more"]:
        file.write_bytes(bad)
        store = EmbeddingStore(tmp_path)
        found = store.get(key)
        if found is not None:  # a flip in a part of the header that says nothing
            assert_same(found, embedding)
            continue
        assert not file.exists()
        assert_same(store.get_or_embed(predictor, image), embedding)
        assert file.read_bytes() == content


def test_a_file_of_another_kind_is_removed(nano: Predictor, tmp_path: Path) -> None:
    """Statement 38."""
    key = "ab" * 32
    save_file({"embedding": torch.zeros(3)}, tmp_path / f"{key}.safetensors", metadata={"embedding": "{}"})
    assert EmbeddingStore(tmp_path).get(key) is None


def test_killed_while_writing(tmp_path: Path) -> None:
    """Statement 38: whatever a killed process leaves, readers find whole entries or none."""
    code = (
        "import sys, numpy as np\n"
        "from napari_sam_med import load_predictor\n"
        "from napari_sam_med.sam.embedding_store import EmbeddingStore\n"
        "p = load_predictor('nano', device='cpu')\n"
        "store = EmbeddingStore(sys.argv[1], memory_bytes=0)\n"
        "e = p.embed(np.zeros((9, 9, 3), np.uint8))\n"
        "print('ready', flush=True)\n"
        "for i in range(10**9):\n"
        "    store.put(f'{i % 5:064x}', e)\n"
    )
    store = EmbeddingStore(tmp_path)
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        while f"{4:064x}" not in store:
            assert child.poll() is None
        child.kill()
    keys = [f"{i:064x}" for i in range(5)]
    assert all(store.get(key) is not None for key in keys)
    for orphan in tmp_path.glob("*.partial"):
        os.utime(orphan, (0, 0))
    EmbeddingStore(tmp_path)
    assert not list(tmp_path.glob("*.partial"))


def test_memory_is_bounded_and_the_oldest_goes_first(nano: Predictor) -> None:
    embedding = EmbeddingStore(None).put("probe", nano.embed(random_image(20, 20)))
    store = EmbeddingStore(None, memory_bytes=3 * embedding.nbytes)
    for key in ("a", "b", "c"):
        store.put(key, embedding)
    assert store.get("a") is not None
    store.put("d", embedding)
    assert [key in store for key in "abcd"] == [True, False, True, True]
    assert store.size_bytes() == 3 * embedding.nbytes
    assert len(store) == 3
    store.put("a", embedding)
    assert store.size_bytes() == 3 * embedding.nbytes
    store.clear()
    assert store.size_bytes() == len(store) == 0
    small = EmbeddingStore(None, memory_bytes=10)
    small.put("a", embedding)
    assert small.get("a") is None


def test_disk_is_bounded_and_the_oldest_goes_first(nano: Predictor, tmp_path: Path) -> None:
    embedding = nano.embed(random_image(20, 20))
    EmbeddingStore(tmp_path).put("probe", embedding)
    entry = EmbeddingStore(tmp_path).size_bytes()
    EmbeddingStore(tmp_path).clear()
    store = EmbeddingStore(tmp_path, memory_bytes=0, disk_bytes=3 * entry + entry // 2)
    for age, key in enumerate(("a", "b", "c")):
        store.put(key, embedding)
        os.utime(tmp_path / f"{key}.safetensors", (1000 + age, 1000 + age))
    assert store.get("a") is not None, "reading makes it young again"
    store.put("d", embedding)
    assert [key in store for key in "abcd"] == [True, False, True, True]
    assert len(store) == 3
    store.clear()
    assert store.size_bytes() == 0


def test_the_folder_is_not_measured_at_every_put(
    nano: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding = nano.embed(random_image(20, 20))
    measured = []
    glob = Path.glob
    monkeypatch.setattr(Path, "glob", lambda *arguments: measured.append(1) or glob(*arguments))
    store = EmbeddingStore(tmp_path, memory_bytes=0)
    entry = store.put("probe", embedding).nbytes
    small = EmbeddingStore(tmp_path, memory_bytes=0, disk_bytes=100 * entry)
    measured.clear()
    for number in range(20):
        store.put(f"{number}", embedding)
    assert measured == []
    for number in range(20, 240):
        small.put(f"{number}", embedding)
    assert 5 <= len(measured) <= 60
    assert small.size_bytes() <= 107 * entry


def test_a_full_disk_leaves_memory_working(
    nano: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Statement 38."""

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    store = EmbeddingStore(tmp_path)
    embedding = store.put("a", nano.embed(random_image(20, 20)))
    assert "No space left" in caplog.text
    assert_same(store.get("a"), embedding)
    assert list(tmp_path.iterdir()) == []


def test_keys_are_no_paths(nano: Predictor, tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path / "store")
    store.put("../escaped", nano.embed(np.zeros((9, 9, 3), np.uint8)))
    assert not list(tmp_path.rglob("*escaped*"))


def test_default_store_lies_in_the_users_cache(home: Path) -> None:
    store = default_store()
    assert store.directory == home / "cache" / "embeddings"
    assert default_store() is store
