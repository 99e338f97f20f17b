"""Runs on the Hugging Face hub: push one with a model card, pull one and check it."""

import errno
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError

from itda_core.errors import ExchangeError, HubError, InputError, RunError
from itda_core.exchange.export import run_files
from itda_core.exchange.model_card import model_card
from itda_core.files.disk_errors import disk_errors_as_sentences
from itda_core.files.json_files import read_json
from itda_core.leftovers import temporary_name
from itda_core.runs.agreement import check_agreement
from itda_core.runs.checks import check_run
from itda_core.runs.near_misses import near_misses
from itda_core.runs.run import ALL_FILES, Run, new_run, read_run
from itda_core.store.store import Store

CARD_FILE = "README.md"
_RUN_ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,80}-L\d{2,4}")
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
_Result = TypeVar("_Result")


def push(run: Run, repository: str, public: bool = False, api: HfApi | None = None) -> str:
    """Upload a run and its card to a hub repository in one commit; returns its address.

    The repository is made where there is none, closed to others unless `public`. The texts of the
    prompts go along. Raises HubError with the remedy.
    """
    check_repository(repository)
    api = api or HfApi()
    with tempfile.TemporaryDirectory() as folder, disk_errors_as_sentences(Path(folder)):
        for name, content in run_files(run).items():
            (Path(folder) / name).write_bytes(content)
        (Path(folder) / CARD_FILE).write_text(model_card(run, repository), encoding="utf-8")

        def upload() -> str:
            api.create_repo(repository, private=not public, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository, folder_path=folder, commit_message=f"Add {run.run_id}"
            )
            return str(getattr(commit, "commit_url", commit))

        return _asked(repository, upload)


def pull(
    repository: str,
    runs: Path,
    revision: str | None = None,
    download: Callable[..., str] | None = None,
) -> Run:
    """Download a run into the folder of runs, once it has proved whole.

    Only the files of a run are taken. They are read as the explorer reads them before the run
    gets its name. Raises HubError, or ExchangeError for what is no run.
    """
    check_repository(repository)
    download = download or snapshot_download
    with disk_errors_as_sentences(runs):
        runs.mkdir(parents=True, exist_ok=True)
        folder = runs / temporary_name("writing-pull")
        folder.mkdir()
        options = {"revision": revision, "allow_patterns": list(ALL_FILES), "local_dir": folder}
        try:
            downloaded = _asked(repository, lambda: download(repo_id=repository, **options))
            return _take(Path(downloaded), runs, repository)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _take(downloaded: Path, runs: Path, repository: str) -> Run:
    """Put what was downloaded among the runs, if it is a run."""
    run_id = _name_of(downloaded, repository)
    if (runs / run_id).exists():
        raise InputError(f"The run {run_id} is in {runs} already. Delete it there first.")
    with new_run(runs, run_id) as folder:
        whole = folder / run_id  # a run is read under the name that it gives itself
        whole.mkdir()
        for name in ALL_FILES:
            if (downloaded / name).is_file() and not (downloaded / name).is_symlink():
                shutil.copyfile(downloaded / name, whole / name)
        _check(whole, repository)
        for path in whole.iterdir():
            path.rename(folder / path.name)
        whole.rmdir()
    return read_run(runs / run_id)


def check_repository(name: str) -> None:
    """Raises InputError for what can't be the name of a hub repository."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", name) or ".." in name:
        raise InputError(f"{name!r} is no hub repository: give it as owner/name.")


def _name_of(folder: Path, repository: str) -> str:
    """The id that the downloaded run gives itself, once it is known to be no path."""
    try:
        run_id = read_json(folder / "config.json")["run_id"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ExchangeError(
            f"{repository} holds no run of this explorer: its config.json names none."
        ) from None
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id) or ".." in run_id:
        raise ExchangeError(f"{repository} names its run {run_id!r}, which is no name of a run.")
    return run_id


def _check(directory: Path, repository: str) -> None:
    """Raises ExchangeError unless the explorer can take the run in and encode with it."""
    store = Store()
    try:
        run = read_run(directory)
        dictionary = run.dictionary()
        check_agreement(run, dictionary)
        dictionary.decode(
            dictionary.encode(torch.ones(1, run.about["d_model"], dtype=torch.float32))
        )
        near_misses(run, 0)
        for damaged in check_run(run, deep=True):
            raise damaged
        store.import_run(run)
        if not len(store.latents.numbers(run.run_id)) == len(dictionary) == len(dictionary.sources):
            raise RunError("some of its latents have no source among its prompts.")
    except Exception as error:  # what others put there can be wrong in any way
        reason = str(error).replace(str(directory), repository)
        raise ExchangeError(f"What {repository} holds is no whole run: {reason}") from error
    finally:
        store.close()


def _asked(repository: str, ask: Callable[[], _Result]) -> _Result:
    """What the hub answers, its refusals as sentences."""
    try:
        return ask()
    except Exception as error:  # the hub client raises a dozen kinds, OSErrors among them
        if getattr(error, "errno", None) in _OF_THE_DISK:
            raise
        raise HubError(_why_not(repository, error)) from error


def _why_not(repository: str, error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, OfflineModeIsEnabled):
        return "The hub is switched off here by HF_HUB_OFFLINE=1. Unset it and try again."
    if isinstance(error, HFValidationError):
        return f"The hub takes no repository of the name {repository}. Give it as owner/name."
    if status in (401, 403):
        return (
            f"The hub does not let you into {repository}. Log in with `hf auth login`, with a "
            "token that may write if you push."
        )
    if status == 404 or isinstance(error, RepositoryNotFoundError):
        return f"The hub has no {repository} that you may see. Check its name, or log in."
    first_line = next(iter(str(error).strip().splitlines()), "")[:200]
    return (
        f"The hub can't be reached for {repository} ({type(error).__name__}: {first_line}). Check "
        "the network and try again."
    )
