"""A durable queue on one machine: each job a folder, a process and a session of its own; nothing is lost with any process.

``offers`` and ``registry`` say what may be asked for, ``queue`` is what people and the app see, ``worker`` starts attempts, ``run``
is one attempt, ``guard`` ends what it leaves behind, ``states`` is the format of a job's folder. Only ``run`` ever loads torch.
"""

from __future__ import annotations
