"""What a job is called on the pages."""

from itda_core.jobs.job import Job
from itda_core.jobs.submissions import title_of
from pages.components.explorer import explorer
from pages.components.run_names import run_label
from pages.components.upload import as_uploaded


def job_title(job: Job) -> str:
    """Its title, with uploads by their names. One about a single dictionary that is here has what
    that is called everywhere, which no other is called."""
    if len(job.run_ids) == 1:
        runs = explorer().store.known(explorer().store.runs.table)
        # Jobs that came with a folder may be about a run of the same name elsewhere.
        for run in runs[runs["directory"] == job.arguments[0]].itertuples():
            if title := title_of(job.command, job.arguments, run_label(run)):
                return title
    return as_uploaded(job.title)
