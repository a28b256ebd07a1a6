"""Stages start without torch's compiler, and it is whole for whoever uses it."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOADED = "'torch._dynamo.eval_frame' in sys.modules"
STEP = """
optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1)
optimizer.zero_grad()
optimizer.step()
"""
FORKS = """
import sys; sys.argv[0] = '-m'; import experiments; import torch
import json, os, traceback
for line in sys.stdin:
    if not (number := os.fork()):
        try:
            exec(json.loads(line), {"__name__": "__main__", "sys": sys, "torch": torch})
            said = ""
        except BaseException:
            said = traceback.format_exc()
        print(json.dumps(said), flush=True)
        os._exit(0)
    if os.waitpid(number, 0)[1]:
        print(json.dumps("it died"), flush=True)
"""
"""Begins as a stage does, and forks for each line: importing torch takes seconds."""
Run = Callable[[str], None]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Run code in a process that has begun as a stage does, and has done no more."""
    with subprocess.Popen(
        [sys.executable, "-c", FORKS],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        wanted, said = process.stdin, process.stdout

        def run(code: str) -> None:
            wanted.write(json.dumps(code) + "\n")
            wanted.flush()
            fault = json.loads(said.readline())
            assert not fault, fault

        yield run
        wanted.close()


def test_no_stage_loads_the_compiler_or_pandas_before_its_first_step(run: Run) -> None:
    run(
        "from experiments import correlation, finetune, prepare, search, train_base\n"
        "from experiments import analyse_pruningnet, train_pruningnet\n"
        "from graphpruning.network.trace import trace\nfrom graphpruning.network.zoo import build\n"
        "from graphpruning.pruningnet.pruningnet import PruningNet\n"
        "PruningNet(trace(build('resnet8', num_classes=10, in_channels=3)), 'graph')\n"
        f"{STEP}"
        f"assert not {LOADED}\n"
        "found = {'pandas', 'sympy', 'torchvision'} & set(sys.modules)\n"
        "assert not found, found"
    )


@pytest.mark.parametrize(
    "first_use",
    [
        "torch._dynamo.reset()",
        "from torch._dynamo.utils import counters",
        "import torch._dynamo.eval_frame",
        "torch.compiler.disable(len)",
        "torch._dynamo.disable(len)",
    ],
)
def test_the_compiler_becomes_whole_in_place_at_its_first_use(first_use: str, run: Run) -> None:
    run(
        f"import torch._dynamo\nempty = torch._dynamo\n{STEP}\nassert not {LOADED}\n"
        f"{first_use}\n"
        f"assert {LOADED} and sys.modules['torch._dynamo'] is empty is torch._dynamo\n"
        "assert type(empty) is type(sys) and not hasattr(empty, '_asked')\n"
        "assert torch._dynamo.disable is torch._dynamo.decorators.disable\n"
        "import torch._dynamo.utils\n"
        "assert sys.modules['torch._dynamo.utils'] is torch._dynamo.utils\n"
        "assert torch._dynamo.eval_frame.__spec__.loader.get_code('torch._dynamo.eval_frame')\n"
        f"{STEP}\n"
        "assert torch.optim.SGD.zero_grad.__wrapped__.__dynamo_disable._torchdynamo_disable"
    )


def test_data_sets_of_pyg_are_there_for_whoever_wants_one(run: Run) -> None:
    run(
        "import torch_geometric\n"
        "assert 'torch_geometric.datasets.planetoid' not in sys.modules\n"
        "from torch_geometric.datasets import Planetoid\n"
        "assert torch_geometric.datasets.planetoid.Planetoid is Planetoid"
    )


def test_lightning_knows_what_is_compiled_afterwards(run: Run) -> None:
    run(
        "from lightning_fabric import Fabric\n"
        "from lightning_fabric.wrappers import OptimizedModule\n"
        "plain = torch.nn.Linear(2, 2)\n"
        f"assert not isinstance(plain, OptimizedModule) and not {LOADED}\n"
        "compiled = torch.compile(plain, backend='eager')\n"
        "assert isinstance(compiled, OptimizedModule) and not isinstance(plain, OptimizedModule)\n"
        "wrapped = Fabric(accelerator='cpu', devices=1).setup(compiled)\n"
        "images = torch.ones(3, 2)\n"
        "assert torch.equal(wrapped(images), plain(images))\n"
        "assert isinstance(wrapped._forward_module, torch._dynamo.OptimizedModule)"
    )
