"""The stages of a training as the benchmarks time them: the runs that a training gives."""

import torch

from benchmarks.common.training_stages import begun, finish
from itda_core import Dictionary, load_model
from itda_core.training.trainer import train
from tests.support.trained_runs import tiny_config


def test_stages_give_the_runs_of_a_training(tiny_model_folder, tiny_corpus_file, tmp_path):
    config = tiny_config(tiny_model_folder, tiny_corpus_file)
    with begun(load_model(config.model), config) as work:
        finish(work)
        assert work.tokens == work.context.plan.total_rows
        made = {path.name[-3:]: path for path in work.context.workspace.runs.glob("*-L*")}
        assert sorted(made) == ["L00", "L01", "L02"]
        trained = [*train(config, tmp_path)][-1].finished
        for name in trained:
            ours, theirs = Dictionary.load(made[name[-3:]]), Dictionary.load(tmp_path / name)
            assert torch.equal(ours.atoms, theirs.atoms)
            assert ours.sources.equals(theirs.sources)
