"""What several files of this folder begin with."""

from pathlib import Path

import pytest

from tests.support.labelled_speech import make_labelled
from tests.support.stream_stages import config
from tests.support.train_runs import begin


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few seconds of labelled speech."""
    return make_labelled(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(scope="module")
def content_run(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    path = tmp_path_factory.mktemp("content")
    made = begin(
        "stream_content", config(path, folder, 40, 1e-2, weights="leak = 0.02"), path / "run"
    )
    made.fit()
    return path / "run"
