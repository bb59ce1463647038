"""Datasets that misbehave, in a module of their own so that spawned workers can import them."""

import os
import signal
import time

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info


class Numbers(Dataset):
    """Sample i is ``{"x": [i, i], "y": i % 3, "id": "s<i>"}``; counts what is loaded."""

    def __init__(self, n=10):
        self.n = n
        self.loaded = []

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.loaded.append(i)
        return {"x": torch.full((2,), float(i)), "y": i % 3, "id": f"s{i}"}


class Failing(Numbers):
    """Does something bad at sample 5."""

    def __init__(self, how, n=10):
        super().__init__(n)
        self.how = how

    def __getitem__(self, i):
        if i == 5:
            if self.how == "raise":
                raise ValueError("sample five\nis broken")
            if self.how == "exit":
                os._exit(3)
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "hang":
                time.sleep(600)
            if self.how == "stop":
                raise StopIteration
            if self.how == "interrupt":
                raise KeyboardInterrupt
            if self.how == "sys.exit":
                raise SystemExit(0)
        return super().__getitem__(i)


class Drawing(Numbers):
    """Draws a random number per sample."""

    def __getitem__(self, i):
        return {**super().__getitem__(i), "drawn": torch.rand(1)}


class Streaming(IterableDataset):
    def __init__(self, n=10):
        self.n = n

    def __iter__(self):
        return iter(Numbers(self.n)[i] for i in range(self.n))


class Uneven(IterableDataset):
    """Its first worker has one sample, its second is slow."""

    def __iter__(self):
        if get_worker_info().id == 0:
            yield Numbers(10)[0]
        else:
            for i in (1, 2):
                time.sleep(1.5)
                yield Numbers(10)[i]


def factory(n=10, **options):
    from torch.utils.data import DataLoader

    return DataLoader(Numbers(n), **options)
