"""The benchmark of interpretability: what it claims of saved results, and the runs it compares."""

import copy
import json

import pandas as pd
import pytest
import torch

from benchmarks.interpretability import measure as interpretability
from benchmarks.interpretability import report as reporting
from benchmarks.interpretability.runs import (
    as_dictionary,
    titled_by_strongest,
    write_saelens,
)
from benchmarks.interpretability.strong import strong_uses
from benchmarks.versus_sae.sae_training import Autoencoder
from itda_core.config import HookPoint
from itda_core.exchange.saelens import read_saelens
from itda_core.runs.run import Run


def score(uses, against, auroc):
    bounds = {"low": auroc - 0.01, "high": auroc + 0.01} if auroc else {"low": None, "high": None}
    more = {"latents": 9, "accuracy": 0.6, "shuffled": 0.5}
    return {"uses": uses, "against": against, "auroc": auroc, **bounds, **more}


def probed(features, k, accuracy):
    return {
        "task": "party", "positive": "Republican", "negative": "Democratic", "features": features,
        "k": k, "accuracy": accuracy, "low": 0.4, "high": 0.9, "n_train": 8, "n_test": 10,
        "chosen": [],
    }  # fmt: skip


def method(everything, leading, strong, latents, made):
    scores = [
        score(uses, against, auroc)
        for uses, auroc in (
            ("all", everything),
            ("leading", leading),
            ("negative", None),
            ("strong", strong),
        )
        for against in ("any token", "same token")
    ]
    results = [probed("latents", 5, latents), probed("activations", 5, 0.7)]
    about = {"made": made, "atoms": 2_048, "fvu": 0.2, "unused_share": 0.0}
    return {
        "about": about, "detection": scores, "probing": {"tokens": 1_000, "results": results},
        "strong": {"by": "share", "latents": 2_031, "uses": 0.097, "squares": 0.534},
    }  # fmt: skip


@pytest.fixture
def found():
    ours = method(0.6, 0.95, 0.85, 0.7, "coverage")
    ours["by_strongest"] = copy.deepcopy(ours["detection"])
    ours["by_share"] = copy.deepcopy({name: ours[name] for name in ("strong", "detection")})
    ours["strong"]["by"] = "signs"
    return {
        "model": "smollm2-135m", "layer": 15, "corpus": "sotu", "embedder": "minilm-l6",
        "sizes": {"tokens": 40_960, "explored": 16_384, "latents": 200, "atoms": 2_048},
        "methods": {
            "ITDA": ours, "TopK SAE": method(0.7, 0.9, 0.8, 0.75, {"lr": 0.002, "epochs": 8.0}),
        },
        "machine": {"processor": "one of them"},
    }  # fmt: skip


def test_claims_hold_where_the_dictionary_is_as_good_and_only_there(found):
    rows = reporting.claims(found)
    assert [row["holds"] for row in rows] == [True, False, True, True, True, True, False]
    assert rows[0]["figure"] == "0.950 (0.940–0.960)"
    assert rows[1]["figure"] == "AUROC 0.600 (0.590–0.610) against 0.700 (0.690–0.710) (TopK SAE)"
    assert rows[5]["figure"] == "party 0.700 (0.400–0.900) against 0.700 (0.400–0.900)"
    assert rows[6]["figure"] == "party 0.700 (0.400–0.900) against 0.750 (0.400–0.900)"


def test_a_claim_against_autoencoders_has_to_hold_against_each_of_them(found):
    found["methods"]["BatchTopK SAE"] = method(0.5, 0.96, 0.9, 0.6, {"lr": 0.002, "epochs": 8.0})
    holds = [row["holds"] for row in reporting.claims(found)]
    assert holds == [True, False, False, False, False, True, False]


def test_strong_uses_have_to_be_told_as_well_by_either_rule(found):
    rows = reporting.claims(found)
    both = "AUROC 0.850 (0.840–0.860) by the signs, 0.850 (0.840–0.860) by the share against"
    assert rows[3]["figure"] == f"{both} 0.800 (0.790–0.810) (TopK SAE)"
    assert "from any token" in rows[3]["claim"]
    assert "from a token of the same text" in rows[4]["claim"]
    for row in found["methods"]["ITDA"]["by_share"]["detection"]:
        if row["uses"] == "strong" and row["against"] == "same token":
            row["auroc"] = 0.79
    assert [row["holds"] for row in reporting.claims(found)][3:5] == [True, False]


def test_the_document_holds_every_claim_and_table(found, tmp_path, monkeypatch):
    monkeypatch.setattr(reporting, "DOCUMENT", tmp_path / "docs" / "interpretability.md")
    monkeypatch.setattr("benchmarks.common.harness.RESULTS", tmp_path)
    reporting.DOCUMENT.parent.mkdir()
    reporting.report(found)
    text = reporting.DOCUMENT.read_text()
    for row in reporting.claims(found):
        assert f"| {row['claim']} | {row['figure']} |" in text
    assert text.count("**does not hold**") == 2
    saved = json.loads((tmp_path / "interpretability.json").read_text())
    for block in saved["blocks"]:
        assert block.get("table", "") in text
    assert "| negative | – | – | – |" in text
    assert "| ITDA | signs | 2031 | 0.097 | 0.534 | 0.850 (0.840–0.860) |" in text
    assert "| ITDA | share of squares | 2031 | 0.097 | 0.534 | 0.850 (0.840–0.860) |" in text
    assert "| TopK SAE | share of squares | 2031 | 0.097 | 0.534 | 0.800 (0.790–0.810) |" in text
    assert "| party: Republican or Democratic | 5 | 10 | 0.700 (0.400–0.900) | 0.750" in text
    assert "- processor: one of them" in text


