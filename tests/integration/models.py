"""Models as other people write them, and the batches that they take."""

import time
from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F

OMICS = {"x1": 20, "x2": 14, "x3": 9}
NODES, TRAINING_NODES = 60, 40


class GraphConvolution(nn.Module):
    def __init__(self, size, out):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size, out) * 0.5)
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x, adjacency):
        return torch.sparse.mm(adjacency, x @ self.weight) + self.bias


class GraphEncoder(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.gc1, self.gc2 = GraphConvolution(size, 8), GraphConvolution(8, 6)

    def forward(self, x, adjacency):
        hidden = F.dropout(F.leaky_relu(self.gc1(x, adjacency)), 0.5, training=self.training)
        return F.leaky_relu(self.gc2(hidden, adjacency))


class CrossView(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(classes**3, 12), nn.LeakyReLU(), nn.Linear(12, classes))

    def forward(self, views):
        a, b, c = (torch.softmax(view, 1) for view in views)
        return self.net(torch.einsum("ni,nj,nk->nijk", a, b, c).flatten(1))


class OmicsGraphs(nn.Module):
    """One graph encoder and classifier for each omics; answers for the test nodes alone."""

    def __init__(self, classes=3):
        super().__init__()
        for number, size in enumerate(OMICS.values(), 1):
            self.add_module(f"E{number}", GraphEncoder(size))
            self.add_module(f"C{number}", nn.Linear(6, classes))
        self.C = CrossView(classes)

    def forward(self, x1, adj1, x2, adj2, x3, adj3):
        pairs = ((x1, adj1), (x2, adj2), (x3, adj3))
        views = [
            self.get_submodule(f"C{number}")(self.get_submodule(f"E{number}")(*pair))
            for number, pair in enumerate(pairs, 1)
        ]
        return self.C(views)[TRAINING_NODES:]


def omics_graphs():
    return OmicsGraphs()


def similar(x, threshold=0.2):
    unit = F.normalize(x, dim=1)
    near = unit @ unit.T
    dense = torch.where(near > threshold, near, 0.0)
    return F.normalize(dense, p=1, dim=1).to_sparse_coo()


def omics_batches():
    drawn = torch.Generator().manual_seed(4)
    labels = torch.randint(3, (NODES,), generator=drawn)
    batch = {"label": labels[TRAINING_NODES:]}
    for number, (name, size) in enumerate(OMICS.items(), 1):
        values = torch.randn(NODES, size, generator=drawn)
        values[torch.arange(NODES), labels] += 1.5
        batch[name], batch[f"adj{number}"] = values, similar(values)
    return [batch]


class SixViews(nn.Module):
    """Late fusion of tabular views, each normalised by a batch norm of its own."""

    def __init__(self, sizes, classes=10):
        super().__init__()
        self.encoders = nn.ModuleDict(
            {
                name: nn.Sequential(nn.BatchNorm1d(size), nn.Linear(size, 12), nn.ReLU())
                for name, size in sizes.items()
            }
        )
        self.head = nn.Linear(12 * len(sizes), classes)

    def forward(self, **views):
        return self.head(torch.cat([part(views[name]) for name, part in self.encoders.items()], 1))


def six_views(sizes, classes=10):
    return SixViews(sizes, classes)


class Output(OrderedDict):
    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class TextAndImage(nn.Module):
    """Transformer encoders and cross-attention; takes a batch whole and returns an output object."""

    def __init__(self, width=16):
        super().__init__()

        def encoder():
            layer = nn.TransformerEncoderLayer(width, 2, 32, batch_first=True, norm_first=True)
            return nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

        self.words, self.patches = nn.Embedding(30, width), nn.Conv2d(3, width, 4, 4)
        self.text, self.image = encoder(), encoder()
        self.cross = nn.MultiheadAttention(width, 2, batch_first=True)
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 4))

    def forward(self, batch):
        padding = batch["text"]["attention_mask"] == 0
        text = self.text(self.words(batch["text"]["input_ids"]), src_key_padding_mask=padding)
        image = self.image(self.patches(batch["pixel_values"]).flatten(2).transpose(1, 2))
        fused, _ = self.cross(image, text, text, key_padding_mask=padding)
        return Output(loss=None, logits=self.head((image + fused).mean(1)), states=(text, image))


def text_and_image():
    return TextAndImage()


def padded_batches(sizes=(9, 9, 5)):
    """Each batch is padded to its own longest text."""
    drawn = torch.Generator().manual_seed(7)
    batches = []
    for size in sizes:
        lengths = torch.randint(2, 10, (size,), generator=drawn)
        mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        tokens = torch.randint(1, 30, mask.shape, generator=drawn) * mask
        image = torch.randn(size, 3, 8, 8, generator=drawn)
        labels = torch.randint(4, (size,), generator=drawn)
        text = {"input_ids": tokens, "attention_mask": mask}
        batches.append({"text": text, "pixel_values": image, "labels": labels})
    return batches


class TwoInputs(nn.Module):
    """Small late fusion that can be slow, and short of memory on large batches."""

    def __init__(self, seconds=0.0, most_rows=None, wordless=False):
        super().__init__()
        self.a = nn.Sequential(nn.Linear(7, 8), nn.ReLU())
        self.b = nn.Sequential(nn.Linear(5, 8), nn.Tanh())
        self.head = nn.Linear(16, 4)
        self.seconds, self.most_rows, self.wordless = seconds, most_rows, wordless

    def forward(self, a, b):
        time.sleep(self.seconds)
        if self.most_rows is not None and len(a) > self.most_rows:
            if self.wordless:
                raise MemoryError
            raise torch.OutOfMemoryError(f"out of memory for {len(a)} rows")
        return self.head(torch.cat([self.a(a), self.b(b)], 1))


def two_inputs(**settings):
    torch.manual_seed(3)
    return TwoInputs(**settings)


def two_input_batches(samples=203, size=32):
    drawn = torch.Generator().manual_seed(1)
    labels = torch.randint(4, (samples,), generator=drawn)
    a = torch.randn(samples, 7, generator=drawn)
    b = torch.randn(samples, 5, generator=drawn)
    a[:, 0] += 2 * labels
    columns = {"a": a, "b": b, "label": labels}
    return [
        {name: column[at : at + size] for name, column in columns.items()}
        for at in range(0, samples, size)
    ]
