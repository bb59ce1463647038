from __future__ import annotations

import pytest

from mmaudit.checkpoint.named_globals import is_weight_global, told
from mmaudit.checkpoint.pickled_names import HIDDEN, UNREAD


def test_what_would_run_code_is_told_first():
    harmless = ["collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch.FloatStorage"]
    layers = [f"torch.nn.modules.{name}" for name in ("linear.Linear", "rnn.GRU", "loss.MSELoss")]
    own = ["net.Net", "__main__.Net"]
    assert told(harmless) == "" == told([])
    assert told([*harmless, *layers, *own]) == "net.Net, __main__.Net (+3)"
    assert told([*layers, *harmless, *own, "posix.system"], 3) == (
        "posix.system, net.Net, __main__.Net (+3)"
    )
    assert told(layers, 3, 240) == ", ".join(layers)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "posix.system",
            "nt.system",
            "os.popen",
            "builtins.eval",
            "builtins.getattr",
            "runpy.run_path",
        ),
        *(
            "subprocess.Popen",
            "pickle.loads",
            "ctypes.CDLL",
            "operator.methodcaller",
            "types.CodeType",
        ),
        *("torch.load", "torch.hub.load", "torch.storage._load_from_bytes", "numpy.load"),
        *("torch.nn.modules.module.os.system", "torch.nn.modules.module.subprocess.Popen"),
        *("torch.optim.optimizer.functools.reduce", HIDDEN, UNREAD),
    ],
)
def test_all_that_would_run_code_is_told(name):
    others = [f"net.Layer{i}" for i in range(50)] + ["collections.defaultdict", "numpy.dtype"]
    assert told([*others, name], 1) == f"{name} (+52)"
    several = [f"{module}.run" for module in ("os", "shutil", "runpy", "pty", "code", "builtins")]
    assert all(one in told([*others, *several], 2) for one in several)


def test_a_name_of_weights_leads_nowhere_else():
    for name in ("torch.FloatStorage", "torch.bfloat16", "torch._utils._rebuild_parameter"):
        assert is_weight_global(name)
        assert not is_weight_global(f"{name}.__globals__.get")
        assert not is_weight_global(f"net.{name}")
    assert not is_weight_global("torch.load") and not is_weight_global("torch.os")
