"""Commands on jobs: list, inspect, stop, their datums, logs and workers; wait for them, or run them here."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gitpipe.cli import complete, show
from gitpipe.cli.app import JOBS, MANY, Raw, command, is_terminal, project, say, standard_input
from gitpipe.cli.progress import JobProgress
from gitpipe.errors import GitpipeError, JobFailed, UsageError
from gitpipe.views import JobInfo

if TYPE_CHECKING:
    from gitpipe.jobviews import Jobs

OfPipeline = Annotated[
    str | None,
    typer.Option(
        "--pipeline",
        "-p",
        metavar="PIPELINE",
        help="Of this pipeline only.",
        autocompletion=complete.pipelines,
    ),
]
OfJob = Annotated[
    str | None,
    typer.Option("--job", "-j", metavar="JOB", help="Of this job only.", autocompletion=complete.jobs_and_pipelines),
]
OneJob = Annotated[
    str,
    typer.Argument(
        metavar="JOB|PIPELINE",
        help="A job's id, or a pipeline (its newest job).",
        autocompletion=complete.jobs_and_pipelines,
    ),
]


SCREEN_ON, SCREEN_OFF, CLEAR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[H\x1b[2J"
"""What terminals take for a screen of its own, and for a clean one."""


class Interrupted(GitpipeError):
    """The user pressed Ctrl-C while jobs were at work."""

    exit_code = 130


@command("list-job", JOBS)
def list_job(
    pipeline: OfPipeline = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, max=MANY, help="At most so many jobs.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Stay, and show each change until Ctrl-C.")] = False,
    raw: Raw = False,
) -> None:
    """List the jobs, the newest first; progress is processed + skipped (+ recovered) / total datums.

    Example: gitpipe list-job -w
    """
    jobs = project().jobs
    if not watch:
        show.many(jobs.list(pipeline, limit), show.JOB, as_json=raw)
    elif is_terminal() and not raw:
        fresh_table(found for found, _ in jobs.watch(pipeline, limit))
    else:
        show.stream((job for _, changed in jobs.watch(pipeline, limit) for job in changed), show.JOB, as_json=raw)


def fresh_table(tables: Iterable[Sequence[JobInfo]]) -> None:
    """Show the newest table alone, in a screen of its own as a pager does; the last one stays when it ends."""
    last: Sequence[JobInfo] = ()
    sys.stdout.write(SCREEN_ON)
    try:
        for last in tables:
            sys.stdout.write(CLEAR)
            show.many(last, show.JOB, as_json=False)
            sys.stdout.flush()
    finally:
        sys.stdout.write(SCREEN_OFF)
        show.many(last, show.JOB, as_json=False)
        sys.stdout.flush()


@command("inspect-job", JOBS)
def inspect_job(job: OneJob, raw: Raw = False) -> None:
    """Show one job in detail, with its inputs and why it failed.

    Example: gitpipe inspect-job model
    """
    show.one(project().jobs.inspect(job), show.job_details, as_json=raw)


@command("stop-job", JOBS)
def stop_job(
    job: Annotated[
        str,
        typer.Argument(
            metavar="JOB|PIPELINE",
            help="A job's id, or a pipeline (what it is at).",
            autocompletion=complete.jobs_and_pipelines,
        ),
    ],
) -> None:
    """Stop a job that waits or runs; run-pipeline runs it again, and what it had finished is kept.

    Example: gitpipe stop-job model
    """
    stopped = project().jobs.stop(job)
    print(f"{stopped.pipeline}: stopped; 'gitpipe run-pipeline {stopped.pipeline}' runs it again")


@command("restart-datum", JOBS)
def restart_datum(
    job: Annotated[
        str,
        typer.Argument(
            metavar="JOB|PIPELINE",
            help="A running job's id, or a pipeline (what it is at).",
            autocompletion=complete.jobs_and_pipelines,
        ),
    ],
    datums: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DATUM]...",
            help="Their ids, or the first digits, also with commas between; all that run, if there is none.",
            autocompletion=complete.datums,
        ),
    ] = None,
) -> None:
    """Kill datums that run and begin them again, which counts as no try.

    Example: gitpipe restart-datum model
    """
    say(project().datums.restart(job, [each for word in datums or () for each in word.split(",")]))


FIRST = 20


@command("list-datum", JOBS)
def list_datum(
    job: Annotated[
        str,
        typer.Argument(
            metavar="[JOB|PIPELINE]",
            help="A job's id, or a pipeline (its newest job; with -f, one of the file's).",
            autocompletion=complete.jobs_and_pipelines,
        ),
    ] = "",
    file: Annotated[
        list[str] | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="Instead of a job's, the datums that this spec would have now.",
            autocompletion=complete.files,
        ),
    ] = None,
    number: Annotated[
        int | None,
        typer.Option(
            "--number", "-n", min=0, max=MANY, metavar="N", help=f"With -f, the first N only ({FIRST}; all with --raw)."
        ),
    ] = None,
    raw: Raw = False,
) -> None:
    """List the datums of a job and what became of each, or those that a spec would have.

    Example: gitpipe list-datum inference

    Example: gitpipe list-datum -f pipelines/iris/infer.json
    """
    if file is None:
        if not job:
            raise UsageError("list-datum: name a job or a pipeline, or a spec with -f FILE")
        here = project()
        show.many(here.datums.list(job), show.DATUM, as_json=raw)
        if earlier := here.jobs.earlier_attempts(here.jobs.find(job)):
            sys.stdout.flush()
            print(f"gitpipe: {earlier}", file=sys.stderr)
        return
    limit = number if number is not None else None if raw else FIRST
    found = project().preview.datums(file, job, limit, stdin=standard_input())
    show.many(found.datums, show.DATUM, as_json=raw)
    if not raw:
        shown = f"; the first {len(found.datums)} are shown, -n shows more" if len(found.datums) < found.total else ""
        count = f"{'more than ' if found.more else ''}{found.total} datum{'' if found.total == 1 else 's'}"
        sys.stdout.flush()  # else the count comes before the table where both go to one place
        print(f"gitpipe: {count}{shown}", file=sys.stderr)


@command("inspect-datum", JOBS)
def inspect_datum(
    job: OneJob,
    datum: Annotated[
        str,
        typer.Argument(metavar="DATUM", help="Its id, or the first digits.", autocompletion=complete.datums),
    ],
    raw: Raw = False,
) -> None:
    """Show one datum of a job with its input and output files."""
    show.one(project().datums.inspect(job, datum), show.datum_details, as_json=raw)


@command("logs", JOBS)
def logs(
    job: OfJob = None,
    pipeline: OfPipeline = None,
    datum: Annotated[
        str | None,
        typer.Option("--datum", metavar="DATUM", help="Of this datum only.", autocompletion=complete.datums),
    ] = None,
    tail: Annotated[
        int | None, typer.Option("--tail", min=0, max=MANY, metavar="N", help="The last N lines only.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is printed meanwhile, until the job is over.")
    ] = False,
    raw: Raw = False,
) -> None:
    """Print what the code of jobs wrote to standard output and standard error.

    Example: gitpipe logs --pipeline model --tail 20

    Example: gitpipe logs -f --pipeline model
    """
    jobs = project().jobs
    read = jobs.follow if follow else jobs.logs
    printed = False
    for line in read(job=job, pipeline=pipeline, datum=datum, tail=tail):
        if raw:
            show.raw([line])
        else:
            print(show.log_message(line))
        if follow:
            sys.stdout.flush()
        printed = True
    if raw:
        return
    if job is not None and not printed and tail != 0:
        # A program that could not be started has printed nothing: whoever was sent here is to find out why.
        print(f"gitpipe: {show.oneline(why_nothing(jobs, job))}", file=sys.stderr)


def why_nothing(jobs: Jobs, name: str) -> str:
    """Why there is nothing to show of a job."""
    if jobs.log_removed(name):
        return f"the log of job {name} was removed: gitpipe.logsJobs, logsDays and logsSize say what is kept"
    one = jobs.inspect(name)
    why = f", and ended as {one.state}: {one.reason}" if one.reason else ""
    return f"job {show.short(one.id)} printed nothing{why}" if one.id else f"{one.pipeline}: the job never began{why}"


@command("list-worker", JOBS)
def list_worker(raw: Raw = False) -> None:
    """List the worker slots of each pipeline and what they are at."""
    show.many(project().jobs.workers(), show.WORKER, as_json=raw)


@command("wait", JOBS)
def wait(
    commits: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[COMMIT]...",
            help="Accepted as by flush-commit; all that is pending is awaited.",
            autocompletion=complete.each_commit,
        ),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0, metavar="SECONDS", help="Give up after so long.")
    ] = None,
) -> None:
    """Wait until all pipelines have run on all commits, showing progress; a failed job gives exit status 3."""
    here = project()
    if commits:
        here.check_commits(commits)
    with JobProgress() as progress:
        try:
            ran = here.wait(progress.update, timeout)
        except KeyboardInterrupt:
            raise Interrupted("no longer waiting; the runner goes on in the background, see 'gitpipe status'") from None
        progress.finish(ran, lambda: here.status().warnings, here.behind)
    check(ran)


@command("run", JOBS)
def run(
    watch: Annotated[bool, typer.Option("--watch", help="Go on with each new commit until Ctrl-C.")] = False,
) -> None:
    """Run all that is pending here and now, without the background runner (for servers and CI)."""
    here = project()
    if watch:
        try:
            left = here.watch(job_ended, lambda line: print(line, flush=True))
        except KeyboardInterrupt:
            raise Interrupted("interrupted while ending; finished datums are kept, the next runner goes on") from None
        print("Ended." + (f" Jobs left to the next runner: {left}." if left else ""))
        return
    with JobProgress() as progress:
        try:
            ran = here.run(progress.update)
        except KeyboardInterrupt:
            raise Interrupted("stopped; finished datums are kept, 'gitpipe run' or the next commit goes on") from None
        progress.finish(ran, lambda: here.status().warnings, here.behind)
    check(ran)


def job_ended(job: JobInfo) -> None:
    """Print the line of a job that is over."""
    why = f": {show.oneline(job.reason)}" if job.reason else ""
    print(f"{show.progress_line(job)}{why}", flush=True)


def check(jobs: Sequence[JobInfo]) -> None:
    """Raise JobFailed, naming the pipeline and the cause, if one of `jobs` failed.

    A job that could not run is a consequence, so one that failed by itself is named before it.
    """
    for states in (("failed", "killed"), ("unrunnable",)):
        bad = [job for job in jobs if job.state in states]
        if bad:
            first, others = bad[0], len(bad) - 1
            more = f" (and {others} more)" if others else ""
            cause = first.reason or first.state
            see = f"logs --job {show.short(first.id)}" if first.id else "status"
            raise JobFailed(f"{first.pipeline}: {cause}{more}; see 'gitpipe {see}'")
