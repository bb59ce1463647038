"""An audit computed again from nothing: every coalition by masking and calling, every number by its formula."""

from itertools import combinations
from math import factorial, isnan

import numpy as np
import torch


def coalitions(names):
    return [
        frozenset(chosen) for size in range(len(names) + 1) for chosen in combinations(names, size)
    ]


def outputs_of_all_coalitions(model, batches, names, call):
    """Coalition -> outputs ``(n, K)`` of a model in eval mode; ``call(model, batch, present)`` masks by hand."""
    with torch.no_grad():
        return {
            present: torch.cat([call(model, batch, present) for batch in batches]).double().numpy()
            for present in coalitions(names)
        }


def log_softmax(scores):
    scores = scores - scores.max(-1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


def shapley(values, names):
    total = dict.fromkeys(names, 0)
    for name in names:
        for rest in coalitions([other for other in names if other != name]):
            weight = factorial(len(rest)) * factorial(len(names) - len(rest) - 1)
            gain = values[rest | {name}] - values[rest]
            total[name] = total[name] + weight / factorial(len(names)) * gain
    return total


def interaction(values, names, first, second):
    total = 0.0
    for rest in coalitions([other for other in names if other not in (first, second)]):
        weight = factorial(len(rest)) * factorial(len(names) - len(rest) - 2)
        both, neither = values[rest | {first, second}], values[rest]
        gain = both - values[rest | {first}] - values[rest | {second}] + neither
        total += weight / factorial(len(names) - 1) * gain
    return total


def differing_rows(report, outputs, targets, names, *, present=None, tolerance=5e-6):
    """Rows of a report, over all samples and over each class, that the outputs do not bear out.

    Returns:
        The differing rows, and how many were compared.
    """
    targets = np.asarray(targets)
    has = present or {name: np.ones(len(targets), bool) for name in names}
    cells = {"all": np.arange(len(targets))}
    cells |= {label: np.flatnonzero(targets == k) for k, label in enumerate(report.classes)}
    wrong, compared = [], 0
    for label, rows in cells.items():
        if not len(rows):
            continue
        cell = _Cell(
            {S: out[rows] for S, out in outputs.items()},
            targets[rows],
            names,
            {name: has[name][rows] for name in names},
        )
        for key, expected in cell.measures.items():
            frame = report.to_frame(key)
            for row in frame[frame["class"] == label].to_dict("records"):
                want, found = expected(row), row["value"]
                compared += 1
                if isnan(found):
                    # The report may have nothing to share where the whole is not surely different from 0.
                    if want is not None and row.get("quantity") != "share":
                        wrong.append((key, row, want))
                elif want is None or abs(found - want) > cell.slack(row, tolerance) * max(
                    1, abs(want)
                ):
                    wrong.append((key, row, want))
    return wrong, compared


class _Cell:
    """Every number of some samples, by its formula."""

    def __init__(self, outputs, targets, names, has):
        self.names, self.has, self.whole = names, has, frozenset(names)
        self.at = np.arange(len(targets)), targets
        self.scale = np.abs(np.stack(list(outputs.values()))).max((0, 2))[:, None]
        self.worth = {
            "accuracy": {
                S: float((out.argmax(-1) == targets).mean()) for S, out in outputs.items()
            },
            "log-likelihood": {
                S: float(log_softmax(out)[self.at].mean()) for S, out in outputs.items()
            },
        }
        nothing = {frozenset(): np.zeros_like(outputs[frozenset()])}
        self.responses = {
            "exact": shapley(outputs, names),
            "zero": shapley(outputs | nothing, names),
        }
        self.measures = {
            "coalitions": lambda row: self.worth[row["score"]][self.set_of(row["coalition"])],
            "contributions": self.contribution,
            "interactions": lambda row: interaction(
                self.worth[row["score"]], names, row["first"], row["second"]
            ),
            "utilization": self.utilization,
            "responses": self.response,
        }

    def set_of(self, text):
        return frozenset(text.split("+")) & self.whole

    def contribution(self, row):
        value = shapley(self.worth[row["score"]], self.names)[row["modality"]]
        whole = self.to_share(row["score"]) if row["quantity"] == "share" else 1.0
        return value / whole if abs(whole) > 1e-9 else None

    def to_share(self, score):
        return self.worth[score][self.whole] - self.worth[score][frozenset()]

    def slack(self, row, tolerance):
        """Log-likelihoods are stored in float32; a share magnifies their rounding where there is little to share."""
        magnified = row.get("quantity") == "share"
        return tolerance / min(1.0, abs(self.to_share(row["score"]))) if magnified else tolerance

    def rate(self, name, rest):
        accuracy = self.worth["accuracy"]
        more = accuracy[rest | {name}]
        return (more - accuracy[rest]) / more if more else None

    def utilization(self, row):
        if row["quantity"] == "u":
            return self.rate(row["modality"], self.set_of(row["given"]))
        rates = [self.rate(name, self.whole - {name}) for name in self.names]
        if None in rates:
            return None
        return rates[1] - rates[0] if len(rates) == 2 else max(rates) - min(rates)

    def response(self, row):
        has = self.has[row["modality"]]
        if not has.any():
            return None
        scores = self.responses[row["empty"]][row["modality"]]
        if row["quantity"] == "s":
            return np.minimum(-log_softmax(scores)[self.at], -np.log(1e-8))[has].mean()
        top = scores >= scores.max(-1, keepdims=True) - 1e-6 * self.scale
        return (top[self.at] / top.sum(-1))[has].mean()
