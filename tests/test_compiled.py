"""Compiled code is kept on disk for as long as its sources are what they were."""

import os
from pathlib import Path

import pytest

from pipeline.dedup import batches, lcs
from pipeline.dedup.compiled import cache_of


def test_a_change_in_any_compiled_file_is_a_new_cache(tmp_path: Path) -> None:
    loop, plain = tmp_path / "loop.py", tmp_path / "plain.py"
    loop.write_text("\n@compiled\ndef f(): return 1\n")
    plain.write_text("def g(): return 1\n")
    first = cache_of(tmp_path)
    assert first.parent == tmp_path / "__pycache__" and cache_of(tmp_path) == first
    plain.write_text("def g(): return 2\n")
    assert cache_of(tmp_path) == first
    loop.write_text("\n@compiled\ndef f(): return 2\n")
    assert cache_of(tmp_path) != first
    assert cache_of(tmp_path, str(tmp_path / "elsewhere")).parent == tmp_path / "elsewhere"


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_nobody_may_write_in_leaves_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    tmp_path.chmod(0o500)
    assert cache_of(tmp_path).parent == Path("/caches/numba")


def test_the_index_is_kept_there() -> None:
    folder = Path(lcs.__file__).parent
    for function in (batches.admit, lcs.lcs):
        assert f"/{cache_of(folder).name}/" in function.stats.cache_path + "/"
