"""Memory that every batch asks for again stays with the process."""

import sys

import pytest

from kagflow.process import run

# Its own process: what malloc is told stays told. A block that no thread's own heap can hold.
ASKS = """
import resource, sys, threading
from kagflow.infer.memory import keep
if sys.argv[1] == "keep":
    print(keep(), end=" ")
import torch
def pages():
    least = 10**9
    for turn in range(12):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(30_000_000)
        least = min(least, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    print(least)
thread = threading.Thread(target=pages)
thread.start()
thread.join()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="malloc of the GNU C library")
def test_a_thread_gets_a_large_block_again_without_new_pages():
    kept, pages = run([sys.executable, "-c", ASKS, "keep"], timeout=120).stdout.split()
    assert kept == "True"
    assert int(pages) < 1000
    # 120 MB are 29,000 pages where no page is a large one.
    (plain,) = run([sys.executable, "-c", ASKS, "not"], timeout=120).stdout.split()
    assert int(plain) > int(pages)
