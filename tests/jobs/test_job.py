"""What a job is about, read from the command line that it runs."""

import json
from pathlib import Path

import pytest

from itda_core.jobs.job import Job

FROZEN_JOBS = Path(__file__).parents[1] / "frozen" / "data" / "jobs"


def job_of(command, *arguments):
    return Job("00001", "queued", "A title", 0.0, command=command, arguments=arguments)


@pytest.mark.parametrize(
    ("job", "kind", "run_ids", "measures"),
    [
        (job_of("train"), "training", (), ()),
        (job_of("evaluate", "/runs/a", "/runs/b", "--save"), "evaluation", ("a", "b"), ()),
        (job_of("probe", "/runs/a", "--save"), "probing", ("a",), ()),
        (job_of("map", "/runs/with a space"), "map", ("with a space",), ()),
        (
            job_of("measure", "/runs/a", "/runs/b", "--measures", "cka,svcca", "--save"),
            "comparison",
            ("a", "b"),
            ("cka", "svcca"),
        ),
        (job_of("models", "--json"), "models", (), ()),
    ],
)
def test_a_job_says_its_kind_its_runs_and_its_measures(job, kind, run_ids, measures):
    assert (job.kind, job.run_ids, job.measures) == (kind, run_ids, measures)


def test_a_job_of_the_first_version_which_wrote_no_command_is_a_training():
    job = Job("00001", "done", "A title", 0.0)
    assert (job.kind, job.run_ids, job.measures) == ("training", (), ())
    assert job.keeps_checkpoints


def test_jobs_of_an_earlier_version_are_about_the_same_as_those_of_today():
    jobs = [json.loads(path.read_text()) for path in sorted(FROZEN_JOBS.glob("*/job.json"))]
    jobs = [Job(**{**fields, "arguments": tuple(fields["arguments"])}) for fields in jobs]
    assert [job.kind for job in jobs] == ["training", "comparison", "evaluation"]
    assert [job.run_ids for job in jobs] == [
        (),
        ("tiny-6x128-0-e25aba95-L02", "tiny-6x128-0-ce959b28-L02"),
        ("tiny-6x128-0-ce959b28-L02",),
    ]
    assert [job.measures for job in jobs] == [(), ("cka", "procrustes"), ()]
