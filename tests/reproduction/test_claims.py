import signal
import subprocess
import sys

import pytest

from us_i2v.errors import OutputError
from us_i2v.reproduction.claims import CLAIM, alone, claim, is_claimed

HOLDER = """
import sys, time
from pathlib import Path
from us_i2v.reproduction.claims import claim
with claim(Path(sys.argv[1])) as ours:
    print(ours, flush=True)
    time.sleep(60)
"""


def test_a_folder_is_claimed_once_and_free_afterwards(tmp_path):
    folder = tmp_path / "cell"
    assert not is_claimed(folder)
    with claim(folder) as first:
        assert first
        assert is_claimed(folder)
        with claim(folder) as second:
            assert not second
        assert is_claimed(folder)
    assert not is_claimed(folder)
    with claim(folder) as third:
        assert third


def test_a_claim_ends_with_an_error_and_says_who_had_it(tmp_path):
    with pytest.raises(KeyError), claim(tmp_path):
        raise KeyError
    assert len((tmp_path / CLAIM).read_text().split()) == 2
    with alone(tmp_path, 0.01):
        assert is_claimed(tmp_path)


def test_a_killed_process_leaves_no_claim(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with claim(tmp_path) as ours:
            assert not ours
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with claim(tmp_path) as ours:
        assert ours


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"), claim(tmp_path / "file" / "cell"):
        pass
