"""Freed memory is kept: the next step finds it, and the system need not give it anew."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from torch import nn
from graphpruning.common.memory import keep_freed_memory

torch.set_num_threads(1)
blocks = [(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU()) for _ in range(3)]
net = nn.Sequential(*(layer for block in blocks for layer in block))
images = torch.ones(8, 8, 384, 384)  # 38 MB, more than glibc keeps by itself

def faults():
    net(images).sum().backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(2):
        net(images).sum().backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
assert keep_freed_memory()
print(faults(), given_back)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is glibc's")
def test_a_training_step_finds_the_memory_of_the_last_one() -> None:
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kept, given_back = map(int, done.stdout.split())
    assert kept < given_back / 2
