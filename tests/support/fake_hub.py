"""A hub that is a folder."""

import shutil
from pathlib import Path

NAME = "someone/a-dictionary"


class FakeHub:
    """Keeps repositories as folders; `error` is raised by each call."""

    def __init__(self, folder, error=None):
        self.folder, self.error = Path(folder), error
        self.private = {}

    def create_repo(self, repo_id, private=None, exist_ok=False):
        if self.error:
            raise self.error
        assert exist_ok
        self.private.setdefault(repo_id, private)

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        assert repo_id in self.private
        shutil.copytree(folder_path, self.folder / repo_id, dirs_exist_ok=True)
        return f"https://hub/{repo_id}"

    def download(self, *, repo_id, revision, allow_patterns, local_dir):
        if self.error:
            raise self.error
        for pattern in allow_patterns:
            for path in (self.folder / repo_id).glob(pattern):
                target = Path(local_dir) / path.relative_to(self.folder / repo_id)
                shutil.copyfile(path, target, follow_symlinks=False)
        return local_dir
