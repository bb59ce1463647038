"""A record of losses as one HTML file that opens offline; its size depends on heads and checkpoints, both bounded."""

from __future__ import annotations

from markupsafe import Markup

from mmaudit.export.joined_flags import join_flags
from mmaudit.export.losses import LOSS_EVIDENCE, loss_overview, opened_losses
from mmaudit.export.page import environment, page_parts, shown_figure
from mmaudit.figures.of_losses import loss_drawings
from mmaudit.report.labels import clean, shorten
from mmaudit.report.loss_record import LossRecord
from mmaudit.report.numbers import count

__all__ = ["losses_html"]

_MOST_RUNS = 100
_MOST_NAMED = 6


def losses_html(record: LossRecord) -> str:
    """Write a record of losses as one HTML document.

    Returns:
        The document: plotly.js inside, no request to any server, about 5 MB.
    """
    drawn = [
        (
            drawing.title,
            shown_figure(key, drawing.info(record), drawing.plot, drawing.table),
        )
        for key, drawing in loss_drawings(record).items()
    ]
    page = page_parts([figure for _, figure in drawn])
    files = [
        (shorten(file.path, 200), count(file.bytes), file.sha256 or "–")
        for run in record.runs[:_MOST_RUNS]
        for file in run.files
    ]
    return (
        environment()
        .get_template("losses.html")
        .render(
            overview=loss_overview(record),
            opened=opened_losses(record),
            evidence_headers=LOSS_EVIDENCE,
            figures=drawn,
            flags=[
                (clean(f.kind), _heads(f.heads), shorten(f.text, 600))
                for f in join_flags(record.flags)
            ],
            measures=[
                (
                    clean(m.title),
                    clean(m.unit),
                    clean(m.reference),
                    shorten(m.undefined or "–", 300),
                )
                for m in record.measures.values()
            ],
            files=list(dict.fromkeys(files)),
            settings=[(clean(k), shorten(str(v), 100)) for k, v in record.settings.items()],
            created=record.created.strftime("%Y-%m-%d %H:%M UTC"),
            version=record.mmaudit_version,
            schema=record.schema_version,
            css=Markup(page.css),
            figure_data=Markup(page.figure_data),
            plotly_js=Markup(page.plotly_js),
            page_js=Markup(page.page_js),
            policy=page.policy,
        )
    )


def _heads(names: tuple[str, ...]) -> str:
    shown = ", ".join(shorten(name, 40) for name in names[:_MOST_NAMED])
    return (
        shown + (f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else "")
        or "all"
    )