def test_what_is_measured_anew_takes_the_place_of_what_was_there(found):
    new = copy.deepcopy(found)
    for one in new["methods"].values():
        del one["probing"]
        one["strong"]["uses"] = 0.2
        one["about"]["fvu"] *= 1 + 1e-8  # made again
    both = interpretability.merged(found, new)
    for name, one in both["methods"].items():
        assert one["strong"]["uses"] == 0.2
        assert one["probing"] == found["methods"][name]["probing"]
    new["methods"]["ITDA"]["about"]["fvu"] = 0.21
    with pytest.raises(SystemExit, match="of other runs"):
        interpretability.merged(found, new)


def test_strong_uses_hold_the_share_that_was_asked_for(tmp_path):
    """Of latent 1's squares 16 and 9 outside its own prompt, and of latent 0's one use."""
    run = Run(tmp_path, {}, {})
    spans = {"starts": [[0, 3, 7], [0, 3]], "ends": [[2, 6, 9], [2, 6]]}
    prompts = {"prompt_id": ["a", "b"], "text": ["of all in", "is not"], **spans}
    pd.DataFrame(prompts).to_parquet(tmp_path / "prompts.parquet")
    codes = [(0, "a", 0, 0, 9.0), (0, "b", 0, 0, 2.0), (1, "a", 1, 0, 4.0), (1, "a", 2, 0, 3.0)]
    columns = ["latent", "prompt_id", "position", "step", "coefficient"]
    pd.DataFrame(codes, columns=columns).to_parquet(tmp_path / "codes.parquet")
    sources = [(0, "a", 0), (1, "b", 1)]
    columns = ["latent", "prompt_id", "position"]
    pd.DataFrame(sources, columns=columns).to_parquet(tmp_path / "sources.parquet")
    found = strong_uses(run, 0.5)
    assert found["by"] == "share"
    assert found["latents"] == 2
    assert found["uses"] == pytest.approx(2 / 3)
    assert found["squares"] == pytest.approx((4 + 16) / (4 + 16 + 9))
    assert strong_uses(run)["latents"] == 0  # too few uses to tell by their signs


def test_the_results_that_ship_give_rows_for_the_claims():
    rows = interpretability.claims()
    assert all(set(row) == {"claim", "command", "figure", "holds"} for row in rows)
    assert all(isinstance(row["holds"], bool) for row in rows)


@pytest.mark.parametrize("threshold", [None, 0.8])
def test_an_autoencoder_has_the_same_codes_after_its_saelens_folder(threshold, tmp_path):
    draw = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(12, 6, generator=draw), dim=1)
    trained = Autoencoder(
        encoder=torch.randn(6, 12, generator=draw),
        bias=0.1 * torch.randn(12, generator=draw),
        atoms=atoms,
        offset=torch.randn(6, generator=draw),
        l0=3,
        hook_point=HookPoint("smollm2-135m", 15),
        threshold=threshold,
    )
    x = torch.randn(50, 6, generator=draw)
    write_saelens(trained, tmp_path)
    read = read_saelens(tmp_path)
    codes, expected = read.encoder.encode(x), trained.encode(x)
    used = expected.coefficients > 0
    assert torch.equal(codes.latents[used], expected.latents[used])
    torch.testing.assert_close(codes.coefficients, expected.coefficients)
    torch.testing.assert_close(codes.reconstruct(read.atoms) + read.offset, trained.decode(codes))
    assert read.layer == 15
    assert torch.equal(as_dictionary(trained).decode(codes), trained.decode(codes))


def test_latents_are_titled_by_the_token_with_their_largest_coefficient(tmp_path):
    run = Run(tmp_path / "run", {}, {})
    run.directory.mkdir()
    spans = {"starts": [[0, 2], [0, 4]], "ends": [[2, 6], [4, 8]]}
    texts = pd.DataFrame({"prompt_id": ["a", "b"], "text": ["to seas", "land air"], **spans})
    texts.to_parquet(run.directory / "prompts.parquet")
    codes = [(0, "a", 0, 0.5), (0, "b", 1, 2.0), (0, "a", 1, -3.0), (1, "b", 0, -1.0)]
    columns = ["latent", "prompt_id", "position", "coefficient"]
    pd.DataFrame(codes, columns=columns).to_parquet(run.directory / "codes.parquet")
    columns = ["latent", "prompt_id", "position", "token"]
    sources = [(0, "a", 0, "to"), (1, "a", 1, " sea"), (2, "b", 0, "land")]
    pd.DataFrame(sources, columns=columns).to_parquet(run.directory / "sources.parquet")
    titled = titled_by_strongest(run, tmp_path / "other")
    table = pd.read_parquet(titled.directory / "sources.parquet")
    expected = [(0, "b", 1, " air"), (1, "a", 1, " sea"), (2, "b", 0, "land")]
    assert list(table[columns].itertuples(index=False, name=None)) == expected
