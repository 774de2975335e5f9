"""When a run counts: the rules that make it void, each with its sentence."""

from __future__ import annotations

from benchmarks.generator.jobs import Outcome

__all__ = ("BUSY", "reasons_void")

BUSY = 0.95
"""Share of a core from which a process counts as working all the time."""


def reasons_void(
    run: Outcome,
    *,
    revisions: int | None,
    answer_bytes: int,
    single_core: bool = True,
) -> list[str]:
    """Why the run says nothing about the server; empty when it counts.

    `revisions` is how far the store's revision advanced (None: others wrote meanwhile, or it was
    not asked for); `answer_bytes` is the least that one call's answer must hold. `single_core`
    says that the generator was one process on one thread, and so can be the bottleneck alone.
    """
    reasons = [f"{count} × {why}" for why, count in sorted(run.failures.items())]
    if run.count == 0:
        reasons.append("nothing was finished in the measured time")
    if revisions is not None and revisions != run.writes:
        reasons.append(f"the revision advanced by {revisions:,}, the writes were {run.writes:,}")
    if run.received_bytes < run.calls * answer_bytes:
        reasons.append(
            f"{run.calls:,} answers hold {run.received_bytes:,} bytes, "
            f"less than {answer_bytes:,} each"
        )
    if single_core and run.seconds:
        own = run.generator_cpu_s / run.seconds
        busiest = max(run.server_cpu_s, default=0.0) / run.seconds
        if own >= BUSY > busiest:
            reasons.append(
                f"the generator was the bottleneck: {own:.0%} of a core, "
                f"the busiest member {busiest:.0%}"
            )
    return reasons
