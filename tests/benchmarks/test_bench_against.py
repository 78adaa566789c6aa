"""This checkout against another: who takes turns, and which way the ratio says what."""

import json
import os
import time

import pytest

from rtvc.benchmarks import against
from rtvc.errors import ConfigError


def test_a_ratio_above_one_says_that_this_one_needs_more(monkeypatch, tmp_path):
    turns, told = [], []
    before = {600: 4.0, 300: 5.0}

    def stream(root, backend, chunk):
        turns.append(root)
        return before[chunk] * (2.0 if root == against.ROOT else 1.0)

    monkeypatch.setattr(against, "stream", stream)
    monkeypatch.setattr(against, "server", lambda root, backend: 3.0 - (root == against.ROOT))
    rows = against.compare(tmp_path, ["torch-eager"], 3, told.append)
    assert [row["ratio"] for row in rows] == [2.0, 2.0, 0.667]
    assert [row["before_ms"] for row in rows] == [4.0, 5.0, 3.0]
    assert turns == [tmp_path, against.ROOT] * 6, "in turn, so that both meet the same machine"
    assert [json.loads(line) for line in told] == rows


def test_processor_time_of_a_process_grows_with_its_work():
    begun, own = against.spent(os.getpid()), time.process_time()
    while time.process_time() - own < 0.1:
        pass
    assert 0.05 < against.spent(os.getpid()) - begun < 1.0


def test_another_folder_is_no_checkout(tmp_path):
    with pytest.raises(ConfigError, match="is no checkout of rtvc"):
        against.main([str(tmp_path)])
